"""Extracts entries from a model's answer, whatever text or markup surrounds them.

Brackets are matched first (:mod:`clm_data.brackets`), which shows which objects are never closed.
Each closed object is then parsed by itself: as JSON, or with json-repair if it is not valid JSON.
An unclosed object is never repaired, because json-repair would invent the missing end.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clm_data.brackets import Node, as_json, is_deep, match_brackets
from clm_data.entry_objects import (
    UNNAMED,
    JSONObject,
    candidate_of,
    has_unread_entry,
    is_entry,
    is_latin,
    languages_of,
    unreadable,
)
from clm_data.reasoning import final_heading, split_reasoning
from clm_data.records import (
    Candidate,
    Origin,
    Problem,
    Rejection,
    StageResult,
)
from clm_data.text import number_as_text

_LIKE_OBJECT = re.compile(r"[{｛]\s*[\"'“\w]")
_ODD_KEY = re.compile(r"[\"“”：{}\n]")
_CHARACTER = re.compile(r"[^\s{}\[\]｛｝［］,，:：\"'“”\\]")
"""A character that is no syntax; one that a repair drops may change a text, as in 5% or 0571."""
_LINE_COMMENT = re.compile(r"(?<!:)//[^\n]*")
_NOT_TEXT = re.compile(
    r"\\u[0-9a-fA-F]{4}|\\.|(?<!:)//[^\n]*|/\*.{0,300}?\*/|\.\.\.|…|```\w*"
    r"|\b(?:null|true|false|None|True|False)\b",
    re.DOTALL,
)
"""What is no text in JSON: escapes, comments, ellipses, fences, constants."""
_NUMBER = re.compile(
    r"(?<=[:：])\s*-?(?:0|[1-9]\d*)(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)(?=\s*[,，}\]｝］])"
)
"""A decimal as JSON writes it; a repair may write another form of it, such as 1.5 for 1.50."""
_STRAY_QUOTE = re.compile(r'[^"]*"(?:[\s"+/|&;]|\Z)')
"""A text whose first quotation mark opens no quotation, as in ``"a" or "b"`` read as one string."""
_VALUE_OF_KEY = re.compile(r"[:：]\s*\Z")
_MAX_DEPTH, _MAX_REPAIR = 64, 20_000  # brackets (entries need four); characters of one object
_ONLY_REASONING = (
    "content was empty and all text is in reasoning_content; switch the endpoint's reasoning "
    "parser off, or raise generation.max_tokens if the answer was cut off"
)
_DRAFT = "a draft: the answer gives its final version further on"
_KEY = re.compile(r"(?<![\w.-])([\w.-]{1,64})[\"'”]?\s*[:：]")
"""A key; a longer one is that of no field. It starts where its characters do: no backtracking."""


@dataclass(frozen=True)
class FoundObject:
    """A JSON object found in an answer.

    Attributes:
        text: Its text in the answer, verbatim.
        value: Its parsed value; None if it is incomplete or cannot be parsed.
        reason: Why it has no value; empty if it has one.
    """

    text: str
    value: JSONObject | None
    reason: str = ""


def parse_entries(
    text: str, *, domain: str | None, label: str, origin: Origin, reasoning: str = ""
) -> StageResult[Candidate]:
    """Parse the complete entries in an answer, in order of appearance.

    Texts are not altered. Numbers become text, null becomes None, and keys other than those of a
    fact are ignored. No text makes this function raise.

    Args:
        text: The answer, without the model's reasoning.
        domain: Domain of the candidates.
        label: Prefix of the ids of rejections: ``{label}#{n}``, where n counts objects from 1.
        origin: Origin of the candidates.
        reasoning: The model's reasoning, quoted in the rejection of an empty answer.

    Returns:
        The candidates, and an ``unreadable-answer`` rejection for each object that is incomplete or
        not an entry. An answer with neither an object nor an empty list is one rejection.
    """
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    objects = find_objects(text)
    if reasoning.strip() and not text.strip():
        objects = [FoundObject(reasoning, None, _ONLY_REASONING)]
    read = [
        candidate_of(item.value, domain, origin) if item.value else [unreadable(item.reason)]
        for item in objects
    ]
    drafts = _revised(read)
    for number, (item, found) in enumerate(zip(objects, read, strict=True), 1):
        if isinstance(found, Candidate) and number - 1 not in drafts:
            kept.append(found)
        else:
            problems = [unreadable(_DRAFT)] if isinstance(found, Candidate) else found
            rejected.append(
                Rejection(
                    stage="parse",
                    id=f"{label}#{number}",
                    domain=domain,
                    problems=tuple(problems),
                    content=item.text,
                )
            )
    return StageResult(tuple(kept), tuple(rejected))


def _revised(read: list[Candidate | list[Problem]]) -> set[int]:
    """Positions of entries with the prompts of a later entry, but with other content."""
    last: dict[tuple[str | None, ...], str] = {}
    found = set()
    for at in range(len(read) - 1, -1, -1):
        if isinstance(entry := read[at], Candidate):
            prompts = tuple(fact.prompt if fact else None for fact in (entry.zh, entry.en))
            if any(prompts) and last.setdefault(prompts, entry.id) != entry.id:
                found.add(at)
    return found


def parse_objects(text: str) -> list[JSONObject]:
    """Parse every complete object in a text; see :func:`find_objects`."""
    return [found.value for found in find_objects(text) if found.value is not None]


def find_objects(text: str) -> list[FoundObject]:
    """Find every object in a text, complete or not, in order of appearance.

    Objects in lists and in wrappers such as ``{"entries": [...]}`` are found one by one. Reasoning
    is skipped, and objects before a heading such as "Final answer:" are drafts. A text with neither
    an object nor an empty list gives one found object without a value.
    """
    answer = split_reasoning(text)[0]
    roots = match_brackets(answer)
    found = _without_drafts(answer, list(_objects_in(answer, roots)))
    if not found and not re.search(r"\[\s*\]", answer):
        reason = "no JSON in the answer" if answer.strip() else "the answer is empty"
        if text.strip() and not answer.strip():
            reason = "the answer consists of reasoning only"
        return [FoundObject(answer or text, None, reason)]
    return found


def _without_drafts(text: str, found: list[FoundObject]) -> list[FoundObject]:
    """Mark the objects before the last heading such as "Final answer:" as drafts."""
    starts: list[int] = []
    at = 0
    for item in found:
        at = text.find(item.text, at)
        starts.append(at)
    complete = [start for start, item in zip(starts, found, strict=True) if item.value is not None]
    spans = [(start, start + len(item.text)) for start, item in zip(starts, found, strict=True)]
    heading = final_heading(text, spans, complete[-1] if complete else 0)
    return [
        FoundObject(item.text, None, item.reason or _DRAFT) if start < heading else item
        for start, item in zip(starts, found, strict=True)
    ]


def _objects_in(text: str, roots: list[Node]) -> Iterator[FoundObject]:
    """Objects of bracket trees in reading order."""
    for root in roots:
        if is_deep(root, _MAX_DEPTH):
            reason = f"brackets are nested more than {_MAX_DEPTH} deep"
            yield FoundObject(text[root.start : root.stop], None, reason)
        else:
            yield from _objects_under(text, root)


def _objects_under(text: str, root: Node) -> Iterator[FoundObject]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        raw = text[node.start : node.stop]
        if node.bracket == "[":
            waiting += node.children[::-1]
        elif node.closed:
            value = _load(raw)
            whole = is_entry(value or _own_keys(text, node))
            if value is not None and not whole and _has_unnamed_part(value):
                yield FoundObject(raw, None, UNNAMED)
            elif node.children and not whole and not (value is None and _holds_fact(text, node)):
                waiting += node.children[::-1]
            elif value is not None:
                yield FoundObject(raw, value)
            elif _is_broken_entry(text, node) or _LIKE_OBJECT.match(raw):
                yield FoundObject(raw, None, "cannot be read as JSON")
        else:
            inner = _inner(text, node)
            incomplete = not inner or _is_broken_entry(text, node)
            if incomplete and (_is_broken_entry(text, node) or _LIKE_OBJECT.match(raw)):
                stop = inner[0].start if inner and not _leaves_out(text, node, inner) else node.stop
                yield FoundObject(text[node.start : stop], None, _why_open(text, node))
            waiting += inner[::-1]


def _is_broken_entry(text: str, node: Node) -> bool:
    return is_entry(_own_keys(text, node)) or _holds_fact(text, node)


def _has_unnamed_part(wrapper: JSONObject) -> bool:
    """Whether a value of a wrapper is a fact that names no language and is not Chinese."""
    return any(
        isinstance(part, Mapping)
        and is_entry(part)
        and not languages_of(part)
        and is_latin(str(part.get("prompt") or ""))
        for part in wrapper.values()
    )


def _holds_fact(text: str, node: Node) -> bool:
    """Whether a value of an unreadable object is a fact that names no language itself.

    Such a fact belongs to the object: read alone, an English one would become a Chinese fact.
    """
    at = node.start
    for child in node.children:
        between = text[at : child.start]
        at = child.stop
        if child.bracket == "{" and _VALUE_OF_KEY.search(between[-20:]):
            keys = _own_keys(text, child)
            if is_entry(keys) and not languages_of(keys):
                return True
    return False


def _inner(text: str, node: Node) -> list[Node]:
    """Nodes in an unclosed object that may contain entries; the facts of an entry do not."""
    if not _is_broken_entry(text, node):
        return node.children
    found: list[Node] = []
    waiting = node.children[::-1]
    while waiting:
        child = waiting.pop()
        if languages_of(_own_keys(text, child)):
            found.append(child)
        else:
            waiting += child.children[::-1]
    return found


def _leaves_out(text: str, node: Node, inner: list[Node]) -> bool:
    """Whether something of an entry is after the start of the first of ``inner``, but in none."""
    waiting, at, outside = [*node.children], inner[0].start, []
    for found in inner:
        outside.append(text[at : found.start])
        at = found.stop
    if is_entry(_KEY.findall(" ".join([*outside, text[at : node.stop]]))):
        return True
    starts = [found.start for found in inner]
    while waiting:
        child = waiting.pop()
        at = bisect_left(starts, child.start)
        if at < len(starts) and starts[at] < child.stop:
            waiting += child.children if starts[at] > child.start else []
        elif child.start > starts[0]:
            return True
    return False


def _why_open(text: str, node: Node) -> str:
    truncated = node.stop == len(text)
    return "the answer ends inside this object" if truncated else "a closing bracket is missing"


def _own_keys(text: str, node: Node) -> list[str]:
    """The keys of an object, without those of nested objects."""
    at, own = node.start, []
    for child in node.children:
        own.append(text[at : child.start])
        at = child.stop
    own.append(text[at : node.stop])
    return _KEY.findall(" ".join(own))


def _load(text: str) -> JSONObject | None:
    """Parse the text of a closed object; None if it is empty or cannot be repaired for certain."""
    try:
        value = _loads(text)
        return value if isinstance(value, dict) and value else None
    except ValueError:
        pass
    for load in (lambda raw: _loads(as_json(raw)), _repair):
        try:
            value = load(text)
        except (ValueError, IndexError, AssertionError, RecursionError):  # json-repair asserts
            continue
        if isinstance(value, dict) and value and _is_faithful(value, text):
            return value
    return None


def _is_faithful(value: JSONObject, text: str) -> bool:
    """Whether a repair lost none of the text, mixed up no keys and merged no texts or entries."""
    keys: list[str] = []
    texts: list[str] = []
    waiting: list[Any] = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            keys += map(str, part)
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
        elif part is not None:
            texts.append(_as_text(part))
    if any(map(_ODD_KEY.search, keys)) or any(map(_STRAY_QUOTE.match, texts)):
        return False
    if is_entry(value) and has_unread_entry(value):
        return False
    if any(is_entry(_KEY.findall(comment)) for comment in _LINE_COMMENT.findall(text)):
        return False
    written = _NUMBER.sub(lambda found: _as_text(float(found[0])), _NOT_TEXT.sub(" ", text))
    lost = Counter(_CHARACTER.findall(written))
    lost.subtract(_CHARACTER.findall(" ".join(keys + texts)))
    return all(count <= 0 for count in lost.values())


def _as_text(value: Any) -> str:
    number = number_as_text(value) if type(value) in (int, float) else None
    return number or str(value)


def _loads(text: str) -> Any:
    return json.loads(
        text,
        strict=False,
        parse_int=str,
        parse_float=_decimal,
        parse_constant=float,
        object_pairs_hook=_object,
    )


def _object(pairs: list[tuple[str, Any]]) -> JSONObject:
    found = dict(pairs)
    if len(found) < len(pairs) and is_entry(found):
        raise ValueError("a key of an entry is given twice")
    return found


def _decimal(literal: str) -> str | float:
    """A decimal as written (18.50), except whole numbers (1881.0) and powers, as in imports."""
    value = float(literal)
    if value.is_integer() or "e" in literal.lower():
        return number_as_text(value) or value
    return literal


def _repair(text: str) -> Any:
    import json_repair

    if len(text) > _MAX_REPAIR:
        raise ValueError("too long to be repaired")
    return json_repair.loads(text, skip_json_loads=True)
