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

from clm_data.brackets import Node, as_json, match_brackets
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

_THINK = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_THINK_END = re.compile(r"\A.*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_LIKE_OBJECT = re.compile(r"\{\s*[\"'“\w]")
_KEY = re.compile(r"[\"'“]?([\w.]+)[\"'”]?\s*[:：]")
_LANGUAGE_KEYS: dict[str, Language] = {
    "zh": "zh",
    "chinese": "zh",
    "中文": "zh",
    "en": "en",
    "english": "en",
    "英文": "en",
}
_FIELD_KEY = re.compile(
    r"(?:(?P<before>zh|chinese|en|english)[_. ])?"
    rf"(?P<field>{'|'.join(FACT_FIELDS)})"
    r"(?:[_. ](?P<after>zh|chinese|en|english))?"
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
    text: str, *, domain: str | None, label: str, origin: Origin
) -> StageResult[Candidate]:
    """Parse the complete entries in an answer, in order of appearance.

    Texts are not altered. Numbers become text, null becomes None, and keys other than those of a
    fact are ignored. No text makes this function raise.

    Args:
        text: The answer, without the model's reasoning.
        domain: Domain of the candidates.
        label: Prefix of the ids of rejections: ``{label}#{n}``, where n counts objects from 1.
        origin: Origin of the candidates.

    Returns:
        The candidates, and an ``unreadable-answer`` rejection for each object that is incomplete or
        not an entry. An answer with neither an object nor an empty list is one rejection.
    """
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    for number, item in enumerate(find_objects(text), 1):
        found = (
            [_unreadable(item.reason)]
            if item.value is None
            else _candidate(item.value, domain, origin)
        )
        if isinstance(found, Candidate):
            kept.append(found)
        else:
            rejected.append(
                Rejection(
                    stage="parse",
                    id=f"{label}#{number}",
                    domain=domain,
                    problems=tuple(found),
                    content=item.text,
                )
            )
    return StageResult(tuple(kept), tuple(rejected))


def parse_objects(text: str) -> list[JSONObject]:
    """Parse every complete object in a text; see :func:`find_objects`."""
    return [found.value for found in find_objects(text) if found.value is not None]


def find_objects(text: str) -> list[FoundObject]:
    """Find every object in a text, complete or not, in order of appearance.

    Objects inside lists and inside wrappers such as ``{"entries": [...]}`` are found one by one.
    Reasoning between ``<think>`` tags is skipped. A text with neither an object nor an empty list
    gives one found object without a value.
    """
    answer = _THINK_END.sub("", _THINK.sub("", text))
    roots = match_brackets(answer)
    found = list(_objects_in(answer, roots))
    if not found and not re.search(r"\[\s*\]", answer):
        reason = "no JSON in the answer" if answer.strip() else "the answer is empty"
        return [FoundObject(answer or text, None, reason)]
    return found


def _objects_in(text: str, roots: list[Node]) -> Iterator[FoundObject]:
    """Objects of bracket trees in reading order, those inside lists and wrappers one by one."""
    waiting = roots[::-1]
    while waiting:
        node = waiting.pop()
        raw = text[node.start : node.stop]
        if node.bracket == "[":
            waiting += node.children[::-1]
        elif node.closed:
            value = _load(raw)
            if node.children and not _is_entry(value or _own_keys(text, node)):
                waiting += node.children[::-1]
            elif value is not None:
                yield FoundObject(raw, value)
            elif _LIKE_OBJECT.match(raw):
                yield FoundObject(raw, None, "cannot be read as JSON")
        else:
            inner = _inner(text, node)
            incomplete = not inner or _is_entry(_own_keys(text, node))
            if incomplete and _LIKE_OBJECT.match(raw):
                stop = inner[0].start if inner else node.stop
                yield FoundObject(text[node.start : stop], None, _why_open(text, node))
            waiting += inner[::-1]


def _inner(text: str, node: Node) -> list[Node]:
    """Nodes in an unclosed object that may contain entries; the facts of an entry do not."""
    if not _is_entry(_own_keys(text, node)):
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
        if name in _LANGUAGE_KEYS:
            found.add(_LANGUAGE_KEYS[name])
    return found


def _is_entry(keys: Iterable[str]) -> bool:
    """Whether an object with these keys is an entry rather than a wrapper of entries."""
    names = [_normal(key) for key in keys]
    return any(name in _LANGUAGE_KEYS or _FIELD_KEY.fullmatch(name) for name in names)


def _normal(key: object) -> str:
    return str(key).strip().casefold()


def _load(text: str) -> JSONObject | None:
    """Parse the text of a closed object; None if json-repair fails too or the object is empty."""
    for load in (_loads, lambda raw: _loads(as_json(raw)), _repair):
        try:
            value = load(text)
        except (ValueError, IndexError):
            continue
        except RecursionError:
            return None
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

    return json_repair.loads(text, skip_json_loads=True)


def _candidate(value: JSONObject, domain: str | None, origin: Origin) -> Candidate | list[Problem]:
    """Make a candidate of an object, or return the problems that prevent it."""
    parts = _parts(value)
    if not parts:
        return [_unreadable("the object has neither zh nor en fields")]
    problems: list[Problem] = []
    facts = {lang: _fact(parts.get(lang), lang, problems) for lang in LANGUAGES}
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
        if name in _LANGUAGE_KEYS:
            parts[_LANGUAGE_KEYS[name]] = content
        elif match:
            lang = _LANGUAGE_KEYS[match["before"] or match["after"] or "zh"]
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
        text = (number_as_text(content) or content) if _is_number(content) else content
        if text is not None and not isinstance(text, str):
            message = f"expected text, found {type(text).__name__}"
            problems.append(_unreadable(message, lang, name))
        elif text is not None and _has_surrogate(text):
            problems.append(_unreadable("half of a surrogate pair", lang, name))
        else:
            fields[name] = text
    return LooseFact(**fields)


def _is_number(content: Any) -> bool:
    return isinstance(content, int | float) and not isinstance(content, bool)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _unreadable(message: str, lang: Language | None = None, name: str | None = None) -> Problem:
    return Problem(code="unreadable-answer", message=message, lang=lang, field=name)
