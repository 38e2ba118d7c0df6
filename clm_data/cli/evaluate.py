"""Commands that evaluate models: eval-baselines, analyze."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import clm_data
from clm_data.cli.app import EVALUATE
from clm_data.cli.evaluate_estimate import show_estimate
from clm_data.cli.output import (
    OUTPUT,
    JsonFlag,
    State,
    StrictFlag,
    counted,
    log,
    print_json,
    say,
)
from clm_data.cli.report import RESULTS, show_engines, show_rows

if TYPE_CHECKING:
    from clm_data.eval.results import Results

_GRID, _MODEL, _FILES = "What to evaluate", "Model and machine", "Files"

_SHOWN = 10
"""Maximum number of lines about what is left out, and of warnings."""

app = typer.Typer()


@app.command("eval-baselines", rich_help_panel=EVALUATE)
def eval_baselines(
    ctx: typer.Context,
    *,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Folder, file, or OWNER/NAME on the Hub. Default: dataset in the workspace.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A bundled recipe, such as table1, or a YAML file; the options below override it.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Hub id, folder, gguf:FILE, or tiny; repeatable.", rich_help_panel=_GRID),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated: memit, alphaedit, langedit, pmet, rome, ft, ft-m, locft-bf, "
            "lora, ultraedit, grace, wise, ice-oracle, ice-retrieved, ike. Default: memit.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    languages: Annotated[
        str | None,
        typer.Option(
            help="Editing languages, comma-separated: zh, en, mix. Default: all three.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    batch_sizes: Annotated[
        str | None,
        typer.Option(
            help="Facts edited at once, comma-separated: numbers or all. Default: all.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="Edited layers, such as 4,5,6; repeatable. Default: the method's own.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            help="batch, sequential or single; repeatable. Default: batch.", rich_help_panel=_GRID
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="native, easyedit or chat; repeatable. Default: native.", rich_help_panel=_GRID
        ),
    ] = None,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="What computes the edits: clm-data or easyeditor (EasyEdit); repeatable. Default: "
            "clm-data.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    facts: Annotated[
        int | None,
        typer.Option(
            min=1, help="Use only the first N facts. Default: all.", rich_help_panel=_GRID
        ),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            help="Hyperparameters of another model, such as llama-3-8b. Default: by the model's "
            "config.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Text for second moments: bank, dataset, a file, or hub:ID.",
            rich_help_panel=_GRID,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Random seed for contexts and bootstrap. Default: 42.", rich_help_panel=_GRID
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id. Default: the model's own.", rich_help_panel=_MODEL),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="auto, float32, bfloat16 or float16. Default: auto, the checkpoint's.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device, e.g. cuda:0. Default: the first GPU, or the CPU.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    device_map: Annotated[
        str | None,
        typer.Option(help="auto spreads layers over several GPUs.", rich_help_panel=_MODEL),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Run Python code that comes with the model or its tokenizer.",
            rich_help_panel=_MODEL,
        ),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch, tag or commit of a model on the Hub. Default: its main branch.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    layout: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with the names of the model's parts, if they are not known.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    easyedit_python: Annotated[
        str | None,
        typer.Option(
            help="Interpreter of EasyEdit's environment. Default: EASYEDIT_PYTHON.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    tokens_per_batch: Annotated[
        str | None,
        typer.Option(
            help="Maximum tokens per forward pass, or auto: by a GPU's free memory, 4096 on a CPU. "
            "Default: auto.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for results; an interrupted run resumes there.", rich_help_panel=_FILES
        ),
    ] = RESULTS,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder of tiny models and second moments. Default: CLM_DATA_CACHE or "
            "~/.cache/clm-data.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    save_deltas: Annotated[
        bool,
        typer.Option(
            "--save-deltas",
            help="Save the weight changes for `clm-data analyze`.",
            rich_help_panel=_FILES,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="List the cells and estimate memory and time; load no weights, write nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> None:
    """Edit a model with a dataset's facts; measure both languages.

    Every cell (a combination of model, method, editing language, batch size and layers) is saved
    when it finishes; run the command again to compute only unfinished cells. A failed cell is
    recorded with the reason.

    Example: `clm-data eval-baselines --dataset clm_demo/dataset --model tiny --methods memit,pmet`
    """
    from clm_data.errors import EvaluationError

    state: State = ctx.obj
    request: dict[str, Any] = {
        "dataset": dataset or _dataset_in(state.workspace),
        "recipe": recipe,
        "model": model,
        "methods": _names(methods),
        "languages": _names(languages),
        "batch_sizes": _sizes(batch_sizes),
        "layers": None if layers is None else [_sizes(one) or [] for one in layers],
        "mode": mode,
        "protocol": protocol,
        "backend": backend,
        "easyedit_python": easyedit_python,
        "facts": facts,
        "params": params,
        "corpus": corpus,
        "seed": seed,
        "tokenizer": tokenizer,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "trust_remote_code": trust_remote_code or None,
        "revision": revision,
        "layout": layout,
        "tokens_per_batch": tokens_per_batch,
        "out": out,
        "cache": cache,
        "save_deltas": save_deltas,
        "log": log,
    }
    if dry_run:
        estimate = clm_data.estimate_evaluation(**request)
        show_estimate(estimate, as_json=json)
        if all(cell.state == "refused" for cell in estimate.cells):
            refused = estimate.cells[0]
            raise EvaluationError(
                f"all cells would fail: {refused.setting.label}: {refused.reason}"
            )
        return
    results = clm_data.evaluate(**request)
    if json:
        print_json(results.model_dump(mode="json", exclude={"cells": {"__all__": {"items"}}}))
    else:
        _show_results(results)
        log(f"wrote {out / 'table.md'}, table.csv, table.tex and results.json")
    if len(results.failed) == len(results.cells):
        first = results.failed[0]
        raise EvaluationError(f"all cells failed: {first.setting.label}: {first.error}")
    if strict and (results.losses or results.failed):
        raise typer.Exit(1)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _sizes(text: str | None) -> list[int | str] | None:
    names = _names(text)
    return None if names is None else [int(name) if name.isdigit() else name for name in names]


def _show_results(results: Results) -> None:
    from clm_data.eval import tables
    from clm_data.eval.engines import engine_rows

    show_rows(tables.rows_of(results), "markdown")
    show_engines(engine_rows(results))
    for line in results.losses[:_SHOWN]:
        log(f"left out: {line}")
    for line in results.warnings[:_SHOWN]:
        log(f"warning: {line}")
    if max(len(results.losses), len(results.warnings)) > _SHOWN:
        log("more is left out or to be read with care; see table.md")
    if 0 < len(results.failed) < len(results.cells):
        log(
            f"{len(results.failed)} of {len(results.cells)} cells failed; see the table for reasons"
        )


def _dataset_in(workspace: Path | None) -> str:
    """The dataset that `clm-data build` writes by default."""
    from clm_data.api.inputs import as_workspace

    return str(as_workspace(workspace).path / "dataset")


@app.command(rich_help_panel=EVALUATE)
def analyze(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="Results of eval-baselines --save-deltas.")
    ] = RESULTS,
    *,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The dataset that was edited. Default: dataset in the workspace, if it exists."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Label of a model whose states to read; repeatable. Default: all."),
    ] = None,
    states: Annotated[
        bool, typer.Option("--states/--no-states", help="Load the models and read their states.")
    ] = True,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of tiny models. Default: CLM_DATA_CACHE or ~/.cache/clm-data."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Explain why edits do or don't transfer across languages.

    Compares the weight changes of edits in zh, en and mix with null distributions, and computes
    language vectors from hidden states. Tables go to FOLDER/analysis and FOLDER/tables, figures to
    FOLDER/figures; `clm-data report FOLDER --html FOLDER/report.html` puts them on one page.

    Example: `clm-data analyze eval_results --dataset clm_demo/dataset`
    """
    state: State = ctx.obj
    source = (dataset or existing_dataset(state.workspace)) if states else None
    found = clm_data.analyze(
        folder, dataset=source, models=model or (), states=states, cache=cache, log=log
    )
    if json:
        print_json(
            {
                "tables": [str(file) for file in found.tables],
                "figures": [str(file) for file in found.figures],
                "left_out": list(found.left_out),
            }
        )
        return
    for reason in found.left_out:
        log(f"left out: {reason}")
    say(f"{counted(len(found.tables), 'table')} in {folder / 'analysis'}")
    say(f"{counted(len(found.figures), 'figure file')} in {folder / 'figures'}")


def existing_dataset(workspace: Path | None) -> str | None:
    """The dataset folder of a workspace; None if there is no workspace or no such folder."""
    from clm_data.errors import ConfigError

    try:
        folder = _dataset_in(workspace)
    except ConfigError:
        return None
    return folder if Path(folder).is_dir() else None
