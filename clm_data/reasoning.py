"""Separates the answer of a model from the reasoning written around it.

Reasoning is known by its marks: tags such as ``<think>``, ``<seed:think>``, ``[THINK]`` and
``◁think▷``, the channels of gpt-oss, and the headings of Granite. A tag inside a JSON string is
content. The marks are read in one pass, so the time is linear in the length of the text.
"""

from __future__ import annotations

import re

from clm_data.brackets import BEFORE_STRING, IN_STRING, end_of_string

_NAMES = (
    r"(?:antml:|mm:|seed:)?(?:think(?:ing)?|thoughts?|thought_process|reason(?:ing)?|reflection"
    r"|analysis|scratchpad|inner_monologue|chain_of_thought|cot|antthinking|drafts?)"
)
_OPEN = (
    rf"<(?P<tag>{_NAMES})(?:\s[^<>]{{0,200}})?>|\[(?P<square>THINK)\]|◁(?P<kimi>think)▷"
    r"|<\|begin_of_(?P<begin>thought)\|>|<\|START_(?P<start>THINKING)\|>"
    r"|(?P<granite>Here(?:'s| is) my thought process:)"
)
_CLOSE = (
    rf"</(?P<_tag>{_NAMES})\s*>|\[/(?P<_square>THINK)\]|◁/(?P<_kimi>think)▷"
    r"|<\|end_of_(?P<_begin>thought)\|>|<\|END_(?P<_start>THINKING)\|>"
    r"|(?P<_granite>Here(?:'s| is) my response:)"
)
_MARK = re.compile(rf"{_OPEN}|{_CLOSE}", re.IGNORECASE)
_STEP = re.compile(r"[{}\[\]\"'“<◁Hh]|[^\s{}\[\]\"'“<◁Hh]+")
_FINAL_CHANNEL = re.compile(
    r"<\|channel\|>\s*final\b[^<]{0,100}<\|message\|>|\A\s*analysis\b.*?assistantfinal", re.DOTALL
)
_CHANNEL = re.compile(r"<\|channel\|>[^<]{1,100}<\|message\|>")
_END = re.compile(r"<\|(?:end|return|call)\|>|<\|start\|>")

