"""The supported file formats: how to recognize each, and how to read its rows.

Adding a format means adding one entry to :data:`FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.languages import HAN, LATIN
from clm_data.layouts import ENGLISH_PREFIX, with_plain_names
from clm_data.records import FACT_FIELDS, LANGUAGES, PROBE_FIELDS, Language
from clm_data.review.cells import decode
from clm_data.sources.files import RawFile

Row = Mapping[str, Any]


@dataclass(frozen=True)
class ParsedRow:
    """A row under clm-data's field names; values are unaltered and may have any type."""

    facts: dict[Language, dict[str, Any]]
    probes: dict[Language, dict[str, Any]] = field(default_factory=dict)
    case_id: Any = None
    domain: Any = None


@dataclass(frozen=True)
class Format:
    """A layout of rows.

    Attributes:
        title: Description shown to users.
        matches: Whether a row has the fields of the format.
        read: Reads such a row; raises ValueError if its structure is wrong.
    """

    title: str
    matches: Callable[[Row], bool]
    read: Callable[[Row], ParsedRow]


def han_share(text: Any) -> float:
    """Share of Han in Han and Latin characters, where a Han one counts as three; 0 without both."""
    if not isinstance(text, str):
        return 0.0
    han = 3 * len(HAN.findall(text))
    return han / max(1, han + len(LATIN.findall(text)))


def written_in(text: Any) -> Language:
    """The language of a sentence by its script, tolerating names in the other script."""
    return "zh" if han_share(text) >= 0.5 else "en"


def detect_format(raw: RawFile) -> str:
    """Detect the format of a file's rows.

    Raises:
        InputFileError: No format matches; the message lists the fields found.
    """
    rows = [row for row in raw.rows if isinstance(row, dict)]
    if raw.is_csv:
        found = "csv" if _is_csv_row(rows[0]) else None
    else:
        first = rows[0] if rows else {}
        found = next((name for name, known in FORMATS.items() if known.matches(first)), None)
    if found is None:
        if rows:
            reason = f"no format has rows with {', '.join(list(rows[0])[:8])}"
        else:
            reason = "no row is a JSON object"
        raise InputFileError(f"{raw.name}: {reason}; known formats: {', '.join(sorted(FORMATS))}")
    if found == "clm-bench-zh" and _has_both_languages(rows):
        return "clm-bench-mix"
    return found


def check_format(raw: RawFile, name: str) -> None:
    """Check that a format given by the user can be the format of the rows.

    Raises:
        UnknownNameError: There is no such format.
        InputFileError: No row has the fields of the format.
    """
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    if not any(isinstance(row, dict) and FORMATS[name].matches(row) for row in raw.rows):
        raise InputFileError(
            f"{raw.name}: no row has the fields of {name} ({FORMATS[name].title}); "
            "omit --format to detect the format"
        )


def _has_both_languages(rows: Sequence[Row]) -> bool:
    english = sum(written_in(row.get("prompt")) == "en" for row in rows)
    return 4 * english >= len(rows)


def _first(value: Any) -> Any:
    """The first item of a list, at any depth; None if it is empty; other values unchanged."""
    while isinstance(value, list):
        value = value[0] if value else None
    return value


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(name in row for name in names)


def plain_reader(lang: Language | None) -> Callable[[Row], ParsedRow]:
    """A reader of fields without a language prefix; default language: by the prompt's script."""

    def read(row: Row) -> ParsedRow:
        side = lang or written_in(row.get("prompt"))
        return ParsedRow(
            {side: {name: row.get(name) for name in FACT_FIELDS}},
            {side: {name: row.get(name) for name in PROBE_FIELDS}},
            row.get("case_id"),
        )

    return read


def _read_english(row: Row) -> ParsedRow:
    return plain_reader("en")(with_plain_names(dict(row)))


def _object_at(row: Row, name: str) -> dict[str, Any]:
    value = row.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected an object")
    return value


