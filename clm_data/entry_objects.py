"""Makes candidates of the objects in a model's answer, by the names of their keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from clm_data.languages import HAN, LATIN, language_named
from clm_data.records import (
    FACT_FIELDS,
    LANGUAGES,
    Candidate,
    Language,
    LooseFact,
    Origin,
    Problem,
    content_id,
)
from clm_data.text import number_as_text

JSONObject = dict[str, Any]

_NAMED = r"zh(?:[-_](?:cn|hans))?|cn|chinese|中文|en(?:[-_](?:us|gb))?|english|英文"
_FIELD_KEY = re.compile(
    rf"(?:(?P<before>{_NAMED})[_. ])?"
    rf"(?P<field>{'|'.join(FACT_FIELDS)})"
    rf"(?:[_. ](?P<after>{_NAMED}))?"
)
_UNREAD = "the object holds another entry under a key that is not known"
UNNAMED = "the object names no language and its prompt is not Chinese"


def candidate_of(
    value: JSONObject, domain: str | None, origin: Origin
) -> Candidate | list[Problem]:
    """Make a candidate of an object, or return the problems that prevent it."""
    if twice := _given_twice(value):
        return [unreadable("the object gives this language twice", twice)]
    parts = _parts(value)
    if not parts:
        return [unreadable("the object has neither zh nor en fields")]
    if not all(parts.get(lang) for lang in LANGUAGES) and has_unread_entry(value):
        return [unreadable(_UNREAD)]
    if any(holds_entry(part[key]) for part in parts.values() for key in _unread_keys(part)):
        return [unreadable(_UNREAD)]
    problems: list[Problem] = []
    facts = {lang: _fact(parts.get(lang), lang, problems) for lang in LANGUAGES}
    zh = facts["zh"]
    if zh and not problems and not languages_of(value) and is_latin(zh.prompt or ""):
        return [unreadable(UNNAMED)]
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


def languages_of(keys: Iterable[str]) -> set[Language]:
    """The languages that keys name, either entirely or by a prefix or suffix."""
    found = set()
    for key in map(_normal, keys):
        match = _FIELD_KEY.fullmatch(key)
        name = (match["before"] or match["after"] or "") if match else key
        lang = language_named(name)
        if lang is not None:
            found.add(lang)
    return found


def is_entry(keys: Iterable[str]) -> bool:
    """Whether an object with these keys is an entry rather than a wrapper of entries."""
    names = [_normal(key) for key in keys]
    return any(language_named(name) or _FIELD_KEY.fullmatch(name) for name in names)


def is_latin(prompt: str) -> bool:
    """Whether a prompt has Latin letters and no Chinese character."""
    return bool(LATIN.search(prompt)) and not HAN.search(prompt)


def _normal(key: object) -> str:
    return str(key).strip().casefold()


def _given_twice(value: JSONObject) -> Language | None:
    """A language with fields of its own and an object as well, or with two objects."""
    names = [_normal(key) for key in value]
    whole = [lang for name in names if (lang := language_named(name))]
    matches = [match for name in names if (match := _FIELD_KEY.fullmatch(name))]
    fields = {language_named(match["before"] or match["after"] or "zh") for match in matches}
    return next((lang for lang in whole if lang in fields or whole.count(lang) > 1), None)


def has_unread_entry(value: JSONObject) -> bool:
    """Whether a value under a key that is not known is an entry, or holds one."""
    return any(holds_entry(value[key]) for key in value if not is_entry([key]))


def holds_entry(value: Any) -> bool:
    """Whether a value is an entry, or has one in it."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping) and is_entry(part):
            return True
        waiting += part.values() if isinstance(part, Mapping) else []
        waiting += part if isinstance(part, list) else []
    return False


def _unread_keys(part: Any) -> list[Any]:
    """The keys of a fact that are those of no field."""
    keys = part if isinstance(part, Mapping) else ()
    return [key for key in keys if not _FIELD_KEY.fullmatch(_normal(key))]


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
            parts[named] = content
        elif match:
            lang = language_named(match["before"] or match["after"] or "zh") or "zh"
            flat.setdefault(lang, {})[key] = content
    return {**flat, **parts}


def _fact(part: Any, lang: Language, problems: list[Problem]) -> LooseFact | None:
    """Read the fact in one language; values of a wrong type are added to ``problems``."""
    if part is None:
        return None
    if not isinstance(part, Mapping):
        found = type(part).__name__
        problems.append(unreadable(f"expected an object with five fields, found {found}", lang))
        return None
    fields: dict[str, str | None] = {}
    for key, content in part.items():
        match = _FIELD_KEY.fullmatch(_normal(key))
        if match is None:
            continue
        name = match["field"]
        if name in fields or language_named(match["before"] or match["after"] or lang) != lang:
            problems.append(
                unreadable(f'"{key}" is a second value or another language', lang, name)
            )
            continue
        text = (number_as_text(content) or content) if type(content) in (int, float) else content
        if text is not None and not isinstance(text, str):
            message = f"expected text, found {type(text).__name__}"
            problems.append(unreadable(message, lang, name))
        elif text is not None and _has_surrogate(text):
            problems.append(unreadable("half of a surrogate pair", lang, name))
        else:
            fields[name] = text
    return LooseFact(**fields)


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def unreadable(message: str, lang: Language | None = None, name: str | None = None) -> Problem:
    """The problem of an object, or of a field in it, that cannot be read."""
    return Problem(code="unreadable-answer", message=message, lang=lang, field=name)
