"""What the commands share: global options, lines, tables, progress bars."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from clm_data.cli.terminal import json_for_terminals, printable, wrapped

OUTPUT = "Output"
"""Help panel of the options that change only what is printed."""

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Machine-readable JSON output.", rich_help_panel=OUTPUT)
]
StrictFlag = Annotated[
    bool,
    typer.Option("--strict", help="Exit 1 if any item was dropped.", rich_help_panel=OUTPUT),
]

Remark = str | Callable[[], str]

_NARROWEST = 40
"""Columns; text for a narrower terminal is wrapped by the terminal."""
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class State:
    """Global options, as `ctx.obj`."""

    workspace: Path | None


def program() -> str:
    """How to call this program again: by its path if the shell would not find it by name."""
    called = Path(sys.argv[0])
    return "clm-data" if called.name != "clm-data" or shutil.which("clm-data") else str(called)


def say(text: str = "") -> None:
    """Print a line of the result on stdout, with control characters written out."""
    typer.echo(printable(text))


def say_block(text: str, indent: int = 0, *, label: str = "") -> None:
    """Print a whole text like :func:`say`, wrapped to the width of the terminal and indented.

    Args:
        text: One line or several.
        indent: Levels of two columns.
        label: Printed before the first line; the others are indented by its length.
    """
    margin = " " * (2 * indent)
    columns = max(_NARROWEST, shutil.get_terminal_size((80, 24)).columns)
    for number, line in enumerate(wrapped(printable(text), columns - len(margin + label))):
        say(f"{margin}{' ' * len(label) if number else label}{line}".rstrip())


def log(text: str) -> None:
    """Print a line that must not mix with the result, on stderr, like :func:`say`."""
    typer.echo(printable(text), err=True)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun: `1 entry`, `2 entries`."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def print_json(value: Any) -> None:
    """Print JSON on stdout, escaped if stdout cannot encode every character.

    Characters that a terminal could obey are always escaped, which gives the same JSON.
    """
    text = json_for_terminals(json.dumps(value, ensure_ascii=False, indent=2))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    typer.echo(text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table to stdout, with columns of numbers right-aligned."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    body = [[("" if cell is None else printable(str(cell))) for cell in row] for row in rows]
    for index, name in enumerate(columns):
        numeric = bool(body) and all(_is_number(row[index]) for row in body)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in body:
        table.add_row(*map(escape, row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width).print(table)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("%", "").replace("-", "", 1).strip().isdigit()


@contextmanager
def progress_bars() -> Iterator[Callable[..., None]]:
    """Progress on stderr: a bar for each step on a terminal, else a line every ten seconds.

    Yields:
        A function of step, done, total and optionally a remark, which may be a function that is
        called each time the bar is drawn.
    """
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(step: str, done: int, total: int, remark: Remark = "") -> None:
            nonlocal last
            remark = remark() if callable(remark) else remark
            if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                log(f"{step}: {done} of {total}{remark and ', '}{remark}")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class _Remark(TextColumn):
        def render(self, task: Any) -> Text:
            remark: Remark = task.fields["remark"]
            return Text(printable(remark() if callable(remark) else remark))

    tasks: dict[str, Any] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Remark(""),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bars:

        def bar(step: str, done: int, total: int, remark: Remark = "") -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total, remark=remark)
            bars.update(tasks[step], completed=done, total=total, remark=remark)

        yield bar
