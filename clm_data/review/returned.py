"""Reads returned sheets: CSV and XLSX as saved by Excel, WPS, LibreOffice and others."""

from __future__ import annotations

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clm_data.csv_text import CsvFaultError, CsvText
from clm_data.decoding import Recognize
from clm_data.decoding import decode as decode_text
from clm_data.errors import InputFileError
from clm_data.files import read_bytes
from clm_data.review.cells import decode
from clm_data.review.sheet import COLUMNS, REQUIRED, TEXT_COLUMNS
from clm_data.review.workbook import Sheet, column_letters, read_workbook

_HIDDEN_ROW = re.compile(r"[\r\n].*?(?<![0-9a-fA-F])([0-9a-fA-F]{64})(?![0-9a-fA-F])")
"""A content hash in a cell after a line break."""
_MAX_CSV_CELL = 10_000_000
_HEADER_ROWS = 20
"""Rows in which the header may be, below titles or remarks."""
_CHECKED_COLUMNS = frozenset({"id", "content_hash", *TEXT_COLUMNS, "verdict", "note", "reviewer"})


@dataclass(frozen=True)
class SheetRow:
    """One row of a returned sheet."""

    number: int
    """Row number as in a spreadsheet, where the header is row 1."""
    cells: Mapping[str, str]
    """Decoded text by column; columns missing from the file are missing here."""
    retyped: frozenset[str] = field(default_factory=frozenset)
    """Columns whose cell a spreadsheet program may have changed by itself: all columns in CSV, and
    cells that are no longer text in XLSX."""
    issues: Mapping[str, str] = field(default_factory=dict)
    """By column: the cell and why it does not hold what a person typed, with the remedy."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """By column: why a changed text is not an edit."""
    hints: tuple[str, ...] = ()
    """What to look at again: comments, hidden rows."""

    def cell(self, column: str) -> str:
        """The text of a column without the space around it; empty if the file lacks the column."""
        return self.cells.get(column, "").strip()


@dataclass(frozen=True)
class ReturnedSheet:
    """The rows of a returned sheet, and what was not read."""

    rows: list[SheetRow]
    unread: tuple[str, ...] = ()
    """Verdicts elsewhere in the workbook, and columns of others, with the remedy."""


def read_sheet(
    path: Path, *, encoding: str | None = None, known: Recognize | None = None
) -> list[SheetRow]:
    """The rows of :func:`read_returned`."""
    return read_returned(path, encoding=encoding, known=known).rows


def read_returned(
    path: Path, *, encoding: str | None = None, known: Recognize | None = None
) -> ReturnedSheet:
    """Read a returned sheet; empty rows are skipped.

    Accepts XLSX, and CSV with commas, semicolons or tabs; the content decides which. Columns may
    have any order, and their names any case; the header is the first row with the required columns.

    Args:
        path: The sheet.
        encoding: Encoding of CSV; default: as in :func:`clm_data.decoding.decode`.
        known: Recognizes the exported texts in CSV of an uncertain encoding.

    Raises:
        InputFileError: The file is none of these, or a required column is missing or duplicated.
    """
    data = read_bytes(path)
    if data.startswith(b"PK\x03\x04"):
        return returned_from_workbook(read_workbook(data, path), path)
    _check_kind(data, path)
    table = _read_csv(decode_text(data, name=str(path), encoding=encoding, known=known), path)
    numbered = {number: dict(enumerate(row, 1)) for number, row in table.items()}
    header, columns = _header(numbered, path)
    rows = []
    for number, row in numbered.items():
        if number > header and any(map(_filled, row.values())):
            cells = {name: decode(row.get(index, "")) for name, index in columns.items()}
            rows.append(SheetRow(number, cells, frozenset(columns)))
    return ReturnedSheet(rows, tuple(_other_columns(numbered, header, columns)))


def _check_kind(data: bytes, path: Path) -> None:
    remedy = "save the sheet as .xlsx or CSV UTF-8 and import that"
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise InputFileError(
                f"{path}: protected by a password; remove the password and {remedy}"
            )
        raise InputFileError(f"{path}: old .xls format; {remedy}")
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].lower()
    if start.startswith((b"<html", b"<!doctype", b"<table", b"<?xml", b"<meta", b"mime-version")):
        raise InputFileError(f"{path}: a web page or XML, not a sheet; {remedy}")


def returned_from_workbook(sheets: Sequence[Sheet], path: Path) -> ReturnedSheet:
    """The rows of the sheet that has the required columns, preferably the one named ``review``.

    Raises:
        InputFileError: No sheet has them.
    """
    found: list[tuple[Sheet, int, dict[str, int]]] = []
    errors: list[InputFileError] = []
    unread: list[str] = []
    for sheet in sorted(sheets, key=lambda sheet: sheet.name != "review"):
        try:
            found.append((sheet, *_header(_table(sheet), path, sheet.name)))
        except InputFileError as error:
            errors.append(error)
            unread += _unread(sheet, *_verdict_header(sheet))
    if not found:
        filled = [error for error in errors if "is empty" not in str(error)]
        raise (filled or errors or [InputFileError(f"{path}: has no sheets")])[0]
    sheet, header, columns = found[0]
    rows = [
        _workbook_row(sheet, number, columns)
        for number, row in sorted(sheet.rows.items())
        if number > header and any(_filled(cell.text) or cell.issue for cell in row.values())
    ]
    for other, other_header, other_columns in found[1:]:
        unread += _unread(other, other_header, other_columns["verdict"])
    unread += _other_columns(_table(sheet), header, columns)
    return ReturnedSheet(rows, tuple(unread))


def _table(sheet: Sheet) -> dict[int, dict[int, str]]:
    return {
        number: {index: cell.text for index, cell in row.items()}
        for number, row in sorted(sheet.rows.items())
    }


def _verdict_header(sheet: Sheet) -> tuple[int, int]:
    """Row and column of the header ``verdict`` of a sheet without the other columns, or zeros."""
    for number, row in sorted(sheet.rows.items())[:_HEADER_ROWS]:
        for index, cell in row.items():
            if _name(cell.text) == "verdict":
                return number, index
    return 0, 0


def _unread(sheet: Sheet, header: int, column: int) -> list[str]:
    count = sum(column in row for number, row in sheet.rows.items() if number > header)
    if not column or not count:
        return []
    return [
        f"sheet '{sheet.name}' also has {count} verdict(s), not read; move them to the sheet that "
        "was exported, or import that sheet as its own file"
    ]


def _other_columns(
    table: Mapping[int, Mapping[int, str]], header: int, columns: Mapping[str, int]
) -> list[str]:
    """Columns with texts that are not among the exported ones, with the remedy."""
    cells: Counter[int] = Counter()
    for number, row in table.items():
        if number > header:
            cells.update(index for index, text in row.items() if _filled(text))
    missing = [column for column in TEXT_COLUMNS if column not in columns]
    remedy = "move what reviewers wrote to the column 'note'"
    if missing:
        remedy = f"'{missing[0]}' is missing: restore its name if it was renamed, or {remedy}"
    lines = []
    for index in sorted(cells.keys() - set(columns.values())):
        name = table[header].get(index, "").strip()[:40]
        shown = f"'{name}'" if name else f"{column_letters(index)} (without a name)"
        texts = "text is" if cells[index] == 1 else "texts are"
        lines.append(
            f"column {shown} was not exported: its {cells[index]} {texts} not read; {remedy}"
        )
    return lines


def _workbook_row(sheet: Sheet, number: int, columns: Mapping[str, int]) -> SheetRow:
    cells, retyped, issues, doubts, hints = {}, set(), {}, {}, []
    for name, index in columns.items():
        cell = sheet.rows[number].get(index)
        cells[name] = decode(cell.text) if cell is not None else ""
        place = f"{column_letters(index)}{number}"
        if cell is not None and not cell.is_text:
            retyped.add(name)
        if cell is not None and cell.issue and name in _CHECKED_COLUMNS:
            issues[name] = f"{name} ({place}) {cell.issue}"
        if cell is not None and cell.doubt:
            doubts[name] = f"{place} {cell.doubt}"
        if sheet.comments.get((number, index)):
            hints.append(f"{name} ({place}) has a comment, not read; use the column note")
    for top, bottom, left, right in sheet.merged:
        for name, index in columns.items():
            if top < number <= bottom and left <= index <= right and name in _CHECKED_COLUMNS:
                area = f"{column_letters(left)}{top}:{column_letters(right)}{bottom}"
                issues[name] = f"{name} lies under the merged cells {area}; unmerge, and fill each"
    if number in sheet.hidden and _filled(cells["verdict"]):
        hints.append("the row is hidden or filtered out, but has a verdict")
    return SheetRow(number, cells, frozenset(retyped), issues, doubts, tuple(hints))


def _read_csv(text: str, path: Path) -> dict[int, list[str]]:
    """The rows by number. Excel does not show, nor count, the line ``sep=``.

    A sheet with a wrong quotation mark is refused as a whole: the mark may have hidden other rows.
    """
    records = CsvText(io.StringIO(text, newline=""), _MAX_CSV_CELL)
    rows = {}
    try:
        for number, record in enumerate(records, 1):
            hidden = next(filter(None, map(_HIDDEN_ROW.search, record.cells)), None)
            if hidden:
                raise CsvFaultError(
                    record.first,
                    f"row {number} hides another row inside a cell, with the content hash "
                    f"{hidden[1][:8]}...; close the quotation mark of that cell",
                )
            rows[number] = record.cells
    except CsvFaultError as error:
        raise InputFileError(f"{path}:{error.line}: not valid CSV: {error}") from error
    return rows


def _header(
    table: Mapping[int, Mapping[int, str]], path: Path, sheet: str | None = None
) -> tuple[int, dict[str, int]]:
    """The number of the header row and the index of each known column."""
    place = f"{path}: sheet '{sheet}'" if sheet is not None else str(path)
    filled = [(number, row) for number, row in table.items() if any(map(_filled, row.values()))]
    if not filled:
        raise InputFileError(f"{place}: the file is empty; import a sheet written by review export")
    names = {_name(column): column for column in COLUMNS}
    best: dict[str, int] = {}
    for number, row in filled[:_HEADER_ROWS]:
        found: dict[str, int] = {}
        twice = None
        for index, cell in row.items():
            column = names.get(_name(cell))
            if column in found:
                twice = column
            elif column is not None:
                found[column] = index
        if set(REQUIRED) <= set(found):
            if twice is not None:
                raise InputFileError(f"{place}: column '{twice}' appears twice; delete one of them")
            return number, found
        best = max(best, found, key=len)
    missing = next(column for column in REQUIRED if column not in best)
    raise InputFileError(
        f"{place}: column '{missing}' is missing; one row must contain the column names of "
        f"review export ({', '.join(REQUIRED)}, ...)"
    )


def _filled(text: str) -> bool:
    return bool(text.strip())


def _name(header: str) -> str:
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", header).casefold())
