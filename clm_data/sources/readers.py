"""The readers of the formats: from a row to the fields of clm-data."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from clm_data.languages import HAN, LATIN, language_named
from clm_data.records import FACT_FIELDS, LANGUAGES, PROBE_FIELDS, Language
from clm_data.review.cells import decode
from clm_data.sources.fields import REST, Fields, flat


@dataclass(frozen=True)
class ParsedRow:
    """A row under clm-data's field names; values are unaltered and may have any type."""

    facts: dict[Language, dict[str, Any]]
    probes: dict[Language, dict[str, Any]] = field(default_factory=dict)
    case_id: Any = None
    domain: Any = None
    accepted: dict[Language, tuple[Any, ...]] = field(default_factory=dict)
    """Accepted answers besides ``ground_truth``."""


Reader = Callable[[Fields], ParsedRow]
Side = tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]
"""Fact, probe and other accepted answers in one language."""


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
        truth, others = row.answers(f"{prefix}ground_truth")
        fact = {name: row.get(prefix + name) for name in FACT_FIELDS if name != "ground_truth"}
        fact["ground_truth"] = truth
        probe = {name: row.get(name) for name in PROBE_FIELDS}
        return _in_one(lang or written_in(fact["prompt"]), (fact, probe, others), row)

    return read


def read_easyedit(row: Fields) -> ParsedRow:
    """EasyEdit, KnowEdit and CKnowEdit (``target_old`` is the answer before the edit)."""
    truth, others = row.answers(*(("ground_truth",) if "ground_truth" in row else ("target_old",)))
    fact = {name: row.first(name) for name in ("prompt", "subject", "target_new")}
    rephrase = "rephrase_prompt" if "rephrase_prompt" in row else "rephrase"
    fact |= {"ground_truth": truth, "rephrase_prompt": row.first(rephrase)}
    if "locality_prompt" in row:
        answer = row.first("locality_ground_truth")
        probe = {"loc": row.first("locality_prompt"), "loc_ans": answer}
    else:
        probe = _first_locality(row)
    return _in_one(written_in(fact["prompt"]), (fact, probe, others), row)


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
    target, more = _answers_in(edit, "target_new")
    if more:
        edit.leave(f"target_new{REST}")
    fact = {
        "prompt": prompt,
        "subject": subject,
        "ground_truth": truth,
        "target_new": target,
        "rephrase_prompt": row.first("paraphrase_prompts"),
    }
    # Neighborhood prompts ask the same of other subjects that have the same true answer.
    probe = {"loc": row.first("neighborhood_prompts"), "loc_ans": truth}
    return fact, probe, others


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
    truth, others = row.answers("answers", "ground_truth")
    fact = {
        "prompt": row.get("src"),
        "subject": row.get("subject"),
        "ground_truth": truth,
        "target_new": row.first("alt"),
        "rephrase_prompt": row.first("rephrase"),
    }
    return fact, {"loc": row.first("loc"), "loc_ans": row.first("loc_ans")}, others


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
        truth, others = side.answers("ground_truth")
        fact = {name: truth if name == "ground_truth" else side.get(name) for name in FACT_FIELDS}
        places = (row.part(f"{key}_probe"), pair.part(lang) if pair is not None else None)
        probe = next((place for place in places if place is not None), side)
        others += tuple(flat(accepted.get(lang))) if accepted and lang in accepted else ()
        sides[lang] = fact, {name: probe.get(name) for name in PROBE_FIELDS}, others
    found = _in_both({lang: sides[lang] for lang in LANGUAGES if lang in sides}, row)
    return replace(found, domain=row.get("domain"))


_FIELD = "|".join(sorted((*FACT_FIELDS, *PROBE_FIELDS), key=len, reverse=True))
_COLUMNS = (
    re.compile(rf"(?P<field>{_FIELD})[_. ](?P<language>.+)"),
    re.compile(rf"(?P<language>.+?)[_. ](?P<field>{_FIELD})"),
)


def column_of(name: str) -> tuple[Language | None, str] | None:
    """Language (None: not named) and field of a column such as ``zh_prompt``; None if neither."""
    name = name.strip()
    if name in (*FACT_FIELDS, *PROBE_FIELDS):
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
            probe = {name: sides[each].get(name) for name in PROBE_FIELDS}
            given[each] = fact, probe, others.get(each, ())
    found = _in_both(given, row)
    ids = {name: _if_filled(row.get(name)) for name in ("case_id", "domain")}
    return replace(found, **ids)


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
        accepted={lang: side[2] for lang, side in sides.items() if side[2]},
    )


def _if_filled(value: Any) -> Any:
    return None if value == "" else value


def _object_at(row: Fields, name: str) -> Fields:
    part = row.part(name)
    if part is None:
        raise ValueError(f"{name}: expected an object")
    return part
