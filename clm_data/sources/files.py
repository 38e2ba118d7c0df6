"""Reads the rows of JSON, JSON Lines and CSV files, which are distinguished by their content."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError
from clm_data.records import digest

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class RawFile:
    """The rows of a file whose format is not known yet."""

    name: str
    """File name without the folder."""
    sha256: str
    """Of the file's bytes."""
    rows: list[Any]
    """JSON values, unaltered. A CSV row is an object of strings by column name."""
    is_csv: bool


@dataclass(frozen=True)
class SourceFile:
    """An imported file."""

    name: str
    """File name without the folder."""
    format: str
    """A name in :data:`clm_data.sources.FORMATS`."""
    sha256: str
    """Of the file's bytes."""
    rows: list[Any]
    """JSON values, unaltered."""
    licence: str | None = None
    """License of the content as given by the user."""


def read_rows(path: Path) -> RawFile:
    """Read a JSON list or object, JSON Lines, or CSV with a header line.

    JSON must be UTF-8; CSV may be UTF-8 or GB18030. A byte-order mark is ignored.

    Raises:
        InputFileError: The file is missing, unreadable, empty or invalid. The message gives the
            line if there is one.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputFileError(f"{path}: no such file; check the name") from error
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    text = _decode(data, path)
    if not text.strip():
        raise InputFileError(f"{path}: the file is empty")
    is_csv = text.lstrip()[0] not in "[{"
    rows = _csv_rows(text, path) if is_csv else _json_rows(text, path)
    if _HALF_CHARACTER.search(text):
        _check_characters(rows, path)
    if not rows:
        raise InputFileError(f"{path}: the file contains no rows")
    return RawFile(path.name, hashlib.sha256(data).hexdigest(), rows, is_csv)


def rows_in_memory(items: Iterable[Any], name: str) -> RawFile:
    """Rows in memory as a file: numpy values become JSON values, and NaN becomes null.

    Raises:
        InputFileError: A row contains a value that JSON does not have.
    """
    rows = []
    for number, item in enumerate(items, 1):
        try:
            row = _json_value(item)
            json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (TypeError, ValueError) as error:
            raise InputFileError(f"{name}: row {number} is not usable as JSON: {error}") from error
        rows.append(row)
    return RawFile(name, digest(rows), rows, is_csv=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    if hasattr(value, "tolist"):  # a numpy array or scalar
        return _json_value(value.tolist())
    if hasattr(value, "model_dump"):  # a record
        return value.model_dump(mode="json")
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = data.lstrip()[:1]
        where = data[: error.start].count(b"\n") + 1
        reason = f"{path}:{where}: not UTF-8 text"
        if start in (b"[", b"{"):
            raise InputFileError(f"{reason}; save the JSON as UTF-8") from error
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError as error:
        raise InputFileError(f"{reason}, and not GB18030; save the file as UTF-8") from error


def _json_rows(text: str, path: Path) -> list[Any]:
    try:
        value = _parse(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{"):
            return _json_lines(text, path)
        raise InputFileError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{path}: not usable as JSON: {error}") from error
    return value if isinstance(value, list) else [value]


def _json_lines(text: str, path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(_parse(line))
            except json.JSONDecodeError as error:
                raise InputFileError(f"{path}:{number}: not valid JSON: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                raise InputFileError(f"{path}:{number}: not usable as JSON: {error}") from error
    return rows


def _check_characters(rows: list[Any], path: Path) -> None:
    for number, row in enumerate(rows, 1):
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputFileError(
                f"{path}: row {number} contains an invalid character (a lone surrogate); remove it"
            ) from error


def _parse(text: str) -> Any:
    """Parse JSON; duplicate keys, NaN and infinity raise ValueError, as they would be lost."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field '{duplicate}' appears twice in one object")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _csv_rows(text: str, path: Path) -> list[Any]:
    head = text.split("\n", 1)[0]
    delimiter = max(",\t;", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
        if len(header) < 2:
            raise InputFileError(
                f"{path}: starts with '{head.strip()[:40]}'; expected a JSON list, JSON Lines, "
                "or CSV with a header line"
            )
        if len(set(header)) < len(header):
            raise InputFileError(f"{path}:1: a column name appears twice in the header")
        rows = []
        for cells in reader:
            if len(cells) > len(header):
                raise InputFileError(
                    f"{path}:{reader.line_num}: {len(cells)} cells for {len(header)} columns; "
                    "quote texts that contain the delimiter"
                )
            if cells:
                rows.append(dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        raise InputFileError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error
    return rows
