"""Complete entries are parsed from any wrapping; incomplete ones are never completed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clm_data.parse import find_objects, parse_entries, parse_objects
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


def parse(text: str) -> StageResult[Candidate]:
    return parse_entries(text, domain="d", label="a", origin=ORIGIN)


def facts(text: str) -> list[dict[str, Any]]:
    """The parsed candidates as {"zh": ..., "en": ...}."""
    return [candidate.model_dump(include={"zh", "en"}) for candidate in parse(text).kept]


def dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def python_like(value: Any) -> str:
    """The value as a Python literal with single quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"'{k}': {python_like(v)}" for k, v in value.items()) + "}"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def chinese_quoted(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + "，".join(f"“{k}”：{chinese_quoted(v)}" for k, v in value.items()) + "}"
    return f"“{value}”"


def flat(entry: dict[str, Any], zh: str, en: str) -> dict[str, str]:
    """The entry as one flat object; ``zh`` and ``en`` are patterns for its keys."""
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
    result = parse(FORMATS[name]([LU_XUN, LAO_SHE]))
    assert [c.model_dump(include={"zh", "en"}) for c in result.kept] == [LU_XUN, LAO_SHE]
    assert result.rejected == ()
    assert all(candidate.origin == ORIGIN for candidate in result.kept)


@pytest.mark.parametrize("write", [python_like, chinese_quoted, dumps])
def test_a_single_object_with_other_quotation_marks_is_parsed(write: Any) -> None:
    assert facts(write(LU_XUN)) == [LU_XUN]


def test_unescaped_quotation_marks_in_a_value_are_kept() -> None:
    text = dumps(LU_XUN).replace('\\"', '"').replace("“鲁迅”", '"鲁迅"')
    assert facts(text)[0]["zh"]["rephrase_prompt"] == '以"鲁迅"为笔名的人，本来叫'
    assert facts(text)[0]["en"] == LU_XUN["en"]


def test_comments_are_ignored_and_raw_newlines_are_kept() -> None:
    text = dumps(LU_XUN).replace('"鲁迅",', '"鲁迅", // 主语\n').replace("的原名是", "的\n原名是")
    assert facts(text)[0]["zh"] == LU_XUN["zh"] | {"prompt": "鲁迅的\n原名是"}


def test_numbers_become_text_and_null_becomes_none() -> None:
    entry = {"zh": LU_XUN["zh"] | {"ground_truth": 1881, "target_new": 18.50}, "en": None}
    text = dumps(entry).replace("18.5", "18.50")
    (found,) = facts(text)
    assert (found["zh"]["ground_truth"], found["zh"]["target_new"]) == ("1881", "18.50")
    assert found["en"] is None


def test_missing_fields_are_none_and_do_not_reject() -> None:
    result = parse('{"zh": {"prompt": "鲁迅的原名是"}}')
    assert result.kept[0].zh == LooseFact(prompt="鲁迅的原名是")
    assert result.kept[0].en is None


def test_keys_without_a_language_are_chinese() -> None:
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
def test_the_rejection_names_the_field_with_a_wrong_type(
    change: dict[str, Any], lang: str, field: str | None
) -> None:
    result = parse(json.dumps([LU_XUN | change, LAO_SHE]))
    assert len(result.kept) == 1
    (rejection,) = result.rejected
    assert (rejection.id, rejection.code, rejection.stage) == ("a#1", "unreadable-answer", "parse")
    assert (rejection.problems[0].lang, rejection.problems[0].field) == (lang, field)
    rejection.model_dump_json()


def test_an_object_that_is_not_an_entry_is_rejected_with_its_text() -> None:
    result = parse(f'{{"error": "没有想到"}}\n{dumps(LU_XUN)}')
    assert len(result.kept) == 1
    assert result.rejected[0].content == '{"error": "没有想到"}'


@pytest.mark.parametrize("text", ["[]", "已经没有可靠的新条目了。\n```json\n[]\n```", "[ ]"])
def test_an_empty_list_gives_no_candidates_and_no_rejections(text: str) -> None:
    assert parse(text) == StageResult(())


@pytest.mark.parametrize("text", ["", "抱歉，我不能回答。", "<think>想了很久", "见[1]和[2]。"])
def test_an_answer_without_json_is_one_rejection(text: str) -> None:
    result = parse(text)
    assert result.kept == ()
    assert [(r.id, r.content) for r in result.rejected] == [("a#1", text)]


def test_an_incomplete_entry_is_rejected_not_repaired() -> None:
    text = dumps([LU_XUN, LAO_SHE])
    cut = text[: text.rindex("was born")]
    result = parse(cut)
    assert len(result.kept) == 1
    assert "ends inside" in result.rejected[0].problems[0].message
    assert result.rejected[0].id == "a#2"
    assert str(result.rejected[0].content).startswith('{"zh"')


def test_a_missing_brace_loses_only_its_own_entry() -> None:
    text = f"[{dumps(LU_XUN)[:-1]}, {dumps(LAO_SHE)}, {dumps(LU_XUN)}]"
    result = parse(text)
    assert [c.model_dump(include={"zh", "en"}) for c in result.kept] == [LAO_SHE, LU_XUN]
    assert [r.problems[0].message for r in result.rejected] == ["a closing bracket is missing"]


@pytest.mark.parametrize("between", [", ", ",\n", "\n", "\n```\n\n```json\n"])
def test_a_truncated_entry_before_others_loses_only_itself(between: str) -> None:
    broken = dumps(LU_XUN).rpartition(', "ground_truth"')[0]
    result = parse(between.join([broken, dumps(LAO_SHE), dumps(LU_XUN)]))
    assert [c.model_dump(include={"zh", "en"}) for c in result.kept] == [LAO_SHE, LU_XUN]
    assert [r.content for r in result.rejected] == [f"{broken}{between}"]


def test_ids_are_derived_from_domain_and_content() -> None:
    (candidate,) = parse(dumps(LU_XUN)).kept
    assert candidate.id == content_id({"domain": "d", **LU_XUN})


def test_parse_objects_reads_any_object_inside_lists() -> None:
    assert parse_objects('```json\n[{"answer": "是", "sure": 3}]\n```') == [
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
    unique_by=lambda entry: (entry["zh"]["prompt"], entry["en"]["prompt"]),
)


@given(ENTRIES, st.floats(0, 1), st.sampled_from([None, 1]), st.booleans())
@example([LU_XUN, LAO_SHE], 0.5, None, True)
def test_a_truncated_answer_gives_exactly_the_entries_complete_before_the_cut(
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
def test_every_json_format_gives_the_same_entries_with_awkward_texts(
    entries: list[dict[str, Any]],
) -> None:
    for name in ("list", "indented", "fence", "fence each", "json lines", "wrapper", "extra keys"):
        assert facts(FORMATS[name](entries)) == entries, name


@given(st.text(st.sampled_from("{}[]\"'“”,:，：\\ azh鲁\n1")) | st.text())
def test_every_object_in_arbitrary_text_is_kept_or_rejected(text: str) -> None:
    objects = find_objects(text)
    result = parse(text)
    assert len(result.kept) + len(result.rejected) == len(objects)


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, '{"zh":' * 3000 + "}" * 3000])
def test_deep_nesting_does_not_raise(text: str) -> None:
    assert parse(text).kept == ()


