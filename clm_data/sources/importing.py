"""Importing files into a workspace's store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clm_data.config import Workspace
from clm_data.errors import InputFileError
from clm_data.sources import is_published, read_file, stored_candidates, stored_files
from clm_data.sources.files import RawFile
from clm_data.sources.notices import Reading, pairing_notes, reading_of
from clm_data.store import Store
from clm_data.tabular import Tabular


@dataclass(frozen=True)
class FileImport:
    """The result of importing one file."""

    file: Path
    format: str = ""
    """A name in :data:`clm_data.sources.FORMATS`; empty if the file could not be read."""
    rows: int = 0
    is_new: bool = False
    """False if the store already holds a file with the same bytes."""
    error: str | None = None
    """Why the file could not be read."""
    reading: Reading = field(default_factory=Reading)
    """Rows that cannot be used, and fields that are not read."""

    @property
    def is_useless(self) -> bool:
        """Whether no row of the file can be used."""
        return self.error is None and self.rows > 0 and self.reading.candidates == 0

    def as_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        if self.error is not None:
            return {"file": str(self.file), "error": self.error}
        return {
            "file": str(self.file),
            "format": self.format,
            "rows": self.rows,
            "state": "new" if self.is_new else "already there",
            **self.reading.as_json(),
        }


@dataclass(frozen=True)
class ImportResult(Tabular):
    """The result of :func:`import_files`."""

    files: tuple[FileImport, ...]
    """In the order given."""
    candidates: int
    """Candidates in all imported files of the store, earlier imports included."""
    pairing: tuple[str, ...] = ()
    """Chinese and English files in the store that were paired without ids, or not paired."""

    @property
    def failed(self) -> tuple[FileImport, ...]:
        """The files that could not be read."""
        return tuple(file for file in self.files if file.error is not None)

    @property
    def useless(self) -> tuple[FileImport, ...]:
        """The files that were stored but have no usable row."""
        return tuple(file for file in self.files if file.is_useless)

    def table_title(self) -> str:
        """Files and candidates."""
        return f"{len(self.files)} files, {self.candidates} candidates in the workspace"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each file."""
        return [
            {
                "file": str(file.file),
                "format": file.format,
                "rows": file.rows,
                "is_new": file.is_new,
                "error": file.error,
                "candidates": file.reading.candidates,
            }
            for file in self.files
        ]

    def as_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "files": [file.as_json() for file in self.files],
            "candidates": self.candidates,
            "pairing": list(self.pairing),
        }


def import_files(
    workspace: Workspace,
    files: Sequence[Path | RawFile],
    *,
    format: str | None = None,
    licence: str | None = None,
    encoding: str | None = None,
) -> ImportResult:
    """Store the rows of files unchanged; a file with the same bytes is stored only once.

    A file that cannot be read is reported in the result, and the others are imported.

    Args:
        workspace: The workspace that stores the rows.
        files: JSON lists, JSON Lines or CSV files; or rows that are in memory already.
        format: A name in :data:`clm_data.sources.FORMATS`; default: detected from the fields.
        licence: License of the content, if known.
        encoding: Encoding of the files; default: found if it is certain.

    Raises:
        UnknownNameError: There is no such format.
    """
    with workspace.open_store(create=True) as store:
        results = tuple(_import_file(store, file, format, licence, encoding) for file in files)
        pairing = tuple(pairing_notes(stored_files(store)))
        return ImportResult(results, len(stored_candidates(store).kept), pairing)


def _import_file(
    store: Store,
    given: Path | RawFile,
    format: str | None,
    licence: str | None,
    encoding: str | None,
) -> FileImport:
    file = given if isinstance(given, Path) else Path(given.name)
    try:
        source = read_file(given, format, licence, encoding)
    except InputFileError as error:
        return FileImport(file, error=str(error))
    is_new = store.add_source(
        source.name,
        source.format,
        source.sha256,
        licence,
        source.rows,
        source.data if is_published(source) else b"",
    )
    if not is_new:
        stored = next(each for each in store.sources() if each.sha256 == source.sha256)
        for name, given_value, kept in (
            ("format", format, stored.format),
            ("license", licence, stored.licence),
        ):
            if given_value is not None and given_value != kept:
                reason = f"already stored with {name} {kept or 'unknown'}, which stays"
                remedy = f"import into a new workspace for {name} {given_value}"
                return FileImport(file, error=f"{file}: {reason}; {remedy}")
        source = replace(source, format=stored.format)
    reading = reading_of([source])
    return FileImport(file, source.format, len(source.rows), is_new, reading=reading)
