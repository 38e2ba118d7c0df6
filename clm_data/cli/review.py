"""Commands for review by people: sheets out, verdicts in, progress."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clm_data
from clm_data.cli.app import REVIEW
from clm_data.cli.output import (
    JsonFlag,
    State,
    StrictFlag,
    counted,
    log,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from clm_data.review.intake import ImportReport

_ENTRIES = "Which entries"

app = typer.Typer()
review_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    review_app,
    name="review",
    help="Export sheets for reviewers, import verdicts.",
    rich_help_panel=REVIEW,
)


@review_app.command("export")
def export_sheet(
    ctx: typer.Context,
    *,
    domain: Annotated[
        list[str] | None,
        typer.Option(help="Export only this domain; repeatable.", rich_help_panel=_ENTRIES),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also entries that the checks rejected but a person could fix.",
            rich_help_panel=_ENTRIES,
        ),
    ] = False,
    unreviewed: Annotated[
        bool,
        typer.Option(
            "--unreviewed/--any-status",
            help="Only entries whose current text has no verdict, or all entries.",
            rich_help_panel=_ENTRIES,
        ),
    ] = True,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of entries.", rich_help_panel=_ENTRIES)
    ] = None,
    out: Annotated[Path, typer.Option(help="Sheet to write: .xlsx or .csv.")] = Path("review.xlsx"),
    encoding: Annotated[
        str,
        typer.Option(help="CSV encoding: utf-8-sig (opens correctly in Excel), utf-8 or gb18030."),
    ] = "utf-8-sig",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing sheet.")] = False,
    json: JsonFlag = False,
) -> None:
    """Write a sheet for reviewers: both languages and the problems.

    Example: `clm-data review export --out review.xlsx --domain chinese_literature`
    """
    state: State = ctx.obj
    sheet = clm_data.export_review(
        out,
        domains=domain or (),
        include_rejected=everything,
        unreviewed_only=unreviewed,
        limit=limit,
        encoding=encoding,
        force=force,
        workspace=state.workspace,
    )
    for id_ in sheet.too_long:
        log(f"left out {id_}: a text is longer than a spreadsheet cell can hold")
    if json:
        print_json(sheet.as_json())
        return
    say(f"{counted(sheet.entries, 'entry', 'entries')} in {out}")
    if not sheet.entries:
        say("nothing to review; add entries with clm-data generate, or export with --any-status")
        return
    say(f"after the review: clm-data review import {shlex.quote(str(out))} --reviewer NAME")


@review_app.command("import")
def import_sheets(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Completed sheets, CSV or XLSX.")],
    *,
    reviewer: Annotated[
        str | None,
        typer.Option(help="Reviewer's name for rows in which the column 'reviewer' is empty."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of CSV sheets, if it is not found with certainty."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be stored; store nothing.")
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Store the verdicts of a completed sheet.

    Verdicts are accept, reject or fix (通过, 拒绝, 修改). A row whose entry has changed since the
    export, or whose texts contradict its verdict, is reported and not applied. Importing a sheet
    again adds nothing.

    Example: `clm-data review import review.xlsx --reviewer "Li Na"`
    """
    state: State = ctx.obj

    reports: dict[Path, ImportReport] = {}

    def show(file: Path, report: ImportReport) -> None:
        reports[file] = report
        if not json:
            _show_import(file, report, dry_run=dry_run)

    def show_json() -> None:
        if json:
            print_json([{"file": str(file)} | report.as_json() for file, report in reports.items()])

    try:
        clm_data.import_review(
            files,
            reviewer=reviewer,
            encoding=encoding,
            dry_run=dry_run,
            progress=show,
            workspace=state.workspace,
        )
    except BaseException:
        if reports:  # the verdicts of these sheets are stored
            show_json()
        raise
    show_json()
    lost = any(r.conflicts or r.unknown or r.contrary or r.unread for r in reports.values())
    return 1 if strict and lost else 0


def _show_import(file: Path, report: ImportReport, *, dry_run: bool) -> None:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in report.applied.items())
    say(
        f"{file}: {sum(report.applied.values())} {'would be applied' if dry_run else 'applied'} "
        f"({verdicts}), {report.repeated} already stored, {report.undecided} without a verdict, "
        f"{counted(len(report.conflicts), 'conflict')}, {len(report.unknown)} unknown"
    )
    for text in report.unread:
        say(f"  conflict: {text}")
    for word, lines in (
        ("conflict", report.conflicts),
        ("unknown", report.unknown),
        ("contrary", report.contrary),
        ("warning", report.warnings),
    ):
        for line in lines:
            say(f"  {word}: row {line.row}, {line.id or 'no id'}: {line.reason}")
    if report.contrary:
        say(
            f"{counted(len(report.contrary), 'entry', 'entries')} kept out of the dataset until "
            "someone decides between contrary verdicts; clm-data review export lists them first, "
            "clm-data show ID shows who decided what"
        )


@review_app.command("status")
def show_status(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Show the progress of the review, by domain.

    Example: `clm-data review status`
    """
    state: State = ctx.obj
    rows = clm_data.review_status(state.workspace)
    if json:
        print_json([vars(row) for row in rows])
        return
    if not rows:
        say("no entries to review; add some with: clm-data generate or clm-data import")
        return
    names = ["entries", "accepted", "fixed", "rejected", "unreviewed", "contrary"]
    table = [[row.domain or "(none)", *(getattr(row, name) for name in names)] for row in rows]
    totals = [sum(getattr(row, name) for row in rows) for name in names]
    print_table("review", ["domain", *names], [*table, ["all", *totals]])
