"""Entries come out of answers whatever they are wrapped in; what breaks off does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clm_data.llm.base import Completion
from clm_data.parse import read_answer, read_items, read_pieces
from clm_data.records import FACT_FIELDS, Candidate, LooseFact, Origin, StageResult, content_id

ORIGIN = Origin(kind="model", name="m")
LU_XUN: dict[str, Any] = {
    "zh": {
        "prompt": "鲁迅的原名是",
        "subject": "鲁迅",
        "ground_truth": "周树人",
        "target_new": "周建人",
        "rephrase_prompt": "以“鲁迅”为笔名的人，本来叫",
    },
    "en": {
        "prompt": "Lu Xun's original name was",
        "subject": "Lu Xun",
        "ground_truth": "Zhou Shuren",
        "target_new": "Zhou Jianren",
        "rephrase_prompt": 'The man who signed as "Lu Xun" was born',
    },
}
LAO_SHE = json.loads(json.dumps(LU_XUN).replace("Lu Xun", "Lao She").replace("Zhou", "Shu"))


def read(text: str) -> StageResult[Candidate]:
    return read_answer(Completion(text=text, model="m"), domain="d", label="a", origin=ORIGIN)


def facts(text: str) -> list[dict[str, Any]]:
    """What was kept, as {"zh": ..., "en": ...}."""
    return [candidate.model_dump(include={"zh", "en"}) for candidate in read(text).kept]


def dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def python_like(value: Any) -> str:
    """A model's idea of JSON with single quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"'{k}': {python_like(v)}" for k, v in value.items()) + "}"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def chinese_quoted(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + "，".join(f"“{k}”：{chinese_quoted(v)}" for k, v in value.items()) + "}"
    return f"“{value}”"


def flat(entry: dict[str, Any], zh: str, en: str) -> dict[str, str]:
    """A flat row; ``zh`` and ``en`` say how keys are made."""
    row = {zh.format(name): entry["zh"][name] for name in FACT_FIELDS}
    return row | {en.format(name): entry["en"][name] for name in FACT_FIELDS}


