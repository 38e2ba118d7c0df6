"""The readers of the formats: from a row to the fields of clm-data."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from clm_data.languages import HAN, LATIN, language_named
from clm_data.records import (
    ABOUT_FIELDS,
    FACT_FIELDS,
    LANGUAGES,
    LIST_FIELDS,
    PROBE_FIELDS,
    Language,
)
from clm_data.review.cells import decode
from clm_data.sources.fields import REST, Fields, flat


@dataclass(frozen=True)
class ParsedRow:
    """A row under clm-data's field names; values are unaltered and may have any type."""

    facts: dict[Language, dict[str, Any]]
    probes: dict[Language, dict[str, Any]] = field(default_factory=dict)
    case_id: Any = None
    domain: Any = None
    about: dict[str, Any] = field(default_factory=dict)
    """What is said about the fact, under the names of :data:`clm_data.records.ABOUT_FIELDS`."""


Reader = Callable[[Fields], ParsedRow]
Side = tuple[dict[str, Any], dict[str, Any]]
"""Fact and probe in one language."""


def han_share(text: Any) -> float:
    """Share of Han in Han and Latin characters, where a Han one counts as three; 0 without both."""
    if not isinstance(text, str):
        return 0.0
    han = 3 * len(HAN.findall(text))
    return han / max(1, han + len(LATIN.findall(text)))


def written_in(text: Any) -> Language:
    """The language of a sentence by its script, tolerating names in the other script."""
    return "zh" if han_share(text) >= 0.5 else "en"


def plain_reader(lang: Language | None, prefix: str = "") -> Reader:
    """A reader of CLM-Bench's fields; default language: by the prompt's script."""

    def read(row: Fields) -> ParsedRow:
        fact = {name: row.get(prefix + name) for name in FACT_FIELDS if name != "ground_truth"}
        fact |= _true_answers(*row.answers(f"{prefix}ground_truth"))
        probe = {name: row.get(name) for name in PROBE_FIELDS}
        return _in_one(lang or written_in(fact["prompt"]), (fact, probe), row)

    return read


def read_easyedit(row: Fields) -> ParsedRow:
    """EasyEdit, KnowEdit and CKnowEdit (``target_old`` is the answer before the edit)."""
    truth = "ground_truth" if "ground_truth" in row else "target_old"
    fact = {name: row.first(name) for name in ("prompt", "subject")}
    fact["target_new"], fact["target_new_aliases"] = row.answers("target_new")
    rephrase = "rephrase_prompt" if "rephrase_prompt" in row else "rephrase"
    fact |= _true_answers(*row.answers(truth)) | _rephrasings(row.all(rephrase))
    if "locality_prompt" in row:
        answer = row.first("locality_ground_truth")
        probe = {"loc": row.first("locality_prompt"), "loc_ans": answer}
    else:
        probe = _first_locality(row)
    return _in_one(written_in(fact["prompt"]), (fact, probe), row)


def _true_answers(truth: Any, others: tuple[Any, ...]) -> dict[str, Any]:
    """The fields of a fact for its true answer and other accepted ones."""
    return {"ground_truth": truth, "ground_truth_aliases": others}


def _rephrasings(prompts: tuple[Any, ...]) -> dict[str, Any]:
    """The fields of a fact for its rephrasings."""
    first = prompts[0] if prompts else None
    return {"rephrase_prompt": first, "more_rephrase_prompts": prompts[1:]}


def _first_locality(row: Fields) -> dict[str, Any]:
    """The first probe of ``locality``: a list of probes, or lists of probes by group.

    EasyEdit's own evaluation takes ``{group: {"prompt": [...], "ground_truth": [...]}}``.
    """
    groups = row.get("locality")
    probes = [
        probe
        for group in (groups.values() if isinstance(groups, dict) else [groups])
        for probe in flat(group)
        if probe
    ]
    if len(probes) > 1:
        row.leave(f"locality{REST}")
    if not probes:
        return {}
    if not isinstance(probes[0], dict):
        row.leave("locality")
        return {}
    first = Fields(probes[0])
    answer, others = first.answers("ground_truth", "answer")
    if others:
        row.leave(f"locality.ground_truth{REST}")
    probe = {"loc": first.first("prompt"), "loc_ans": answer}
    for name in first.unread():
        row.leave(f"locality.{name}")
    return probe


