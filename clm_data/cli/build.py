"""Commands that build a dataset: init, domains, generate, import, audit, locality, stats, build."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    progress_bars,
    say,
)

if TYPE_CHECKING:
    from clm_data.api.build import Audit
    from clm_data.dataset_stats import Stats
    from clm_data.generation import CostEstimate, GenerationReport, Progress

_SCOPE, _MODEL, _LIMITS = "What to ask for", "Model", "Limits"

app = typer.Typer()
locality_app = typer.Typer(no_args_is_help=True)


@app.command(rich_help_panel=BUILD)
def init(
    folder: Annotated[Path, typer.Argument(help="Workspace folder; created if missing.")] = Path(),
    own_domains: Annotated[
        bool,
        typer.Option("--own-domains", help="Copy domains.yaml and prompts/ there, to be changed."),
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


@app.command(rich_help_panel=BUILD)
def generate(
    ctx: typer.Context,
    *,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", "-d", help="Domain id; repeatable.", rich_help_panel=_SCOPE),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every domain.", rich_help_panel=_SCOPE)
    ] = False,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Entries wanted in each domain. Default: its quota.",
            rich_help_panel=_SCOPE,
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            help="deepseek, siliconflow, openrouter, dashscope, vllm, ollama, custom, or offline "
            "(the bundled bank). Default: clm.yaml's, deepseek at first.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model name. Default: the provider's.", rich_help_panel=_MODEL),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address of an OpenAI-compatible endpoint. Default: the provider's.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=512,
            help="Maximum requests in flight. Default: 16, or clm.yaml's.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Maximum cost of this run, in the currency of the model's price.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    max_requests: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum requests sent by this run.", rich_help_panel=_LIMITS),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the first prompt and an estimate; send nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Ask a model for entries until each quota is met.

    Answers are stored as they arrive: run the same command again to resume an interrupted run
    without paying twice.

    Example: `clm-data generate --domain chinese_literature --count 20`
    """
    from clm_data.errors import ConfigError

    state: State = ctx.obj
    if everything == bool(domain):
        raise ConfigError("name domains with --domain ID, or choose every one with --all")
    request: dict[str, Any] = {
        "domains": "all" if everything else domain,
        "count": count,
        "provider": provider,
        "model": model,
        "base_url": base_url,
        "workspace": state.workspace,
    }
    if dry_run:
        _show_estimate(clm_data.estimate_cost(**request), as_json=json)
        return 0
    with _generation_progress() as progress:
        report = clm_data.generate(
            **request,
            concurrency=concurrency,
            max_requests=max_requests,
            max_cost=max_cost,
            progress=progress,
        )
    if json:
        print_json(report.as_json())
    else:
        _show_generation(report)
    return 1 if strict and (report.lost or report.short) else 0


