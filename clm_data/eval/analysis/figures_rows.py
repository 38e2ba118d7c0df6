"""Choosing rows of CSV tables, for figures and for the tables of a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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
