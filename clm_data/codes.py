"""The vocabulary of problems: validate, audit, review and rejections use these codes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Code:
    """A kind of problem.

    Attributes:
        severity: An ``error`` keeps an entry out; a ``warning`` is shown to reviewers.
        en: What it means, in English.
        zh: The same for Chinese-speaking reviewers.
    """

    severity: Severity
    en: str
    zh: str


CODES: dict[str, Code] = {
    "unreadable-answer": Code("error", "no complete entry can be read here", "无法读出完整条目"),
    "empty-field": Code("error", "a field is missing, null or blank", "字段缺失或为空"),
    "subject-not-in-prompt": Code(
        "error", "the subject does not stand literally in the prompt", "主语未原样出现在提示中"
    ),
    "subject-not-in-rephrase": Code(
        "warning",
        "the subject does not stand literally in the rephrasing",
        "主语未原样出现在改写中",
    ),
    "answer-in-prompt": Code("error", "the prompt gives an answer away", "提示中泄露了答案"),
    "answer-in-rephrase": Code("error", "the rephrasing gives an answer away", "改写中泄露了答案"),
    "target-equals-truth": Code(
        "error", "the new target is the truth in another spelling", "新目标与真实答案相同"
    ),
    "target-near-truth": Code(
        "warning", "the new target hardly differs from the truth", "新目标与真实答案过于接近"
    ),
    "rephrase-equals-prompt": Code("error", "the rephrasing repeats the prompt", "改写与提示相同"),
    "rephrase-near-prompt": Code(
        "warning", "the rephrasing hardly differs from the prompt", "改写与提示过于接近"
    ),
    "prompt-not-cloze": Code(
        "error",
        "a question or a finished sentence where a cloze is due",
        "应为待补全的陈述，而不是问句或完整句子",
    ),
    "mixed-script": Code("error", "a word of the other script", "夹杂另一种文字"),
    "wrong-language": Code("error", "written in another language", "语言错误"),
    "traditional-characters": Code("warning", "traditional characters", "含繁体字"),
    "control-character": Code(
        "error", "an invisible or control character", "含不可见字符或控制字符"
    ),
    "stray-whitespace": Code(
        "warning", "blanks at an end, doubled, full-width or inside Chinese", "多余或全角空白"
    ),
    "number-mismatch": Code(
        "warning", "numbers differ between the two languages", "中英文数字不一致"
    ),
    "length": Code("error", "too long to be what it should be", "长度超限"),
    "duplicate-id": Code("warning", "the id is used twice", "编号重复"),
    "duplicate-fact": Code(
        "error", "same prompt and subject as an earlier entry", "提示与主语同前面条目重复"
    ),
    "near-duplicate": Code(
        "error", "nearly the prompt of an earlier entry", "与前面条目的提示高度相似"
    ),
    "conflicting-truth": Code(
        "warning",
        "another truth than an earlier entry has for the same question",
        "与前面条目对同一问题给出不同的真实答案",
    ),
    "untranslated-probe": Code(
        "error", "the locality probe is not in the language of its side", "局部性探针未翻译"
    ),
    "repeated-probe": Code(
        "error", "the locality probe serves another entry", "局部性探针重复使用"
    ),
    "probe-touches-subject": Code(
        "error",
        "the locality probe mentions the edited subject or an answer",
        "局部性探针涉及被编辑的主语或答案",
    ),
    "rejected-by-reviewer": Code("error", "a person rejected the entry", "审校者拒绝"),
}
