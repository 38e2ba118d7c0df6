"""Each setting of a protocol changes what is computed, one setting at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from helpers.example_records import example_records
from helpers.paths import ROOT

from clm_data.errors import UnknownNameError
from clm_data.eval.placement import EditRequest, place
from clm_data.eval.protocols import CHAT, EASYEDIT, NATIVE, PROTOCOLS, EditProtocol, get_protocol
from clm_data.eval.sweep.corpus import corpus_texts
from clm_data.languages import LANGUAGE_INFO

SETTINGS = [field.name for field in fields(EditProtocol) if field.name != "name"]
ZH = EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "周树人")
OTHER = replace(ZH, target="张三")
"""The same prompt with an answer that the small models' tokenizer keeps apart from it."""
EN = EditRequest("b", "en", "The capital of France is", "France", "New Rome")


@pytest.fixture(scope="module", autouse=True)
def _torch() -> None:
    pytest.importorskip("torch", reason="the extra eval is not installed")


def merging(*texts: str) -> Any:
    """A tokenizer in which each text is one token; the last text may contain the others."""
    from helpers.small_models import byte_level_tokenizer

    weighted = [text for rank, text in enumerate(texts) for _ in range(9 - rank)]
    return byte_level_tokenizer(weighted, 257 + len(texts[-1].encode()))


def joined_sentence(protocol: EditProtocol) -> Any:
    tokenizer = merging(" ")
    placed = place(tokenizer, ZH, protocol)
    return tokenizer.decode((*placed.ids, placed.labels[-1]))


def labels(protocol: EditProtocol) -> Any:
    placed = place(merging("是周"), ZH, protocol)
    return placed.reads, placed.labels


def scored_labels(protocol: EditProtocol) -> Any:
    from clm_data.eval.sweep.answers import Question, tokenize_question

    question = Question("zh", ZH.prompt, ZH.target)
    tokenized = tokenize_question(merging("是周"), question, protocol)
    return tokenized.positions, tokenized.labels


def subject(protocol: EditProtocol) -> Any:
    return place(merging("迅的", "鲁迅的"), ZH, protocol).subject


def contexts(protocol: EditProtocol) -> Any:
    from helpers.small_models import small_model

    from clm_data.eval.editors.contexts import sample_contexts

    made = sample_contexts(small_model(), protocol, languages=["zh"], length=4)
    return made.for_fact(protocol, "zh")


def kl_prompt(protocol: EditProtocol) -> Any:
    from helpers.small_models import small_model

    from clm_data.eval.editors.contexts import contexts_from
    from clm_data.eval.editors.facts import place_facts

    model, bare = small_model(), contexts_from({"zh": ("{}",), "en": ("{}",)})
    (fact,), _ = place_facts(model, [OTHER], protocol, bare)
    return model.tokenizer.decode(fact.kl_prompt.ids)


def statistics(protocol: EditProtocol) -> Any:
    return sorted(corpus_texts("bank", protocol, example_records(1), max_texts=3))


def edited(method: str, request: EditRequest) -> Callable[[EditProtocol], Any]:
    def weights(protocol: EditProtocol) -> Any:
        from helpers.small_models import TEXTS, small_model, small_params

        from clm_data.eval.editors import make_editor
        from clm_data.eval.editors.base import Setup
        from clm_data.eval.editors.contexts import contexts_from
        from clm_data.eval.editors.moments import second_moments

        model, bare = small_model(), contexts_from({"zh": ("{}",), "en": ("{}",)})
        setup = Setup(protocol, bare, second_moments(model, {"all": TEXTS}, (1, 2)))
        deltas = make_editor(method, small_params(method), setup).edit(model, [request])
        return [delta.dense().tolist() for delta in deltas.weights.values()]

    return weights


def second_edit(protocol: EditProtocol) -> Any:
    """The change of an UltraEdit edit after another one."""
    from helpers.small_models import small_model, small_params

    from clm_data.eval.editors import make_editor
    from clm_data.eval.editors.base import Setup
    from clm_data.eval.editors.contexts import contexts_from

    model, bare = small_model(), contexts_from({"zh": ("{}",), "en": ("{}",)})
    editor = make_editor("ultraedit", small_params("ultraedit"), Setup(protocol, bare))
    second = editor.edit(model, [EN], past=editor.edit(model, [OTHER]))
    return [delta.dense().tolist() for delta in second.weights.values()]