_BEFORE = r"^[ \t#*>【\[]*"
_AFTER = r"[^\n{\[]{0,40}?(?:$|[:：][ \t*`]*(?=[{\[｛［]))"
"""A heading ends its line, or is followed by a colon and the answer."""
_HEADING = re.compile(
    rf"{_BEFORE}(?:(?:my |the )?final (?:answer|version|list|result|output|json)"
    r"|(?:here is )?(?:my |the )?(?:corrected|revised) (?:answer|version|list|output|json)"
    r"|最终(?:答案|版本?|结果|列表|输出|条目)|(?:修订|修正|更正|修改)(?:版|后)|定稿|终稿)"
    rf"{_AFTER}",
    re.IGNORECASE | re.MULTILINE,
)
_THOUGHTS = re.compile(
    rf"{_BEFORE}(?:reasoning|thinking|thoughts?|thought process|思考(?:过程)?|推理(?:过程)?)"
    r"[ \t*】\]]*[:：\n]",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER = re.compile(
    rf"{_BEFORE}(?:answer|output|response|答案|回答|输出)[ \t*】\]]*(?:[:：]|$)",
    re.IGNORECASE | re.MULTILINE,
)
"""A heading of the final answer only if one of reasoning precedes it."""

_Mark = tuple[int, int, str, bool]
"""(start, end, name, whether it opens reasoning)"""


def split_reasoning(text: str) -> tuple[str, str | None]:
    """Separate an answer from the reasoning in it.

    The opening mark may be missing (in DeepSeek-R1 it is part of the chat template), and so may the
    closing mark (if the answer was cut off): then everything before or after is reasoning.

    Returns:
        The answer, and the reasoning or None.
    """
    text, thoughts = _split_channels(text)
    marks = [_named(match) for match in _MARK.finditer(text)]
    if not marks:
        answer = text
    else:
        answer, found = _split_marks(text, marks)
        thoughts += found
    if not thoughts:
        return text, None
    return answer.strip(), "\n".join(thought.strip() for thought in thoughts) or None


def answer_in_reasoning(reasoning: str) -> str:
    """The answer behind the closing mark of reasoning that an endpoint did not split; or empty."""
    answer, thought = split_reasoning(reasoning)
    return "" if thought is None else answer


def final_heading(text: str, spans: list[tuple[int, int]], before: int) -> int:
    """Position of the last heading such as "Final answer:" before a position; 0 if there is none.

    "Answer:" is such a heading after one such as "Reasoning:".

    Headings within ``spans``, the (start, end) of objects in ascending order, are content.
    """
    found = 0
    waiting = iter(spans)
    span = next(waiting, None)
    thoughts = _THOUGHTS.search(text, 0, before)
    headings = [*_HEADING.finditer(text, 0, before)]
    if thoughts is not None:
        headings += _ANSWER.finditer(text, thoughts.end(), before)
    for match in sorted(headings, key=re.Match.start):
        while span is not None and span[1] <= match.start():
            span = next(waiting, None)
        if span is None or match.start() < span[0]:
            found = match.start()
    return found


def _split_channels(text: str) -> tuple[str, list[str]]:
    """Keep the last final channel of gpt-oss; text in other channels is reasoning."""
    finals = list(_FINAL_CHANNEL.finditer(text))
    if finals:
        rest = text[finals[-1].end() :]
        end = _END.search(rest)
        return rest[: end.start()] if end else rest, [text[: finals[-1].end()]]
    channel = _CHANNEL.search(text)
    if channel is None:
        return text, []
    before = text[: channel.start()].replace("<|start|>assistant", "")
    return before, [text[channel.end() :]]


def _named(match: re.Match[str]) -> _Mark:
    group = match.lastgroup or ""
    name = f"{group.lstrip('_')} {match[group].casefold()}"
    return match.start(), match.end(), name, not group.startswith("_")


def _split_marks(text: str, marks: list[_Mark]) -> tuple[str, list[str]]:
    marks = _outside_strings(text, marks)
    ends = _partners(marks)
    answer: list[str] = []
    thoughts: list[str] = []
    at, index = 0, 0
    last_text = len(text.rstrip())
    closed = False
    while index < len(marks):
        start, end, _, opens = marks[index]
        answer.append(text[at:start])
        if opens:
            last = ends.get(index)
            stop = marks[last][0] if last is not None else len(text)
            thoughts.append(text[end:stop])
            at = marks[last][1] if last is not None else len(text)
            index = last + 1 if last is not None else len(marks)
            closed = True
            continue
        at, index = end, index + 1
        if not closed or end < last_text:
            thoughts.append("".join(answer))
            answer.clear()
        closed = True
    answer.append(text[at:])
    return "".join(answer), thoughts


def _partners(marks: list[_Mark]) -> dict[int, int]:
    """The closing mark of each opening mark, by index; unclosed ones are missing.

    Marks of the same name may be nested. If they do not balance, the last closing mark of that
    name counts, and without one the next closing mark of any name.
    """
    found: dict[int, int] = {}
    waiting: dict[str, list[int]] = {}
    last: dict[str, int] = {}
    for index, (_, _, name, opens) in enumerate(marks):
        if opens:
            waiting.setdefault(name, []).append(index)
        else:
            last[name] = index
            if waiting.get(name):
                found[waiting[name].pop()] = index
    after: int | None = None
    for index in range(len(marks) - 1, -1, -1):
        _, _, name, opens = marks[index]
        if not opens:
            after = index
        elif index not in found:
            end = last.get(name, -1)
            if end > index:
                found[index] = end
            elif after is not None:
                found[index] = after
    return found


def _outside_strings(text: str, marks: list[_Mark]) -> list[_Mark]:
    """The marks that are not inside a JSON string.

    A string with a mark counts only if it is on one line and no bracket follows the mark in it:
    otherwise a quotation mark in the reasoning would hide the mark that ends the reasoning.
    """
    inside: list[_Mark] = []
    at = index = depth = 0
    before = ""
    plain_until = 0
    while index < len(marks) and (step := _STEP.search(text, at)):
        if step.start() >= marks[index][0]:
            at, before = marks[index][1], ""
            index += 1
            continue
        mark, at = step.group(), step.end()
        at = min(at, marks[index][0])
        if mark in IN_STRING and depth and before in BEFORE_STRING and step.start() >= plain_until:
            end = end_of_string(text, at, IN_STRING[mark])
            held: list[_Mark] = []
            while index + len(held) < len(marks) and marks[index + len(held)][0] < end:
                held.append(marks[index + len(held)])
            if held and not _is_content(text[step.start() : end], held, step.start()):
                plain_until = held[-1][1]
            else:
                inside += held
                index += len(held)
                at = end
        else:
            depth = max(0, depth + (mark in "{[") - (mark in "}]"))
        before = text[at - 1]
    hidden = {mark[0] for mark in inside}
    return [mark for mark in marks if mark[0] not in hidden]


def _is_content(string: str, held: list[_Mark], start: int) -> bool:
    rest = string[held[-1][1] - start :]
    return "\n" not in string and not any(bracket in rest for bracket in "{[")
