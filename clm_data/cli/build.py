"""Commands that build a dataset: init, domains, import, audit, locality, stats, build."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clm_data
from clm_data.cli.app import BUILD
from clm_data.cli.output import (
    OUTPUT,
    JsonFlag,
    State,
    StrictFlag,
    counted,
    log,
    print_json,
    print_table,
    program,
    say,
)

if TYPE_CHECKING:
    from clm_data.api.build import Audit
    from clm_data.dataset_stats import Stats

_STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
"""Names of standard output, which is written to as it is: a file is never put in its place."""

app = typer.Typer()
locality_app = typer.Typer(no_args_is_help=True)


@app.command(rich_help_panel=BUILD)
def init(
    folder: Annotated[Path, typer.Argument(help="Workspace folder; created if missing.")] = Path(),
    own_domains: Annotated[
        bool,
        typer.Option("--own-domains", help="Copy domains.yaml and prompts/ there for editing."),
    ] = False,
) -> None:
    """Create a workspace: settings and store.

    A workspace is a folder with `clm.yaml` (settings) and `clm.db` (the store: answers, imported
    files, decisions).

    Example: `clm-data init my-dataset`
    """
    existed = (folder / "clm.yaml").is_file()
    workspace = clm_data.init(folder, own_domains=own_domains)
    verb = "kept" if existed else "created"
    say(f"{verb} {folder / 'clm.yaml'}; store: {workspace.settings.store}")
    if own_domains:
        say(f"created {folder / 'domains.yaml'}")
        say(f"created {folder / 'prompts'}")
    there = f"{program()} --workspace {shlex.quote(str(folder))}"
    say(f"next: {there} generate --domain chinese_literature --dry-run")


@app.command(rich_help_panel=BUILD)
def domains(ctx: typer.Context, json: JsonFlag = False) -> None:
    """List the domains with quotas and topics.

    Example: `clm-data domains`
    """
    state: State = ctx.obj
    found = clm_data.domains(state.workspace)
    if json:
        print_json([domain.model_dump(mode="json") for domain in found])
        return
    print_table(
        found.table_title(),
        ["id", "中文", "English", "quota", "topics"],
        [[d.id, d.zh, d.en, d.quota, len(d.ask_for)] for d in found],
    )


@app.command("import", rich_help_panel=BUILD)
def import_files(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="JSON, JSON Lines or CSV files.")],
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the files. Default: detected.")
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="License of the content, if known.")
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the files. Default: found, if it is certain."),
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Store published files unchanged.

    Reads CLM-Bench, EasyEdit, CounterFact, ZsRE, Bi-ZsRE, CSV and clm-data's own records. A file
    that is already stored is skipped; a file that cannot be read is reported, and the others are
    imported. Rows that cannot be used and fields that are not read are listed. Exits 2 if a file
    cannot be read or has no usable row.

    Example: `clm-data import chinese_fields_with_loc.json english_fields_with_loc.json`
    """
    state: State = ctx.obj
    result = clm_data.import_files(
        files, format=format, license=license, encoding=encoding, workspace=state.workspace
    )
    code = 2 if result.failed or result.useless else 0
    if json:
        print_json(result.as_json())
        return code
    rows = [
        [str(file.file), file.format, file.rows, "new" if file.is_new else "already stored"]
        for file in result.files
        if file.error is None
    ]
    if rows:
        print_table("imported", ["file", "format", "rows", "state"], rows)
    for file in result.failed:
        log(f"error: {file.error}")
    for file in result.files:
        kind = "error: " if file.is_useless else ""
        for line in file.reading.notices():
            log(f"{kind}{file.file.name}: {line}")
            kind = ""
    for line in result.pairing:
        log(line)
    say(f"{counted(result.candidates, 'candidate')} in imported files; next: clm-data audit")
    return code