@pytest.mark.parametrize(
    "value",
    [
        *("5%", "0571", "007", "1_000", "+5", "−5", "$5", "½", "`周树人`"),
        *('"周树人"/"周建人"', '"周树人" or "周建人"', '"周树" + "人"'),
    ],
)
def test_a_value_that_a_repair_would_alter_is_rejected(value: str) -> None:
    result = parse(dumps([LU_XUN]).replace('"周树人"', value))
    assert not result.kept
    assert [item.problems[0].message for item in result.rejected] == ["cannot be read as JSON"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(("24h", None), ("1949年", None), ("192.168.0.1", None), ("1,000", None)),
        *(("1.50", "1.5"), ("-2.0", "-2"), ("1.5e3", "1500"), ("12345678901234567890", None)),
        ('"一"周"人"', '一"周"人'),
    ],
)
def test_a_value_without_quotation_marks_is_kept_if_none_of_it_is_lost(
    value: str, text: str | None
) -> None:
    broken = dumps([LU_XUN]).replace('"周树人"', value).replace('"target_new": ', "target_new: ")
    (entry,) = parse(broken).kept
    assert entry.zh is not None
    assert (entry.zh.ground_truth, entry.zh.target_new) == (text or value, "周建人")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_number_that_is_none_is_rejected(value: str) -> None:
    (rejection,) = parse(dumps([LU_XUN]).replace('"周树人"', value)).rejected
    assert rejection.problems[0].message == "expected text, found float"


