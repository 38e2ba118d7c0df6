"""The tables of numbers that analyses leave behind: tidy CSV, the same bytes for the same numbers.

UTF-8, a header, a line feed after each row, rows sorted by all their cells from left to right,
numbers by size and before words. Floats have six significant digits; None is an empty cell.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clm_data.errors import InputFileError
from clm_data.eval.errors import EditError


def write_rows(
    path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None
) -> None:
    """Write a table whole; the folder is made where it is missing.

    Args:
        path: The CSV file.
        rows: All with the same keys: text, numbers, booleans or None.
        columns: The header; None: the keys of the first row. A table without rows needs it.

    Raises:
        EditError: A number is NaN or infinite.
        ValueError: Rows differ in their columns, or there are neither rows nor columns.
    """
    names = list(columns or (rows[0] if rows else ()))
    if not names:
        raise ValueError(f"{path.name}: neither rows nor columns")
    for row in rows:
        if set(row) != set(names):
            raise ValueError(f"{path.name}: columns {sorted(row)} are not {sorted(names)}")
    table = [[row[name] for name in names] for row in rows]
    written = [[_cell(value, path.name) for value in row] for row in table]
    order = sorted(range(len(table)), key=lambda i: [_rank(value) for value in table[i]])
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(names)
        lines.writerows(written[i] for i in order)
    part.replace(path)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table, as text.

    Raises:
        InputFileError: Not there, or not UTF-8 CSV with a header.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputFileError(f"{path}: no table of clm-data analyze ({error})") from error


def _cell(value: object, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise EditError(f"{where}: a number came out as NaN or infinite")
    return format(number + 0.0, ".6g")


def _rank(value: object) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    return (2, 0.0, value) if isinstance(value, str) else (1, float(value), "")  # type: ignore[arg-type]


Row = Mapping[str, str]
"""A row of a CSV table, as text."""
Tables = Mapping[str, Sequence[Row]]
"""Rows by file name."""


def number(text: str | None) -> float | None:
    """A cell as a number; None where it is empty."""
    return float(text) if text else None


def unique(rows: Iterable[Row], key: str) -> list[str]:
    """The values of a column, each once; numbers by size."""
    found = {row[key] for row in rows}
    return sorted(found, key=lambda text: (0, float(text), "") if _numeric(text) else (1, 0, text))


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def where(rows: Iterable[Row], **wanted: str) -> list[Row]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


VARIANT = ("method", "protocol", "mode", "layers")
"""The columns that tell the rows of panels apart."""


def variants(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """The combinations of :data:`VARIANT` that occur."""
    return sorted({tuple(row[name] for name in VARIANT) for row in rows})


def of_variant(rows: Iterable[Row], variant: Sequence[str]) -> list[Row]:
    """The rows of one variant."""
    return where(rows, **dict(zip(VARIANT, variant, strict=True)))


def variant_name(variant: Sequence[str]) -> str:
    """As over a row of panels."""
    from clm_data.eval.tables import METHOD_NAMES

    method, protocol, mode, layers = variant
    words = [METHOD_NAMES.get(method, method)]
    words += [protocol] if protocol != "native" else []
    words += [mode] if mode != "batch" else []
    words += [f"[{layers}]"] if layers else []
    return " ".join(words)


def largest_batch(rows: Sequence[Row]) -> list[Row]:
    """The rows of the largest batch size."""
    sizes = unique(rows, "batch_size")
    return where(rows, batch_size=sizes[-1]) if sizes else []
