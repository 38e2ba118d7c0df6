"""Rows in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from clm_data.dedup.files.tables import MISSING, as_row, dump_json, lookup
from clm_data.dedup.join.all_pairs import Progress
from clm_data.errors import InputFileError
from clm_data.records import json_value

_PROGRESS_ROWS = 16_384


class RowTable:
    """A sequence of dicts; they are written as JSON Lines."""

    name = "rows"
    format = "jsonl"
    path = None

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = rows

    def read(
        self, fields: Sequence[str], progress: Progress
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield the location (``rows[0]``) and cells of every row."""
        for index, value in enumerate(self._rows):
            location = f"{self.name}[{index}]"
            row = as_row(value, location)
            yield location, tuple(_cell(lookup(row, field)) for field in fields)
            if index % _PROGRESS_ROWS == 0:
                progress(index, len(self._rows))
        progress(len(self._rows), len(self._rows))

    def write(self, keep: Sequence[int], out: Path, progress: Progress) -> None:
        """Write the selected rows as JSON Lines; NaN becomes null, as JSON does not have it."""
        with out.open("w", encoding="utf-8", newline="\n") as file:
            for index, row in enumerate(self._rows):
                if keep[index]:
                    file.write(self._json(row, index) + "\n")
        progress(len(self._rows), len(self._rows))

    def select(self, keep: Sequence[int]) -> list[dict[str, Any]]:
        """The selected rows: the same objects."""
        return list(compress(self._rows, keep))

    def _json(self, row: dict[str, Any], index: int) -> str:
        try:
            return dump_json(json_value(row))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputFileError(
                f"{self.name}[{index}]: cannot be written as JSON: {error}"
            ) from error


def _cell(value: Any) -> Any:
    return value if isinstance(value, str) or value is MISSING else json_value(value)
