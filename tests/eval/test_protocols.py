"""Each setting of a protocol: its two values give different behaviour, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from helpers.example_records import made_records
from helpers.paths import ROOT

from clm_data.errors import UnknownNameError
from clm_data.eval.placement import EditRequest, place
from clm_data.eval.protocols import EASYEDIT, NATIVE, PROTOCOLS, Protocol, protocol_named
from clm_data.eval.sweep.corpus import corpus_texts
from clm_data.languages import TABLE

SETTINGS = [field.name for field in fields(Protocol) if field.name != "name"]
ZH = EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "周树人")
OTHER = replace(ZH, target="张三")
"""With an answer that the small models' tokenizer does not merge with the prompt."""
EN = EditRequest("b", "en", "The capital of France is", "France", "New Rome")


@pytest.fixture(scope="module", autouse=True)
def _torch() -> None:
    pytest.importorskip("torch", reason="the extra eval is not installed")


def merging(*texts: str) -> Any:
    """A tokenizer in which each of these texts is one token; the last builds on the others."""
    from helpers.small_models import byte_level_tokenizer

    weighted = [text for rank, text in enumerate(texts) for _ in range(9 - rank)]
    return byte_level_tokenizer(weighted, 257 + len(texts[-1].encode()))


def joined(protocol: Protocol) -> Any:
    tokenizer = merging(" ")
    placed = place(tokenizer, ZH, protocol)
    return tokenizer.decode((*placed.ids, placed.labels[-1]))


def labels(protocol: Protocol) -> Any:
    placed = place(merging("是周"), ZH, protocol)
    return placed.reads, placed.labels


def scored_labels(protocol: Protocol) -> Any:
    from clm_data.eval.sweep.answers import Question, place_question

    asked = place_question(merging("是周"), Question("zh", ZH.prompt, ZH.target), protocol)
    return asked.reads, asked.labels


def subject(protocol: Protocol) -> Any:
    return place(merging("迅的", "鲁迅的"), ZH, protocol).subject


def contexts(protocol: Protocol) -> Any:
    from helpers.small_models import small_model

    from clm_data.eval.editors.contexts import contexts_for

    made = contexts_for(small_model(), protocol, languages=["zh"], length=4)
    return made.for_fact(protocol, "zh")


def kl_prompt(protocol: Protocol) -> Any:
    from helpers.small_models import small_model

    from clm_data.eval.editors.contexts import given_contexts
    from clm_data.eval.editors.facts import place_facts

    model, bare = small_model(), given_contexts({"zh": ("{}",), "en": ("{}",)})
    (fact,), _ = place_facts(model, [OTHER], protocol, bare)
    return model.tokenizer.decode(fact.kl.ids)


def statistics(protocol: Protocol) -> Any:
    return sorted(corpus_texts("bank", protocol, made_records(1), tiny=False, most=3))


def edited(method: str, request: EditRequest) -> Callable[[Protocol], Any]:
    def weights(protocol: Protocol) -> Any:
        from helpers.small_models import TEXTS, small_model, small_params

        from clm_data.eval.editors import make_editor
        from clm_data.eval.editors.base import Setup
        from clm_data.eval.editors.contexts import given_contexts
        from clm_data.eval.editors.covariance import second_moments

        model, bare = small_model(), given_contexts({"zh": ("{}",), "en": ("{}",)})
        setup = Setup(protocol, bare, second_moments(model, {"all": TEXTS}, (1, 2)))
        deltas = make_editor(method, small_params(method), setup).edit(model, [request])
        return [delta.dense().tolist() for delta in deltas.weights.values()]

    return weights


BEHAVIOUR: list[tuple[str, Callable[[Protocol], Any]]] = [
    ("joiner", joined),
    ("labels", labels),
    ("labels", scored_labels),
    ("subject", subject),
    ("context_language", contexts),
    ("kl_language", kl_prompt),
    ("statistics", statistics),
    ("pmet_joiner", edited("pmet", EN)),
    ("ft_objective", edited("ft", EN)),
]


@pytest.mark.parametrize(
    ("setting", "behaviour"), BEHAVIOUR, ids=[f"{s}-{b.__name__}" for s, b in BEHAVIOUR]
)
def test_a_setting_alone_changes_what_is_computed(
    setting: str, behaviour: Callable[[Protocol], Any]
) -> None:
    other = replace(NATIVE, **{setting: getattr(EASYEDIT, setting)})
    assert behaviour(other) != behaviour(NATIVE)


def test_every_setting_differs_between_the_two_is_tested_and_is_documented() -> None:
    assert {setting for setting, _ in BEHAVIOUR} == set(SETTINGS)
    table = (ROOT / "docs" / "editing.md").read_text(encoding="utf-8")
    for setting in SETTINGS:
        assert getattr(NATIVE, setting) != getattr(EASYEDIT, setting)
        assert f"\n| `{setting}` |" in table


def test_the_reference_joins_by_a_blank_and_we_as_the_language_does() -> None:
    assert joined(NATIVE) == "鲁迅的原名是周树人"
    assert joined(replace(NATIVE, joiner="space")) == "鲁迅的原名是 周树人"


def test_contexts_and_essence_are_the_language_s_own_or_english() -> None:
    assert kl_prompt(NATIVE) == "鲁迅是"
    assert kl_prompt(EASYEDIT) == "鲁迅 is a"
    bare, *others = contexts(NATIVE)
    assert bare == "{}"
    assert len(others) == len(TABLE["zh"].openings)
    for text, opening in zip(others, TABLE["zh"].openings, strict=True):
        assert text.startswith(opening)
        assert text.endswith("。{}")
    assert all(text.endswith(". {}") for text in contexts(EASYEDIT)[1:])


def test_fine_tuning_reads_all_answer_tokens_at_the_prompt_s_last_one_in_the_reference() -> None:
    from helpers.small_models import small_model

    from clm_data.eval.editors import make_editor
    from clm_data.eval.editors.base import Setup
    from clm_data.eval.editors.contexts import given_contexts
    from clm_data.eval.editors.facts import place_facts

    model, bare = small_model(), given_contexts({"en": ("{}",)})
    prompt = tuple(model.tokenizer(EN.prompt)["input_ids"])
    for objective in ("answer", "prompt_last"):
        setup = Setup(replace(NATIVE, ft_objective=objective), bare)
        (fact,), _ = place_facts(model, [EN], setup.protocol, setup.contexts)
        ids, answer = make_editor("ft", "tiny", setup)._sentence(fact)  # type: ignore[attr-defined]
        assert [label for _, label in answer] == list(fact.rows[0].labels)
        assert len(answer) > 1
        if objective == "prompt_last":
            assert ids == prompt
            assert {at for at, _ in answer} == {len(prompt) - 1}
        else:
            assert ids[: len(prompt)] == prompt
            assert [at for at, _ in answer] == list(fact.rows[0].reads)


def test_an_unknown_protocol_suggests_its_neighbours() -> None:
    assert protocol_named("native") is NATIVE
    assert set(PROTOCOLS) == {"native", "easyedit"}
    with pytest.raises(UnknownNameError, match="did you mean easyedit"):
        protocol_named("easy-edit")
