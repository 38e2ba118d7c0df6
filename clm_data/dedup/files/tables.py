"""What the sources of rows have in common: the interface, format names and field lookup."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from clm_data.dedup.join.all_pairs import Progress
from clm_data.errors import InputFileError

MISSING: Any = object()
"""The cell of a row that lacks the field."""
HUB_PREFIX = "hub:"
FORMATS = ("jsonl", "json", "csv", "parquet")
ENDINGS = {
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "csv": (".csv", ".tsv", ".txt"),
    "parquet": (".parquet", ".pq"),
}
"""File name endings of each format, the usual one first."""


class Table(Protocol):
    """A source of rows that can be read more than once.

    Attributes:
        name: How messages and reports refer to the source.
        format: The format that :meth:`write` produces, one of :data:`FORMATS`.
    """

    name: str
    format: str

    @property
    def path(self) -> Path | None:
        """The input file; None for rows in memory or on the Hub."""

    def read(
        self, fields: Sequence[str], progress: Progress
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield the location of each row and its cells, :data:`MISSING` if it lacks the field.

        Args:
            fields: Column names, or dotted paths into objects such as ``zh.prompt``.
            progress: Called with the bytes or rows read so far, and their total.

        Raises:
            InputFileError: The source is unreadable or malformed.
            UnknownNameError: No such column, for formats with a fixed set of columns.
        """
        ...

    def write(self, keep: Sequence[int], out: Path, progress: Progress) -> None:
        """Write the selected rows in their original order.

        Args:
            keep: One value per row, nonzero to select the row.
            out: The file to write.
            progress: Called with the bytes or rows processed so far, and their total.

        Raises:
            InputFileError: The number of rows has changed since they were read.
            OSError: ``out`` cannot be written.
        """
        ...

    def select(self, keep: Sequence[int]) -> Sequence[dict[str, Any]]:
        """The selected rows in their original order; a file is read again.

        Args:
            keep: One value per row, nonzero to select the row.

        Raises:
            InputFileError: The number of rows has changed since they were read.
        """
        ...


def lookup(row: dict[str, Any], field: str) -> Any:
    """The cell named ``field``, else the one at that dotted path, else :data:`MISSING`."""
    if field in row:
        return row[field]
    head, _, rest = field.partition(".")
    inner = row.get(head)
    return lookup(inner, rest) if rest and isinstance(inner, dict) else MISSING


def as_row(value: Any, location: str) -> dict[str, Any]:
    """Check that a value is an object.

    Raises:
        InputFileError: It is not.
    """
    if isinstance(value, dict):
        return value
    kind = {list: "a list", str: "a string", bool: "true or false"}.get(type(value), "no object")
    raise InputFileError(f"{location}: a row must be an object with fields, this is {kind}")


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON with non-ASCII characters as they are and lone surrogates escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
