"""Commands that publish a dataset: export, push-to-hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import clm_data
from clm_data.cli.app import PUBLISH
from clm_data.cli.output import JsonFlag, State, counted, log, print_json, say

if TYPE_CHECKING:
    from clm_data.publish import PushReport

app = typer.Typer()


@app.command(rich_help_panel=PUBLISH)
def export(
    ctx: typer.Context,
    *,
    out: Annotated[Path, typer.Option("--out", help="New or empty folder to write.")],
    format: Annotated[
        str, typer.Option("--format", help="clm-bench, jsonl, csv or easyedit.")
    ] = "clm-bench",
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked", help="Export all imported CLM-Bench rows unchanged, byte for byte."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files in a folder that is not empty.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Write the dataset in another format.

    Exports the records that `build` would write: the three CLM-Bench layouts, JSON Lines, CSV, or
    EasyEdit's KnowEdit layout.

    Example: `clm-data export --format easyedit --out easyedit`
    """
    state: State = ctx.obj
    report = clm_data.export(
        out, format=format, unchecked=unchecked, force=force, workspace=state.workspace
    )
    for reason in report.left_out:
        log(reason)
    if json:
        print_json(report.as_json())
        return
    for name, count in report.files.items():
        say(f"{out / name}: {counted(count, 'row' if unchecked else 'record')}")


@app.command("push-to-hub", rich_help_panel=PUBLISH)
def push_to_hub(
    ctx: typer.Context,
    repo: Annotated[str, typer.Argument(help="NAMESPACE/NAME on the Hub.")],
    *,
    dataset: Annotated[
        Path | None,
        typer.Option(help="Folder written by clm-data build. Default: dataset in the workspace."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Create the repository as private.")
    ] = False,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit, such as v1.0.")] = None,
    rejected: Annotated[
        bool, typer.Option("--rejected/--no-rejected", help="Push rejected.jsonl as well.")
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show what would be sent; needs no token and no network."),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Push a built dataset to the Hugging Face Hub.

    Pushes all configurations, card, manifest and tag. Only changed files are sent; pushing the same
    content again changes nothing. The token is read from `HF_TOKEN` or from where `hf auth login`
    stored it.

    Example: `clm-data push-to-hub your-name/clm-counterfactuals --private --dry-run`
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    state: State = ctx.obj
    if not sys.stderr.isatty():
        disable_progress_bars()
    report = clm_data.push_to_hub(
        repo,
        dataset=dataset,
        private=private,
        tag=tag,
        dry_run=dry_run,
        rejected=rejected,
        workspace=state.workspace,
    )
    if json:
        print_json(report.as_json())
    else:
        _show_push(report)


def _show_push(report: PushReport) -> None:
    say(f"{report.url} ({report.visibility}{f', tag {report.tag}' if report.tag else ''})")
    for file in report.files:
        say(f"{file.change:8} {file.size:>10} bytes  sha256 {file.sha256}  {file.path}")
    for path in report.removed:
        say(f"{'remove' if report.dry_run else 'removed':8} {path}")
    if report.left_out:
        log(f"not pushed: {', '.join(report.left_out)}")
    if report.dry_run:
        say(f"repository: {report.remote}")
        say(
            "dry run: this would be sent; nothing was sent"
            if report.changed
            else "dry run: the repository already has this content"
        )
    else:
        done = "pushed as" if report.changed else "nothing to change; the dataset is in"
        say(f"{done} commit {report.commit}")
