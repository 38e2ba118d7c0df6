"""Commands on the workspace itself: init, domains, doctor, build, demo."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from clm_data.cli.app import app
from clm_data.cli.common import (
    JsonFlag,
    State,
    StrictFlag,
    open_store,
    print_json,
    print_table,
    program,
    say,
)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to make a workspace of.")] = Path(),
    own_domains: Annotated[
        bool,
        typer.Option("--own-domains", help="Copy domains.yaml and prompts/ there, to be changed."),
    ] = False,
) -> None:
    """Make a workspace: a folder with `clm.yaml` (settings) and `clm.db` (the store).

    Example: `clm-data init my-dataset`
    """
    from clm_data.config import CONFIG_NAME, copy_domains, open_workspace

    existed = (folder / CONFIG_NAME).is_file()
    workspace = open_workspace(folder, create=True)
    open_store(workspace).close()
    say(
        f"{'kept' if existed else 'made'} {folder / CONFIG_NAME}; store: {workspace.settings.store}"
    )
    if own_domains:
        for path in copy_domains(folder):
            say(f"made {path}")
    there = f"{program()} --workspace {shlex.quote(str(folder))}"
    say(f"next: {there} generate --domain chinese_literature --dry-run")


@app.command()
def domains(ctx: typer.Context, json: JsonFlag = False) -> None:
    """List the domains with their quotas and topics.

    Example: `clm-data domains`
    """
    from clm_data.config import CONFIG_NAME
    from clm_data.domain import load_domains
    from clm_data.resources import resource

    state: State = ctx.obj
    in_workspace = state.workspace_path or Path(CONFIG_NAME).is_file()
    file = state.workspace().domains_file if in_workspace else resource("domains.yaml")
    found = load_domains(file)
    if json:
        print_json([domain.model_dump(mode="json") for domain in found.values()])
        return
    print_table(
        f"{len(found)} domains, {sum(d.quota for d in found.values())} entries wanted",
        ["id", "中文", "English", "quota", "topics"],
        [[d.id, d.zh, d.en, d.quota, len(d.ask_for)] for d in found.values()],
    )


@app.command()
def doctor(ctx: typer.Context, json: JsonFlag = False) -> None:
    """Check what this machine and workspace have and lack. Shows no secrets.

    Example: `clm-data doctor`
    """
    from clm_data.diagnosis import examine

    state: State = ctx.obj
    findings = examine(state.workspace_path)
    if json:
        print_json([vars(finding) for finding in findings])
        return
    print_table(
        "doctor",
        ["check", "state", "what to do"],
        [[f.check, f.state, f.detail] for f in findings],
    )


@app.command()
def build(
    ctx: typer.Context,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: WORKSPACE/dataset.")
    ] = None,
    reviewed_only: Annotated[
        bool, typer.Option("--reviewed-only", help="Take only what people accepted or fixed.")
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> int:
    """Make the dataset from everything in the store: parquet, JSON, card, chart, manifest.

    A pure function of the store and the settings: a second run writes the same bytes.

    Example: `clm-data build --out dataset`
    """
    from clm_data.building import build as build_dataset

    state: State = ctx.obj
    workspace = state.workspace()
    report = build_dataset(
        workspace, out or workspace.path / "dataset", reviewed_only=reviewed_only
    )
    if json:
        print_json(report.as_json())
    else:
        for line in report.summary():
            say(line)
    return 1 if strict and report.rejected else 0


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Workspace to make.")] = Path("clm_demo"),
) -> None:
    """Go the whole way on the bundled bank, offline: generate, import, review, build.

    Example: `clm-data demo`
    """
    from clm_data.demo_run import run_demo

    run_demo(folder, say, program())
