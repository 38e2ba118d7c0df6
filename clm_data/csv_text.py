"""CSV as text: its delimiter, its records with their lines, and where a quotation mark is wrong."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

DELIMITERS = (",", "\t", ";")
_SEPARATOR_LINE = re.compile(r'sep=([^\r\n"])(?:\r\n|\r|\n)?', re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\r|\n")
_CELL = re.compile(r'"(?P<quoted>[^"]*(?:""[^"]*)*)(?P<closed>"?)')


class CsvFaultError(ValueError):
    """Text that is not valid CSV; the message says how to fix it.

    Attributes:
        line: The line of the fault: where the cell opens that a quotation mark fails to close.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class CsvRecord:
    """The cells of one record, and its first and last line."""

    cells: list[str]
    first: int
    last: int


class CsvText:
    """The records of a CSV text, empty ones included.

    The delimiter is the one that the line ``sep=`` of Excel names, or else the most frequent of
    comma, tab and semicolon in the first line with text. Iterating gives the records once.

    Args:
        lines: The lines with their line ends.
        max_cell: Most characters in a cell.

    Attributes:
        delimiter: The delimiter.
        separator_line: Whether the first line is ``sep=``, which is no record. Lines count from it.
    """

    def __init__(self, lines: Iterable[str], max_cell: int) -> None:
        lines = iter(lines)
        head = [line] if (line := next(lines, "")) else []
        named = _SEPARATOR_LINE.fullmatch(line)
        if named:
            head = []
        while not named and not line.strip(",;\t \"'\r\n") and (line := next(lines, "")):
            head.append(line)
        self.separator_line = named is not None
        self.delimiter = named[1] if named else max(DELIMITERS, key=line.count)
        self._lines = chain(head, lines)
        self._max_cell = max_cell

    def __iter__(self) -> Iterator[CsvRecord]:
        """The records.

        Raises:
            CsvFaultError: The text is not valid CSV, or a cell is too long.
        """
        waiting: list[str] = []

        def remembered() -> Iterator[str]:
            for line in self._lines:
                waiting.append(line)
                yield line

        reader = csv.reader(remembered(), delimiter=self.delimiter, strict=True)
        first = 2 if self.separator_line else 1
        while True:
            usual = csv.field_size_limit(self._max_cell)
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise self._fault("".join(waiting), first, error) from error
            finally:
                csv.field_size_limit(usual)
            if cells is None:
                return
            yield CsvRecord(cells, first, first + len(waiting) - 1)
            first += len(waiting)
            waiting.clear()

    def _fault(self, record: str, first: int, error: csv.Error) -> CsvFaultError:
        """Why a record, of which the lines read so far are given, is not valid."""
        line, at = first, 0
        while at < len(record):
            found = _CELL.match(record, at)
            end = found.end() if found else at
            opened, line = line, line + _line_ends(record[at:end])
            if found and len(found["quoted"]) > self._max_cell:
                return CsvFaultError(opened, self._too_long)
            after = record[end : end + 1]
            if found and not found["closed"]:
                return CsvFaultError(
                    opened,
                    "a quotation mark opens a cell here and is never closed; close it at the end "
                    "of the cell, or save the file again if it was cut off",
                )
            if found and after not in {self.delimiter, "\r", "\n", ""}:
                where = f"line {line}, " if line > opened else ""
                text = record[end : end + 10].splitlines()[0]
                return CsvFaultError(
                    opened,
                    "a quotation mark opens a cell here, and the one that should close it is "
                    f"inside a text ({where}before '{text}'); close the cell at its end, and "
                    "double the quotation marks inside it",
                )
            next_at = record.find(self.delimiter, end)
            next_at = len(record) if next_at < 0 else next_at + 1
            if next_at - end > self._max_cell:
                return CsvFaultError(line, self._too_long)
            line += _line_ends(record[end:next_at])
            at = next_at
        return CsvFaultError(line, str(error))

    @property
    def _too_long(self) -> str:
        return (
            f"a cell of more than {self._max_cell:,} characters begins here; shorten it, or close "
            "its quotation mark"
        )


def _line_ends(text: str) -> int:
    return len(_LINE_END.findall(text))
