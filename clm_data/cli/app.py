"""The root of the command tree and its global options; commands register themselves on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clm_data import __version__
from clm_data.cli.common import State

app = typer.Typer(
    name="clm-data",
    help="Chinese-first bilingual counterfactual datasets for knowledge editing.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clm-data {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option(
            "--workspace",
            "-w",
            help="Folder with clm.yaml; default: CLM_DATA_WORKSPACE or the current folder.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Global options."""
    ctx.obj = State(workspace)
