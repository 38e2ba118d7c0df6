"""What the commands share: the workspace, output, and tables."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from clm_data.config import Workspace
    from clm_data.store import Store

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
StrictFlag = Annotated[bool, typer.Option("--strict", help="Exit with 1 where anything was lost.")]


@dataclass(frozen=True)
class State:
    """Global options, as ``ctx.obj``."""

    workspace_path: Path | None

    def workspace(self, *, create: bool = False, **overrides: Any) -> Workspace:
        """Open the workspace; ``overrides`` are top-level settings given as flags."""
        from clm_data.config import open_workspace

        return open_workspace(self.workspace_path, create=create, overrides=overrides)


def open_store(workspace: Workspace) -> Store:
    """Open the workspace's store."""
    from clm_data.store import Store

    return Store(workspace.store_url)


def program() -> str:
    """How to call this program again: by its path where the shell would not find it by name."""
    called = Path(sys.argv[0])
    return "clm-data" if called.name != "clm-data" or shutil.which("clm-data") else str(called)


def say(text: str = "") -> None:
    """A line for people, on stdout."""
    typer.echo(text)


def note(text: str) -> None:
    """A line for people that must not mix with results, on stderr."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    """A result for programs, on stdout; escaped where stdout does not take every letter."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    typer.echo(text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout; numbers are right-aligned."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    body = [[("" if cell is None else str(cell)) for cell in row] for row in rows]
    for index, name in enumerate(columns):
        numeric = bool(body) and all(_is_number(row[index]) for row in body)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*map(escape, row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width).print(table)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("%", "").replace("-", "", 1).strip().isdigit()
