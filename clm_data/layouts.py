"""Rows of a dataset in the four configurations and in the three published layouts.

The published layouts are those of CLM-Bench: Chinese fields, English fields (fact fields are
prefixed with ``english_``), and both languages alternating under the same field names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clm_data.records import FACT_FIELDS, LANGUAGES, Language, Record

Row = dict[str, Any]

ZH_FILE = "chinese_fields_with_loc.json"
EN_FILE = "english_fields_with_loc.json"
MIX_FILE = "merged_alternate_fields_no_english.json"
PUBLISHED_FILES = (ZH_FILE, EN_FILE, MIX_FILE)

ENGLISH_PREFIX = "english_"
_PUBLISHED_ORDER = ("prompt", "target_new", "subject", "ground_truth", "rephrase_prompt")


def parallel_rows(records: Sequence[Record]) -> list[Row]:
    """One row per record, with both languages."""
    return [
        {
            "id": record.id,
            "case_id": record.case_id,
            "domain": record.domain,
            **{lang: _texts(record, lang) for lang in LANGUAGES},
            "review": record.review,
            "origin": record.origin.model_dump(),
        }
        for record in records
    ]


def zh_rows(records: Sequence[Record]) -> list[Row]:
    """Flat rows in Chinese, one per record."""
    return [_flat(record, "zh") for record in records]


def en_rows(records: Sequence[Record]) -> list[Row]:
    """Flat rows in English, one per record."""
    return [_flat(record, "en") for record in records]


def mix_rows(records: Sequence[Record]) -> list[Row]:
    """Flat rows with a ``language`` field, Chinese and English alternating: two per record."""
    return [_flat(record, lang, named=True) for record in records for lang in LANGUAGES]


CONFIGURATIONS: dict[str, Callable[[Sequence[Record]], list[Row]]] = {
    "parallel": parallel_rows,
    "zh": zh_rows,
    "en": en_rows,
    "mix": mix_rows,
}
"""Functions that make the rows, by the configuration name in ``load_dataset(DIR, name)``."""


def published(records: Sequence[Record]) -> dict[str, list[Row]]:
    """Rows of the three published layouts by file name, with fields in the published order."""
    sides = {lang: [_published(record, lang) for record in records] for lang in LANGUAGES}
    return {
        ZH_FILE: sides["zh"],
        EN_FILE: [with_english_names(row) for row in sides["en"]],
        MIX_FILE: alternate(sides["zh"], sides["en"]),
    }


def alternate(zh: Sequence[Row], en: Sequence[Row]) -> list[Row]:
    """Alternate two lists of rows of equal length."""
    return [row for pair in zip(zh, en, strict=True) for row in pair]


def with_english_names(row: Row) -> Row:
    """Add the prefix of the English layout to the fact fields of a row, keeping the field order."""
    return {ENGLISH_PREFIX + name if name in FACT_FIELDS else name: row[name] for name in row}


def with_plain_names(row: Row) -> Row:
    """Remove the prefix of the English layout from the fields of a row, keeping their order."""
    return {name.removeprefix(ENGLISH_PREFIX): value for name, value in row.items()}


def _texts(record: Record, lang: Language) -> dict[str, str]:
    return {**record.fact(lang).model_dump(), **record.probe(lang).model_dump()}


def _flat(record: Record, lang: Language, *, named: bool = False) -> Row:
    return {
        "id": record.id,
        "case_id": record.case_id,
        "domain": record.domain,
        **({"language": lang} if named else {}),
        **_texts(record, lang),
        "review": record.review,
    }


def _published(record: Record, lang: Language) -> Row:
    fact, probe = record.fact(lang), record.probe(lang)
    return {
        "case_id": record.case_id,
        **{name: getattr(fact, name) for name in _PUBLISHED_ORDER},
        **probe.model_dump(),
    }
