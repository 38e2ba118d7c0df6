"""Codes of all problems that validation, audit, review and rejections report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Code:
    """A kind of problem.

    Attributes:
        severity: An ``error`` excludes an entry from the dataset. A ``warning`` is shown to
            reviewers.
        en: Description in English.
        zh: Description in Chinese.
    """

    severity: Severity
    en: str
    zh: str


CODES: dict[str, Code] = {
    "unreadable-answer": Code(
        "error", "no complete entry could be parsed", "未能从回答中解析出完整条目"
    ),
    "empty-field": Code("error", "a field is missing, null or empty", "字段缺失或为空"),
    "subject-not-in-prompt": Code(
        "error", "the subject does not appear verbatim in the prompt", "主语未原样出现在题干中"
    ),
    "subject-not-in-rephrase": Code(
        "warning",
        "the subject does not appear verbatim in the rephrased prompt",
        "主语未原样出现在改写题干中",
    ),
    "subject-ambiguous": Code(
        "warning",
        "the subject appears several times, or only inside a longer word, in the prompt",
        "主语在题干中出现多次，或只作为更长词语的一部分出现",
    ),
    "answer-in-prompt": Code("error", "the prompt reveals an answer", "题干泄露了答案"),
    "answer-in-rephrase": Code(
        "error", "the rephrased prompt reveals an answer", "改写题干泄露了答案"
    ),
    "target-equals-truth": Code(
        "error",
        "the target is the true answer, perhaps spelled differently",
        "反事实答案与真实答案相同（可能只是写法不同）",
    ),
    "target-near-truth": Code(
        "warning", "the target barely differs from the true answer", "反事实答案与真实答案过于接近"
    ),
    "rephrase-equals-prompt": Code(
        "error", "the rephrased prompt repeats the prompt", "改写题干与原题干相同"
    ),
    "rephrase-near-prompt": Code(
        "warning", "the rephrased prompt barely differs from the prompt", "改写题干与原题干过于接近"
    ),
    "prompt-not-cloze": Code(
        "error",
        "a question or complete sentence instead of a cloze",
        "题干应为待补全的陈述，而不是问句或完整句子",
    ),
    "mixed-script": Code(
        "error", "contains a word in the script of the other language", "混有另一种语言的文字"
    ),
    "wrong-language": Code("error", "written in the wrong language", "语种不符"),
    "traditional-characters": Code(
        "warning", "contains traditional Chinese characters", "含繁体字"
    ),
    "control-character": Code(
        "error", "contains an invisible or control character", "含不可见字符或控制字符"
    ),
    "stray-whitespace": Code(
        "warning", "unnecessary or full-width whitespace", "有多余空格或全角空格"
    ),
    "number-mismatch": Code(
        "warning", "numbers differ between the two languages", "中英文数字不一致"
    ),
    "length": Code("error", "longer than the limit for this field", "文字过长"),
    "duplicate-id": Code("warning", "the id is used more than once", "编号重复"),
    "duplicate-fact": Code(
        "error", "same prompt and subject as an earlier entry", "题干和主语与前面的条目重复"
    ),
    "near-duplicate": Code(
        "error",
        "prompt almost identical to the prompt of an earlier entry",
        "题干与前面的条目高度相似",
    ),
    "similar-prompt": Code(
        "warning",
        "prompt almost identical to that of an earlier entry that is kept too",
        "题干与前面的条目高度相似，两条均保留",
    ),
    "conflicting-truth": Code(
        "warning",
        "an earlier entry gives a different true answer to the same question",
        "同一问题的真实答案与前面的条目不一致",
    ),
    "untranslated-probe": Code(
        "error", "the locality probe is not in the expected language", "局部性探针的语种不符"
    ),
    "repeated-probe": Code(
        "error", "the locality probe is already used for another entry", "局部性探针已用于别的条目"
    ),
    "probe-touches-subject": Code(
        "error",
        "the locality probe mentions the edited subject or an answer",
        "局部性探针涉及被编辑的主语或答案",
    ),
    "rejected-by-reviewer": Code("error", "rejected by a reviewer", "被审校者拒绝"),
    "contrary-decisions": Code("error", "reviewers made contrary decisions", "审校者意见相左"),
}