def _is_easyedit(row: Row) -> bool:
    own = ("locality", "portability", "locality_prompt", "rephrase")
    return _has("prompt", "subject", "target_new")(row) and (
        any(name in row for name in own) or isinstance(row.get("ground_truth"), list)
    )


def _read_easyedit(row: Row) -> ParsedRow:
    lang = written_in(_first(row.get("prompt")))
    fact = {name: _first(row.get(name)) for name in FACT_FIELDS}
    fact["rephrase_prompt"] = _first(row.get("rephrase_prompt", row.get("rephrase")))
    if "locality_prompt" in row:
        probe = {"loc": row["locality_prompt"], "loc_ans": row.get("locality_ground_truth")}
    else:
        probe = _first_locality(row.get("locality"))
    return ParsedRow({lang: fact}, {lang: probe}, row.get("case_id"))


def _first_locality(groups: Any) -> dict[str, Any]:
    """The first probe of EasyEdit's groups: ``{group: {"prompt", "ground_truth"} or a list}``."""
    for group in groups.values() if isinstance(groups, dict) else ():
        probe = _first(group)
        if isinstance(probe, dict):
            return {
                "loc": _first(probe.get("prompt")),
                "loc_ans": _first(probe.get("ground_truth")),
            }
    return {}


def _read_counterfact(row: Row) -> ParsedRow:
    edit = _object_at(row, "requested_rewrite")
    prompt = edit.get("prompt")
    subject = edit.get("subject")
    if isinstance(prompt, str) and isinstance(subject, str):
        prompt = prompt.replace("{}", subject)
    truth = _text_of(edit.get("target_true"))
    fact = {
        "prompt": prompt,
        "subject": subject,
        "ground_truth": truth,
        "target_new": _text_of(edit.get("target_new")),
        "rephrase_prompt": _first(row.get("paraphrase_prompts")),
    }
    lang = written_in(prompt)
    # Neighborhood prompts ask the same of other subjects that have the same true answer.
    probe = {"loc": _first(row.get("neighborhood_prompts")), "loc_ans": truth}
    return ParsedRow({lang: fact}, {lang: probe}, row.get("case_id"))


def _text_of(target: Any) -> Any:
    return target.get("str") if isinstance(target, dict) else target


