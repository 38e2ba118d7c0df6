"""Report evaluation results: tables, a comparison with the paper, and an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.errors import ConfigError
from clm_data.eval import paper
from clm_data.eval.engines import EngineRow, engine_rows
from clm_data.eval.report.html import HtmlReport, write_report
from clm_data.eval.results import read_results
from clm_data.eval.tables import TableRow, rows_of
from clm_data.log import Log, silent
from clm_data.tabular import Tabular


@dataclass(frozen=True)
class ReportResult(Tabular):
    """What :func:`report` returns.

    Attributes:
        rows: One row per cell of every folder, in order, in the layout of the paper's tables.
        comparisons: Rows with their counterparts in the paper; empty unless requested.
        html: The page and its files; None unless requested.
        engines: EasyEdit's cells compared with ours of the same settings.
    """

    rows: tuple[TableRow, ...]
    comparisons: tuple[paper.ComparedRow, ...] = ()
    html: HtmlReport | None = None
    engines: tuple[EngineRow, ...] = ()

    def table_title(self) -> str:
        """Number of cells."""
        return f"Evaluation results: {len(self.rows)} cells, in percent"

    def table_rows(self) -> list[dict[str, Any]]:
        """One row per cell, in percent."""
        return [
            {
                **{"model": row.model, "method": row.method, "language": row.language},
                **{"batch_size": row.batch_size, **row.values, "note": row.note},
            }
            for row in self.rows
        ]


def report(
    folders: str | Path | Sequence[str | Path],
    *,
    html: str | Path | None = None,
    dataset: str | Path | None = None,
    lang: str = "en",
    compare_paper: bool = False,
    log: Log = silent,
) -> ReportResult:
    """Read evaluation results, compare them with the paper, and write an HTML page.

    Args:
        folders: One or more folders that ``eval-baselines`` wrote.
        html: Where to write the page, which shows a single folder; see :func:`write_report`.
            Default: no page.
        dataset: For the page: the dataset that was edited.
        lang: Language that the page shows first, ``zh`` or ``en``; it contains both.
        compare_paper: Whether to compare with the values that the paper reports for the same model,
            method, editing language and batch size.
        log: Called with progress messages.

    Raises:
        ConfigError: A page of several folders, or in another language.
        InputFileError: A folder has no results, the dataset cannot be read, or the page cannot be
            written.
    """
    paths = [Path(one) for one in ([folders] if isinstance(folders, (str, Path)) else folders)]
    if html is not None and len(paths) != 1:
        raise ConfigError(
            f"the page shows one run, but {len(paths)} folders were given; pass only one"
        )
    found = [read_results(path) for path in paths]
    rows = tuple(row for one in found for row in rows_of(one))
    engines = tuple(row for one in found for row in engine_rows(one))
    comparisons = tuple(paper.compare(rows)) if compare_paper else ()
    if html is None:
        return ReportResult(rows, comparisons, engines=engines)
    source = None if dataset is None else str(dataset)
    page = write_report(paths[0], Path(html), dataset=source, lang=lang, log=log)
    return ReportResult(rows, comparisons, page, engines)


__all__ = ["HtmlReport", "ReportResult", "report", "write_report"]
