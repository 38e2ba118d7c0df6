"""CSV tables of results: analyses write them, figures and the report read them.

UTF-8 with a header and a line feed after each row. Unless a writer keeps their order, rows are
sorted by their cells from left to right: empty cells first, then numbers by value, then text.
Floats have six significant digits and ``None`` becomes an empty cell, so equal results give equal
bytes.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from clm_data.errors import InputFileError
from clm_data.eval.errors import EditError
from clm_data.files import atomic_file

Cell = str | float | None
"""A value of a row to write; ``bool`` and ``int`` are written as such."""
ResultRow = dict[str, Cell]
"""A row to write: values by column."""
ResultTables = dict[str, list[ResultRow]]
"""Rows to write, by table name without ``.csv``."""
Row = Mapping[str, str]
"""A row as read: text by column."""
Tables = Mapping[str, Sequence[Row]]
"""Rows as read, by file name."""


def write_rows(
    path: Path,
    rows: Sequence[Mapping[str, Cell]],
    columns: Sequence[str] | None = None,
    *,
    sort: bool = True,
) -> None:
    """Write a table atomically, creating its folder if needed.

    Args:
        path: The CSV file.
        rows: Rows with the same keys.
        columns: The header; defaults to the keys of the first row. Required if there are no rows.
        sort: Whether to sort the rows; if not, they keep their order.

    Raises:
        EditError: A number is NaN or infinite.
        InputFileError: The file cannot be written.
        ValueError: The rows have different columns, or neither rows nor columns are given.
    """
    names = list(columns or (rows[0] if rows else ()))
    if not names:
        raise ValueError(f"{path.name}: neither rows nor columns were given")
    for row in rows:
        if set(row) != set(names):
            raise ValueError(f"{path.name}: columns {sorted(row)} are not {sorted(names)}")
    table = [[row[name] for name in names] for row in rows]
    written = [
        [_text(value, f"{path.name}: {name}") for name, value in zip(names, row, strict=True)]
        for row in table
    ]
    order = list(range(len(table)))
    if sort:
        order.sort(key=lambda i: [_sort_key(value) for value in table[i]])
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_file(path, overwrite=True) as new,
        new.open("w", encoding="utf-8", newline="") as file,
    ):
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(names)
        lines.writerows(written[i] for i in order)


def write_tables(
    folder: Path, tables: ResultTables, columns: Mapping[str, Sequence[str]]
) -> list[Path]:
    """Write each table as ``NAME.csv``.

    Args:
        folder: Where to write; created if missing.
        tables: Rows by table.
        columns: Header by table.

    Returns:
        The files, in the order of ``tables``.
    """
    files = [folder / f"{name}.csv" for name in tables]
    for file, (name, rows) in zip(files, tables.items(), strict=True):
        write_rows(file, rows, columns[name])
    return files


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table as text.

    Raises:
        InputFileError: The file is missing, or is not UTF-8 CSV with a header.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise InputFileError(
            f"{path}: cannot be read as a CSV table ({error}); run clm-data analyze again"
        ) from error


def _text(value: Cell, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        raise EditError(f"{where} is NaN or infinite")
    return format(value + 0.0, ".6g")  # + 0.0 turns -0.0 into 0.0


def _sort_key(value: Cell) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    return (2, 0.0, value) if isinstance(value, str) else (1, float(value), "")


def float_or_none(text: str | None) -> float | None:
    """The number in a cell; None if the cell is empty or missing."""
    return float(text) if text else None


def unique(rows: Iterable[Row], column: str) -> list[str]:
    """The distinct values of a column, sorted: numbers by value, then text."""
    found = {row[column] for row in rows}
    return sorted(found, key=lambda text: (0, float(text), "") if _numeric(text) else (1, 0, text))


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def where(rows: Iterable[Row], **values: str) -> list[Row]:
    """The rows that have these values in these columns."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


VARIANT = ("method", "protocol", "mode", "layers")
"""Columns that together identify a variant of an editing method."""


def variants(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """The distinct combinations of the :data:`VARIANT` columns, sorted."""
    return sorted({tuple(row[name] for name in VARIANT) for row in rows})


def of_variant(rows: Iterable[Row], variant: Sequence[str]) -> list[Row]:
    """The rows of one variant."""
    return where(rows, **dict(zip(VARIANT, variant, strict=True)))


def largest_batch(rows: Sequence[Row]) -> list[Row]:
    """The rows with the largest batch size."""
    sizes = unique(rows, "batch_size")
    return where(rows, batch_size=sizes[-1]) if sizes else []