FORMATS = {
    "list": dumps,
    "indented": lambda entries: dumps(entries, indent=2),
    "fence": lambda entries: f"好的：\n```json\n{dumps(entries, indent=2)}\n```\n请查收。",
    "fence each": lambda entries: "\n".join(f"```json\n{dumps(e)}\n```" for e in entries),
    "json lines": lambda entries: "\n".join(dumps(entry) for entry in entries),
    "wrapper": lambda entries: dumps({"count": len(entries), "entries": entries}),
    "wrapper in wrapper": lambda entries: dumps({"data": {"entries": entries}}),
    "numbered wrapper": lambda entries: dumps({f"item {i}": e for i, e in enumerate(entries)}),
    "trailing commas": lambda entries: (
        "[" + "".join(dumps(entry).replace("}}", ",},}") + ",\n" for entry in entries) + "]"
    ),
    "think": lambda entries: f'<think>草稿：[{{"zh": 1}}]</think>\n{dumps(entries)}',
    "think closed only": lambda entries: f'先想想{{"zh": 1}}。</think>{dumps(entries)}',
    "extra keys": lambda entries: dumps([{"id": 1, **e, "basis": "出自《史记》"} for e in entries]),
    "flat english_": lambda entries: dumps([flat(e, "{}", "english_{}") for e in entries]),
    "flat zh_ and en_": lambda entries: dumps([flat(e, "zh_{}", "en_{}") for e in entries]),
    "flat _zh and _en": lambda entries: dumps([flat(e, "{}_zh", "{}_en") for e in entries]),
    "never closed": lambda entries: dumps(entries)[:-1],
    "smiley and footnote before": lambda entries: f"好的 :{{ 见[1]\n{dumps(entries)}",
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_each_format_gives_the_same_entries(name: str) -> None:
    sifted = read(FORMATS[name]([LU_XUN, LAO_SHE]))
    assert [c.model_dump(include={"zh", "en"}) for c in sifted.kept] == [LU_XUN, LAO_SHE]
    assert sifted.rejected == ()
    assert all(candidate.origin == ORIGIN for candidate in sifted.kept)


@pytest.mark.parametrize("write", [python_like, chinese_quoted, dumps])
def test_other_quotation_marks_and_a_single_object(write: Any) -> None:
    assert facts(write(LU_XUN)) == [LU_XUN]


def test_quotation_marks_not_escaped_in_a_value() -> None:
    text = dumps(LU_XUN).replace('\\"', '"').replace("“鲁迅”", '"鲁迅"')
    assert facts(text)[0]["zh"]["rephrase_prompt"] == '以"鲁迅"为笔名的人，本来叫'
    assert facts(text)[0]["en"] == LU_XUN["en"]


def test_a_comment_and_a_raw_newline_in_a_value() -> None:
    text = dumps(LU_XUN).replace('"鲁迅",', '"鲁迅", // 主语\n').replace("的原名是", "的\n原名是")
    assert facts(text)[0]["zh"] == LU_XUN["zh"] | {"prompt": "鲁迅的\n原名是"}


def test_numbers_become_text_and_null_stays() -> None:
    entry = {"zh": LU_XUN["zh"] | {"ground_truth": 1881, "target_new": 18.50}, "en": None}
    text = dumps(entry).replace("18.5", "18.50")
    (found,) = facts(text)
    assert (found["zh"]["ground_truth"], found["zh"]["target_new"]) == ("1881", "18.50")
    assert found["en"] is None


def test_missing_fields_are_none_not_rejected() -> None:
    sifted = read('{"zh": {"prompt": "鲁迅的原名是"}}')
    assert sifted.kept[0].zh == LooseFact(prompt="鲁迅的原名是")
    assert sifted.kept[0].en is None


def test_a_flat_row_in_one_language_is_chinese() -> None:
    assert facts(dumps(LU_XUN["zh"])) == [{"zh": LU_XUN["zh"], "en": None}]


@pytest.mark.parametrize(
    ("change", "lang", "field"),
    [
        ({"zh": "鲁迅的原名是周树人"}, "zh", None),
        ({"en": ["Lu Xun"]}, "en", None),
        ({"zh": LU_XUN["zh"] | {"prompt": ["鲁迅的原名是"]}}, "zh", "prompt"),
        ({"en": LU_XUN["en"] | {"target_new": {"text": "Zhou"}}}, "en", "target_new"),
        ({"en": LU_XUN["en"] | {"subject": True}}, "en", "subject"),
        ({"en": LU_XUN["en"] | {"subject": "\ud83d"}}, "en", "subject"),
    ],
)
def test_a_wrong_type_is_named(change: dict[str, Any], lang: str, field: str | None) -> None:
    sifted = read(json.dumps([LU_XUN | change, LAO_SHE]))
    assert len(sifted.kept) == 1
    (rejection,) = sifted.rejected
    assert (rejection.id, rejection.code, rejection.stage) == ("a#1", "unreadable-answer", "parse")
    assert (rejection.problems[0].lang, rejection.problems[0].field) == (lang, field)
    rejection.model_dump_json()


def test_an_object_that_is_no_entry_is_rejected_with_its_text() -> None:
    sifted = read(f'{{"error": "没有想到"}}\n{dumps(LU_XUN)}')
    assert len(sifted.kept) == 1
    assert sifted.rejected[0].content == '{"error": "没有想到"}'


@pytest.mark.parametrize("text", ["[]", "已经没有可靠的新条目了。\n```json\n[]\n```", "[ ]"])
def test_an_empty_list_is_an_honest_answer(text: str) -> None:
    assert read(text) == StageResult(())


@pytest.mark.parametrize("text", ["", "抱歉，我不能回答。", "<think>想了很久", "见[1]和[2]。"])
def test_an_answer_without_json_is_one_rejection(text: str) -> None:
    sifted = read(text)
    assert sifted.kept == ()
    assert [(r.id, r.content) for r in sifted.rejected] in ([("a#1", text)],)


def test_an_entry_that_breaks_off_is_not_completed() -> None:
    text = dumps([LU_XUN, LAO_SHE])
    cut = text[: text.rindex("was born")]
    sifted = read(cut)
    assert len(sifted.kept) == 1
    assert "breaks off" in sifted.rejected[0].problems[0].message
    assert sifted.rejected[0].id == "a#2"
    assert str(sifted.rejected[0].content).startswith('{"zh"')


def test_a_missing_brace_costs_one_entry_only() -> None:
    text = f"[{dumps(LU_XUN)[:-1]}, {dumps(LAO_SHE)}, {dumps(LU_XUN)}]"
    sifted = read(text)
    assert [c.model_dump(include={"zh", "en"}) for c in sifted.kept] == [LAO_SHE, LU_XUN]
    assert [r.problems[0].message for r in sifted.rejected] == ["a closing bracket is missing"]


@pytest.mark.parametrize("between", [", ", ",\n", "\n", "\n```\n\n```json\n"])
def test_three_missing_braces_cost_one_entry_only(between: str) -> None:
    broken = dumps(LU_XUN).rpartition(', "ground_truth"')[0]
    sifted = read(between.join([broken, dumps(LAO_SHE), dumps(LU_XUN)]))
    assert [c.model_dump(include={"zh", "en"}) for c in sifted.kept] == [LAO_SHE, LU_XUN]
    assert [r.content for r in sifted.rejected] == [f"{broken}{between}"]


def test_the_id_comes_from_domain_and_content() -> None:
    (candidate,) = read(dumps(LU_XUN)).kept
    assert candidate.id == content_id({"domain": "d", **LU_XUN})


def test_read_items_opens_lists_and_takes_any_object() -> None:
    assert read_items('```json\n[{"answer": "是", "sure": 3}]\n```') == [
        {"answer": "是", "sure": "3"}
    ]


AWKWARD = st.text(
    st.one_of(
        st.sampled_from("{}[]\"'“”‘’,:，：\\/`\n\t 鲁迅《》的a1😀"), st.characters(codec="utf-8")
    ),
    max_size=12,
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            lang: st.fixed_dictionaries(dict.fromkeys(FACT_FIELDS, AWKWARD | st.none()))
            for lang in ("zh", "en")
        }
    ),
    max_size=4,
)


