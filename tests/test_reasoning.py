"""Only the answer is read as the answer: reasoning and drafts are never published."""

from __future__ import annotations

import json
from typing import Any

import pytest

from clm_data.assemble import parse_answer
from clm_data.llm.base import Completion
from clm_data.parse import find_objects, parse_entries
from clm_data.reasoning import split_reasoning
from clm_data.records import Candidate, Origin, StageResult
from clm_data.store import Dialogue

ORIGIN = Origin(kind="model", name="m")


def entry(target: str, prompt: str = "沈从文的家乡是") -> dict[str, Any]:
    return {
        "zh": {
            "prompt": prompt,
            "subject": "沈从文",
            "ground_truth": "凤凰",
            "target_new": target,
            "rephrase_prompt": "写《边城》的作家出生在",
        },
        "en": {
            "prompt": "Shen Congwen's hometown is",
            "subject": "Shen Congwen",
            "ground_truth": "Fenghuang",
            "target_new": "Jishou",
            "rephrase_prompt": "The author of Border Town was born in",
        },
    }


def dumps(*entries: Any) -> str:
    return json.dumps(entries, ensure_ascii=False)


DRAFT = dumps(entry("草稿"))
FINAL = dumps(entry("吉首"))


def parse(text: str) -> StageResult[Candidate]:
    return parse_entries(text, domain="d", label="a", origin=ORIGIN)


def targets(text: str) -> list[str | None]:
    return [candidate.zh.target_new for candidate in parse(text).kept if candidate.zh]


WRAPPERS = {
    "think": "<think>{}</think>",
    "thinking": "<thinking>{}</thinking>",
    "thought": "<thought>{}</thought>",
    "reasoning": "<reasoning>{}</reasoning>",
    "reflection": "<reflection>{}</reflection>",
    "scratchpad": "<scratchpad>{}</scratchpad>",
    "upper case": "<THINK>{}</THINK>",
    "attributes": '<think time="3" lang="zh">{}</think>',
    "mm": "<mm:think>{}</mm:think>",
    "seed": "<seed:think>{}</seed:think>",
    "kimi": "◁think▷{}◁/think▷",
    "magistral": "[THINK]{}[/THINK]",
    "begin of thought": "<|begin_of_thought|>{}<|end_of_thought|>",
    "cohere": "<|START_THINKING|>{}<|END_THINKING|>",
    "harmony": "<|channel|>analysis<|message|>{}<|end|><|start|>assistant"
    "<|channel|>final<|message|>",
    "harmony without its marks": "analysis{}assistantfinal",
    "granite": "Here is my thought process:{}Here is my response:",
    "no opening tag": "{}</think>",
    "no opening mark": "{}◁/think▷",
    "nested": "<think>a<think>{}</think>b</think>",
    "another tag named in the reasoning": "<think>no <reasoning> tags {}</think>",
    "closed by another tag": "<think>{}</thinking>",
    "two": "<think>{}</think>\n<reflection>ok</reflection>",
    "an unclosed string": '<think>先写 [{{"zh": "草稿{}</think>',
    "an unclosed string and no opening tag": '先写 [{{"zh": "草稿{}</think>',
}


@pytest.mark.parametrize("name", sorted(WRAPPERS))
def test_a_draft_in_reasoning_is_not_an_entry(name: str) -> None:
    text = WRAPPERS[name].format(f"\n先写草稿：\n{DRAFT}\n不对。\n") + f"\n{FINAL}"
    assert targets(text) == ["吉首"]
    assert parse(text).rejected == ()
    answer, thought = split_reasoning(text)
    assert answer == FINAL
    assert thought is not None
    assert "不对" in thought


@pytest.mark.parametrize(
    "opening", ["<thought>", "◁think▷", "[THINK]", "<|channel|>analysis<|message|>"]
)
def test_an_answer_cut_off_in_its_reasoning_has_no_entries(opening: str) -> None:
    result = parse(f"{opening}草稿：{DRAFT}")
    assert result.kept == ()
    assert [r.problems[0].message for r in result.rejected] == [
        "the answer consists of reasoning only"
    ]
    assert "草稿" in str(result.rejected[0].content)


