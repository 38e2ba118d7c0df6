"""Writes review sheets as CSV or XLSX, and reads them as saved by Excel or WPS."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError, UserError
from clm_data.files import atomic_file
from clm_data.records import LANGUAGES, TEXT_FIELDS
from clm_data.resources import read_text
from clm_data.review.cells import decode, encode
from clm_data.review.queue import Item, describe

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
    if _decode_bytes(data) != out.getvalue():
        # A few bytes can be valid in both encodings; a byte-order mark says which one is used.
        data = ("\ufeff" + out.getvalue()).encode(encoding)
    return data


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


def read_sheet(path: Path) -> list[SheetRow]:
    """Read a returned sheet; empty rows are skipped.

    Accepts XLSX, and CSV with commas, semicolons or tabs in UTF-8, GB18030 or, with a byte-order
    mark, UTF-16; the content decides which. Columns may have any order, and their names any case.

    Raises:
        InputFileError: The file is none of these, or a required column is missing or duplicated.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if data.startswith(b"PK\x03\x04"):
        table, all_retyped = _read_xlsx(data, path), False
    elif data.startswith(b"\xd0\xcf\x11\xe0"):
        raise InputFileError(
            f"{path}: old .xls format; save the sheet as .xlsx or CSV and import that"
        )
    else:
        table, all_retyped = _read_csv(data, path), True
    filled = [(number, row) for number, row in enumerate(table, 1) if any(map(_filled, row))]
    if not filled:
        raise InputFileError(f"{path}: the file is empty; import a sheet written by review export")
    columns = _columns(filled[0][1], path)
    rows = []
    for number, row in filled[1:]:
        cells, retyped = {}, set()
        for name, index in columns.items():
            value = row[index] if index < len(row) else None
            cells[name] = decode(_text(value))
            if all_retyped or not isinstance(value, str | None):
                retyped.add(name)
        rows.append(SheetRow(number, cells, frozenset(retyped)))
    return rows


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


def _decode_bytes(data: bytes) -> str | None:
    """Decode a CSV file; None if it has none of the supported encodings."""
    guesses = ["utf-8-sig", "gb18030"]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        guesses = ["utf-16"]
    for encoding in guesses:
        try:
            return data.decode(encoding).removeprefix("\ufeff")
        except UnicodeDecodeError:
            continue
    return None


def _read_csv(data: bytes, path: Path) -> Sequence[Sequence[Any]]:
    text = _decode_bytes(data)
    if text is None:
        raise InputFileError(
            f'{path}: neither UTF-8 nor GB18030; save it as "CSV UTF-8" or .xlsx and import that'
        )
    header = next((line for line in text.splitlines() if line.strip(",;\t \"'")), "")
    delimiter = max(_DELIMITERS, key=header.count)
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputFileError(
            f"{path}: not valid CSV ({error}); if the file is truncated, save the sheet again"
        ) from error


def _read_xlsx(data: bytes, path: Path) -> Sequence[Sequence[Any]]:
    from openpyxl.reader.excel import load_workbook

    try:
        book = load_workbook(io.BytesIO(data))  # type: ignore[no-untyped-call]
    except Exception as error:  # openpyxl passes on any error of its XML and zip layers
        raise InputFileError(
            f"{path}: cannot be read as XLSX; open it and save it as .xlsx again"
        ) from error
    sheet = book["review"] if "review" in book.sheetnames else book.worksheets[0]
    return list(sheet.iter_rows(values_only=True))


def _columns(header: Sequence[Any], path: Path) -> dict[str, int]:
    """Index of each known column in a header row."""
    known = {_name(column): column for column in COLUMNS}
    found: dict[str, int] = {}
    for index, cell in enumerate(header):
        column = known.get(_name(_text(cell)))
        if column in found:
            raise InputFileError(f"{path}: column '{column}' appears twice; delete one of them")
        if column is not None:
            found[column] = index
    missing = [column for column in REQUIRED if column not in found]
    if missing:
        raise InputFileError(
            f"{path}: column '{missing[0]}' is missing; the first row must contain the "
            "column names written by review export"
        )
    return found


def _name(header: str) -> str:
    return re.sub(r"[\s_\-]+", "", unicodedata.normalize("NFKC", header).casefold())


def _filled(value: Any) -> bool:
    return value is not None and bool(_text(value).strip())


def _text(value: Any) -> str:
    """The text of a workbook cell; numbers and dates in their simplest form."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)