def read_counterfact(row: Fields) -> ParsedRow:
    """CounterFact; also a row of MQuAKE if it has a single edit."""
    side = _counterfact_side(row)
    return _in_one(written_in(side[0]["prompt"]), side, row)


def _counterfact_side(row: Fields) -> Side:
    edit = _only_edit(row)
    prompt, subject = edit.get("prompt"), edit.get("subject")
    if isinstance(prompt, str) and isinstance(subject, str):
        prompt = prompt.replace("{}", subject)
    truth, others = _answers_in(edit, "target_true")
    target, names = _answers_in(edit, "target_new")
    fact = {
        "prompt": prompt,
        "subject": subject,
        "target_new": target,
        "target_new_aliases": names,
        **_true_answers(truth, others),
        **_rephrasings(row.all("paraphrase_prompts")),
    }
    # Neighborhood prompts ask the same of other subjects that have the same true answer.
    probe = {"loc": row.first("neighborhood_prompts"), "loc_ans": truth}
    return fact, probe


def _only_edit(row: Fields) -> Fields:
    edits = row.get("requested_rewrite")
    if isinstance(edits, list) and len(edits) > 1:
        raise ValueError(
            f"requested_rewrite: {len(edits)} edits in one row; give each edit its own row"
        )
    return _object_at(row, "requested_rewrite")


def _answers_in(edit: Fields, name: str) -> tuple[Any, tuple[Any, ...]]:
    """The answers of a target: a text, a list, or an object with ``str`` and perhaps aliases."""
    target = edit.part(name)
    return edit.answers(name) if target is None else target.answers("str")


def _zsre_side(row: Fields) -> Side:
    """Fact and probe of a ZsRE row; ``alt`` is the target, ``pred`` an unused model answer."""
    fact = {
        "prompt": row.get("src"),
        "subject": row.get("subject"),
        "target_new": row.first("alt"),
        **_true_answers(*row.answers("answers", "ground_truth")),
        **_rephrasings(row.all("rephrase")),
    }
    return fact, {"loc": row.first("loc"), "loc_ans": row.first("loc_ans")}


def read_zsre(row: Fields) -> ParsedRow:
    """ZsRE."""
    side = _zsre_side(row)
    return _in_one(written_in(side[0]["prompt"]), side, row)


def language_keys(names: list[str]) -> dict[Language, str]:
    """The name under which each language appears: ``zh``, or else ``zh-cn``, ``Chinese``, ..."""
    found: dict[Language, str] = {}
    for name in sorted(names, key=lambda name: name not in LANGUAGES):
        lang = language_named(name)
        if lang is not None:
            found.setdefault(lang, name)
    return found


def bilingual_reader(side_reader: Callable[[Fields], Side]) -> Reader:
    """A reader of rows with an object for each language, under any name of the language."""

    def read(row: Fields) -> ParsedRow:
        keys = language_keys(row.names())
        sides = {lang: side_reader(_object_at(row, keys.get(lang, lang))) for lang in LANGUAGES}
        return _in_both(sides, row)

    return read


read_bi_zsre = bilingual_reader(_zsre_side)
read_bi_counterfact = bilingual_reader(_counterfact_side)


def read_clm_data(row: Fields) -> ParsedRow:
    """Records, entries and candidates of clm-data, and rows of the configuration ``parallel``."""
    sides: dict[Language, Side] = {}
    pair = row.part("probe")
    accepted = row.part("accepted")
    for lang, key in language_keys(row.names()).items():
        side = row.part(key)
        if side is None:
            continue
        names = [name for name in (*FACT_FIELDS, "scope") if name != "ground_truth"]
        fact = {name: side.get(name) for name in names}
        fact |= {name: side.all(name) for name in LIST_FIELDS}
        # Version 1 keeps other accepted answers outside the fact, in candidates only.
        others = accepted.all(lang) if accepted and lang in accepted else ()
        truth, aliases = side.answers("ground_truth")
        fact |= _true_answers(truth, (*aliases, *others))
        places = (row.part(f"{key}_probe"), pair.part(lang) if pair is not None else None)
        probe = next((place for place in places if place is not None), side)
        sides[lang] = fact, {name: probe.get(name) for name in PROBE_FIELDS}
    found = _in_both({lang: sides[lang] for lang in LANGUAGES if lang in sides}, row)
    about = {name: value for name in ABOUT_FIELDS if (value := row.get(name)) is not None}
    return replace(found, domain=row.get("domain"), about=about)


