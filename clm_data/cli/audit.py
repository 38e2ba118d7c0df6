"""Commands that judge and describe data without changing it: audit, schema."""

from __future__ import annotations

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
    from clm_data.records import Candidate, StageResult


@app.command()
def audit(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files to audit; none: the workspace.")
    ] = None,
    *,
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the files; default: recognised.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the report as one web page.")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(min=0.5, max=1.0, help="Prompts more similar than this are near-duplicates."),
    ] = 0.9,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> None:
    """List every problem of files or of the workspace, by code; nothing is changed.

    Files given together are read together: the Chinese and the English file of a dataset make
    bilingual entries. With `--strict` the exit code is 1 where an error was found.

    Example: `clm-data audit chinese.json english.json --html audit.html`
    """
    from clm_data.auditing import audit as run_audit

    found = _of_files(files, format) if files else _of_workspace(ctx.obj)
    report = run_audit(found.kept, threshold, found.rejected)
    if html is not None:
        title = ", ".join(file.name for file in files or ()) or "workspace"
        _write(html, report.as_html(f"Audit: {title}"))
    if json:
        print_json(report.as_json())
    else:
        print_table(
            f"{report.entries} entries, {len(report.problems)} kinds of problem",
            ["code", "severity", "lang", "field", "count", "example"],
            [
                (p.code, p.severity, p.lang, p.field, p.count, _example(p.examples[0].message))
                for p in report.problems
            ],
        )
    if strict and report.errors:
        raise typer.Exit(1)


@app.command()
def schema(
    name: Annotated[
        str | None, typer.Argument(help="entry, record or decision; none: list them.")
    ] = None,
) -> None:
    """Print the JSON Schema of one of our formats.

    Example: `clm-data schema record`
    """
    from clm_data.json_schema import KINDS, load

    if name is not None:
        print_json(load(name))
        return
    for kind in KINDS:
        say(f"{kind}\t{load(kind)['$id']}")


def _of_files(files: list[Path], format: str | None) -> StageResult[Candidate]:
    from clm_data import sources

    return sources.candidates_of([sources.read_file(file, format) for file in files])


def _of_workspace(state: State) -> StageResult[Candidate]:
    from clm_data.assemble import read_candidates
    from clm_data.domain import load_domains

    workspace = state.workspace()
    store = open_store(workspace)
    try:
        return read_candidates(store, load_domains(workspace.domains_file))
    finally:
        store.close()


def _write(file: Path, text: str) -> None:
    from clm_data.errors import InputFileError

    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise InputFileError(f"{file}: cannot be written: {reason}; name another file") from error
    note(f"wrote {file}")


def _example(message: str) -> str:
    return message if len(message) <= 90 else f"{message[:89]}…"
