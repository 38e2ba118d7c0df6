"""Commands on the dataset as others see it: stats, push-to-hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clm_data.cli.app import app
from clm_data.cli.common import JsonFlag, State, note, print_json, print_table, say

if TYPE_CHECKING:
    from clm_data.dataset_stats import Stats
    from clm_data.publish import PushReport


@app.command()
def stats(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Count what a build would hold now: by domain, review, source and reason of rejection.

    Example: `clm-data stats`
    """
    from clm_data.building import collect_records
    from clm_data.dataset_stats import statistics
    from clm_data.domain import load_domains

    state: State = ctx.obj
    workspace = state.workspace()
    sifted = collect_records(workspace)
    domains = load_domains(workspace.domains_file)
    counted = statistics(sifted.kept, sifted.rejected, sifted.warnings, domains)
    if json:
        print_json(counted.as_json())
    else:
        _print_stats(counted)


def _print_stats(stats: Stats) -> None:
    print_table(
        f"{stats.records} records; people accepted {stats.accepted}, fixed {stats.fixed}; "
        f"{stats.unreviewed} unreviewed",
        ["domain", "领域", "records", "wanted", "reviewed"],
        [
            [d.id or d.en, d.zh, d.records, d.quota, d.accepted + d.fixed]
            for d in stats.domains
            if d.records or d.quota
        ],
    )
    if stats.origins:
        print_table(
            "sources",
            ["kind", "name", "licence", "records"],
            [[o.kind, o.name, o.licence or "not known", o.records] for o in stats.origins],
        )
    if stats.rejected:
        print_table(
            f"{sum(reason.count for reason in stats.rejected)} rejected",
            ["stage", "code", "times"],
            [[reason.stage, reason.code, reason.count] for reason in stats.rejected],
        )
    if stats.warnings:
        print_table(
            "warnings on records that were kept",
            ["code", "times"],
            [[warning.code, warning.count] for warning in stats.warnings],
        )


@app.command("push-to-hub")
def push_to_hub(
    ctx: typer.Context,
    repo: Annotated[str, typer.Argument(help="NAMESPACE/NAME on the Hub.")],
    *,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Folder made by `clm-data build`; default: WORKSPACE/dataset."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would go up; needs no token, no network.")
    ] = False,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit, as `v1.0`.")] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected/--no-rejected", help="Push `rejected.jsonl` too.")
    ] = True,
    json: JsonFlag = False,
) -> None:
    """Push the built dataset to the Hub: all configurations, card, manifest, tag.

    Sends only what differs; a second push of the same content changes nothing. The token is read
    from `HF_TOKEN` or from where `hf auth login` stored it.

    Example: `clm-data push-to-hub your-name/clm-counterfactuals --private --dry-run`
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from clm_data import publish

    state: State = ctx.obj
    if not sys.stderr.isatty():
        disable_progress_bars()
    report = publish.push_to_hub(
        dataset or state.workspace().path / "dataset",
        repo,
        private=private,
        tag=tag,
        dry_run=dry_run,
        rejected=rejected,
    )
    if json:
        print_json(report.as_json())
    else:
        _print_push(report)


def _print_push(report: PushReport) -> None:
    say(f"{report.url} ({report.visibility}{f', tag {report.tag}' if report.tag else ''})")
    for file in report.files:
        say(f"{file.change:8} {file.size:>10} bytes  sha256 {file.sha256}  {file.path}")
    for path in report.removed:
        say(f"{'remove' if report.dry_run else 'removed':8} {path}")
    if report.left_out:
        note(f"not pushed: {', '.join(report.left_out)}")
    if report.dry_run:
        say(f"repository: {report.remote}")
        say(
            "dry run: this would go up; nothing was sent"
            if report.changed
            else "dry run: the repository holds this content already"
        )
    else:
        done = "pushed as" if report.changed else "nothing to change; the dataset is in"
        say(f"{done} commit {report.commit}")
