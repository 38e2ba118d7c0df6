"""Reads XLSX workbooks in one pass and within limits, as a person sees them.

Only cells that are filled cost memory, however far down or right they are. What a program computed
or a person marked (formulas, error values, struck-out text, merged cells, comments, hidden rows)
is kept with each cell or row, so that the import can say so.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, iterparse

from clm_data.errors import InputFileError

MAX_PART = 64 * 1024 * 1024
"""Largest part of a workbook, in bytes of XML."""
MAX_CELLS = 5_000_000
"""Most filled cells of a sheet."""
_MAX_COLUMN = 512
_MAX_HELD = 200_000
_MAX_MERGED = 2_000
_MAX_STRINGS = 500_000

_PLAIN_FORMATS = {0, 1, 49}  # General, 0, text
_DATE_FORMATS = {*range(14, 23), *range(27, 37), 45, 46, 47, *range(50, 59)}
_REFERENCE = re.compile(r"([A-Z]{1,3})(\d+)")


@dataclass(frozen=True, slots=True)
class Cell:
    """A filled cell, or one with a formula."""

    text: str
    is_text: bool = True
    """Whether the workbook stores it as text, so that no program has rewritten it."""
    issue: str | None = None
    """Why the text is not what a person typed, with the remedy."""
    doubt: str | None = None
    """Why the text is not an edit, if it differs from the exported one."""


@dataclass
class Sheet:
    """The filled cells of a sheet; rows and columns are counted from 1."""

    name: str
    rows: dict[int, dict[int, Cell]] = field(default_factory=dict)
    merged: list[tuple[int, int, int, int]] = field(default_factory=list)
    """First and last row, first and last column."""
    hidden: set[int] = field(default_factory=set)
    comments: dict[tuple[int, int], str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Style:
    format: int | str = 0
    struck: bool = False


def column_letters(number: int) -> str:
    """The letters of a column: 1 is A, 27 is AA."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def read_workbook(data: bytes, path: Path) -> list[Sheet]:
    """All sheets of a workbook, in its order.

    Raises:
        InputFileError: Not a workbook, damaged, or larger than the limits.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _Workbook(archive, path).sheets()
    except (
        zipfile.BadZipFile, ParseError, KeyError, ValueError, IndexError, OverflowError,
        NotImplementedError, RuntimeError, EOFError, OSError, zlib.error,
    ) as error:  # fmt: skip
        raise InputFileError(
            f"{path}: cannot be read as XLSX; open it and save it as .xlsx again"
        ) from error


class _Workbook:
    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive = archive
        self.path = path
        self.names = {name.lstrip("/").lower(): name for name in archive.namelist()}
        self.strings: list[Cell] = []
        self.styles: list[_Style] = []
        self.epoch_1904 = False

    def sheets(self) -> list[Sheet]:
        self._check_kind()
        main = next(
            (
                target
                for kind, target in self._relations("", "").values()
                if kind == "officeDocument"
            ),
            "xl/workbook.xml",
        )
        relations = self._relations(posixpath.dirname(main), posixpath.basename(main))
        for kind, target in relations.values():
            if kind == "sharedStrings":
                self.strings = self._read_strings(target)
            elif kind == "styles":
                self.styles = self._read_styles(target)
        found = []
        for element in self._elements(main, "sheet", "workbookPr"):
            if _tag(element) == "workbookPr":
                self.epoch_1904 = element.get("date1904") in ("1", "true")
                continue
            id_ = next((value for key, value in element.items() if key.endswith("}id")), "")
            kind, target = relations.get(id_, ("", ""))
            if kind == "worksheet":
                found.append((element.get("name") or "", target))
        return [self._sheet(name, target) for name, target in found]

    def _check_kind(self) -> None:
        kind = b""
        if "mimetype" in self.names:
            with self.archive.open(self.names["mimetype"]) as file:
                kind = file.read(100)
        if b"opendocument" in kind or any(name.startswith("index/") for name in self.names):
            raise InputFileError(
                f"{self.path}: not an Excel workbook (ODS or Numbers); "
                "save the sheet as .xlsx or CSV UTF-8 and import that"
            )

    def _relations(self, folder: str, name: str) -> dict[str, tuple[str, str]]:
        """The kind and the target of each relation of a part, by id."""
        part = posixpath.join(folder, "_rels", f"{name}.rels")
        if part.lower() not in self.names:
            return {}
        return {
            element.get("Id", ""): (
                element.get("Type", "").rsplit("/", 1)[-1],
                posixpath.normpath(posixpath.join("/" + folder, element.get("Target", ""))).lstrip(
                    "/"
                ),
            )
            for element in self._elements(part, "Relationship")
        }

    def _elements(self, part: str, *tags: str) -> Iterator[Element]:
        """The elements of a part with these tags; each is emptied after use."""
        info = self.archive.getinfo(self.names[part.lower()])
        if info.file_size > MAX_PART:
            raise InputFileError(
                f"{self.path}: {part} holds {info.file_size >> 20} MB; at most {MAX_PART >> 20} MB "
                "are read: delete what is not part of the sheet, or export fewer entries"
            )
        open_elements: list[Element] = []
        held = 0
        with self.archive.open(info) as file:
            for event, element in iterparse(file, ("start", "end")):
                if event == "start":
                    open_elements.append(element)
                    held += 1
                    if held > _MAX_HELD:
                        raise InputFileError(
                            f"{self.path}: {part} has an element of over {_MAX_HELD} parts; "
                            "export the entries again"
                        )
                    continue
                open_elements.pop()
                if _tag(element) in tags:
                    yield element
                elif any(_tag(parent) in tags for parent in open_elements):
                    continue  # part of an element that is still to come
                element.clear()
                held = 0
                if open_elements:
                    open_elements[-1].remove(element)

    def _read_strings(self, part: str) -> list[Cell]:
        strings: list[Cell] = []
        for item in self._elements(part, "si"):
            if len(strings) >= _MAX_STRINGS:
                raise InputFileError(
                    f"{self.path}: over {_MAX_STRINGS} different texts; export fewer entries"
                )
            strings.append(_rich_text(item))
        return strings

    def _read_styles(self, part: str) -> list[_Style]:
        formats: dict[int, str] = {}
        struck: list[bool] = []
        styles: list[_Style] = []
        for element in self._elements(part, "numFmt", "fonts", "cellXfs"):
            if _tag(element) == "numFmt":
                formats[int(element.get("numFmtId", 0))] = element.get("formatCode", "")
            elif _tag(element) == "fonts":
                struck = [_is_struck(font) for font in element]
            else:
                for xf in element:
                    number, font = int(xf.get("numFmtId", 0)), int(xf.get("fontId", 0))
                    is_struck = font < len(struck) and struck[font]
                    styles.append(_Style(formats.get(number, number), is_struck))
        return styles

    def _sheet(self, name: str, part: str) -> Sheet:
        sheet, count, number, column = Sheet(name), 0, 0, 0
        cells: dict[int, Cell] = {}
        for element in self._elements(part, "c", "row", "mergeCell"):
            if _tag(element) == "mergeCell":
                sheet.merged.append(_area(element.get("ref", "A1")))
                if len(sheet.merged) > _MAX_MERGED:
                    raise InputFileError(
                        f"{self.path}: sheet '{name}' has over {_MAX_MERGED} merged cells; unmerge"
                    )
            elif _tag(element) == "c":
                column = _place(element.get("r", ""))[1] if element.get("r") else column + 1
                value = self._cell(element) if column <= _MAX_COLUMN else None
                if value is not None:
                    if column in cells:
                        raise ValueError("two cells in one place")
                    cells[column] = value
                    count += 1
                if count > MAX_CELLS:
                    raise InputFileError(
                        f"{self.path}: sheet '{name}' has over {MAX_CELLS} filled cells; "
                        "export fewer entries"
                    )
            else:
                number = int(element.get("r") or number + 1)
                if cells:
                    if number in sheet.rows:
                        raise ValueError("two rows of one number")
                    sheet.rows[number] = cells
                    if element.get("hidden") in ("1", "true"):
                        sheet.hidden.add(number)
                cells, column = {}, 0
        for kind, target in self._relations(*posixpath.split(part)).values():
            if kind in ("comments", "threadedComment") and target.lower() in self.names:
                for note in self._elements(target, "comment", "threadedComment"):
                    sheet.comments[_place(note.get("ref", "A1"))] = "".join(note.itertext()).strip()
        return sheet

    def _cell(self, element: Element) -> Cell | None:
        kind = element.get("t", "n")
        parts = {_tag(child): child for child in element}
        text = parts["v"].text or "" if "v" in parts else ""
        style_number = int(element.get("s", 0))
        style = self.styles[style_number] if style_number < len(self.styles) else _Style()
        if "f" in parts:
            return Cell(text, False, "holds a formula; paste it as a value")
        if kind == "e":
            return Cell(text, False, f"holds an error value ({text}); type the text again")
        if kind == "s":
            cell = self.strings[int(text)] if text else Cell("")
        elif kind == "inlineStr":
            cell = _rich_text(parts["is"]) if "is" in parts else Cell("")
        elif kind == "str":
            cell = Cell(text)
        elif kind == "b":
            cell = Cell("TRUE" if text == "1" else "FALSE", False)
        elif kind == "d":
            cell = Cell(text, False, doubt="became a date")
        else:
            cell = self._number(text, style.format) if text.strip() else Cell("")
        if style.struck and cell.text.strip():
            return Cell(cell.text, cell.is_text, _STRUCK)
        return cell if cell.text or cell.issue else None

    def _number(self, text: str, format_: int | str) -> Cell:
        """A number as shown; a number format that shows it otherwise is an issue."""
        from openpyxl.styles.numbers import is_date_format
        from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900, from_excel

        value = float(text)
        is_date = format_ in _DATE_FORMATS
        if isinstance(format_, str):
            is_date = is_date_format(format_)  # type: ignore[no-untyped-call]
        if is_date and format_ not in ("General", "@"):
            epoch = CALENDAR_MAC_1904 if self.epoch_1904 else CALENDAR_WINDOWS_1900
            moment: Any = from_excel(value, epoch)  # type: ignore[no-untyped-call]
            return Cell(_date_text(moment), False, doubt="became a date")
        plain = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        if abs(value) >= 1e15:
            return Cell(plain, False, "holds a number of more than 15 digits; type it as text")
        if format_ in (1, "0") and not value.is_integer():
            format_ = "rounded"
        if format_ in _PLAIN_FORMATS or format_ in ("General", "@", "0"):
            return Cell(plain, False)
        return Cell(
            plain, False, f"holds the number {plain} in a format of its own; type it as text"
        )


_STRUCK = "is struck out; delete or restore the text"


def _date_text(moment: Any) -> str:
    if isinstance(moment, datetime):
        midnight = moment.time() == time()
        return moment.date().isoformat() if midnight else moment.isoformat(" ", "seconds")
    return moment.isoformat() if isinstance(moment, date | time) else str(moment)


def _rich_text(item: Element) -> Cell:
    """The text of a string item, without phonetic guides."""
    text, struck = "", False
    for child in item:
        if _tag(child) == "t":
            text += child.text or ""
        elif _tag(child) == "r":
            run = "".join(part.text or "" for part in child if _tag(part) == "t")
            marks = [part for part in child if _tag(part) == "rPr"]
            struck = struck or bool(run.strip() and marks and _is_struck(marks[0]))
            text += run
    return Cell(text, True, _STRUCK if struck else None)


def _is_struck(font: Element) -> bool:
    return any(
        _tag(part) == "strike" and part.get("val", "1") not in ("0", "false") for part in font
    )


def _tag(element: Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


def _area(reference: str) -> tuple[int, int, int, int]:
    first, _, last = reference.partition(":")
    (top, left), (bottom, right) = _place(first), _place(last or first)
    return top, bottom, left, right


def _place(reference: str) -> tuple[int, int]:
    """Row and column of a reference such as H17."""
    found = _REFERENCE.fullmatch(reference.replace("$", ""))
    if found is None:
        raise ValueError(reference)
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return int(found[2]), column
