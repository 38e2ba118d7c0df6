"""Reads the rows of JSON, JSON Lines and CSV files, which are distinguished by their content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.decoding import decode
from clm_data.errors import InputFileError
from clm_data.files import check_kind, read_bytes
from clm_data.records import digest, json_value
from clm_data.sources.texts import csv_rows, json_rows

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
    data: bytes = b""
    """The file's bytes; empty for rows that were in memory."""


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
    data: bytes = b""
    """The file's bytes; empty for rows that were in memory or come from a store."""


def read_rows(path: Path, encoding: str | None = None) -> RawFile:
    """Read a JSON list or object, JSON Lines, or CSV with a header line.

    Args:
        path: The file.
        encoding: Its encoding; default: it must be certain, see :func:`clm_data.decoding.decode`.

    Raises:
        InputFileError: The file is missing, unreadable, empty or invalid. The message gives the
            line and the row if there is one.
    """
    data = read_bytes(path)
    check_kind(data, path)
    text = decode(data, name=str(path), encoding=encoding)
    if not text.strip():
        raise InputFileError(f"{path}: the file is empty")
    is_csv = text.lstrip()[0] not in "[{"
    rows = csv_rows(text, path) if is_csv else json_rows(text, path)
    if _HALF_CHARACTER.search(text):
        _check_characters(rows, path)
    if not rows:
        raise InputFileError(f"{path}: the file contains no rows")
    return RawFile(path.name, hashlib.sha256(data).hexdigest(), rows, is_csv, data)


def rows_in_memory(items: Iterable[Any], name: str) -> RawFile:
    """Rows in memory as a file: numpy values become JSON values, and NaN becomes null.

    Raises:
        InputFileError: A row contains a value that JSON does not have.
    """
    rows = []
    for number, item in enumerate(items, 1):
        try:
            row = json_value(item)
            json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except RecursionError as error:
            raise InputFileError(
                f"{name}: row {number} is nested too deeply, or contains itself"
            ) from error
        except (TypeError, ValueError) as error:
            place = _unusable_field(item)
            raise InputFileError(
                f"{name}: row {number} is not usable as JSON: {place}{error}; convert it to text, "
                "a number or a list"
            ) from error
        rows.append(row)
    return RawFile(name, digest(rows), rows, is_csv=False)


def _unusable_field(item: Any) -> str:
    """The first field of a row whose value is not usable as JSON, or nothing."""
    for name, value in item.items() if isinstance(item, Mapping) else ():
        try:
            json.dumps(json_value(value), allow_nan=False)
        except (TypeError, ValueError):
            return f"{name}: "
    return ""


def _check_characters(rows: list[Any], path: Path) -> None:
    for number, row in enumerate(rows, 1):
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputFileError(
                f"{path}: row {number} contains an invalid character (a lone surrogate); remove it"
            ) from error
