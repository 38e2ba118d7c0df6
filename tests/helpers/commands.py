"""All commands of the program by their full names, such as ``review export``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from clm_data.cli.commands import app


def leaf_commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from leaf_commands(child, f"{path}{name} ")
        else:
            yield f"{path}{name}", child


COMMANDS = dict(leaf_commands(typer.main.get_command(app)))