_COLUMN_FIELDS = (*FACT_FIELDS, *LIST_FIELDS, "scope", *PROBE_FIELDS)
_FIELD = "|".join(sorted(_COLUMN_FIELDS, key=len, reverse=True))
_COLUMNS = (
    re.compile(rf"(?P<field>{_FIELD})[_. ](?P<language>.+)"),
    re.compile(rf"(?P<language>.+?)[_. ](?P<field>{_FIELD})"),
)


def column_of(name: str) -> tuple[Language | None, str] | None:
    """Language (None: not named) and field of a column such as ``zh_prompt``; None if neither."""
    name = name.strip()
    if name in _COLUMN_FIELDS:
        return None, name
    for pattern in _COLUMNS:
        match = pattern.fullmatch(name)
        if match is not None and (lang := language_named(match["language"])):
            return lang, match["field"]
    return None


def read_csv(row: Fields) -> ParsedRow:
    """Read columns with a language (``zh_prompt``, ``english_prompt``) or without.

    If one language has columns of its own, columns without a language are the other language. If
    none has, the script of the prompt decides.
    """
    sides: dict[Language | None, dict[str, Any]] = {None: {}, "zh": {}, "en": {}}
    others: dict[Language | None, tuple[Any, ...]] = {}
    for name in row.names():
        column = column_of(name)
        if column is None or column[1] in sides[column[0]]:
            continue
        lang, place = column
        if place == "ground_truth":
            sides[lang][place], others[lang] = _cell_answers(row, name)
        elif place in LIST_FIELDS:
            sides[lang][place] = tuple(item for item in flat(_cell_json(row.get(name))) if item)
        else:
            sides[lang][place] = _cell(row.get(name))
    plain = sides.pop(None)
    if plain:
        named = [lang for lang in LANGUAGES if "prompt" in sides[lang]]
        lang = ("zh" if named == ["en"] else "en") if named else written_in(plain.get("prompt"))
        sides[lang] = {**plain, **sides[lang]}
        others.setdefault(lang, others.get(None, ()))
    given: dict[Language, Side] = {}
    for each in LANGUAGES:
        if "prompt" in sides[each]:
            fact = {name: sides[each].get(name) for name in FACT_FIELDS}
            lists: dict[str, tuple[Any, ...]] = {
                name: sides[each].get(name, ()) for name in LIST_FIELDS
            }
            lists["ground_truth_aliases"] = others.get(each, ()) + lists["ground_truth_aliases"]
            fact |= {**lists, "scope": _if_filled(sides[each].get("scope"))}
            probe = {name: sides[each].get(name) for name in PROBE_FIELDS}
            given[each] = fact, probe
    found = _in_both(given, row)
    ids = {name: _if_filled(row.get(name)) for name in ("case_id", "domain")}
    about = {name: value for name in ABOUT_FIELDS if (value := _cell_json(row.get(name)))}
    return replace(found, about=about, **ids)


def _cell_json(value: Any) -> Any:
    """The value of a cell that holds JSON, or its text."""
    text = _cell(value)
    if isinstance(text, str) and text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _cell(value: Any) -> Any:
    """The text of a cell, without the apostrophe that protects it from formula evaluation."""
    return decode(value) if isinstance(value, str) else value


def _cell_answers(row: Fields, name: str) -> tuple[Any, tuple[Any, ...]]:
    """The answers in a cell, which may hold a list: ``["a", "b"]``, or as pandas writes it."""
    value = row.get(name)
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            listed = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
        if isinstance(listed, list) and listed and all(isinstance(item, str) for item in listed):
            return listed[0], tuple(listed[1:])
    if isinstance(value, list):
        return row.answers(name)
    return _cell(value), ()


def _in_one(lang: Language, side: Side, row: Fields) -> ParsedRow:
    return _in_both({lang: side}, row)


def _in_both(sides: dict[Language, Side], row: Fields) -> ParsedRow:
    return ParsedRow(
        facts={lang: side[0] for lang, side in sides.items()},
        probes={lang: side[1] for lang, side in sides.items()},
        case_id=row.get("case_id"),
    )


def _if_filled(value: Any) -> Any:
    return None if value == "" else value


def _object_at(row: Fields, name: str) -> Fields:
    part = row.part(name)
    if part is None:
        raise ValueError(f"{name}: expected an object")
    return part