@pytest.mark.parametrize(
    "prompt", ["标签<think>的作用是", "<thought>与</thought>的区别是", "[THINK]出自"]
)
@pytest.mark.parametrize("before", ["", "<think>想</think>"])
def test_a_tag_in_a_json_string_is_content(prompt: str, before: str) -> None:
    result = parse(before + dumps(entry("吉首", prompt), entry("吉首", "另一条")))
    assert [c.zh and c.zh.prompt for c in result.kept] == [prompt, "另一条"]
    assert result.rejected == ()


@pytest.mark.parametrize(
    "heading",
    ["Final answer:", "**最终答案**：", "## Final version", "最终版本如下", "The final list:"],
)
def test_a_draft_before_the_final_answer_is_rejected(heading: str) -> None:
    other = dumps(entry("草稿", "另一个草稿"))
    result = parse(f"Draft:\n```json\n{other}\n```\n{heading}\n{FINAL}")
    assert [c.zh and c.zh.target_new for c in result.kept] == ["吉首"]
    assert ["a draft" in r.problems[0].message for r in result.rejected] == [True]


@pytest.mark.parametrize(
    "heading",
    [
        *("Final answer: ", "**Final JSON:** ", "最终答案：", "Here is the corrected version:\n"),
        *("Revised list:\n", "修正后的版本：", "终稿\n"),
    ],
)
def test_a_heading_may_be_on_the_line_of_the_answer_or_name_a_correction(heading: str) -> None:
    other = dumps(entry("草稿", "另一个草稿"))
    result = parse(f"Draft: {other}\n{heading}{FINAL}")
    assert [c.zh and c.zh.target_new for c in result.kept] == ["吉首"]
    assert ["a draft" in r.problems[0].message for r in result.rejected] == [True]


@pytest.mark.parametrize(
    ("thoughts", "heading"),
    [
        ("Reasoning: ", "Answer: "),
        ("## Thought process\n", "**Output:**\n"),
        ("思考过程：", "答案："),
    ],
)
def test_an_answer_after_reasoning_with_a_heading_is_the_final_one(
    thoughts: str, heading: str
) -> None:
    other = dumps(entry("草稿", "另一个草稿"))
    result = parse(f"{thoughts}{other}\n{heading}{FINAL}")
    assert [c.zh and c.zh.target_new for c in result.kept] == ["吉首"]
    plain = parse(f"{heading}{other}\n{heading}{FINAL}")
    assert [c.zh and c.zh.target_new for c in plain.kept] == ["草稿", "吉首"]


def test_of_two_versions_of_an_entry_the_last_one_counts() -> None:
    result = parse(f"{DRAFT}\n我改一下：\n{FINAL}")
    assert [c.zh and c.zh.target_new for c in result.kept] == ["吉首"]
    assert "a draft" in result.rejected[0].problems[0].message


@pytest.mark.parametrize("text", [f"{FINAL}\nFinal answer: see above", "最终答案：\n" + FINAL])
def test_a_heading_with_nothing_before_or_after_it_changes_nothing(text: str) -> None:
    assert targets(text) == ["吉首"]
    assert parse(text).rejected == ()


def _full_width(text: str) -> str:
    for ascii_mark, wide in (('": ', '"：'), ('", "', '"，"'), ("}, ", "}，"), ("[{", "［｛")):
        text = text.replace(ascii_mark, wide)
    return text.replace("}}]", "｝｝］")


def test_full_width_punctuation_is_read_as_json_syntax() -> None:
    result = parse(_full_width(dumps(entry("吉首"), entry("花垣", "另一条"))))
    assert [c.model_dump(include={"zh", "en"}) for c in result.kept] == [
        entry("吉首"),
        entry("花垣", "另一条"),
    ]
    assert result.rejected == ()