@given(ENTRIES, st.floats(0, 1), st.sampled_from([None, 1]), st.booleans())
@example([LU_XUN, LAO_SHE], 0.5, None, True)
def test_any_cut_gives_exactly_the_entries_complete_before_it(
    entries: list[dict[str, Any]], where: float, indent: int | None, wrapped: bool
) -> None:
    texts = [dumps(entry, indent) for entry in entries]
    text = ('{"entries": [' if wrapped else "[") + ",\n".join(texts)
    cut = round(where * len(text))
    ends = [text.index(texts[0])] if texts else []
    for part in texts:
        ends.append(ends[-1] + len(part) + 2)
    complete = sum(end - 2 <= cut for end in ends[1:])
    assert facts(text[:cut]) == entries[:complete]


@given(ENTRIES)
def test_every_json_format_gives_the_same_awkward_entries(entries: list[dict[str, Any]]) -> None:
    for name in ("list", "indented", "fence", "fence each", "json lines", "wrapper", "extra keys"):
        assert facts(FORMATS[name](entries)) == entries, name


@given(st.text(st.sampled_from("{}[]\"'“”,:，：\\ azh鲁\n1")) | st.text())
def test_garbage_never_raises_and_is_never_lost(text: str) -> None:
    pieces = read_pieces(text)
    sifted = read(text)
    assert len(sifted.kept) + len(sifted.rejected) == len(pieces)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, '{"zh":' * 3000 + "}" * 3000])
def test_deep_nesting_does_not_raise(text: str) -> None:
    assert read(text).kept == ()