def _zsre_side(row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fact and probe of a ZsRE row; ``alt`` is the target, ``pred`` an unused model answer."""
    fact = {
        "prompt": row.get("src"),
        "subject": row.get("subject"),
        "ground_truth": _first(row.get("answers", row.get("ground_truth"))),
        "target_new": row.get("alt"),
        "rephrase_prompt": _first(row.get("rephrase")),
    }
    return fact, {"loc": row.get("loc"), "loc_ans": _first(row.get("loc_ans"))}


def _read_zsre(row: Row) -> ParsedRow:
    fact, probe = _zsre_side(row)
    lang = written_in(fact["prompt"])
    return ParsedRow({lang: fact}, {lang: probe}, row.get("case_id"))


def _both(name: str) -> Callable[[Row], bool]:
    """A check that a row has, for each language, an object with this field."""
    return lambda row: all(
        isinstance(row.get(lang), dict) and name in row[lang] for lang in LANGUAGES
    )


def _read_bi_zsre(row: Row) -> ParsedRow:
    sides = {lang: _zsre_side(_object_at(row, lang)) for lang in LANGUAGES}
    return ParsedRow(
        {lang: side[0] for lang, side in sides.items()},
        {lang: side[1] for lang, side in sides.items()},
        row.get("case_id"),
    )


def _is_clm_data(row: Row) -> bool:
    sides = [row[lang] for lang in LANGUAGES if isinstance(row.get(lang), dict)]
    return bool(sides) and all("prompt" in side for side in sides)


def _read_clm_data(row: Row) -> ParsedRow:
    """Records, entries and candidates of clm-data, and rows of the configuration ``parallel``."""
    facts: dict[Language, dict[str, Any]] = {}
    probes: dict[Language, dict[str, Any]] = {}
    pair = row.get("probe")
    for lang in LANGUAGES:
        side = row.get(lang)
        if isinstance(side, dict):
            facts[lang] = {name: side.get(name) for name in FACT_FIELDS}
            places = (row.get(f"{lang}_probe"), pair.get(lang) if isinstance(pair, dict) else None)
            probe = next((place for place in places if isinstance(place, dict)), side)
            probes[lang] = {name: probe.get(name) for name in PROBE_FIELDS}
    return ParsedRow(facts, probes, row.get("case_id"), row.get("domain"))


_CSV_PREFIXES: dict[Language, tuple[str, ...]] = {
    "zh": ("zh_", "zh."),
    "en": ("en_", "en.", ENGLISH_PREFIX),
}


def _csv_side(row: Row, lang: Language) -> dict[str, Any]:
    """The cells in the columns of one language, by field; empty if there are no such columns."""
    return {
        name: _cell(row[prefix + name])
        for name in (*FACT_FIELDS, *PROBE_FIELDS)
        for prefix in _CSV_PREFIXES[lang]
        if prefix + name in row
    }


def _cell(value: Any) -> Any:
    """The text of a cell, without the apostrophe that protects it from formula evaluation."""
    return decode(value) if isinstance(value, str) else value


def _is_csv_row(row: Row) -> bool:
    return "prompt" in row or any("prompt" in _csv_side(row, lang) for lang in LANGUAGES)


def _read_csv(row: Row) -> ParsedRow:
    """Read columns with a language prefix (``zh_prompt``, ``english_prompt``) or without.

    If one language has prefixed columns, columns without a prefix are the other language. If none
    has, the script of the prompt decides.
    """
    sides = {lang: _csv_side(row, lang) for lang in LANGUAGES}
    plain = {name: _cell(row[name]) for name in (*FACT_FIELDS, *PROBE_FIELDS) if name in row}
    prefixed = [lang for lang in LANGUAGES if "prompt" in sides[lang]]
    if "prompt" not in plain:
        plain_lang: Language = prefixed[0]
    elif prefixed:
        plain_lang = "zh" if prefixed == ["en"] else "en"
    else:
        plain_lang = written_in(plain["prompt"])
    sides[plain_lang] = {**plain, **sides[plain_lang]}
    given = {lang: side for lang, side in sides.items() if "prompt" in side}
    return ParsedRow(
        {lang: {name: side.get(name) for name in FACT_FIELDS} for lang, side in given.items()},
        {lang: {name: side.get(name) for name in PROBE_FIELDS} for lang, side in given.items()},
        row.get("case_id") or None,
        row.get("domain") or None,
    )


FORMATS: dict[str, Format] = {
    "clm-data": Format("records or entries of clm-data", _is_clm_data, _read_clm_data),
    "bi-zsre": Format("Bi-ZsRE: ZsRE under 'en' and 'zh'", _both("src"), _read_bi_zsre),
    "counterfact": Format(
        "CounterFact as ROME and MEMIT publish it",
        lambda row: isinstance(row.get("requested_rewrite"), dict),
        _read_counterfact,
    ),
    "zsre": Format("ZsRE as MEND and EasyEdit use it", _has("src", "alt"), _read_zsre),
    "clm-bench-en": Format(
        "CLM-Bench, English fields",
        lambda row: f"{ENGLISH_PREFIX}prompt" in row and "prompt" not in row,
        _read_english,
    ),
    "easyedit": Format("EasyEdit and KnowEdit", _is_easyedit, _read_easyedit),
    "clm-bench-zh": Format(
        "CLM-Bench, Chinese fields", _has("prompt", "subject", "target_new"), plain_reader("zh")
    ),
    "clm-bench-mix": Format(
        "CLM-Bench, both languages alternating",
        _has("prompt", "subject", "target_new"),
        plain_reader(None),
    ),
    "csv": Format("CSV with zh_prompt, en_prompt ... or CLM-Bench names", _is_csv_row, _read_csv),
}
"""Formats by name, in the order in which detection tries them."""
