"""Files of rows: read a few cells of every row, then write the rows that stay as they stand.

Both go through the file once, so that its rows are never all in memory. JSON Lines and CSV rows are
written byte for byte, the elements of a JSON list too; parquet and Hub rows with their schema.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from clm_data.errors import InputFileError, UnknownNameError

MISSING: Any = object()
"""Stands for a field that a row does not have."""
HUB_PREFIX = "hub:"
FORMATS = ("jsonl", "json", "csv", "parquet")
ENDINGS = {
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "csv": (".csv", ".tsv", ".txt"),
    "parquet": (".parquet", ".pq"),
}
"""Of file names, the usual one first."""
_ANY_SIZE = 2**31 - 1
_PIECE = 1 << 20

_Row = TypeVar("_Row")
Advance = Callable[[int, int], None]
"""Told how much of how much is done."""


class Table(Protocol):
    """Rows somewhere.

    Attributes:
        name: As the user gave it.
        format: One of :data:`FORMATS`.
    """

    name: str
    format: str

    def read(
        self, fields: Sequence[str], advance: Advance
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The cells of every row, :data:`MISSING` where it has none, and where the row stands.

        A field is a column, or a way into objects by dots: ``zh.prompt``.

        Raises:
            InputFileError: Unreadable or broken; says where.
            UnknownNameError: No such column, where the format has columns.
        """
        ...

    def write(self, stays: Sequence[int], out: Path, advance: Advance) -> None:
        """Write the rows that stay, in their order.

        Args:
            stays: True for each row that stays.
            out: A new file.
            advance: Told how many bytes or rows are done.

        Raises:
            InputFileError: There are other rows than before.
            OSError: ``out`` cannot be written.
        """
        ...


def open_table(name: str, format: str | None = None, split: str | None = None) -> Table:
    """What a name means: a file, or ``hub:ID[/CONFIG]``.

    Args:
        name: Path, or a dataset on the Hub.
        format: One of :data:`FORMATS`; None: by the name's ending, else by the content.
        split: Of a dataset on the Hub; needed where there are several.

    Raises:
        UserError: Not there, unreadable, or no such format.
    """
    if format is not None and format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    if name.startswith(HUB_PREFIX):
        from clm_data.dedup.files.arrow_tables import open_hub

        return open_hub(name, split)
    path = Path(name).expanduser()
    found = format or _format_of(path)
    if found == "parquet":
        from clm_data.dedup.files.arrow_tables import open_parquet

        return open_parquet(path)
    kinds: dict[str, type[_LinesTable] | type[_CsvTable] | type[_ListTable]] = {
        "jsonl": _LinesTable,
        "csv": _CsvTable,
        "json": _ListTable,
    }
    return kinds[found](path)


def lookup(row: dict[str, Any], field: str) -> Any:
    """A cell by its name, or else by the way to it; :data:`MISSING` where there is none."""
    if field in row:
        return row[field]
    head, _, rest = field.partition(".")
    inner = row.get(head)
    return lookup(inner, rest) if rest and isinstance(inner, dict) else MISSING


