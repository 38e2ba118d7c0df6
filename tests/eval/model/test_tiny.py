"""The small model that is trained on the spot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import InputFileError
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.model import tiny
from clm_data.eval.model import tiny_lessons as lessons
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.model.tiny_lessons import Line
from clm_data.eval.placement import encode
from clm_data.eval.protocols import NATIVE
from clm_data.eval.results import summarize
from clm_data.eval.sweep.measure import Evaluator
from clm_data.records import LANGUAGES


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> LoadedModel:
    return load_model(str(tiny_folder))


def test_it_knows_the_facts_in_both_languages(loaded: LoadedModel) -> None:
    baseline = Evaluator(loaded, RECORDS, NATIVE).baseline
    found = summarize([one.measures for one in baseline], Bootstrap(resamples=0))
    for lang in LANGUAGES:
        truth, new = found[f"{lang}_truth"], found[f"{lang}_reliability"]
        assert truth is not None
        assert new is not None
        assert truth.mean >= 0.95
        assert new.mean < 0.7


def test_a_second_call_finds_it_in_the_cache(tiny_folder: Path) -> None:
    said: list[int] = []
    found = tiny.tiny_model(
        RECORDS, tiny_folder.parent, CONFIG, lambda step, _of, _loss: said.append(step)
    )
    assert found == tiny_folder
    assert said == []


def test_two_trainings_give_the_same_weights(tmp_path: Path) -> None:
    short = replace(CONFIG, least_steps=6, rounds=0.1)
    folders = [tiny.tiny_model(RECORDS, tmp_path / name, short) for name in "ab"]
    first, second = (load_model(str(folder)) for folder in folders)
    assert first.fingerprint() == second.fingerprint()
    assert first.tokenizer_fingerprint() == second.tokenizer_fingerprint()


def test_training_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    tiny.tiny_model(RECORDS, tmp_path, replace(CONFIG, least_steps=2, rounds=0.01))
    assert torch.equal(torch.rand(4), expected)


def test_other_texts_or_another_size_are_another_model() -> None:
    key = tiny.tiny_key(RECORDS, CONFIG)
    assert key != tiny.tiny_key(RECORDS[:-1], CONFIG)
    assert key != tiny.tiny_key(RECORDS, replace(CONFIG, width=CONFIG.width * 2))
    changed = RECORDS[0].model_copy(
        update={"zh": RECORDS[0].zh.model_copy(update={"ground_truth": "南山"})}
    )
    assert key != tiny.tiny_key([changed, *RECORDS[1:]], CONFIG)
    assert key == tiny.tiny_key(list(RECORDS), TinyConfig(**vars(CONFIG)))


def test_an_interrupted_training_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.tiny_model(RECORDS, tmp_path, replace(CONFIG, least_steps=20, rounds=0.1), stop)
    assert list(tmp_path.iterdir()) == []


def test_no_records_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="records"):
        tiny.tiny_model([], tmp_path, CONFIG)


def test_text_survives_and_no_token_of_a_prompt_reaches_into_its_subject(
    loaded: LoadedModel,
) -> None:
    for line in lessons.lines_of(RECORDS):
        encoded = encode(loaded.tokenizer, line.text)
        assert loaded.tokenizer.decode(encoded.ids) == line.text
        edges = {edge for span in encoded.spans for edge in span}
        assert {line.end, len(line.prompt)} <= edges


def test_a_character_it_has_never_seen_is_its_bytes(loaded: LoadedModel) -> None:
    text = "《红楼梦》 <0x41> 鿎😀 Ωβ é"
    encoded = encode(loaded.tokenizer, text)
    assert loaded.tokenizer.decode(encoded.ids, skip_special_tokens=True) == text
    assert max(encoded.ids) < loaded.model.config.vocab_size


def test_each_fact_is_learnt_in_two_wordings_and_each_probe_once() -> None:
    lines = lessons.lines_of(RECORDS[:2])
    assert len(lines) == 2 * 2 * 3
    assert lines[0].text == "1号河流的源头是东山。"
    assert lines[3].text == "The source of river 1 is Elm."
    assert set(lessons.true_sentences(RECORDS[:1])["en"]) == {x.text for x in lines[3:6]}


def test_the_words_of_one_fact_can_stand_around_another_subject() -> None:
    line = Line("zh", "长江的源头是", "格拉丹东", "长江")
    assert line.end == 2
    assert line.about("黄河", "巴颜喀拉山").text == "黄河的源头是巴颜喀拉山。"
    assert Line("zh", "一加一等于几", "二").end == 0
