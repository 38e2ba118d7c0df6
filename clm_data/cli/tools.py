"""Tools: the offline demo, near-duplicates in any file, JSON Schemas, a check of the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import clm_data
from clm_data.cli.app import TOOLS
from clm_data.cli.output import (
    JsonFlag,
    State,
    print_json,
    print_table,
    program,
    progress_bars,
    say,
)

_COMPARE, _KEEP, _SEMANTIC = "What to compare", "What to keep", "Semantic duplicates"

app = typer.Typer()


@app.command(rich_help_panel=TOOLS)
def demo(
    folder: Annotated[Path, typer.Argument(help="Workspace to create.")] = Path("clm_demo"),
) -> None:
    """Run the full pipeline offline on bundled data.

    Generates, imports, reviews and builds in its own workspace.

    Example: `clm-data demo`
    """
    clm_data.demo(folder, log=say, program=program())


@app.command(rich_help_panel=TOOLS)
def dedup(
    file: Annotated[
        str, typer.Argument(help="JSON Lines, JSON, CSV or Parquet file, or hub:ID[/CONFIG].")
    ],
    *,
    field: Annotated[
        list[str],
        typer.Option(
            "--field",
            "-f",
            help="Column to compare, repeatable; zh.prompt is a path into objects.",
            rich_help_panel=_COMPARE,
        ),
    ],
    threshold: Annotated[
        float,
        typer.Option(
            "--threshold",
            "-t",
            min=0.5,
            max=0.9999,
            help="Rows more similar than this are near-duplicates.",
            rich_help_panel=_COMPARE,
        ),
    ] = 0.9,
    each_field: Annotated[
        bool,
        typer.Option(
            "--each-field",
            help="Compare each --field on its own. Default: their concatenation.",
            rich_help_panel=_COMPARE,
        ),
    ] = False,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize",
            help="Compare in NFKC with whitespace collapsed.",
            rich_help_panel=_COMPARE,
        ),
    ] = False,
    policy: Annotated[
        str,
        typer.Option(
            "--policy", help="keep-first, keep-best or by-subject.", rich_help_panel=_KEEP
        ),
    ] = "keep-first",
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="Column of numbers for keep-best: higher is better.",
            rich_help_panel=_KEEP,
        ),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject",
            help="Column for by-subject: near-duplicates with different subjects are kept.",
            rich_help_panel=_KEEP,
        ),
    ] = None,
    semantic: Annotated[
        str | None,
        typer.Option(
            "--semantic",
            help="Embedding model; also reports semantic duplicates.",
            rich_help_panel=_SEMANTIC,
        ),
    ] = None,
    semantic_threshold: Annotated[
        float,
        typer.Option(
            min=-1.0,
            max=1.0,
            help="Minimum cosine for semantic duplicates.",
            rich_help_panel=_SEMANTIC,
        ),
    ] = 0.85,
    provider: Annotated[
        str | None,
        typer.Option(
            help="Embedding provider. Default: run the model locally.", rich_help_panel=_SEMANTIC
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(help="Address of an OpenAI-compatible endpoint.", rich_help_panel=_SEMANTIC),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File for the kept rows.")],
    report: Annotated[
        str | None,
        typer.Option(
            "--report", help="Report: a .json or .html file, otherwise a text table; - for stdout."
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", help="jsonl, json, csv or parquet. Default: detected."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split to read if a Hub dataset has several.")
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", help="Encoding of a CSV file. Default: found, if certain."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing --out and --report files.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Remove near-duplicates from any file.

    The search is exact: every pair above the threshold is found. The kept rows are written in
    their order, unchanged, in the format of the input, which is never modified. With `--json` a
    summary goes to stdout, or the report with `--report -`.

    Example: `clm-data dedup prompts.jsonl --field zh.prompt --threshold 0.9 --out unique.jsonl`
    """
    from clm_data.errors import StoppedError, UserError

    try:
        with progress_bars() as progress:
            found = clm_data.deduplicate(
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
                encoding=encoding,
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
        raise  # the reader of the pipe has read enough
    except OSError as error:
        raise UserError(f"{out} is complete, but stdout failed: {error.strerror}") from error


@app.command(rich_help_panel=TOOLS)
def schema(
    name: Annotated[
        str | None, typer.Argument(help="entry, record or decision. Default: list them.")
    ] = None,
) -> None:
    """Print the JSON Schema of a format.

    Example: `clm-data schema record`
    """
    found = clm_data.schema(name)
    if name is not None:
        print_json(found)
        return
    for kind, each in found.items():
        say(f"{kind}\t{each['$id']}")


@app.command(rich_help_panel=TOOLS)
def doctor(ctx: typer.Context, json: JsonFlag = False) -> int:
    """Check this machine and workspace, without showing secrets.

    Reads every row of the store. Exits with 2 if something is wrong.

    Example: `clm-data doctor`
    """
    state: State = ctx.obj
    findings = clm_data.doctor(state.workspace)
    wrong = 2 if any(finding.state == "wrong" for finding in findings) else 0
    if json:
        print_json([vars(finding) for finding in findings])
        return wrong
    print_table(
        "doctor",
        ["check", "state", "detail"],
        [[f.check, f.state, f.detail] for f in findings],
    )
    return wrong
