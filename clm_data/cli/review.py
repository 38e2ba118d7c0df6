"""Commands for review by people: sheets out, verdicts in, and how far the review is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clm_data.cli.app import app
from clm_data.cli.common import (
    JsonFlag,
    State,
    StrictFlag,
    note,
    open_store,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from clm_data.assemble import Assembly
    from clm_data.domain import Domain
    from clm_data.records import Decision
    from clm_data.review.intake import ImportReport

review_app = typer.Typer(help="Review by people: export, import, status.", no_args_is_help=True)
app.add_typer(review_app, name="review")


@review_app.command("export")
def export_sheet(
    ctx: typer.Context,
    *,
    out: Annotated[Path, typer.Option(help="Sheet to write; .xlsx or .csv, by its ending.")] = Path(
        "review.xlsx"
    ),
    domain: Annotated[
        list[str] | None, typer.Option(help="Only this domain; may be repeated.")
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Also entries that the checks keep out and a person could mend."
        ),
    ] = False,
    unreviewed: Annotated[
        bool,
        typer.Option(
            "--unreviewed/--any-status",
            help="Only entries without a verdict on their text, or whatever their status.",
        ),
    ] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many entries.")] = None,
    encoding: Annotated[
        str, typer.Option(help="Of CSV: utf-8-sig (Excel opens it right), utf-8 or gb18030.")
    ] = "utf-8-sig",
    force: Annotated[bool, typer.Option("--force", help="Replace a sheet that is there.")] = False,
    json: JsonFlag = False,
) -> None:
    """Write a sheet for reviewers: both languages side by side, with the problems found.

    Example: `clm-data review export --out review.xlsx --domain chinese_literature`
    """
    from clm_data.review.decisions import current_contents
    from clm_data.review.queue import build_queue
    from clm_data.review.sheet import write_sheet

    assembly, decisions, domains = _assembly(ctx.obj)
    queue = build_queue(
        assembly.entries,
        assembly.warnings,
        assembly.status,
        rejected=assembly.rejected if everything else (),
        contents=current_contents(assembly.candidates, decisions),
        decisions=decisions,
        domains=_known(domain or [], assembly, domains),
        unreviewed_only=unreviewed,
        limit=limit,
    )
    write_sheet(queue.items, out, encoding=encoding, force=force)
    for id_ in queue.too_long:
        note(f"left out {id_}: a text is longer than a spreadsheet cell holds")
    if json:
        print_json(
            {"file": str(out), "entries": len(queue.items), "too_long": list(queue.too_long)}
        )
        return
    say(f"{len(queue.items)} entries in {out}")
    sheet = shlex.quote(str(out))
    say(f"when the verdicts are in: clm-data review import {sheet} --reviewer NAME")


@review_app.command("import")
def import_sheets(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Sheets that came back, CSV or XLSX.")],
    *,
    reviewer: Annotated[
        str | None, typer.Option(help="Who decided, for rows whose column 'reviewer' is empty.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen; store nothing.")
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Take in the verdicts of a sheet: accept, reject or fix (通过, 拒绝, 修改).

    A row whose entry has changed since the export, or whose texts do not fit its verdict, is listed
    and not applied. Importing a sheet again adds nothing.

    Example: `clm-data review import review.xlsx --reviewer "Li Na"`
    """
    from clm_data.assemble import read_candidates
    from clm_data.domain import load_domains
    from clm_data.review.intake import import_sheet
    from clm_data.validate.rules import problems_of

    state: State = ctx.obj
    workspace = state.workspace()
    reports = {}
    with open_store(workspace) as store:
        candidates = read_candidates(store, load_domains(workspace.domains_file)).kept
        for file in files:
            reports[file] = import_sheet(
                store, candidates, file, reviewer=reviewer, check=problems_of, dry_run=dry_run
            )
            if not json:
                _tell(file, reports[file], dry_run=dry_run)
    if json:
        print_json([{"file": str(file)} | report.as_json() for file, report in reports.items()])
    lost = any(report.conflicts or report.unknown for report in reports.values())
    return 1 if strict and lost else 0


@review_app.command("status")
def show_status(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Show how far the review is, by domain.

    Example: `clm-data review status`
    """
    from clm_data.review.queue import count_by_domain

    assembly, _, domains = _assembly(ctx.obj)
    rows = count_by_domain(assembly.entries, assembly.status, assembly.rejected, domains)
    if json:
        print_json([vars(row) for row in rows])
        return
    names = ["entries", "accepted", "fixed", "rejected", "unreviewed"]
    table = [[row.domain or "(none)", *(getattr(row, name) for name in names)] for row in rows]
    totals = [sum(getattr(row, name) for row in rows) for name in names]
    print_table("review", ["domain", *names], [*table, ["all", *totals]])


def _assembly(state: State) -> tuple[Assembly, list[Decision], dict[str, Domain]]:
    from clm_data.assemble import assemble
    from clm_data.domain import load_domains

    workspace = state.workspace()
    domains = load_domains(workspace.domains_file)
    with open_store(workspace) as store:
        return assemble(store, domains, workspace.settings), store.decisions(), domains


def _known(wanted: Sequence[str], assembly: Assembly, domains: dict[str, Domain]) -> Sequence[str]:
    """The domains asked for, if they are all in the domain file or in the data."""
    from clm_data.errors import UnknownNameError

    known = {*domains, *(content.domain for content in assembly.candidates if content.domain)}
    for name in wanted:
        if name not in known:
            raise UnknownNameError("domain", name, known)
    return wanted


def _tell(file: Path, report: ImportReport, *, dry_run: bool) -> None:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in report.applied.items())
    say(
        f"{file}: {sum(report.applied.values())} {'would be applied' if dry_run else 'applied'} "
        f"({verdicts}), {report.repeated} already there, {report.undecided} without a verdict, "
        f"{len(report.conflicts)} conflicts, {len(report.unknown)} unknown"
    )
    for word in ("conflict", "unknown", "warning"):
        lines = getattr(report, {"conflict": "conflicts", "warning": "warnings"}.get(word, word))
        for line in lines:
            say(f"  {word}: row {line.row}, {line.id or 'no id'}: {line.reason}")
