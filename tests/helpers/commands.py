"""Every command of the program by its full name, as in ``review export``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from clm_data.cli.commands import app


def leaves(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from leaves(child, f"{path}{name} ")
        else:
            yield f"{path}{name}", child


COMMANDS = dict(leaves(typer.main.get_command(app)))
