"""In-context editing: which fact is put before a question, and who is told what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

import numpy as np
from helpers.example_records import example_records
from helpers.small_models import BARE_CONTEXTS, REQUESTS, small_model
from helpers.tiny_dataset import CONFIG, RECORDS

from clm_data import bank
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors import METHODS
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.edits import applied, load_edit
from clm_data.eval.editors.in_context import IceOracle, IceRetrieved, Ike, InContextParams
from clm_data.eval.editors.noted import KINDS, NotedModel, Notes, OracleModel
from clm_data.eval.editors.retrieval import (
    Calibration,
    Gate,
    NgramRetriever,
    Pair,
    side,
    similarities,
)
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import Results
from clm_data.eval.sweep.answers import Question, generate_answers, predict_answers
from clm_data.eval.sweep.runner import run_sweep
from clm_data.eval.sweep.training_rows import ENOUGH, training_rows
from clm_data.records import LANGUAGES, Language

SETUP = Setup(NATIVE, BARE_CONTEXTS)
BANK = [entry for name in bank.domain_ids() for entry in bank.load_domain(name)]
OPEN = InContextParams(gate="open")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return small_model("llama")


def _retrieved(model: LoadedModel, params: InContextParams = OPEN, kind: Any = IceRetrieved) -> Any:
    return kind(params, SETUP).fit(model, BANK[:60])


def _applied(model: LoadedModel, edit: Notes) -> NotedModel:
    with applied(model, edit) as edited:
        assert isinstance(edited, NotedModel)
        return edited


def test_the_nearest_fact_is_put_before_a_question_with_headings_in_its_language(
    model: LoadedModel,
) -> None:
    edited = _applied(model, _retrieved(model).edit(model, REQUESTS))
    assert edited.rewrite("鲁迅的原名叫", "zh") == "新事实：鲁迅的原名是张三\n问题：鲁迅的原名叫"
    assert edited.rewrite("France's capital is", "en") == (
        "New Fact: The capital of France is Rome\nPrompt: France's capital is"
    )
    assert edited.rewrite("鲁迅的原名 is", "en").startswith("New Fact: 鲁迅的原名是张三\nPrompt: ")


def test_headings_are_english_as_in_the_reference_if_asked_for(model: LoadedModel) -> None:
    params = replace(OPEN, demonstrations=1, headings="en")
    edited = _applied(model, _retrieved(model, params, Ike).edit(model, REQUESTS))
    shown, last = edited.rewrite("鲁迅的原名叫", "zh").split("\n\n")
    assert last == "New Fact: 鲁迅的原名是张三\nPrompt: 鲁迅的原名叫"
    assert shown.startswith("New Fact: ")
    with applied(model, IceOracle(params, SETUP).edit(model, REQUESTS)) as oracle:
        assert oracle.rewrite_about("鲁迅的原名叫", "zh", REQUESTS[0].id) == last


def test_ike_without_demonstrations_is_ice(model: LoadedModel) -> None:
    ice = _applied(model, _retrieved(model).edit(model, REQUESTS))
    ike = _applied(model, _retrieved(model, OPEN, Ike).edit(model, REQUESTS))
    for request in REQUESTS:
        assert ike.rewrite(request.prompt, request.lang) == ice.rewrite(
            request.prompt, request.lang
        )


@pytest.mark.parametrize("nearest", ["last", "first"])
def test_demonstrations_come_before_the_fact_in_the_language_of_the_question(
    model: LoadedModel, nearest: Any
) -> None:
    editor = _retrieved(model, replace(OPEN, demonstrations=4, shares="any", nearest=nearest), Ike)
    edited = _applied(model, editor.edit(model, REQUESTS))
    *shown, last = edited.rewrite("鲁迅的原名是", "zh").split("\n\n")
    assert last == "新事实：鲁迅的原名是张三\n问题：鲁迅的原名是"
    assert len(shown) == 4
    examples = editor.lookup.demonstrations["zh"]
    assert set(shown) <= set(examples)
    scores = similarities(edited.retriever.vectors([last]), edited.retriever.vectors(examples))[0]
    found = [scores[examples.index(text)] for text in shown]
    best = sorted(scores, reverse=True)[:4]
    assert found == (best if nearest == "first" else best[::-1])


@pytest.mark.parametrize("kinds", [KINDS, ("update", "copy"), ("retain",)])
def test_each_kind_of_demonstration_has_an_equal_share(
    model: LoadedModel, kinds: tuple[Any, ...]
) -> None:
    editor = _retrieved(model, replace(OPEN, demonstrations=6, kinds=kinds), Ike)
    edited = _applied(model, editor.edit(model, REQUESTS))
    *shown, last = edited.rewrite(REQUESTS[1].prompt, "en").split("\n\n")
    examples = editor.lookup.demonstrations["en"]
    scores = similarities(edited.retriever.vectors([last]), edited.retriever.vectors(examples))[0]
    at = [examples.index(text) for text in shown]
    assert list(scores[at]) == sorted(scores[at])  # the most similar one is the last
    share = 6 // len(kinds)
    for kind in range(len(kinds)):
        of_kind = sorted(scores[kind :: len(kinds)])
        assert sorted(scores[i] for i in at if i % len(kinds) == kind) == of_kind[-share:]


@pytest.mark.parametrize("kinds", [(), ("copy", "copy")])
def test_kinds_of_demonstrations_are_named_once_each(kinds: tuple[Any, ...]) -> None:
    with pytest.raises(EditError, match="must be some of copy, update, retain, each once"):
        InContextParams(kinds=kinds)


def test_demonstrations_copy_update_and_retain() -> None:
    first, second = BANK[0].en, BANK[1].en
    editor = Ike(InContextParams(demonstrations=1), SETUP).fit(small_model("llama"), BANK[:60])
    assert editor.lookup is not None
    note = f"New Fact: {first.prompt} {first.target_new}\nPrompt: "
    assert editor.lookup.demonstrations["en"][:3] == (
        f"{note}{first.prompt} {first.target_new}",
        f"{note}{first.rephrase_prompt} {first.target_new}",
        f"{note}{second.prompt} {second.ground_truth}",
    )


def test_questions_that_no_gate_lets_through_are_answered_bit_for_bit(model: LoadedModel) -> None:
    edit = _retrieved(model, InContextParams()).edit(model, REQUESTS)
    questions = [Question("zh", "水的沸点是", "一百度"), Question("en", "Water boils at", "100")]
    about = [Question(one.lang, one.prompt, one.target) for one in REQUESTS]
    with applied(model, edit) as edited:
        # Runs of characters do not translate.
        opened = {pair for pair, gate in edited.gates.items() if np.isfinite(gate.similarity)}
        assert opened == {("zh", "zh"), ("en", "en")}
        assert predict_answers(edited, questions, NATIVE) == predict_answers(
            model, questions, NATIVE
        )
        assert generate_answers(edited, questions) == generate_answers(model, questions)
        assert edited.rewrite("The capital of France is", "zh") == "The capital of France is"
        assert predict_answers(edited, questions, NATIVE) == predict_answers(
            model, questions, NATIVE
        )
        assert generate_answers(edited, questions) == generate_answers(model, questions)
        assert edited.rewrite("The capital of France is", "zh") == "The capital of France is"
        # In its own language, the prompt of an edit needs no gate.
        closed = replace(
            edited,
            lookup=replace(edited.lookup, calibration=Calibration.on(BANK[:60], false_open=1e-9)),
        )
        assert "Rome" in closed.rewrite("The capital of France is", "en")
        for new, old in zip(
            predict_answers(edited, about, NATIVE),
            predict_answers(model, about, NATIVE),
            strict=True,
        ):
            assert new != old


def test_the_prompt_of_an_edit_needs_no_gate_in_its_own_language(model: LoadedModel) -> None:
    prompt = REQUESTS[1].prompt
    asked = {"zh": (prompt,), "en": (prompt,)}  # unrelated ones reach its similarity
    edit = _retrieved(model).edit(model, REQUESTS)
    lookup = replace(edit.lookup, calibration=Calibration(asked, asked, 0.01))
    edited = _applied(model, replace(edit, lookup=lookup))
    assert edited.gates is not None
    assert np.isinf([edited.gates["en", lang].similarity for lang in LANGUAGES]).all()
    assert edited.find(prompt, "en") == edited.notes[1]
    assert edited.find(prompt, "zh") is None
    assert edited.find(f"{prompt} ", "en") is None


def test_neither_the_order_nor_repetition_of_edits_changes_what_is_found(
    model: LoadedModel,
) -> None:
    editor = _retrieved(model)
    requests = [
        EditRequest(f"{number}:{lang}", lang, fact.prompt, fact.subject, fact.target_new)
        for number, entry in enumerate(BANK[60:90])
        for lang, fact in (("zh", entry.zh), ("en", entry.en))
    ]
    one = _applied(model, editor.edit(model, requests))
    other = _applied(model, editor.edit(model, [*requests[::-1], *requests]))
    for entry in BANK[60:90]:
        for lang in ("zh", "en"):
            asked = side(entry, lang).rephrase_prompt
            assert one.rewrite(asked, lang) == other.rewrite(asked, lang)


def test_only_edits_made_so_far_are_found_and_the_newest_of_a_prompt_counts(
    model: LoadedModel,
) -> None:
    editor = _retrieved(model)
    first = editor.edit(model, REQUESTS[:1])
    second = editor.edit(model, [replace(REQUESTS[0], target="李四"), REQUESTS[1]], past=first)
    assert "张三" in _applied(model, first).rewrite("The capital of France is", "en")
    both = first.plus(second)
    assert both.edited == ("a", "a", "b")
    assert "Rome" in _applied(model, both).rewrite("The capital of France is", "en")
    assert "李四" in _applied(model, both).rewrite("鲁迅的原名是", "zh")
    with pytest.raises(EditError, match="in different ways"):
        first.plus(_retrieved(model, InContextParams()).edit(model, REQUESTS))


def test_the_oracle_is_told_the_fact_and_prefers_the_language_of_the_question(
    model: LoadedModel,
) -> None:
    requests = [
        EditRequest("r1:zh", "zh", "鲁迅的原名是", "鲁迅", "张三"),
        EditRequest("r1:en", "en", "Lu Xun's original name is", "Lu Xun", "Zhang San"),
        EditRequest("r2:zh", "zh", "长江发源于", "长江", "黄山"),
    ]
    edit = IceOracle(InContextParams(), SETUP).edit(model, requests)
    with applied(model, edit) as edited:
        assert isinstance(edited, OracleModel)
        unrelated = "Who wrote Hamlet?"
        assert edited.rewrite(unrelated, "en") == unrelated
        assert edited.rewrite_about(unrelated, "en", "r1").startswith(
            "New Fact: Lu Xun's original name is Zhang San\n"
        )
        assert edited.rewrite_about(unrelated, "en", "r2").startswith("New Fact: 长江发源于黄山\n")
        assert edited.rewrite_about(unrelated, "en", "r3") == unrelated
        question = Question("zh", "长江发源于", "黄山", "r2")
        rewritten = replace(question, prompt=edited.rewrite_about("长江发源于", "zh", "r2"))
        assert predict_answers(edited, [question], NATIVE) == predict_answers(
            model, [rewritten], NATIVE
        )


def test_only_models_that_say_so_are_oracles() -> None:
    assert [name for name in METHODS if "oracle" in name] == ["ice-oracle"]
    assert hasattr(OracleModel, "rewrite_about")
    assert not hasattr(NotedModel, "rewrite_about")


@pytest.mark.parametrize(
    "params",
    [
        OPEN,
        InContextParams(),
        InContextParams(demonstrations=2, headings="en", shares="any", nearest="first"),
    ],
)
def test_saved_notes_find_the_same(
    model: LoadedModel, params: InContextParams, tmp_path: Path
) -> None:
    edit = _retrieved(model, params, Ike).edit(model, REQUESTS)
    edit.save(tmp_path / "edit")
    loaded = load_edit(tmp_path / "edit")
    assert loaded == edit
    assert isinstance(loaded, Notes)
    one, two = _applied(model, edit), _applied(model, loaded)
    for asked, lang in (("鲁迅的原名叫", "zh"), ("France's capital is", "en")):
        assert one.rewrite(asked, lang) == two.rewrite(asked, lang)


def _with_other_answers(rows: Sequence[Pair]) -> list[Any]:
    changed = {"target_new": "x", "ground_truth": "y"}
    return [
        entry.model_copy(
            update={
                "zh": entry.zh.model_copy(update=changed),
                "en": entry.en.model_copy(update=changed),
            }
        )
        for entry in rows
        if isinstance(entry, bank.BankEntry)
    ]


def test_calibration_reads_no_answers(model: LoadedModel) -> None:
    editor = IceRetrieved(InContextParams(), SETUP)
    rows = BANK[:60]
    assert editor.fit(model, rows).lookup == editor.fit(model, _with_other_answers(rows)).lookup


class _Planted:
    """Two numbers for each text: vectors whose cosines are known."""

    def __init__(self, angles: dict[str, float]) -> None:
        self.angles = angles

    def vectors(self, texts: Sequence[str]) -> Any:
        return np.array([[np.cos(self.angles[t]), np.sin(self.angles[t])] for t in texts])


def _planted_rows(count: int) -> tuple[list[Pair], dict[str, float]]:
    """Row n has its prompt at n / 10, and its rephrased prompt 0.01 n beside it."""
    rows: list[Pair] = [record.model_copy() for record in example_records(count)]
    angles: dict[str, float] = {}
    for number, row in enumerate(rows):
        for fact in (row.zh, row.en):
            angles[fact.prompt] = number / 10
            angles[fact.rephrase_prompt] = number / 10 + 0.01 * number
    return rows, angles


def test_a_gate_opens_above_what_unrelated_questions_reach() -> None:
    rows, angles = _planted_rows(5)
    angles["edit"] = 1.0
    edited = {"zh": ["edit"], "en": []}
    calibrated = Calibration.on(rows, false_open=0.01)
    gates = calibrated.gates(_Planted(angles), edited)
    assert set(gates) == {("zh", "zh"), ("zh", "en")}  # nothing is edited in English
    gate = gates["zh", "en"]
    # The nearest question to the edit is the last rephrased one, at 0.44; 0.55 away from it.
    assert gate.similarity == pytest.approx(np.cos(1.0 - 0.44))
    assert gate.similarity > np.cos(1.0 - 0.44)
    assert (gate.recall, gate.false_open) == (1.0, 0.0)
    looser = Calibration.on(rows, false_open=0.2).gates(_Planted(angles), edited)
    assert looser["zh", "en"].false_open == 0.2  # 2 of 10: those at 0.44 and 0.4
    assert looser["zh", "en"].similarity == pytest.approx(np.cos(1.0 - 0.33))


def test_a_gate_that_no_right_match_opens_stays_closed() -> None:
    rows, angles = _planted_rows(5)
    same = _Planted(dict.fromkeys(angles, 0.0) | {"edit": 0.0})
    gates = Calibration.on(rows, false_open=0.01).gates(same, {"zh": ["edit"]})
    assert gates["zh", "zh"] == Gate(np.inf, 0.0, 0.0)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_more_edits_there_are_the_more_similar_a_question_has_to_be(lang: Language) -> None:
    calibrated = Calibration.on(BANK[200:], false_open=0.05)
    retriever = NgramRetriever.fit([side(row, lang).prompt for row in BANK[200:]])
    prompts = [side(row, lang).prompt for row in BANK[:200]]
    unrelated = [
        text for texts in (calibrated.prompts, calibrated.rephrased) for text in texts[lang]
    ]
    before, lowest = 1.0, []
    for count in (5, 50, 200):
        gate = calibrated.gates(retriever, {lang: prompts[:count]})[lang, lang]
        found = similarities(retriever.vectors(unrelated), retriever.vectors(prompts[:count]))
        assert (found.max(axis=1) >= gate.similarity).mean() == gate.false_open <= 0.05
        assert gate.recall <= before
        before = gate.recall
        lowest.append(gate.similarity)
    assert lowest == sorted(set(lowest))


def test_few_rows_or_no_calibration_are_errors(model: LoadedModel) -> None:
    editor = IceRetrieved(InContextParams(), SETUP)
    with pytest.raises(EditError, match="there are 9 of them, fewer than 10"):
        editor.fit(model, BANK[:9])
    with pytest.raises(EditError, match="has to be calibrated first"):
        editor.edit(model, REQUESTS)


def test_facts_without_an_answer_are_refused(model: LoadedModel) -> None:
    empty = replace(REQUESTS[0], target="")
    edit = _retrieved(model).edit(model, [empty, REQUESTS[1]])
    assert edit.edited == ("b",)
    assert edit.refused == (("a", "the prompt or the answer is empty"),)
    with pytest.raises(EditError, match="no fact can be edited: a: the prompt or the answer"):
        _retrieved(model).edit(model, [empty])


def test_rows_to_learn_from_share_no_subject_or_probe_with_what_is_edited() -> None:
    records = example_records(ENOUGH + 3)
    shared = records[0].zh.subject
    later = records[2].model_copy(
        update={"zh": records[2].zh.model_copy(update={"subject": shared})}
    )
    rows = training_rows([*records[:2], later, *records[3:]], records[:2])
    assert rows == records[3:]
    probe = records[0].zh_probe.model_copy(update={"loc": records[4].zh.prompt})
    asked = records[0].model_copy(update={"zh_probe": probe})
    assert records[4] not in training_rows([asked, *records[1:]], [asked, records[1]])
    shared_probe = records[5].model_copy(update={"zh_probe": records[1].zh_probe})
    assert shared_probe not in training_rows([*records, shared_probe], records[:2])
    few = training_rows(records[:5], records[:2])
    assert set(map(type, few)) == {bank.BankEntry}
    taken = BANK[0].en.subject
    edited = records[0].model_copy(
        update={"en": records[0].en.model_copy(update={"subject": taken.upper()})}
    )
    assert len(training_rows([edited], [edited])) < len(few)
    assert taken not in [side(row, "en").subject for row in training_rows([edited], [edited])]


def test_runs_of_characters_that_were_not_seen_before_tell_texts_apart() -> None:
    retriever = NgramRetriever.fit(["长江发源于", "黄河发源于", "熊猫属于", "Bears are"])
    whale, spider, same = retriever.vectors(["鲸鱼属于", "蜘蛛属于", "鲸鱼属于"])
    assert similarities(whale, same)[0, 0] == pytest.approx(1.0)
    assert similarities(whale, spider)[0, 0] < 0.5
    seen, unseen = retriever.vectors(["熊猫", "蜘蛛"])
    both = retriever.vectors(["熊猫蜘蛛"])
    assert similarities(both, seen)[0, 0] < similarities(both, unseen)[0, 0]


def test_runs_of_characters_find_rephrased_prompts_in_both_languages() -> None:
    texts = [text for entry in BANK for text in (entry.zh.prompt, entry.en.prompt)]
    retriever = NgramRetriever.fit(texts)
    for lang in ("zh", "en"):
        prompts = retriever.vectors([side(entry, lang).prompt for entry in BANK])
        asked = retriever.vectors([side(entry, lang).rephrase_prompt for entry in BANK])
        best = similarities(asked, prompts).argmax(axis=1)
        assert (best == np.arange(len(BANK))).mean() > 0.8


def _sweep(folder: Path, cache: Path, **changes: Any) -> Results:
    grid = {
        "models": [{"name": "tiny"}],
        "methods": ["ice-oracle", "ice-retrieved", "ike"],
        "languages": ["zh", "mix"],
        "batch_sizes": [4],
        "params": {"ice-retrieved": {"gate": "open"}, "ike": {"demonstrations": 1}},
        "resamples": 10,
    }
    return run_sweep(
        Recipe.model_validate(grid | changes),
        EvalSet("made", tuple(RECORDS)),
        out=folder,
        cache=cache,
        save_deltas=True,
        tiny_config=CONFIG,
    )


def test_a_sweep_edits_in_context(tiny_folder: Path, tmp_path: Path) -> None:
    results = _sweep(tmp_path, tiny_folder.parent, modes=["batch", "sequential"])
    assert [cell.error for cell in results.cells] == [None] * 12
    for cell in results.cells:
        before, after = cell.before["zh_p_new"], cell.after["zh_p_new"]
        assert before is not None
        assert after is not None
        assert before.mean != after.mean
        if cell.setting.mode == "sequential":
            edit = load_edit(tmp_path / "deltas" / f"{cell.key}-all.safetensors")
            assert len(edit.edited) == (16 if cell.setting.language == "mix" else 8)


def test_layers_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    results = _sweep(tmp_path, tiny_folder.parent, layers=[[1]], methods=["ike"], languages=["zh"])
    assert [cell.error for cell in results.cells] == [
        "in-context methods edit no layers; leave out --layers"
    ]
