"""The root of the command tree, its global options, and the groups that `--help` shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clm_data.cli.output import State
from clm_data.version import __version__

BUILD = "Build a dataset"
REVIEW = "Review it"
PUBLISH = "Publish it"
EVALUATE = "Evaluate models with it"
TOOLS = "Tools"

_ORDER = (
    *("init", "domains", "generate", "import", "audit", "show", "locality", "stats", "build"),
    *("review", "export", "push-to-hub"),
    *("eval-baselines", "analyze", "report", "eval"),
    *("demo", "dedup", "schema", "store", "doctor"),
)
"""The commands in the order in which people use them."""


class _Ordered(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)


app = typer.Typer(
    name="clm-data",
    cls=_Ordered,
    help="Chinese-first bilingual counterfactual datasets for knowledge editing.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
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
    """Chinese-first bilingual counterfactual datasets for knowledge editing."""
    ctx.obj = State(workspace)
