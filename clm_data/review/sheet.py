"""Writes review sheets as CSV or XLSX, and reads them as saved by Excel or WPS."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clm_data.decoding import decode as decode_text
from clm_data.errors import InputFileError, UserError
from clm_data.files import atomic_file
from clm_data.records import LANGUAGES, TEXT_FIELDS
from clm_data.resources import read_text
from clm_data.review.cells import encode
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
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_STAMP = re.compile(rb"(<dcterms:(?:created|modified)[^>]*>)[^<]*")


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
