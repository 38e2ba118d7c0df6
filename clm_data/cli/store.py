"""Commands for the store: backups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import clm_data
from clm_data.cli.app import TOOLS
from clm_data.cli.output import JsonFlag, State, print_json, say

app = typer.Typer()
store_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    store_app,
    name="store",
    help="Back up the store, and restore it.",
    rich_help_panel=TOOLS,
)


@store_app.command()
def backup(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Backup to write.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: JsonFlag = False,
) -> None:
    """Write the store to one file, while others may write to it.

    The backup of a SQLite or a PostgreSQL store can be restored into either. A damaged store is
    not backed up.

    Example: `clm-data store backup clm-2026-11-26.db`
    """
    state: State = ctx.obj
    done = clm_data.backup_store(file, force=force, workspace=state.workspace)
    if json:
        print_json(done.as_json())
    else:
        say(f"wrote {done}")


@store_app.command()
def restore(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Backup to read.")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what is in the store.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Put a backup in the place of the store.

    The backup is checked first. The store is replaced completely or not at all; a SQLite store
    that cannot be read any more is moved aside.

    Example: `clm-data store restore clm-2026-11-26.db --replace`
    """
    state: State = ctx.obj
    done = clm_data.restore_store(file, replace=replace, workspace=state.workspace)
    if json:
        print_json(done.as_json())
        return
    say(f"restored {done}")
    if done.set_aside is not None:
        say(f"the damaged store is now {done.set_aside}")