def test_only_the_chinese_half_in_full_width_punctuation() -> None:
    item = entry("吉首")
    zh = _full_width(json.dumps(item["zh"], ensure_ascii=False))
    text = f'[{{"zh"：{zh}, "en": {json.dumps(item["en"])}}}]'
    assert [c.model_dump(include={"zh", "en"}) for c in parse(text).kept] == [item]


def test_full_width_marks_in_a_value_are_content() -> None:
    prompt = "《边城》：“翠翠”，｛甲｝［乙］的作者是"
    assert parse(dumps(entry("吉首", prompt))).kept[0].zh.prompt == prompt  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "text",
    [
        '[{"@@": {"prompt": "汉语", "subject" "s"}, "!!": {"prompt": "The capital is"}}]',
        '[{"汉语版" = 1, "A-B": {"prompt": "The capital is", "subject": "x"}}]',
        '[{"A-B": {"prompt": "The capital is", "subject": "x"}, "C',
        '[{"prompt": "The capital of Hunan is", "target_new": "Wuhan"}]',
    ],
)
def test_an_english_part_never_becomes_a_chinese_fact(text: str) -> None:
    result = parse(text)
    assert result.kept == ()
    assert result.rejected


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"a":' * 100_000 + "}" * 100_000,
        "{" * 200_000 + "]" * 200_000,
        '{"' * 500_000,
        '"' * 1_000_000,
        "[" + "\\" * 1_000_000,
        "<think>" * 100_000,
        '{"' * 200_000 + "<think>",
        '["' * 200_000 + '<think>",',
        "</think>" * 100_000,
        "<|channel|>" * 90_000,
        "[{" * 100_000 + "]" * 100_000,
    ],
    ids=range(12),
)
def test_hostile_answers_are_rejected_in_linear_time(text: str) -> None:
    result = parse(text)
    assert result.kept == ()
    assert len(result.rejected) == len(find_objects(text)) >= 1
    assert split_reasoning(text)


def completion(text: str, reasoning: str | None) -> StageResult[Candidate]:
    dialogue = Dialogue("d", 0, 0, "custom", "m", prompt="p", prompt_hash="h", wanted=1)
    return parse_answer(dialogue, 0, Completion(text=text, reasoning=reasoning, model="m"))


def test_an_answer_behind_the_reasoning_in_reasoning_content_is_read() -> None:
    assert [
        c.zh and c.zh.target_new for c in completion("", f"想{DRAFT}\n</think>\n{FINAL}").kept
    ] == ["吉首"]


@pytest.mark.parametrize("reasoning", [FINAL, "想了很久", f"<think>{FINAL}"])
def test_an_answer_only_in_reasoning_content_is_rejected_with_the_remedy(reasoning: str) -> None:
    result = completion("", reasoning)
    assert result.kept == ()
    (rejection,) = result.rejected
    assert "reasoning_content; switch the endpoint's" in rejection.problems[0].message
    assert rejection.content == reasoning


FIRST, SECOND = '{"prompt": "甲的首都是", "subject": "甲"}', '{"prompt": "乙的首都是"}'
MERGED = (
    f'{{"zh": {FIRST}, "en": null, "item": {SECOND}}}',
    f'{{"zh_prompt": "甲的首都是", "zh": {SECOND}, "en": {{"prompt": "The capital is"}}}}',
    f'{{"zh": {FIRST}, "en": null, "zh": {SECOND}}}',
    '{"zh_prompt": \\"甲"他说\\"好"，"zh_subject"："乙的首都是"}',
    f'{{"w": {FIRST}, "item": {SECOND[:-1]}, "subject "x"}}',
    '{\ufffd", "prompt": "甲的首都是", "subject": "乙"}',
)


@pytest.mark.parametrize("text", MERGED)
def test_an_object_that_holds_two_versions_is_one_rejection_with_all_its_text(text: str) -> None:
    result = parse(text)
    assert result.kept == ()
    assert all(part in "".join(str(r.content) for r in result.rejected) for part in ("甲", "乙"))
