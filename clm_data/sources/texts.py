"""Rows of JSON, JSON Lines and CSV texts. Errors name the line and the row."""

from __future__ import annotations

import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.csv_text import CsvFaultError, CsvText
from clm_data.errors import InputFileError
from clm_data.files import unique_keys

_SPACE = re.compile(r"[ \t\r\n]*")
_MAX_CELL = 131_072
"""Most characters in a cell of CSV."""
_MAX_DIGITS = 1000
"""Most digits of a number in JSON."""


def json_rows(text: str, path: Path) -> list[Any]:
    """The items of a JSON list, the lines of JSON Lines, or a single object as one row.

    Raises:
        InputFileError: Not JSON; or it has duplicate keys, NaN or infinity, which would be lost.
    """
    if text.lstrip().startswith("{") and not _is_one_object(text):
        return list(_json_lines(text, path))
    try:
        value = _parse(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{"):
            raise InputFileError(f"{path}: row 1: {_reason(text, error)}") from error
        raise InputFileError(_where_in_list(text, path, error)) from error
    return value if isinstance(value, list) else [value]


def _is_one_object(text: str) -> bool:
    """Whether a text that starts with an object has nothing after it."""
    try:
        _, stop = json.JSONDecoder(parse_int=str).raw_decode(text, _skip(text, 0))
    except (ValueError, RecursionError):
        return False
    return not text[stop:].strip()


def _json_lines(text: str, path: Path) -> Iterator[Any]:
    row = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row += 1
            try:
                yield _parse(line)
            except (ValueError, RecursionError) as error:
                reason = _reason(line, error)
                raise InputFileError(f"{path}:{number}: row {row}: {reason}") from error


def _where_in_list(text: str, path: Path, error: Exception) -> str:
    """The message for a list that is not usable, with the line and row of the first bad item."""
    decoder = json.JSONDecoder(parse_int=str)
    at = _skip(text, _skip(text, 0) + 1)
    row = 1
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        try:
            _, stop = decoder.raw_decode(text, at)
            _parse(text[at:stop])
        except json.JSONDecodeError as found:
            return f"{path}:{found.lineno}: row {row}: not valid JSON: {found.msg}"
        except RecursionError as found:
            return f"{path}:{line}: row {row}: {_reason('', found)}"
        except ValueError as found:
            return f"{path}:{line}: row {row}: {_reason(text[at:stop], found)}"
        at = _skip(text, stop)
        if text[at : at + 1] != ",":
            break
        at = _skip(text, at + 1)
        row += 1
    line = getattr(error, "lineno", text.count("\n", 0, at) + 1)
    return f"{path}:{line}: after row {row}: not valid JSON: {getattr(error, 'msg', error)}"


def _skip(text: str, at: int) -> int:
    """The position of the next character that is not whitespace."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _parse(text: str) -> Any:
    """Parse JSON; duplicate keys, NaN and infinity raise ValueError, as they would be lost."""
    return json.loads(
        text,
        object_pairs_hook=unique_keys,
        parse_constant=_no_constant,
        parse_float=_finite,
        parse_int=_integer,
    )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value; write null for a missing value")


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise ValueError(f"{literal} is too large for a number; write it as a text")
    return value


def _integer(literal: str) -> int:
    if len(literal) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(literal)} digits; write it as a text")
    return int(literal)


@dataclass(frozen=True)
class _Constant:
    name: str


def _reason(text: str, error: Exception) -> str:
    """Why a text is not usable, with the field of NaN or infinity."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg}"
    if isinstance(error, RecursionError):
        return "not usable as JSON: nested too deeply"
    if "is not a JSON value" in str(error):
        try:
            place = _place_of_constant(json.loads(text, parse_constant=_Constant, parse_int=str))
        except (ValueError, RecursionError) as other:  # there is a second fault
            return _reason("", other)
        return f"{place}: {error}" if place else str(error)
    return f"not usable as JSON: {error}"


def _place_of_constant(value: Any, place: str = "") -> str | None:
    """The path of the first NaN or infinity in a value; None if there is none."""
    if isinstance(value, _Constant):
        return place
    items: Any = ()
    if isinstance(value, dict):
        items = ((f"{place}.{name}" if place else name, inner) for name, inner in value.items())
    elif isinstance(value, list):
        items = ((f"{place}[{number}]", inner) for number, inner in enumerate(value))
    found = (_place_of_constant(inner, name) for name, inner in items)
    return next((name for name in found if name is not None), None)


def csv_rows(text: str, path: Path) -> list[Any]:
    """The rows of a CSV text as objects of strings by column name.

    The delimiter is found as in :class:`clm_data.csv_text.CsvText`.

    Raises:
        InputFileError: Not CSV; no header; or a row with more cells than columns.
    """
    records = CsvText(io.StringIO(text, newline=""), _MAX_CELL)
    header: list[str] = []
    rows: list[Any] = []
    try:
        for record in records:
            if not header:
                header = _header(record.cells, path)
            elif len(record.cells) > len(header):
                raise InputFileError(
                    f"{path}:{record.last}: row {len(rows) + 1}: {len(record.cells)} cells "
                    f"for {len(header)} columns; quote texts that contain the delimiter"
                )
            elif record.cells:
                rows.append(dict(zip(header, record.cells, strict=False)))
    except CsvFaultError as error:
        raise InputFileError(
            f"{path}:{error.line}: row {len(rows) + 1}: not valid CSV: {error}"
        ) from error
    if not header:
        _header([], path)
    return rows


def _header(cells: list[str], path: Path) -> list[str]:
    """The names of the columns."""
    header = [name.strip() or f"column {place}" for place, name in enumerate(cells, 1)]
    if len(header) < 2:
        start = " ".join("".join(header).split())[:40]
        raise InputFileError(
            f"{path}: starts with '{start}'; expected a JSON list, JSON Lines, "
            "or CSV with a header line"
        )
    counts = Counter(header)
    twice = next((name for name in header if counts[name] > 1), None)
    if twice is not None:
        places = [str(place) for place, name in enumerate(header, 1) if name == twice]
        raise InputFileError(
            f"{path}:1: a column name appears twice in the header: '{twice}' (columns "
            f"{' and '.join(places)}); rename one"
        )
    return header
