"""JSON Lines, CSV and JSON files: read some fields of every row, then copy the selected rows.

Each operation is one pass over the file, and rows are not held in memory. JSON Lines and CSV
records are copied byte for byte, and so are the elements of a JSON list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from clm_data.csv_text import CsvFaultError, CsvText
from clm_data.decoding import check_encoding, decode
from clm_data.dedup.files.tables import MISSING, Table, as_row, lookup
from clm_data.dedup.join.all_pairs import Progress
from clm_data.errors import ConfigError, InputFileError, UnknownNameError
from clm_data.files import unique_keys

_MAX_CELL_SIZE = 2**31 - 1
_JUDGED_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"

_T = TypeVar("_T")


class _FileTable:
    def __init__(self, path: Path, encoding: str | None = None) -> None:
        self.name = str(path)
        self.path = path
        self.encoding = encoding


class _JsonLinesTable(_FileTable):
    """JSON Lines: one object per line, UTF-8, with or without a byte order mark."""

    format = "jsonl"

    def read(
        self, fields: Sequence[str], progress: Progress
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        with open_binary(self.path) as file:
            _read_bom(file)
            for number, line in enumerate(_lines(file, self.path, progress), 1):
                if line.strip():
                    location = f"{self.name}:{number}"
                    row = self._parse(line, location)
                    yield location, tuple(lookup(row, field) for field in fields)

    def write(self, keep: Sequence[int], out: Path, progress: Progress) -> None:
        with open_binary(self.path) as file, out.open("wb") as target:
            target.write(_read_bom(file))
            target.writelines(self._selected(file, keep, progress))

    def select(self, keep: Sequence[int]) -> list[dict[str, Any]]:
        with open_binary(self.path) as file:
            _read_bom(file)
            return [self._parse(line, self.name) for line in self._selected(file, keep, _ignore)]

    def _selected(
        self, file: IO[bytes], keep: Sequence[int], progress: Progress
    ) -> Iterator[bytes]:
        lines = (line for line in _lines(file, self.path, progress) if line.strip())
        return _selected(lines, keep, self.name)

    def _parse(self, line: bytes, location: str) -> dict[str, Any]:
        text = _decode_utf8(line[:-1] if line.endswith(b"\n") else line, location)
        try:
            return as_row(json.loads(text, object_pairs_hook=unique_keys), location)
        except (ValueError, RecursionError) as error:
            raise _not_json(location, error) from error


class _CsvTable(_FileTable):
    """CSV with a header, UTF-8 or GB18030.

    The delimiter is found as in :class:`clm_data.csv_text.CsvText`.
    """

    format = "csv"

    def read(
        self, fields: Sequence[str], progress: Progress
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        encoding = _encoding(self.path, self.encoding)
        with open_binary(self.path) as file:
            _read_bom(file)
            records = self._records(_lines(file, self.path, progress), encoding)
            header = [name.strip() for name in next(records, (b"", [], 0))[1]]
            if not header:
                return
            columns = [self._column(header, field) for field in fields]
            for _, cells, line in records:
                if len(cells) > len(header):
                    raise InputFileError(
                        f"{self.name}:{line}: {len(cells)} cells for {len(header)} columns; "
                        "quote cells that contain the delimiter"
                    )
                row = tuple(cells[at] if at < len(cells) else MISSING for at in columns)
                yield f"{self.name}:{line}", row

    def write(self, keep: Sequence[int], out: Path, progress: Progress) -> None:
        encoding = _encoding(self.path, self.encoding)
        with open_binary(self.path) as file, out.open("wb") as target:
            target.write(_read_bom(file))
            records = self._records(_lines(file, self.path, progress), encoding)
            target.write(next(records, (b"", [], 0))[0])
            target.writelines(_selected((raw for raw, _, _ in records), keep, self.name))

    def select(self, keep: Sequence[int]) -> list[dict[str, Any]]:
        encoding = _encoding(self.path, self.encoding)
        with open_binary(self.path) as file:
            _read_bom(file)
            records = self._records(_lines(file, self.path, _ignore), encoding)
            header = [name.strip() for name in next(records, (b"", [], 0))[1]]
            rows = _selected((cells for _, cells, _ in records), keep, self.name)
            return [dict(zip(header, cells, strict=False)) for cells in rows]

    def _column(self, header: list[str], field: str) -> int:
        if header.count(field) > 1:
            raise InputFileError(
                f"{self.name}:1: the column '{field}' appears twice in the header; rename one"
            )
        if field not in header:
            raise UnknownNameError(f"column of {self.name}", field, header)
        return header.index(field)

    def _records(
        self, lines: Iterator[bytes], encoding: str
    ) -> Iterator[tuple[bytes, list[str], int]]:
        """(bytes, cells, number of the last line) of each record; quoted cells may span lines."""
        raw_lines: list[bytes] = []

        def decoded() -> Iterator[str]:
            for line in lines:
                raw_lines.append(line)
                yield line.decode(encoding)

        taken = 0
        try:
            for record in CsvText(decoded(), _MAX_CELL_SIZE):
                raw = b"".join(raw_lines[: record.last - taken])
                del raw_lines[: record.last - taken]
                taken = record.last
                if record.cells:
                    yield raw, record.cells, record.last
        except CsvFaultError as error:
            raise InputFileError(f"{self.name}:{error.line}: not valid CSV: {error}") from error


class _JsonListTable(_FileTable):
    """A JSON list of objects. The whole text is held in memory, the parsed rows are not."""

    format = "json"

    def read(
        self, fields: Sequence[str], progress: Progress
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        text = self._text()
        for number, (_, end, value) in enumerate(self._elements(text), 1):
            location = f"{self.name}, row {number}"
            row = as_row(value, location)
            yield location, tuple(lookup(row, field) for field in fields)
            progress(end, len(text))

    def write(self, keep: Sequence[int], out: Path, progress: Progress) -> None:
        text = self._text()
        spans = [(start, end) for start, end, _ in self._elements(text)]
        previous_ends = [0, *(end for _, end in spans)]
        with out.open("wb") as target:
            # Copy each element with the comma and whitespace that precede it.
            target.write(text[: spans[0][0] if spans else 0].encode())
            first = True
            pieces = zip(previous_ends, spans, strict=False)
            for previous_end, (start, end) in _selected(pieces, keep, self.name):
                target.write(text[start if first else previous_end : end].encode())
                first = False
                progress(end, len(text))
            target.write(text[previous_ends[-1] :].encode())

    def select(self, keep: Sequence[int]) -> list[dict[str, Any]]:
        values = (value for _, _, value in self._elements(self._text()))
        return [as_row(value, self.name) for value in _selected(values, keep, self.name)]

    def _text(self) -> str:
        with open_binary(self.path) as file:
            return _decode_utf8(file.read(), self.name)

    def _elements(self, text: str) -> Iterator[tuple[int, int, Any]]:
        """(start, end, value) of each element."""
        decoder = json.JSONDecoder(object_pairs_hook=unique_keys)
        at = _skip_whitespace(text, 1 if text.startswith("\ufeff") else 0)
        if text[at : at + 1] != "[":
            raise InputFileError(f"{self.name}: expected a JSON list of objects")
        at = _skip_whitespace(text, at + 1)
        closed = text[at : at + 1] == "]"
        while not closed:
            try:
                value, end = decoder.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                raise _not_json(f"{self.name}:{text.count(chr(10), 0, at) + 1}", error) from error
            yield at, end, value
            at = _skip_whitespace(text, end)
            closed = text[at : at + 1] == "]"
            if not closed and text[at : at + 1] != ",":
                line = text.count("\n", 0, at) + 1
                raise InputFileError(f"{self.name}:{line}: not valid JSON: a comma or ] is missing")
            at = at if closed else _skip_whitespace(text, at + 1)
        if text[at + 1 :].strip():
            raise InputFileError(f"{self.name}: not valid JSON: text after the end of the list")


def open_text_table(path: Path, format: str, encoding: str | None = None) -> Table:
    """A file in one of the formats ``jsonl``, ``csv`` and ``json``."""
    tables: dict[str, type[_JsonLinesTable] | type[_CsvTable] | type[_JsonListTable]] = {
        "jsonl": _JsonLinesTable,
        "csv": _CsvTable,
        "json": _JsonListTable,
    }
    if encoding is not None and format != "csv":
        raise ConfigError(f"{path}: an encoding is for CSV files; save {format} files as UTF-8")
    return tables[format](path, encoding)


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading.

    Raises:
        InputFileError: It does not exist, is not a regular file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputFileError(f"{path}: not a regular file (the input is read twice)")
        file = path.open("rb")
    except FileNotFoundError as error:
        raise InputFileError(f"{path}: no such file; check the name") from error
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def _ignore(done: int, total: int) -> None:
    """A progress callback that does nothing."""


def _lines(file: IO[bytes], path: Path, progress: Progress) -> Iterator[bytes]:
    """The remaining lines with their line ends; reports progress in bytes."""
    total = path.stat().st_size
    reported = done = file.tell()
    for line in file:
        yield line
        done += len(line)
        if done - reported >= _CHUNK_BYTES:
            reported = done
            progress(done, total)
    progress(total, total)


def _read_bom(file: IO[bytes]) -> bytes:
    """Skip a byte order mark; returns its bytes, or none."""
    start = file.read(len(_BOM))
    if start == _BOM:
        return start
    file.seek(0)
    return b""


def _selected(items: Iterator[_T], keep: Sequence[int], name: str) -> Iterator[_T]:
    """The items whose ``keep`` is nonzero.

    Raises:
        InputFileError: There are more or fewer items than values in ``keep``.
    """
    try:
        for item, wanted in zip(items, keep, strict=True):
            if wanted:
                yield item
    except ValueError as error:
        raise InputFileError(f"{name} has changed since it was read; run again") from error


def _encoding(path: Path, given: str | None) -> str:
    """The encoding that the user gave, or else the one that is certain.

    Raises:
        InputFileError: The file is not valid in it.
    """
    if given is None:
        return _detect_encoding(path)
    found = check_encoding(given)
    if found.startswith(("utf-16", "utf-32")):
        raise ConfigError(f"{path}: rows are copied by line, which {found} cannot; save as UTF-8")
    if not _decodes(path, found):
        raise InputFileError(f"{path} is not valid {found}; give another --encoding")
    return found


def _detect_encoding(path: Path) -> str:
    """``utf-8`` or ``gb18030``, if the whole file decodes and its start certainly is Chinese.

    Raises:
        InputFileError: Neither; see :func:`clm_data.decoding.decode`.
    """
    if _decodes(path, "utf-8"):
        return "utf-8"
    with open_binary(path) as file:
        start = file.read(_JUDGED_BYTES)
        start += file.readline()
    decode(start, name=str(path))
    if _is_valid(start, "utf-8") or not _decodes(path, "gb18030"):
        raise InputFileError(f"{path}: neither UTF-8 nor GB18030 text; save the file as UTF-8")
    return "gb18030"


def _decodes(path: Path, encoding: str) -> bool:
    import codecs

    decoder = codecs.getincrementaldecoder(encoding)()
    with open_binary(path) as file:
        try:
            while chunk := file.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _is_valid(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _decode_utf8(data: bytes, location: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{location}: not UTF-8 text; save the file as UTF-8") from error


def _not_json(location: str, error: Exception) -> InputFileError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return InputFileError(f"{location}: not valid JSON: {reason}")


def _skip_whitespace(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at
