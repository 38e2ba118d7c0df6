"""The command that removes near-duplicates from any file: dedup."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from clm_data.cli.app import app
from clm_data.cli.common import JsonFlag, note, print_json, say

_SECONDS_BETWEEN_LINES = 10.0


@app.command()
def dedup(
    file: Annotated[
        str, typer.Argument(help="JSON Lines, JSON, CSV or parquet file, or hub:ID[/CONFIG].")
    ],
    *,
    field: Annotated[
        list[str],
        typer.Option("--field", "-f", help="Column to compare; zh.prompt reaches into objects."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the rows that stay.")],
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold", "-t", min=0.5, max=1.0, help="Twins are more similar than this."
        ),
    ] = 0.9,
    policy: Annotated[
        str, typer.Option("--policy", help="keep-first, keep-best or by-subject.")
    ] = "keep-first",
    score: Annotated[
        str | None, typer.Option("--score", help="Column of numbers for keep-best: more is better.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option("--subject", help="Column; twins that differ in it are flagged, not removed."),
    ] = None,
    each_field: Annotated[
        bool,
        typer.Option(
            "--each-field", help="Compare each --field by itself; twins in one are twins."
        ),
    ] = False,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Compare in NFKC with blanks collapsed.")
    ] = False,
    report: Annotated[
        str | None,
        typer.Option("--report", help="A .json or .html file, a table in any other; - for stdout."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="Of FILE: jsonl, json, csv or parquet; default: recognised."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Of a dataset on the Hub that has several.")
    ] = None,
    semantic: Annotated[
        str | None,
        typer.Option("--semantic", help="Embedding model; reports rows that say the same."),
    ] = None,
    semantic_threshold: Annotated[
        float, typer.Option(min=-1.0, max=1.0, help="Cosine from which on rows say the same.")
    ] = 0.85,
    provider: Annotated[
        str | None, typer.Option(help="Who has the embedding model; default: this machine.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible endpoint that has it.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace --out and --report where they are there.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Remove near-duplicates from any file, exactly: every pair over the threshold is found.

    The rows that stay come out in their order, unchanged, in the format of the input, which is
    never written to. With `--json` a summary goes to stdout, or the report with `--report -`.

    Example: `clm-data dedup prompts.jsonl --field zh.prompt --threshold 0.9 --out unique.jsonl`
    """
    from clm_data.errors import StoppedError, UserError

    try:
        from clm_data.dedup.files.run import deduplicate

        with _progress() as progress:
            found = deduplicate(
                file,
                field,
                threshold=threshold,
                policy=policy,
                score=score,
                subject=subject,
                each_field=each_field,
                normalize=normalize,
                out=out,
                report=report if report != "-" else None,
                force=force,
                format=format,
                split=split,
                semantic=semantic,
                semantic_threshold=semantic_threshold,
                provider=provider,
                base_url=base_url,
                progress=progress,
            )
    except KeyboardInterrupt as error:
        raise StoppedError("nothing was written; run the command again") from error
    try:
        if report == "-":
            found.write(sys.stdout, "json" if json else "table")
            sys.stdout.flush()
        elif json:
            print_json(found.summary())
        else:
            say(f"{out}: {found}")
    except BrokenPipeError:
        raise  # whoever reads has seen enough
    except OSError as error:
        raise UserError(f"{out} is complete, but stdout takes no more: {error.strerror}") from error


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar a step on a terminal; elsewhere a line now and then. On stderr."""
    if not sys.stderr.isatty():
        told = time.monotonic()

        def tell(step: str, done: int, whole: int) -> None:
            nonlocal told
            if time.monotonic() - told >= _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                note(f"{step}: {done} of {whole}")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    tasks: dict[str, int] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Bars(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as bars:

        def show(step: str, done: int, whole: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=whole)
            bars.update(tasks[step], completed=done, total=whole)  # type: ignore[arg-type]

        yield show
