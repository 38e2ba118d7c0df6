"""Imported files: their unaltered rows, and the candidates made of them.

file --read_file--> SourceFile (unaltered rows) --candidates_of--> Candidate or Rejection
"""

from __future__ import annotations

from pathlib import Path

from clm_data import json_schema as schema
from clm_data.records import Candidate, Record, StageResult
from clm_data.sources.candidates import candidates_of
from clm_data.sources.files import RawFile, SourceFile, read_rows
from clm_data.sources.formats import FORMATS, check_format, detect_format
from clm_data.store import Store
from clm_data.store_tables import source_name

__all__ = [
    "FORMATS",
    "SourceFile",
    "candidates_of",
    "is_published",
    "read_file",
    "stored_candidates",
    "stored_files",
    "unknown_formats",
]


def read_file(
    file: Path | RawFile,
    format: str | None = None,
    licence: str | None = None,
    encoding: str | None = None,
) -> SourceFile:
    """Read a file without altering or dropping any row.

    Args:
        file: A JSON list, JSON Lines or CSV file, or rows that have been read already.
        format: A name in :data:`FORMATS`; default: detected from the fields.
        licence: License of the content, if known.
        encoding: Encoding of the file; default: found if it is certain.

    Raises:
        InputFileError: The file cannot be read, has no known format, or contains a clm-data record
            that does not match its schema.
        UnknownNameError: There is no such format.
    """
    raw = read_rows(file, encoding) if isinstance(file, Path) else file
    if format is not None:
        check_format(raw, format)
    chosen = format or detect_format(raw)
    if chosen == "clm-data":
        for number, row in enumerate(raw.rows, 1):
            if isinstance(row, dict) and row.keys() >= Record.model_fields.keys():
                schema.check("record", row, f"{raw.name}, row {number}")
    return SourceFile(raw.name, chosen, raw.sha256, raw.rows, licence, raw.data)


def is_published(file: SourceFile) -> bool:
    """Whether a file is in one of the three published layouts."""
    return file.format.startswith("clm-bench-")


def stored_files(store: Store) -> list[SourceFile]:
    """All imported files of a store, in order of import.

    Raises:
        DamagedStoreError: A row is damaged, or a format unknown, and the store does not read around
            that.
    """
    if unknown := unknown_formats(store):
        store.report_damage(unknown)
    return [
        SourceFile(
            source.name,
            source.format,
            source.sha256,
            store.source_rows(source.id),
            source.licence,
        )
        for source in store.sources()
        if source.format in FORMATS
    ]


def unknown_formats(store: Store) -> list[str]:
    """The imported files of a store whose format this version does not know, as messages."""
    return [
        f"{source_name(vars(source))} (format: this version has no '{source.format}')"
        for source in store.sources()
        if source.format not in FORMATS
    ]


def stored_candidates(store: Store) -> StageResult[Candidate]:
    """The candidates of all imported files of a store."""
    return candidates_of(stored_files(store))
