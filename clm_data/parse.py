"""Extracts entries from a model's answer, whatever text or markup surrounds them.

Brackets are matched first (:mod:`clm_data.brackets`), which shows which objects are never closed.
Each closed object is then parsed by itself: as JSON, or with json-repair if it is not valid JSON.
An unclosed object is never repaired, because json-repair would invent the missing end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clm_data.brackets import Node, as_json, is_deep, match_brackets
from clm_data.languages import HAN, LATIN, language_named
from clm_data.reasoning import final_heading, split_reasoning
from clm_data.records import (
    FACT_FIELDS,
    LANGUAGES,
    Candidate,
    Language,
    LooseFact,
    Origin,
    Problem,
    Rejection,
    StageResult,
    content_id,
)
from clm_data.text import number_as_text

JSONObject = dict[str, Any]

_LIKE_OBJECT = re.compile(r"[{｛]\s*[\"'“\w]")
_VALUE_OF_KEY = re.compile(r"[:：]\s*\Z")
_MAX_DEPTH, _MAX_REPAIR = 64, 20_000  # brackets (entries need four); characters of one object
_ONLY_REASONING = (
    "content was empty and all text is in reasoning_content; switch the endpoint's reasoning "
    "parser off, or raise generation.max_tokens if the answer was cut off"
)
_UNNAMED = "the object names no language and its prompt is not Chinese"
_DRAFT = "a draft: the answer gives its final version further on"
_KEY = re.compile(r"[\"'“]?([\w.-]+)[\"'”]?\s*[:：]")
_NAMED = r"zh(?:[-_](?:cn|hans))?|cn|chinese|中文|en(?:[-_](?:us|gb))?|english|英文"
_FIELD_KEY = re.compile(
    rf"(?:(?P<before>{_NAMED})[_. ])?"
    rf"(?P<field>{'|'.join(FACT_FIELDS)})"
    rf"(?:[_. ](?P<after>{_NAMED}))?"
)


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
        [_unreadable(item.reason)] if item.value is None else _candidate(item.value, domain, origin)
        for item in objects
    ]
    drafts = _revised(read)
    for number, (item, found) in enumerate(zip(objects, read, strict=True), 1):
        if isinstance(found, Candidate) and number - 1 not in drafts:
            kept.append(found)
        else:
            problems = [_unreadable(_DRAFT)] if isinstance(found, Candidate) else found
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
            whole = _is_entry(value or _own_keys(text, node))
            if value is not None and not whole and _has_unnamed_part(value):
                yield FoundObject(raw, None, _UNNAMED)
            elif node.children and not whole and not (value is None and _holds_fact(text, node)):
                waiting += node.children[::-1]
            elif value is not None:
                yield FoundObject(raw, value)
            elif _LIKE_OBJECT.match(raw):
                yield FoundObject(raw, None, "cannot be read as JSON")
        else:
            inner = _inner(text, node)
            incomplete = not inner or _is_broken_entry(text, node)
            if incomplete and _LIKE_OBJECT.match(raw):
                stop = inner[0].start if inner else node.stop
                yield FoundObject(text[node.start : stop], None, _why_open(text, node))
            waiting += inner[::-1]


def _is_broken_entry(text: str, node: Node) -> bool:
    return _is_entry(_own_keys(text, node)) or _holds_fact(text, node)


def _has_unnamed_part(wrapper: JSONObject) -> bool:
    """Whether a value of a wrapper is a fact that names no language and is not Chinese."""
    return any(
        isinstance(part, Mapping)
        and _is_entry(part)
        and not _languages_of(part)
        and _is_latin(str(part.get("prompt") or ""))
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
            if _is_entry(keys) and not _languages_of(keys):
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
        if _languages_of(_own_keys(text, child)):
            found.append(child)
        else:
            waiting += child.children[::-1]
    return found


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


def _languages_of(keys: Iterable[str]) -> set[Language]:
    """The languages that keys name, either entirely or by a prefix or suffix."""
    found = set()
    for key in map(_normal, keys):
        match = _FIELD_KEY.fullmatch(key)
        name = (match["before"] or match["after"] or "") if match else key
        lang = language_named(name)
        if lang is not None:
            found.add(lang)
    return found


def _is_entry(keys: Iterable[str]) -> bool:
    """Whether an object with these keys is an entry rather than a wrapper of entries."""
    names = [_normal(key) for key in keys]
    return any(language_named(name) or _FIELD_KEY.fullmatch(name) for name in names)


def _normal(key: object) -> str:
    return str(key).strip().casefold()


def _load(text: str) -> JSONObject | None:
    """Parse the text of a closed object; None if json-repair fails too or the object is empty."""
    for load in (_loads, lambda raw: _loads(as_json(raw)), _repair):
        try:
            value = load(text)
        except (ValueError, IndexError):
            continue
        return value if isinstance(value, dict) and value else None
    return None


def _loads(text: str) -> Any:
    return json.loads(text, strict=False, parse_int=str, parse_float=_decimal, parse_constant=str)


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


def _candidate(value: JSONObject, domain: str | None, origin: Origin) -> Candidate | list[Problem]:
    """Make a candidate of an object, or return the problems that prevent it."""
    parts = _parts(value)
    if not parts:
        return [_unreadable("the object has neither zh nor en fields")]
    problems: list[Problem] = []
    facts = {lang: _fact(parts.get(lang), lang, problems) for lang in LANGUAGES}
    zh = facts["zh"]
    if zh and not problems and not _languages_of(value) and _is_latin(zh.prompt or ""):
        return [_unreadable(_UNNAMED)]
    if problems:
        return problems
    content: JSONObject = {"domain": domain}
    for lang, fact in facts.items():
        content[lang] = None if fact is None else fact.model_dump()
    return Candidate(
        id=content_id(content),
        domain=domain,
        origin=origin,
        zh=facts["zh"],
        en=facts["en"],
    )


def _is_latin(prompt: str) -> bool:
    return bool(LATIN.search(prompt)) and not HAN.search(prompt)


def _parts(value: JSONObject) -> dict[Language, Any]:
    """Split an object by language.

    Accepts ``{"zh": {...}, "en": {...}}`` and flat objects whose keys carry the language
    (``zh_prompt``, ``prompt_zh``, ``english_prompt``). A key without a language is Chinese.
    """
    parts: dict[Language, Any] = {}
    flat: dict[Language, JSONObject] = {}
    for key, content in value.items():
        name = _normal(key)
        match = _FIELD_KEY.fullmatch(name)
        named = language_named(name)
        if named is not None:
            if name == named or named not in parts:
                parts[named] = content
        elif match:
            lang = language_named(match["before"] or match["after"] or "zh") or "zh"
            flat.setdefault(lang, {})[match["field"]] = content
    return {**flat, **parts}


def _fact(part: Any, lang: Language, problems: list[Problem]) -> LooseFact | None:
    """Read the fact in one language; values of a wrong type are added to ``problems``."""
    if part is None:
        return None
    if not isinstance(part, Mapping):
        found = type(part).__name__
        problems.append(_unreadable(f"expected an object with five fields, found {found}", lang))
        return None
    fields: dict[str, str | None] = {}
    for key, content in part.items():
        match = _FIELD_KEY.fullmatch(_normal(key))
        if match is None:
            continue
        name = match["field"]
        text = (number_as_text(content) or content) if type(content) in (int, float) else content
        if text is not None and not isinstance(text, str):
            message = f"expected text, found {type(text).__name__}"
            problems.append(_unreadable(message, lang, name))
        elif text is not None and _has_surrogate(text):
            problems.append(_unreadable("half of a surrogate pair", lang, name))
        else:
            fields[name] = text
    return LooseFact(**fields)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _unreadable(message: str, lang: Language | None = None, name: str | None = None) -> Problem:
    return Problem(code="unreadable-answer", message=message, lang=lang, field=name)
