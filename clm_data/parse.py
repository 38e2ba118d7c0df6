"""Reads the entries out of a model's answer, whatever it wrapped them in.

Brackets are matched first (:mod:`clm_data.brackets`), so that what was never closed is known to be
incomplete. Each object that is closed is then read on its own: as JSON, or with json-repair where
it is not quite JSON. An object that breaks off is never completed: repair would invent its ending.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clm_data.brackets import Node, as_json, match_brackets
from clm_data.llm.base import Completion
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
class Piece:
    """One object found in an answer.

    Attributes:
        text: As it stands in the answer.
        value: What it says; None where it is incomplete or cannot be read.
        reason: Why it cannot be read.
    """

    text: str
    value: JSONObject | None
    reason: str = ""


def read_answer(
    completion: Completion, *, domain: str | None, label: str, origin: Origin
) -> StageResult[Candidate]:
    """The complete entries in an answer, in its order.

    Fields are taken as they stand: numbers become text, null stays None, other keys than those of a
    fact are ignored. Never raises on what a model wrote.

    Args:
        completion: The answer; its ``reasoning`` is not looked at.
        domain: Domain that was asked for.
        label: Names the answer in the ids of what cannot be read: ``{label}#{n}``, n from 1.
        origin: Where the candidates come from.

    Returns:
        Candidates, and an ``unreadable-answer`` rejection for each object that breaks off or is no
        entry, or for the whole answer where it holds neither an object nor an empty list.
    """
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    for number, piece in enumerate(read_pieces(completion.text), 1):
        found = (
            [_unreadable(piece.reason)]
            if piece.value is None
            else _candidate(piece.value, domain, origin)
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
                    content=piece.text,
                )
            )
    return StageResult(tuple(kept), tuple(rejected))


def read_items(text: str) -> list[JSONObject]:
    """Every complete object in a text, lists and wrappers such as ``{"entries": [...]}`` opened."""
    return [piece.value for piece in read_pieces(text) if piece.value is not None]


def read_pieces(text: str) -> list[Piece]:
    """Every object in a text, complete or not; reasoning in ``<think>`` is left out.

    A text with neither an object nor an empty list is one unreadable piece.
    """
    answer = _THINK_END.sub("", _THINK.sub("", text))
    roots = match_brackets(answer)
    pieces = list(_pieces(answer, roots))
    if not pieces and not re.search(r"\[\s*\]", answer):
        reason = "no JSON in the answer" if answer.strip() else "the answer is empty"
        return [Piece(answer or text, None, reason)]
    return pieces


def _pieces(text: str, roots: list[Node]) -> Iterator[Piece]:
    """Objects of bracket trees in reading order; lists and wrappers are opened."""
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
                yield Piece(raw, value)
            elif _LIKE_OBJECT.match(raw):
                yield Piece(raw, None, "cannot be read as JSON")
        else:
            inner = _inner(text, node)
            lost = not inner or _is_entry(_own_keys(text, node))
            if lost and _LIKE_OBJECT.match(raw):
                stop = inner[0].start if inner else node.stop
                yield Piece(text[node.start : stop], None, _why_open(text, node))
            waiting += inner[::-1]


def _inner(text: str, node: Node) -> list[Node]:
    """What may hold entries within an object that was never closed: not its own halves."""
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
    broken_off = node.stop == len(text)
    return "the answer breaks off within it" if broken_off else "a closing bracket is missing"


def _own_keys(text: str, node: Node) -> list[str]:
    """The keys that stand in an object itself, not in what it contains."""
    at, own = node.start, []
    for child in node.children:
        own.append(text[at : child.start])
        at = child.stop
    own.append(text[at : node.stop])
    return _KEY.findall(" ".join(own))


def _languages_of(keys: Iterable[str]) -> set[Language]:
    """The languages that keys name by themselves or in a prefix."""
    found = set()
    for key in map(_normal, keys):
        match = _FIELD_KEY.fullmatch(key)
        name = (match["before"] or match["after"] or "") if match else key
        if name in _LANGUAGE_KEYS:
            found.add(_LANGUAGE_KEYS[name])
    return found


def _is_entry(keys: Iterable[str]) -> bool:
    """Whether an object with these keys is meant as an entry, not as a wrapper of entries."""
    names = [_normal(key) for key in keys]
    return any(name in _LANGUAGE_KEYS or _FIELD_KEY.fullmatch(name) for name in names)


def _normal(key: object) -> str:
    return str(key).strip().casefold()


def _load(text: str) -> JSONObject | None:
    """The object in a closed pair of braces; None where even repair finds none."""
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
    return json.loads(text, strict=False, parse_int=str, parse_float=str, parse_constant=str)


def _repair(text: str) -> Any:
    import json_repair

    return json_repair.loads(text, skip_json_loads=True)


def _candidate(value: JSONObject, domain: str | None, origin: Origin) -> Candidate | list[Problem]:
    """A candidate, or what keeps the object from being one."""
    parts = _parts(value)
    if not parts:
        return [_unreadable("has neither zh nor en fields")]
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
    """What an object says in each language.

    Knows ``{"zh": {...}, "en": {...}}`` and flat rows whose keys carry the language
    (``zh_prompt``, ``prompt_zh``, ``english_prompt``); a plain key in a flat row is Chinese.
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
    """One language's fact; what has the wrong type is added to ``problems``."""
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
        text = str(content) if _is_number(content) else content
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
