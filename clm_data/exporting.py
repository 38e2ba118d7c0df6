"""Export records in common formats, or imported CLM-Bench rows unchanged."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clm_data import json_schema, layouts
from clm_data.drafts import draft_folder
from clm_data.errors import InputFileError
from clm_data.layouts import EN_FILE, MIX_FILE, PUBLISHED_FILES, ZH_FILE, Row
from clm_data.records import LANGUAGES, Record, canonical_json
from clm_data.review.cells import encode
from clm_data.sources import SourceFile, is_published
from clm_data.sources.candidates import Unit, pair_alternating, units_of
from clm_data.store import Store

Texts = dict[str, str]
"""File contents by file name."""


def clm_bench(records: Sequence[Record]) -> Texts:
    """The three published JSON layouts."""
    return {name: json_text(rows) for name, rows in layouts.published(records).items()}


def jsonl(records: Sequence[Record]) -> Texts:
    """JSON Lines with one record per line, checked against the schema."""
    rows = [record.model_dump(mode="json") for record in records]
    for number, row in enumerate(rows, 1):
        json_schema.check("record", row, f"records.jsonl, line {number}")
    return {"records.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)}


def csv_table(records: Sequence[Record]) -> Texts:
    """CSV for spreadsheets, one row per record (cells: :func:`clm_data.review.cells.encode`)."""
    rows = [_csv_row(row) for row in layouts.parallel_rows(records)]
    out = io.StringIO(newline="")
    out.write("\ufeff")
    writer = csv.DictWriter(out, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return {"records.csv": out.getvalue()}


def easyedit(records: Sequence[Record]) -> Texts:
    """One JSON file per language in the layout of EasyEdit's KnowEdit data."""
    return {
        f"easyedit_{lang}.json": json_text(
            [
                {
                    "case_id": record.case_id,
                    "subject": record.fact(lang).subject,
                    "prompt": record.fact(lang).prompt,
                    "target_new": record.fact(lang).target_new,
                    "ground_truth": [record.fact(lang).ground_truth],
                    "rephrase_prompt": record.fact(lang).rephrase_prompt,
                    "portability": {},
                    "locality": {
                        "Relation_Specificity": [
                            {
                                "prompt": record.probe(lang).loc,
                                "ground_truth": [record.probe(lang).loc_ans],
                            }
                        ]
                    },
                }
                for record in records
            ]
        )
        for lang in LANGUAGES
    }


CLM_BENCH = "clm-bench"
EXPORTERS: dict[str, Callable[[Sequence[Record]], Texts]] = {
    CLM_BENCH: clm_bench,
    "jsonl": jsonl,
    "csv": csv_table,
    "easyedit": easyedit,
}


def published_rows(files: Sequence[SourceFile]) -> dict[str, list[Any]]:
    """The imported CLM-Bench rows by published file name, unchanged and in the original order.

    The layout with both languages, or the Chinese and English files together, give all three files.
    A dataset imported in several layouts is exported once. Several datasets are concatenated.

    Returns:
        Rows by file name. Files without rows are left out.
    """
    groups = [_parts(unit) for unit in units_of([f for f in files if is_published(f)])]
    chosen: list[int] = []
    seen: set[tuple[str, str]] = set()
    # Largest first: a Chinese file adds nothing to a mixed file with the same rows.
    for index in sorted(range(len(groups)), key=lambda index: (-len(groups[index]), index)):
        keys = {(name, canonical_json(rows)) for name, rows in groups[index].items()}
        if not keys <= seen:
            seen |= keys
            chosen.append(index)
    out: dict[str, list[Any]] = {}
    for name in PUBLISHED_FILES:
        holders = [groups[index][name] for index in sorted(chosen) if name in groups[index]]
        if holders:
            out[name] = [row for rows in holders for row in rows]
    return out


_FORMAT_OF = {ZH_FILE: "clm-bench-zh", EN_FILE: "clm-bench-en", MIX_FILE: "clm-bench-mix"}


def published_bytes(files: Sequence[SourceFile], store: Store) -> dict[str, tuple[bytes, int]]:
    """The imported CLM-Bench files: contents and number of rows by published file name.

    Where the rows of one imported JSON list are exported alone, its own bytes are given, with its
    line ends, indentation and escapes. Rows that were put together from several files, or whose
    bytes the store lacks (rows from memory), are written as :func:`json_text` does.
    """
    return {
        name: (_original(name, rows, files, store) or json_text(rows).encode("utf-8"), len(rows))
        for name, rows in published_rows(files).items()
    }


def _original(
    name: str, rows: Sequence[Any], files: Sequence[SourceFile], store: Store
) -> bytes | None:
    written = canonical_json(rows)
    for file in files:
        if file.format == _FORMAT_OF[name] and canonical_json(file.rows) == written:
            data = store.source_bytes(file.sha256)
            if data is not None and data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
                return data
    return None


def json_text(rows: Sequence[Any]) -> str:
    """JSON as in the published files, without a newline at the end."""
    return json.dumps(rows, ensure_ascii=False, indent=2)


def write_folder(out: Path, texts: Mapping[str, str | bytes], *, force: bool = False) -> None:
    """Write files into a folder. A new folder appears only when it is complete.

    Args:
        out: A new or empty folder. Its parents are created.
        texts: Contents by file name.
        force: Allow a folder with files. Files with the same names are replaced atomically, one by
            one; other files are not touched.

    Raises:
        InputFileError: ``out`` is a file, has files without ``force``, is being written by another
            process, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise InputFileError(f"{out} is a file; choose a folder with --out")
    filled = out.is_dir() and any(out.iterdir())
    if filled and not force:
        raise InputFileError(
            f"{out} is not empty; choose another folder with --out, or replace files with the same "
            "names with --force"
        )
    try:
        _write(out, texts, filled=filled)
    except OSError as error:
        raise InputFileError(f"{out}: cannot be written: {error.strerror or error}") from error


def _write(out: Path, texts: Mapping[str, str | bytes], *, filled: bool) -> None:
    out = out.absolute()
    with draft_folder(out) as draft:
        for name, text in texts.items():
            (draft / name).write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
        if filled:
            for name in texts:
                (draft / name).replace(out / name)
        else:
            if out.exists():
                out.rmdir()
            draft.rename(out)


def _csv_row(row: Row) -> dict[str, str]:
    """A flattened row of the configuration ``parallel``, with columns such as ``zh_prompt``."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat.update({f"{name}_{inner}": part for inner, part in value.items()})
        else:
            flat[name] = value
    return {name: "" if value is None else encode(str(value)) for name, value in flat.items()}


def _parts(unit: Unit) -> dict[str, list[Any]]:
    """Rows of one unit by published file name."""
    rows = unit.first.rows
    if unit.english is not None:
        plain = [_renamed(row, layouts.with_plain_names) for row in unit.english.rows]
        mixed = layouts.alternate(rows, plain)
        return {ZH_FILE: rows, EN_FILE: unit.english.rows, MIX_FILE: mixed}
    if unit.first.format != "clm-bench-mix":
        return {ZH_FILE if unit.first.format == "clm-bench-zh" else EN_FILE: rows}
    pairs = pair_alternating(rows)
    zh = [row for row, _ in pairs if row is not None]
    en = [_renamed(row, layouts.with_english_names) for _, row in pairs if row is not None]
    return {name: part for name, part in ((ZH_FILE, zh), (EN_FILE, en), (MIX_FILE, rows)) if part}


def _renamed(row: Any, rename: Callable[[Row], Row]) -> Any:
    return rename(row) if isinstance(row, dict) else row
