"""Reports: tables of one or more evaluation runs, next to the paper's, or one run as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_data.errors import ConfigError
from clm_data.eval import paper
from clm_data.eval.report.html import HtmlReport, write_report
from clm_data.eval.results import read_results
from clm_data.eval.tables import TableRow, rows_of
from clm_data.log import Log, silent


@dataclass(frozen=True)
class ReportResult:
    """What :func:`report` read and wrote.

    Attributes:
        rows: One per cell of every folder, in order, in the paper's layout.
        comparisons: Rows that have a counterpart in the paper, each with it; empty unless
            asked for.
        html: The page with its files; None unless asked for.
    """

    rows: tuple[TableRow, ...]
    comparisons: tuple[paper.ComparedRow, ...] = ()
    html: HtmlReport | None = None


def report(
    folders: Sequence[Path],
    *,
    html: Path | None = None,
    dataset: str | None = None,
    lang: str = "en",
    compare_paper: bool = False,
    log: Log = silent,
) -> ReportResult:
    """Read the results of one or more runs, compare them with the paper, write one as a page.

    Args:
        folders: Folders that ``eval-baselines`` wrote.
        html: Where to write the page; it shows a single run. See :func:`write_report`.
        dataset: The dataset that was edited, for the page.
        lang: Language that the page shows first, ``zh`` or ``en``; it contains both.
        compare_paper: Whether to look for counterparts in the paper: rows of the same model,
            method, editing language and batch size.
        log: Called with progress messages.

    Raises:
        ConfigError: A page of several folders, or in another language.
        InputFileError: A folder has no results, or the page cannot be written.
    """
    if html is not None and len(folders) != 1:
        raise ConfigError(f"the page shows one run, {len(folders)} folders are given; give one")
    rows = tuple(row for folder in folders for row in rows_of(read_results(folder)))
    pairs = tuple(paper.compare(rows)) if compare_paper else ()
    page = (
        None
        if html is None
        else write_report(folders[0], html, dataset=dataset, lang=lang, log=log)
    )
    return ReportResult(rows, pairs, page)


__all__ = ["HtmlReport", "ReportResult", "report", "write_report"]
