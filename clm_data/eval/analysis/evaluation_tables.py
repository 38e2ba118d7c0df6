"""Tables of the evaluation for figures and other programs, one value or one domain per row.

Rows are in the order of the recipe, as in ``table.csv``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from clm_data.domain import Domain
from clm_data.eval import tables
from clm_data.eval.bilingual import bundled_domains, domain_title
from clm_data.eval.csv_tables import ResultRow, write_rows
from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.results import CellResult, Results, Summary

CELL_COLUMNS = ("model", "method", "edit", "batch_size", "note")
"""The columns that identify a cell; ``edit`` is the editing language."""
COLUMNS = {
    "evaluation_long": (*CELL_COLUMNS, "when", "measure", "mean", "low", "high", "facts"),
    "evaluation_domains": (
        *CELL_COLUMNS, "domain", "domain_zh", "domain_en", "facts", *PAPER_MEASURES
    ),
    "evaluation_along": (*CELL_COLUMNS, "edited", "measure", "mean", "low", "high"),
}  # fmt: skip
"""Column names by table."""


def write_evaluation_tables(folder: Path, results: Results) -> list[Path]:
    """Write ``evaluation_long.csv``, ``evaluation_domains.csv`` and ``evaluation_along.csv``.

    The first has every mean with its bootstrap interval, before and after the edit, as shares
    between 0 and 1; the second has means by domain, in percent; the third has the measurements
    during sequential editing. A table without rows has only a header.

    Args:
        folder: Where to write, such as ``OUT/analysis``; created if missing.
        results: Failed cells are left out.

    Returns:
        The files.
    """
    done = [cell for cell in results.cells if cell.status == "done"]
    domains = bundled_domains()
    rows = {
        "evaluation_long": [row for cell in done for row in _means(cell)],
        "evaluation_domains": [row for cell in done for row in _domains(cell, domains)],
        "evaluation_along": [row for cell in done for row in _along(cell)],
    }
    for name, columns in COLUMNS.items():
        write_rows(folder / f"{name}.csv", rows[name], columns, sort=False)
    return [folder / f"{name}.csv" for name in COLUMNS]


def _cell(cell: CellResult) -> ResultRow:
    row = tables.row_of(cell)
    values = (row.model, row.method, row.language, row.batch_size, row.note)
    return dict(zip(CELL_COLUMNS, values, strict=True))


def _means(cell: CellResult) -> Iterator[ResultRow]:
    for when, summary in (("before", cell.before), ("after", cell.after)):
        for row, count in _intervals(summary):
            yield _cell(cell) | {"when": when} | row | {"facts": count}


def _along(cell: CellResult) -> Iterator[ResultRow]:
    for checkpoint in cell.checkpoints:
        for row, _ in _intervals(checkpoint.after):
            yield _cell(cell) | {"edited": checkpoint.edited} | row


def _intervals(summary: Summary) -> Iterator[tuple[ResultRow, int]]:
    """Each measure with its interval, and the number of facts that have a value."""
    for name, interval in summary.items():
        if interval is not None:
            ends = {"mean": interval.mean, "low": interval.low, "high": interval.high}
            yield {"measure": name, **ends}, interval.count


def _domains(cell: CellResult, domains: Mapping[str, Domain]) -> Iterator[ResultRow]:
    for name, means in cell.domains.items():
        title = domain_title(name, domains)
        yield {
            **_cell(cell),
            "domain": name,
            "domain_zh": title.zh,
            "domain_en": title.en,
            "facts": round(means.get("facts") or 0),
            **{number: _percent(means.get(number)) for number in PAPER_MEASURES},
        }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f}"
