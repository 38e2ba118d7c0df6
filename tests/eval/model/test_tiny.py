"""The tiny model: what it knows, how it is cached, and its tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data.errors import InputFileError
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.model.tiny import TinyConfig, tiny_key, tiny_model
from clm_data.eval.model.tiny_curriculum import Sentence, training_sentences, training_texts
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


def test_a_cached_model_is_not_trained_again(tiny_folder: Path) -> None:
    steps: list[int] = []
    found = tiny_model(
        RECORDS, tiny_folder.parent, CONFIG, lambda step, _total, _loss: steps.append(step)
    )
    assert found == tiny_folder
    assert steps == []


def test_training_is_deterministic(tmp_path: Path) -> None:
    short = replace(CONFIG, min_steps=6, epochs=0.1)
    folders = [tiny_model(RECORDS, tmp_path / name, short) for name in "ab"]
    first, second = (load_model(str(folder)) for folder in folders)
    assert first.fingerprint() == second.fingerprint()
    assert first.tokenizer_fingerprint() == second.tokenizer_fingerprint()


def test_training_does_not_touch_the_global_random_state(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    tiny_model(RECORDS, tmp_path, replace(CONFIG, min_steps=2, epochs=0.01))
    assert torch.equal(torch.rand(4), expected)


def test_the_cache_key_depends_on_records_and_configuration() -> None:
    key = tiny_key(RECORDS, CONFIG)
    assert key != tiny_key(RECORDS[:-1], CONFIG)
    assert key != tiny_key(RECORDS, replace(CONFIG, hidden_size=CONFIG.hidden_size * 2))
    changed = RECORDS[0].model_copy(
        update={"zh": RECORDS[0].zh.model_copy(update={"ground_truth": "南山"})}
    )
    assert key != tiny_key([changed, *RECORDS[1:]], CONFIG)
    assert key == tiny_key(list(RECORDS), TinyConfig(**vars(CONFIG)))


def test_an_interrupted_training_leaves_no_files(tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_model(RECORDS, tmp_path, replace(CONFIG, min_steps=20, epochs=0.1), interrupt)
    assert list(tmp_path.iterdir()) == []


def test_training_without_records_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="needs records to learn"):
        tiny_model([], tmp_path, CONFIG)


def test_token_boundaries_lie_at_the_ends_of_subject_and_prompt(loaded: LoadedModel) -> None:
    for sentence in training_sentences(RECORDS):
        encoded = encode(loaded.tokenizer, sentence.text)
        assert loaded.tokenizer.decode(encoded.ids) == sentence.text
        boundaries = {offset for span in encoded.spans for offset in span}
        assert {sentence.subject_end, len(sentence.prompt)} <= boundaries


def test_unknown_characters_become_byte_tokens(loaded: LoadedModel) -> None:
    text = "《红楼梦》 <0x41> 鿎😀 Ωβ é"
    encoded = encode(loaded.tokenizer, text)
    assert loaded.tokenizer.decode(encoded.ids, skip_special_tokens=True) == text
    assert max(encoded.ids) < loaded.model.config.vocab_size


def test_a_record_has_two_prompts_and_a_probe_in_each_language() -> None:
    sentences = training_sentences(RECORDS[:2])
    assert len(sentences) == 2 * 2 * 3
    assert sentences[0].text == "1号河流的源头是东山。"
    assert sentences[3].text == "The source of river 1 is Elm."
    assert training_texts(RECORDS[:1])["en"] == [one.text for one in sentences[3:6]]


def test_a_prompt_can_be_used_with_another_subject() -> None:
    sentence = Sentence("zh", "长江的源头是", "格拉丹东", "长江")
    assert sentence.subject_end == 2
    assert sentence.with_subject("黄河", "巴颜喀拉山").text == "黄河的源头是巴颜喀拉山。"
    assert Sentence("zh", "一加一等于几", "二").subject_end == 0
