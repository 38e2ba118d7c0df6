"""Writes review sheets as CSV or XLSX, and reads them as saved by Excel or WPS."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_data.decoding import Recognize
from clm_data.decoding import decode as decode_text
from clm_data.errors import InputFileError, UserError
from clm_data.files import atomic_file
from clm_data.records import LANGUAGES, TEXT_FIELDS
from clm_data.resources import read_text
from clm_data.review.cells import decode, encode
from clm_data.review.queue import Item, describe
from clm_data.review.workbook import Sheet, column_letters, read_workbook

TEXT_COLUMNS: dict[str, str] = {name.replace(".", "_"): name for name in TEXT_FIELDS}
"""Name of a text by the column that holds it: ``zh_prompt`` -> ``zh.prompt``."""
COLUMNS: tuple[str, ...] = (
    "id", "content_hash", "domain", *TEXT_COLUMNS, "problems", "status", "decisions",
    "verdict", "note", "reviewer",
)  # fmt: skip
REQUIRED = ("id", "content_hash", "verdict")
ENCODINGS = {"utf-8-sig": "utf-8-sig", "utf-8": "utf-8", "gb18030": "gb18030"}
"""Encodings for writing CSV; Excel detects ``utf-8-sig`` by itself."""

_WIDTHS = {"id": 18, "content_hash": 10, "domain": 16, "problems": 50, "note": 30}
_DELIMITERS = (",", "\t", ";")
_SEPARATOR = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
_MAX_CSV_CELL = 10_000_000
_HEADER_ROWS = 20
"""Rows in which the header may be, below titles or remarks."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_STAMP = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")


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
    hints: tuple[str, ...] = ()
    """What to look at again: comments, hidden rows."""


def write_csv(items: Iterable[Item], encoding: str = "utf-8-sig") -> bytes:
    """Write items as CSV.

    Lone surrogates, which no encoding can represent, are written as escapes.

    Args:
        items: The items to review.
        encoding: One of :data:`ENCODINGS`.

    Raises:
        UserError: The encoding is not one of these.
    """
    if encoding not in ENCODINGS:
        raise UserError(f"encoding '{encoding}' is not supported; use {', '.join(ENCODINGS)}")
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    writer.writerows(_cells(item) for item in items)
    data = out.getvalue().encode(encoding)
    try:
        certain = decode_text(data, name="") == out.getvalue()
    except InputFileError:
        certain = False
    # A few characters can be read in several encodings; a byte-order mark says which one is used.
    return data if certain else ("\ufeff" + out.getvalue()).encode(encoding)


def write_xlsx(items: Iterable[Item], guidelines: str) -> bytes:
    """Write items as XLSX, with text cells, a frozen header and a drop-down list of verdicts.

    Args:
        items: The items to review.
        guidelines: Text of the second sheet.
    """
    from openpyxl.utils.cell import get_column_letter
    from openpyxl.workbook.workbook import Workbook
    from openpyxl.worksheet.datavalidation import DataValidation

    book: Any = Workbook()  # type: ignore[no-untyped-call]
    sheet = book.active
    sheet.title = "review"
    rows = [COLUMNS, *(_cells(item) for item in items)]
    _fill(sheet, rows)
    for index, name in enumerate(COLUMNS, 1):
        width = 24 if name in TEXT_COLUMNS else _WIDTHS.get(name, 12)
        sheet.column_dimensions[get_column_letter(index)].width = width
    sheet.freeze_panes = "B2"
    choice: Any = DataValidation(type="list", formula1='"accept,reject,fix"')  # type: ignore[no-untyped-call]
    choice.showErrorMessage = False  # 通过, 拒绝, 修改 may be typed instead
    column = get_column_letter(COLUMNS.index("verdict") + 1)
    choice.add(f"{column}2:{column}{max(2, len(rows))}")
    sheet.add_data_validation(choice)
    guide = book.create_sheet("guidelines")
    guide.column_dimensions["A"].width = 110
    _fill(guide, [(encode(line),) for line in guidelines.splitlines()])
    out = io.BytesIO()
    book.save(out)
    return _without_times(out.getvalue())


def write_sheet(
    items: Sequence[Item], path: Path, *, encoding: str = "utf-8-sig", force: bool = False
) -> None:
    """Write a sheet as XLSX or CSV, depending on the file name; the file is written atomically.

    Args:
        items: The items to review.
        path: ``*.csv`` or ``*.xlsx``.
        encoding: Encoding of CSV, one of :data:`ENCODINGS`.
        force: Replace an existing file, which may contain verdicts.

    Raises:
        UserError: The file name or encoding is not supported, the file exists, or it cannot be
            written.
    """
    if path.suffix.lower() not in {".csv", ".xlsx"}:
        raise UserError(f"{path}: the name must end in .csv or .xlsx")
    if path.exists() and not force:
        raise UserError(
            f"{path} exists and may contain verdicts; import it and choose another name, "
            "or replace it with --force"
        )
    if path.suffix.lower() == ".csv":
        data = write_csv(items, encoding)
    else:
        guides = [read_text("review", f"guidelines.{lang}.md") for lang in LANGUAGES]
        data = write_xlsx(items, "\n\n".join(guides))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    with atomic_file(path, overwrite=True) as draft:
        draft.write_bytes(data)