@contextmanager
def _generation_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar for each domain on a terminal; elsewhere a line for each batch of dialogues."""
    import sys

    if not sys.stderr.isatty():
        yield _log_batch
        return
    with progress_bars() as show:
        yield lambda at: show(at.domain, at.entries, at.target, f"{at.requests} requests")


def _log_batch(at: Progress) -> None:
    if at.settled:
        log(
            f"{at.domain}: {at.entries} of {counted(at.target, 'entry', 'entries')}, "
            f"{counted(at.requests, 'request')}"
        )


def _show_generation(report: GenerationReport) -> None:
    print_table(
        "generate",
        ["domain", "entries", "wanted", "new", "rejected", "kept", "requests", "stopped"],
        [
            [
                each.domain,
                each.entries,
                each.target,
                each.new,
                each.rejected,
                "" if each.share_kept is None else f"{each.share_kept:.0%}",
                each.requests,
                each.stopped,
            ]
            for each in report.domains
        ],
    )
    usage = report.usage
    say(
        f"tokens: {usage.prompt_tokens} sent, {usage.completion_tokens} received "
        f"({usage.reasoning_tokens} of them reasoning); {_cost(report)}"
    )
    if report.retries:
        say(f"retried {counted(report.retries, 'request')}; rate limits: {report.rate_limits}")
    for loss in report.lost:
        log(f"lost: {loss}")
    if report.stopped:
        log(f"stopped: {report.stopped}")
    if report.short:
        log("below quota: " + ", ".join(report.short))


def _show_estimate(found: CostEstimate, *, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
        return
    if found.prompt is None:
        say("nothing to ask: every domain has met its quota")
        return
    say(found.prompt)
    missing = sum(found.missing.values())
    say(
        f"about {counted(found.requests, 'request')} for {counted(missing, 'entry', 'entries')} "
        f"if every answer is good; about {found.prompt_tokens} tokens sent and "
        f"{found.completion_tokens} received, reasoning included; {_cost(found)}"
    )


def _cost(of: CostEstimate | GenerationReport) -> str:
    if of.cost is None or of.price is None:
        return "cost: unknown for this model"
    return f"cost: at most {of.cost:.2f} {of.price.currency} at the prices this version knows"


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
    json: JsonFlag = False,
) -> int:
    """Store published files unchanged.

    Reads CLM-Bench, EasyEdit, CounterFact, ZsRE, Bi-ZsRE, CSV and clm-data's own records. A file
    that is stored already is skipped; a file that cannot be read is reported, and the others are
    imported.

    Example: `clm-data import chinese_fields_with_loc.json english_fields_with_loc.json`
    """
    state: State = ctx.obj
    result = clm_data.import_files(files, format=format, license=license, workspace=state.workspace)
    if json:
        print_json(result.as_json())
        return 2 if result.failed else 0
    rows = [
        [str(file.file), file.format, file.rows, "new" if file.is_new else "already stored"]
        for file in result.files
        if file.error is None
    ]
    if rows:
        print_table("imported", ["file", "format", "rows", "state"], rows)
    for file in result.failed:
        log(f"error: {file.error}")
    say(f"{counted(result.candidates, 'candidate')} in imported files; next: clm-data audit")
    return 2 if result.failed else 0


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
        float,
        typer.Option(min=0.5, max=1.0, help="Prompts more similar than this are near-duplicates."),
    ] = 0.9,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Also write the report as a web page.", rich_help_panel=OUTPUT),
    ] = None,
    json: JsonFlag = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit 1 if an error was found.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """List every problem, by code; change nothing.

    Audits files or, without files, the workspace. Files given together are read together: the
    Chinese and the English file of a dataset make bilingual entries.

    Example: `clm-data audit chinese.json english.json --html audit.html`
    """
    state: State = ctx.obj
    found = clm_data.audit(
        files or None, format=format, threshold=threshold, workspace=state.workspace
    )
    if html is not None:
        title = ", ".join(file.name for file in files or ()) or "workspace"
        _write(html, found.report.as_html(f"Audit: {title}"))
    if json:
        print_json(found.report.as_json())
    else:
        _show_audit(found)
    if strict and found.report.errors:
        raise typer.Exit(1)


def _show_audit(found: Audit) -> None:
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

    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise InputFileError(f"{file}: cannot be written: {reason}; name another file") from error
    log(f"wrote {file}")


@locality_app.command()
def attach(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Option("--source", help="A file or folder, hub:ID of a dataset, or bank.")
    ],
    seed: Annotated[
        int | None,
        typer.Option(help="Another seed draws other probes. Default: 42, or clm.yaml's."),
    ] = None,
    repeat: Annotated[
        bool | None,
        typer.Option(
            "--repeat/--no-repeat", help="Use probes more than once if there are too few."
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Choose where locality probes come from.

    Tries the source on the entries and saves the choice in `clm.yaml`; `build` draws the probes.
    Sources: the bundled bank, CLM-Bench, Bi-ZsRE, and lists of bilingual probes in YAML or JSON.

    Example: `clm-data locality attach --source bank --seed 7`
    """
    state: State = ctx.obj
    report = clm_data.attach_probes(source, seed=seed, repeat=repeat, workspace=state.workspace)
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

    By domain, review status, source and reason of rejection.

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
        bool, typer.Option("--reviewed-only", help="Include only what people accepted or fixed.")
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Build the dataset: Parquet, JSON, card, chart, manifest.

    A pure function of the store and the settings: a second run writes the same bytes.

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
