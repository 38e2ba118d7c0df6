"""The command that prints and writes results: report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clm_data
from clm_data.cli.app import EVALUATE
from clm_data.cli.output import JsonFlag, log, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clm_data.eval.engines import EngineRow
    from clm_data.eval.report import HtmlReport, ReportResult
    from clm_data.eval.tables import TableRow

RESULTS = Path("eval_results")
"""Where eval-baselines writes by default."""

app = typer.Typer()


@app.command(rich_help_panel=EVALUATE)
def report(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Results of eval-baselines. [eval_results]")
    ] = None,
    *,
    format: Annotated[str, typer.Option("--format", help="markdown, csv or latex.")] = "markdown",
    compare_paper: Annotated[
        bool, typer.Option("--compare-paper", help="Compare with the paper's reported values.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write an HTML report of one run.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="For the HTML report: the dataset that was edited.")
    ] = None,
    language: Annotated[
        str, typer.Option(help="Language the HTML report opens in, zh or en; it contains both.")
    ] = "en",
    json: JsonFlag = False,
) -> None:
    """Print result tables, or write an HTML report.

    With `--compare-paper` rows are matched by model, method, editing language and batch size. The
    HTML report shows the dataset, the evaluation and what `clm-data analyze` found; its figures
    (PNG, SVG) and tables (CSV, LaTeX) are written next to it.

    Example: `clm-data report results --html results/report.html --dataset clm_demo/dataset`
    """
    found = clm_data.report(
        folders or [RESULTS],
        html=html,
        dataset=dataset,
        lang=language,
        compare_paper=compare_paper,
        log=log,
    )
    if found.html is not None:
        _show_page(found.html, as_json=json)
    elif compare_paper:
        _show_comparison(found, as_json=json)
    elif json:
        print_json([vars(row) for row in found.rows])
    else:
        show_rows(found.rows, format)
        if format == "markdown":
            show_engines(found.engines)


def _show_page(page: HtmlReport, *, as_json: bool) -> None:
    if as_json:
        missing = [{"what": one.what.en, "command": one.command} for one in page.missing]
        places = {"tables": str(page.tables), "figures": str(page.figures)}
        print_json({"page": str(page.page), **places, "missing": missing})
        return
    for one in page.missing:
        log(f"missing: {one.what.en} {one.command}".rstrip())
    say(f"{page.page}; tables in {page.tables}, figures in {page.figures}")


def _show_comparison(found: ReportResult, *, as_json: bool) -> None:
    from clm_data.eval import paper
    from clm_data.eval.metrics import PAPER_MEASURES

    pairs = found.comparisons
    if as_json:
        print_json(
            [
                {
                    "table": pair.table,
                    "ours": vars(pair.ours),
                    "paper": vars(pair.paper),
                    "difference": {name: pair.difference(name) for name in PAPER_MEASURES},
                }
                for pair in pairs
            ]
        )
        return
    if pairs:
        say(paper.comparison(pairs).rstrip("\n"))
        log(f"paper: {paper.paper_source()}")
        return
    show_rows(found.rows, "markdown")
    models = sorted({row.model for table in paper.paper_rows().values() for row in table})
    log(
        "no row of these results has a counterpart in the paper (same model, method, language and "
        f"batch size); the paper reports {', '.join(models)}"
    )


def show_engines(rows: Sequence[EngineRow]) -> None:
    """Print how EasyEdit's cells differ from ours, if there are any."""
    from clm_data.eval import tables

    if rows:
        say("\n" + tables.engine_table(rows).rstrip("\n"))


def show_rows(rows: Sequence[TableRow], format: str) -> None:
    """Draw rows on a terminal; print them in a format elsewhere."""
    from clm_data.eval import tables
    from clm_data.eval.metrics import PAPER_MEASURES

    if format != "markdown" or not sys.stdout.isatty():
        say(tables.as_text(rows, format).rstrip("\n"))
        return
    notes = any(row.note for row in rows)
    print_table(
        "",
        [*tables.HEADINGS, *(["note"] if notes else [])],
        [
            [
                *(row.model, row.method, row.language, row.batch_size),
                *(tables.format_value(row.values.get(name)) for name in PAPER_MEASURES),
                *([row.note] if notes else []),
            ]
            for row in rows
        ],
    )