class _LinesTable:
    """JSON Lines: one object a line, UTF-8, with or without a byte order mark."""

    format = "jsonl"

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def read(
        self, fields: Sequence[str], advance: Advance
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        with _reading(self._path) as file:
            _mark(file)
            for number, line in enumerate(_told(file, self._path, advance), 1):
                if line.strip():
                    place = f"{self.name}:{number}"
                    text = _utf8(line[:-1] if line.endswith(b"\n") else line, place)
                    row = _object(_parsed(text, place), place)
                    yield place, tuple(lookup(row, field) for field in fields)

    def write(self, stays: Sequence[int], out: Path, advance: Advance) -> None:
        with _reading(self._path) as file, out.open("wb") as into:
            into.write(_mark(file))
            lines = (line for line in _told(file, self._path, advance) if line.strip())
            into.writelines(_staying(lines, stays, self.name))


class _CsvTable:
    """CSV with a header, UTF-8 or GB18030; the delimiter is the commonest of ``,``, tab, ``;``."""

    format = "csv"

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def read(
        self, fields: Sequence[str], advance: Advance
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        encoding = _encoding(self._path)
        with _reading(self._path) as file:
            _mark(file)
            records = self._records(_told(file, self._path, advance), encoding)
            header = [name.strip() for name in next(records, (b"", [], 0))[1]]
            if not header:
                return
            places = [self._place(header, field) for field in fields]
            for _, cells, line in records:
                if len(cells) > len(header):
                    raise InputFileError(
                        f"{self.name}:{line}: {len(cells)} cells under {len(header)} columns; "
                        "quote texts that hold the delimiter"
                    )
                row = tuple(cells[at] if at < len(cells) else MISSING for at in places)
                yield f"{self.name}:{line}", row

    def write(self, stays: Sequence[int], out: Path, advance: Advance) -> None:
        encoding = _encoding(self._path)
        with _reading(self._path) as file, out.open("wb") as into:
            into.write(_mark(file))
            records = self._records(_told(file, self._path, advance), encoding)
            into.write(next(records, (b"", [], 0))[0])
            into.writelines(_staying((raw for raw, _, _ in records), stays, self.name))

    def _place(self, header: list[str], field: str) -> int:
        if header.count(field) > 1:
            raise InputFileError(f"{self.name}:1: the column '{field}' stands twice in the header")
        if field not in header:
            raise UnknownNameError(f"column of {self.name}", field, header)
        return header.index(field)

    def _records(
        self, lines: Iterator[bytes], encoding: str
    ) -> Iterator[tuple[bytes, list[str], int]]:
        """(bytes, cells, last line) of each record; a quoted cell may run over lines."""
        first = next(lines, b"")
        head = first.decode(encoding)
        taken: list[bytes] = []

        def texts() -> Iterator[str]:
            for line in chain([first], lines):
                taken.append(line)
                yield line.decode(encoding)

        reader = csv.reader(texts(), delimiter=max(",\t;", key=head.count), strict=True)
        while True:
            try:
                with _cells_of_any_size():
                    cells = next(reader, None)
            except csv.Error as error:
                raise InputFileError(
                    f"{self.name}:{reader.line_num}: not valid CSV: {error}"
                ) from error
            if cells is None:
                return
            raw = b"".join(taken)
            taken.clear()
            if cells:
                yield raw, cells, reader.line_num


class _ListTable:
    """A JSON list of objects; its whole text is in memory, its rows are not."""

    format = "json"

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def read(
        self, fields: Sequence[str], advance: Advance
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        text = self._text()
        for number, (_, end, value) in enumerate(self._elements(text), 1):
            place = f"{self.name}, row {number}"
            row = _object(value, place)
            yield place, tuple(lookup(row, field) for field in fields)
            advance(end, len(text))

    def write(self, stays: Sequence[int], out: Path, advance: Advance) -> None:
        text = self._text()
        spans = [(start, end) for start, end, _ in self._elements(text)]
        before = [0, *(end for _, end in spans)]
        with out.open("wb") as into:
            # An element brings what stands between it and the one before: a comma, and blanks.
            into.write(text[: spans[0][0] if spans else 0].encode())
            first = True
            pieces = zip(before, spans, strict=False)
            for past, (start, end) in _staying(pieces, stays, self.name):
                into.write(text[start if first else past : end].encode())
                first = False
                advance(end, len(text))
            into.write(text[before[-1] :].encode())

    def _text(self) -> str:
        with _reading(self._path) as file:
            return _utf8(file.read(), self.name)

    def _elements(self, text: str) -> Iterator[tuple[int, int, Any]]:
        """(begin, end, value) of each element."""
        decoder = json.JSONDecoder()
        at = _past_blanks(text, 1 if text.startswith("\ufeff") else 0)
        if text[at : at + 1] != "[":
            raise InputFileError(f"{self.name}: expected a JSON list of objects")
        at = _past_blanks(text, at + 1)
        closed = text[at : at + 1] == "]"
        while not closed:
            try:
                value, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                raise _not_json(f"{self.name}:{text.count(chr(10), 0, at) + 1}", error) from error
            yield at, end, value
            at = _past_blanks(text, end)
            closed = text[at : at + 1] == "]"
            if not closed and text[at : at + 1] != ",":
                line = text.count("\n", 0, at) + 1
                raise InputFileError(f"{self.name}:{line}: not valid JSON: a comma or ] is missing")
            at = at if closed else _past_blanks(text, at + 1)
        if text[at + 1 :].strip():
            raise InputFileError(f"{self.name}: not valid JSON: text after the end of the list")


def _format_of(path: Path) -> str:
    ending = path.suffix.lower()
    if ending != ".json":
        for name, endings in ENDINGS.items():
            if ending in endings:
                return name
    with _reading(path) as file:
        start = file.read(_PIECE)
    if start.startswith(b"PAR1"):
        return "parquet"
    first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return {b"[": "json", b"{": "jsonl"}.get(first, "json" if ending == ".json" else "csv")


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        if path.exists() and not path.is_file():
            raise InputFileError(f"{path} is not a file, and is read twice; name a file")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InputFileError(f"{path}: no such file; check the name") from error
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def _told(file: IO[bytes], path: Path, advance: Advance) -> Iterator[bytes]:
    """The lines that are left, each with its end."""
    whole = path.stat().st_size
    told = done = file.tell()
    for line in file:
        yield line
        done += len(line)
        if done - told >= _PIECE:
            told = done
            advance(done, whole)
    advance(whole, whole)


def _mark(file: IO[bytes]) -> bytes:
    """Read past a byte order mark, and give it."""
    start = file.read(3)
    if start == b"\xef\xbb\xbf":
        return start
    file.seek(0)
    return b""


def _staying(rows: Iterator[_Row], stays: Sequence[int], name: str) -> Iterator[_Row]:
    """The rows that stay, if they are as many as there were."""
    try:
        for row, stay in zip(rows, stays, strict=True):
            if stay:
                yield row
    except ValueError as error:
        raise InputFileError(
            f"{name} has changed since it was read; run the command again"
        ) from error


def _encoding(path: Path) -> str:
    """``utf-8`` or ``gb18030``, after reading the file once."""
    import codecs

    wrong = ""
    for encoding in ("utf-8", "gb18030"):
        decoder = codecs.getincrementaldecoder(encoding)()
        with _reading(path) as file:
            try:
                while piece := file.read(_PIECE):
                    decoder.decode(piece)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                wrong = wrong or f"{path}: neither UTF-8 nor GB18030 text; save the file as UTF-8"
                continue
        return encoding
    raise InputFileError(wrong)


def _utf8(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{place}: not UTF-8 text; save the JSON as UTF-8") from error


@contextmanager
def _cells_of_any_size() -> Iterator[None]:
    before = csv.field_size_limit(_ANY_SIZE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(place, error) from error


def _not_json(place: str, error: Exception) -> InputFileError:
    said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return InputFileError(f"{place}: not valid JSON: {said}")


def _object(value: Any, place: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    kind = {list: "a list", str: "a text", bool: "true or false"}.get(type(value), "no object")
    raise InputFileError(f"{place}: a row must be an object with fields, this is {kind}")


def _past_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at