def in_a_turn(protocol: EditProtocol) -> Any:
    tokenizer = merging(" ")
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    placed = place(tokenizer, ZH, protocol)
    return tokenizer.decode((*placed.ids, placed.labels[-1]))


COMPUTATIONS: list[tuple[str, Callable[[EditProtocol], Any]]] = [
    ("joiner", joined_sentence),
    ("labels", labels),
    ("labels", scored_labels),
    ("subject", subject),
    ("context_language", contexts),
    ("kl_language", kl_prompt),
    ("statistics", statistics),
    ("pmet_joiner", edited("pmet", EN)),
    ("ft_objective", edited("ft", EN)),
    ("ultraedit_tokens", edited("ultraedit", EN)),
    ("ultraedit_normalizer", second_edit),
    ("ultraedit_deviation", edited("ultraedit", EN)),
    ("turn", in_a_turn),
]


@pytest.mark.parametrize(
    ("setting", "compute"), COMPUTATIONS, ids=[f"{s}-{c.__name__}" for s, c in COMPUTATIONS]
)
def test_changing_one_setting_changes_what_is_computed(
    setting: str, compute: Callable[[EditProtocol], Any]
) -> None:
    source = CHAT if setting == "turn" else EASYEDIT
    other = replace(NATIVE, **{setting: getattr(source, setting)})
    assert compute(other) != compute(NATIVE)


def test_every_setting_differs_between_the_protocols_and_is_tested_and_documented() -> None:
    assert {setting for setting, _ in COMPUTATIONS} == set(SETTINGS)
    table = (ROOT / "docs" / "explanation" / "editing.md").read_text(encoding="utf-8")
    for setting in SETTINGS:
        other = CHAT if setting == "turn" else EASYEDIT
        assert getattr(NATIVE, setting) != getattr(other, setting)
        assert f"\n| `{setting}` |" in table


def test_easyedit_joins_with_a_space_and_native_with_the_joiner_of_the_language() -> None:
    assert joined_sentence(NATIVE) == "鲁迅的原名是周树人"
    assert joined_sentence(replace(NATIVE, joiner="space")) == "鲁迅的原名是 周树人"


def test_contexts_and_kl_prompt_are_in_the_language_of_the_fact_or_in_english() -> None:
    assert kl_prompt(NATIVE) == "鲁迅是"
    assert kl_prompt(EASYEDIT) == "鲁迅 is a"
    bare, *others = contexts(NATIVE)
    assert bare == "{}"
    assert len(others) == len(LANGUAGE_INFO["zh"].openings)
    for text, opening in zip(others, LANGUAGE_INFO["zh"].openings, strict=True):
        assert text.startswith(opening)
        assert text.endswith("。{}")
    assert all(text.endswith(". {}") for text in contexts(EASYEDIT)[1:])


def test_prompt_last_fine_tuning_predicts_all_answer_tokens_at_the_last_prompt_token() -> None:
    from helpers.small_models import BARE_CONTEXTS, small_model

    from clm_data.eval.editors import params_for
    from clm_data.eval.editors.facts import place_facts
    from clm_data.eval.editors.training import TrainingParams, training_sentences

    model, params = small_model(), params_for("ft", "tiny")
    assert isinstance(params, TrainingParams)
    prompt = tuple(model.tokenizer(EN.prompt)["input_ids"])
    for objective in ("answer", "prompt_last"):
        protocol = replace(NATIVE, ft_objective=objective)
        facts, _ = place_facts(model, [EN], protocol, BARE_CONTEXTS)
        _, (found,), _ = training_sentences(model, facts, protocol, params)
        assert found.labels == facts[0].sentences[0].labels
        assert len(found.labels) > 1
        if objective == "prompt_last":
            assert found.ids == prompt
            assert set(found.places) == {len(prompt) - 1}
        else:
            assert found.ids[: len(prompt)] == prompt
            assert found.places == facts[0].sentences[0].reads


def test_an_unknown_protocol_name_suggests_a_known_one() -> None:
    assert get_protocol("native") is NATIVE
    assert set(PROTOCOLS) == {"native", "easyedit", "chat"}
    with pytest.raises(UnknownNameError, match="did you mean easyedit"):
        get_protocol("easy-edit")