@dataclass(frozen=True)
class ReturnedSheet:
    """The rows of a returned sheet, and what was not read."""

    rows: list[SheetRow]
    unread: tuple[str, ...] = ()
    """Verdicts elsewhere in the workbook, with the remedy."""


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
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error
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
    return ReturnedSheet(rows)


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
    for sheet in sorted(sheets, key=lambda sheet: sheet.name != "review"):
        table = {
            number: {index: cell.text for index, cell in row.items()}
            for number, row in sheet.rows.items()
        }
        try:
            found.append((sheet, *_header(table, path, sheet.name)))
        except InputFileError as error:
            errors.append(error)
    if not found:
        filled = [error for error in errors if "is empty" not in str(error)]
        raise (filled or errors or [InputFileError(f"{path}: has no sheets")])[0]
    sheet, header, columns = found[0]
    rows = [
        _workbook_row(sheet, number, columns)
        for number, row in sorted(sheet.rows.items())
        if number > header and any(_filled(cell.text) or cell.issue for cell in row.values())
    ]
    unread = []
    for other, other_header, other_columns in found[1:]:
        at = other_columns["verdict"]
        count = sum(at in row for number, row in other.rows.items() if number > other_header)
        if count:
            unread.append(
                f"sheet '{other.name}' also has {count} verdict(s), "
                f"not read; move them to sheet '{sheet.name}', or import that sheet as its own file"
            )
    return ReturnedSheet(rows, tuple(unread))


_CHECKED_COLUMNS = frozenset({"id", "content_hash", *TEXT_COLUMNS, "verdict", "note", "reviewer"})


def _workbook_row(sheet: Sheet, number: int, columns: Mapping[str, int]) -> SheetRow:
    cells, retyped, issues, hints = {}, set(), {}, []
    for name, index in columns.items():
        cell = sheet.rows[number].get(index)
        cells[name] = decode(cell.text) if cell is not None else ""
        place = f"{column_letters(index)}{number}"
        if cell is not None and not cell.is_text:
            retyped.add(name)
        if cell is not None and cell.issue and name in _CHECKED_COLUMNS:
            issues[name] = f"{name} ({place}) {cell.issue}"
        comment = sheet.comments.get((number, index))
        if comment:
            hints.append(
                f"{name} ({place}) has a comment, not read: '{comment[:60]}'; use the note"
            )
    for top, bottom, left, right in sheet.merged:
        for name, index in columns.items():
            if top < number <= bottom and left <= index <= right and name in _CHECKED_COLUMNS:
                area = f"{column_letters(left)}{top}:{column_letters(right)}{bottom}"
                issues[name] = f"{name} lies under the merged cells {area}; unmerge, and fill each"
    if number in sheet.hidden and cells["verdict"].strip():
        hints.append("the row is hidden or filtered out, but has a verdict")
    return SheetRow(number, cells, frozenset(retyped), issues, tuple(hints))


def _cells(item: Item) -> list[str]:
    values = {
        "id": item.id,
        "content_hash": item.content_hash,
        "domain": item.domain or "",
        "problems": describe(item.problems),
        "status": item.status,
        "decisions": str(item.decisions),
    }
    values |= {column: item.texts[name] for column, name in TEXT_COLUMNS.items()}
    return [encode(values.get(column, "")) for column in COLUMNS]


def _fill(sheet: Any, rows: Iterable[Sequence[str]]) -> None:
    from openpyxl.styles.alignment import Alignment

    wrap = Alignment(wrap_text=True, vertical="top")  # type: ignore[no-untyped-call]
    for number, row in enumerate(rows, 1):
        for index, text in enumerate(row, 1):
            cell = sheet.cell(row=number, column=index, value=text or None)
            cell.number_format = "@"
            cell.alignment = wrap
            if text:
                cell.data_type = "s"  # also what looks like a formula or an error value


def _without_times(data: bytes) -> bytes:
    """Remove times from a workbook, so that equal items give equal bytes."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name == "docProps/core.xml":
                content = _STAMP.sub(rb"\g<1>1980-01-01T00:00:00Z", content)
            info = zipfile.ZipInfo(name, _ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, content)
    return out.getvalue()


def _read_csv(text: str, path: Path) -> dict[int, list[str]]:
    """The filled rows by number; Excel's ``sep=`` line counts as a row."""
    named = _SEPARATOR.match(text)
    skipped = 1 if named else 0
    body = text[named.end() :] if named else text
    header = next((line for line in body.splitlines() if line.strip(",;\t \"'")), "")
    delimiter = named[1] if named else max(_DELIMITERS, key=header.count)
    limit = csv.field_size_limit(_MAX_CSV_CELL)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    try:
        return dict(enumerate(reader, 1 + skipped))
    except csv.Error as error:
        raise InputFileError(
            f"{path}: not valid CSV (line {reader.line_num + skipped}: {error}); double the "
            "quotation marks inside a quoted cell, or save a truncated file again"
        ) from error
    finally:
        csv.field_size_limit(limit)


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