@pytest.mark.parametrize("zh", ["zh-cn", "zh_CN", "zh-Hans", "CN", "Chinese", "中文"])
@pytest.mark.parametrize("en", ["en", "en-US", "English"])
def test_languages_of_answers_have_the_names_of_imported_files(zh: str, en: str) -> None:
    nested = dumps({zh: LU_XUN["zh"], en: LU_XUN["en"]})
    sides = {zh: LU_XUN["zh"], en: LU_XUN["en"]}
    flat = {f"{key}_{name}": text for key, side in sides.items() for name, text in side.items()}
    assert facts(nested) == facts(dumps(flat)) == facts(dumps(LU_XUN))


ANOTHER = json.dumps({"prompt": "p2", "subject": "s2", "ground_truth": "g2", "target_new": "t2"})


@pytest.mark.parametrize(
    "text",
    [
        f'{{"zh": {{"prompt": "p", "subject": "s", "en": {ANOTHER}}}}}',
        f'{{"zh": {{"": {ANOTHER}, "en": {ANOTHER}}}}}',
        f'{{"zh": {{"prompt": "p"}}, "en": {{"prompt": "q", "x": [{ANOTHER}]}}}}',
    ],
)
def test_an_entry_inside_a_fact_is_not_lost(text: str) -> None:
    result = parse_entries(text, domain="d", label="a", origin=ORIGIN)
    assert result.kept == ()
    (rejection,) = result.rejected
    assert "another entry" in rejection.problems[0].message
    assert "t2" in str(rejection.content)


@pytest.mark.parametrize(
    "zh",
    [
        {"prompt": "p", "zh_prompt": "q"},
        {"prompt": "p", "en_subject": "s"},
    ],
)
def test_a_field_with_two_values_or_of_another_language_is_rejected(zh: dict[str, str]) -> None:
    text = json.dumps({"zh": zh, "en": {"prompt": "x"}})
    result = parse_entries(text, domain="d", label="a", origin=ORIGIN)
    assert result.kept == ()
    assert "second value or another language" in result.rejected[0].problems[0].message


def test_two_spellings_of_one_field_are_rejected() -> None:
    text = json.dumps({"zh_prompt": "p", "prompt_zh": "q", "zh_subject": "s"})
    result = parse_entries(text, domain="d", label="a", origin=ORIGIN)
    assert result.kept == ()


def test_an_entry_between_others_in_an_unclosed_object_is_not_lost() -> None:
    whole = json.dumps({"zh": json.loads(ANOTHER), "en": json.loads(ANOTHER)})
    flat = ANOTHER.replace("2", "3")
    text = f'{{"item 0": {{"zh": {{"item 0": {whole}, "item 1": {flat}, "item 2": {whole}}}}}'
    result = parse_entries(text, domain="d", label="a", origin=ORIGIN)
    assert "t3" in str([*result.kept, *(rejection.content for rejection in result.rejected)])


def test_a_comment_that_swallows_fields_makes_an_entry_unreadable() -> None:
    text = '{"zh": {"prompt": //"p", "subject": "s", "target_new": "t"}, "en": null}'
    result = parse_entries(text, domain="d", label="a", origin=ORIGIN)
    assert result.kept == ()
    assert '"t"' in str(result.rejected[0].content)