@app.command(rich_help_panel=BUILD)
def audit(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files to audit. Default: the workspace.")
    ] = None,
    *,
    format: Annotated[
        str | None, typer.Option("--format", help="Format of the files. Default: detected.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.5,
            max=1.0,
            help="Prompts more similar than this are near-duplicates. Default: the setting of the "
            "workspace, or 0.9 for files.",
            show_default=False,
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the files. Default: found, if it is certain."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Also write the report as a web page; - prints the page instead of the table.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json: JsonFlag = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit 1 if an error was found.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """List every problem by code, without changing anything.

    Audits the given files, or the workspace if there are none. The Chinese and the English file of
    a dataset, given together, make bilingual entries.

    Example: `clm-data audit chinese.json english.json --html audit.html`
    """
    from clm_data.errors import ConfigError

    state: State = ctx.obj
    page_only = str(html) in _STDOUT
    if page_only and json:
        raise ConfigError("--json and --html - both print on stdout; give --html a file")
    found = clm_data.audit(
        files or None,
        format=format,
        threshold=threshold,
        encoding=encoding,
        workspace=state.workspace,
    )
    if html is not None:
        title = ", ".join(file.name for file in files or ()) or "workspace"
        page = found.as_html(f"Audit: {title}")
        if page_only:
            typer.echo(page.encode("utf-8"))
        else:
            _write(html, page)
    if json:
        print_json(found.as_json())
    elif not page_only:
        _show_audit(found)
    if strict and found.report.errors:
        raise typer.Exit(1)


def _show_audit(found: Audit) -> None:
    for line in found.reading.notes():
        log(line)
    if not found.report.entries:
        say("the workspace has no entries; fill it with: clm-data generate or clm-data import")
        return
    rows = found.table_rows()
    entries = counted(found.report.entries, "entry", "entries")
    if not rows:
        say(f"{entries}, no problems")
        return
    print_table(
        f"{entries}, {counted(len(rows), 'kind')} of problem",
        list(rows[0]),
        [[*list(row.values())[:-1], _shortened(row["example"])] for row in rows],
    )


def _shortened(message: str) -> str:
    return message if len(message) <= 90 else f"{message[:89]}…"


def _write(file: Path, text: str) -> None:
    from clm_data.errors import InputFileError
    from clm_data.files import atomic_file, check_page

    check_page(file)
    try:
        with atomic_file(file, overwrite=True) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise InputFileError(f"{file}: cannot be written: {reason}; choose another file") from error
    log(f"wrote {file}")


@locality_app.command()
def attach(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Option("--source", help="A file or folder, hub:ID of a dataset, or bank.")
    ],
    seed: Annotated[
        int | None,
        typer.Option(help="Random seed for drawing probes. Default: the value in clm.yaml, or 42."),
    ] = None,
    repeat: Annotated[
        bool | None,
        typer.Option(
            "--repeat/--no-repeat", help="Use probes more than once if there are too few."
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the source's files. Default: found, if it is certain."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Choose where locality probes come from.

    Tries the source on the entries and saves the choice in `clm.yaml`; `build` draws the probes.
    Sources: the bundled bank, CLM-Bench, Bi-ZsRE, and lists of bilingual probes in YAML or JSON.

    Example: `clm-data locality attach --source bank --seed 7`
    """
    state: State = ctx.obj
    report = clm_data.attach_probes(
        source, seed=seed, repeat=repeat, encoding=encoding, workspace=state.workspace
    )
    if json:
        print_json(report.as_json())
        return
    refused = ", ".join(f"{count} {code}" for code, count in report.rejected.items()) or "none"
    say(f"{report.settings.source}: {counted(report.usable, 'usable probe')}; rejected: {refused}")
    entries = counted(report.entries, "entry", "entries")
    say(f"{entries} with a probe; saved in clm.yaml")


app.add_typer(
    locality_app,
    name="locality",
    help="Choose where locality probes come from.",
    rich_help_panel=BUILD,
)


@app.command(rich_help_panel=BUILD)
def stats(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Count what a build would contain now.

    Counts entries by domain, review status, source and reason for rejection.

    Example: `clm-data stats`
    """
    state: State = ctx.obj
    counts = clm_data.stats(state.workspace)
    if json:
        print_json(counts.as_json())
    else:
        _show_stats(counts)


def _show_stats(counts: Stats) -> None:
    if not counts.records and not counts.rejected:
        say("the workspace has no entries; fill it with: clm-data generate or clm-data import")
        return
    print_table(
        f"{counted(counts.records, 'record')}: reviewers accepted {counts.accepted} and fixed "
        f"{counts.fixed}; {counts.unreviewed} unreviewed",
        ["domain", "领域", "records", "wanted", "reviewed"],
        [
            [d.id or d.en, d.zh, d.records, d.quota, d.accepted + d.fixed]
            for d in counts.domains
            if d.records or d.quota
        ],
    )
    if counts.origins:
        print_table(
            "sources",
            ["kind", "name", "license", "records"],
            [[o.kind, o.name, o.licence or "unknown", o.records] for o in counts.origins],
        )
    if counts.rejected:
        print_table(
            f"{sum(reason.count for reason in counts.rejected)} rejected",
            ["stage", "code", "count"],
            [[reason.stage, reason.code, reason.count] for reason in counts.rejected],
        )
    if counts.warnings:
        print_table(
            "warnings on kept records",
            ["code", "count"],
            [[warning.code, warning.count] for warning in counts.warnings],
        )


@app.command(rich_help_panel=BUILD)
def build(
    ctx: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: dataset in the workspace.")
    ] = None,
    reviewed_only: Annotated[
        bool,
        typer.Option(
            "--reviewed-only", help="Include only entries that reviewers accepted or fixed."
        ),
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Build the dataset: Parquet, JSON, card, chart, manifest.

    The same store and settings always give the same files, byte for byte.

    Example: `clm-data build --out dataset`
    """
    state: State = ctx.obj
    report = clm_data.build(out, reviewed_only=reviewed_only, workspace=state.workspace)
    if json:
        print_json(report.as_json())
    else:
        for line in report.summary():
            say(line)
    return 1 if strict and report.rejected else 0
