"""Commands of the evaluation: eval-baselines, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clm_data.cli.app import app
from clm_data.cli.common import JsonFlag, State, StrictFlag, note, print_json, say

if TYPE_CHECKING:
    from clm_data.eval.recipe import Recipe
    from clm_data.eval.results import Results
    from clm_data.eval.tables import TableRow


@app.command("eval-baselines")
def eval_baselines(
    ctx: typer.Context,
    *,
    dataset: Annotated[
        str | None,
        typer.Option(help="Folder, file, or OWNER/NAME on the Hub; default: WORKSPACE/dataset."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A bundled recipe (`table1`) or a YAML file; flags below override it."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Hub id, folder, `gguf:FILE`, or `tiny`; may be repeated."),
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Of memit, alphaedit, pmet, rome, ft; with commas.")
    ] = None,
    languages: Annotated[str | None, typer.Option(help="Of zh, en, mix; with commas.")] = None,
    batch_sizes: Annotated[
        str | None, typer.Option(help="Facts edited at once: numbers or `all`; with commas.")
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(help="Edited layers, as 4,5,6; may be repeated. Default: the method's own."),
    ] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="batch, sequential or single; may be repeated.")
    ] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="native or easyedit; may be repeated.")
    ] = None,
    facts: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    params: Annotated[
        str | None, typer.Option(help="Whose hyperparameters, as `llama-3-8b`.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hub id, where not the model's own.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16, float16.")] = None,
    device: Annotated[str | None, typer.Option(help="As cpu or cuda:0.")] = None,
    device_map: Annotated[
        str | None, typer.Option(help="`auto` spreads the layers over several GPUs.")
    ] = None,
    tokens_per_batch: Annotated[
        int | None, typer.Option(min=64, help="Bounds memory: tokens run at once.")
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="Text for second moments: bank, dataset, a file, or `hub:ID`."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of contexts and intervals.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of results; a stopped run goes on.")] = Path(
        "eval_results"
    ),
    cache: Annotated[
        Path | None, typer.Option(help="Folder of tiny models and second moments.")
    ] = None,
    save_deltas: Annotated[
        bool, typer.Option("--save-deltas", help="Keep the weight changes (safetensors).")
    ] = False,
    json: JsonFlag = False,
    strict: StrictFlag = False,
) -> None:
    """Edit a model with a dataset's facts and measure both languages, before and after.

    Every cell of model x method x language x batch size x layers is written as it ends: run the
    command again and only unfinished cells are computed. A cell that fails is recorded with its
    reason.

    Example: `clm-data eval-baselines --dataset clm_demo/dataset --model tiny --methods memit,pmet`
    """
    from clm_data.errors import EvaluationError, MissingExtraError

    state: State = ctx.obj
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingExtraError("torch", "eval") from error
    from clm_data.eval.dataset import load_dataset
    from clm_data.eval.sweep.runner import run_sweep

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # what matters is an error of ours
    given = {
        "methods": _words(methods),
        "languages": _words(languages),
        "batch_sizes": _sizes(batch_sizes),
        "layers": None if layers is None else [_numbers(one) for one in layers],
        "modes": mode,
        "protocols": protocol,
        "facts": facts,
        "corpus": corpus,
        "seed": seed,
    }
    machine = {
        "params": params,
        "tokenizer": tokenizer,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "tokens_per_batch": tokens_per_batch,
    }
    chosen = _recipe(recipe, model, given, machine)
    read = load_dataset(dataset or str(state.workspace().path / "dataset"))
    if read.left_out:
        note(f"{read.left_out} rows without all texts in both languages are left out")
    results = run_sweep(chosen, read, out=out, cache=cache, save_deltas=save_deltas, log=note)
    if json:
        print_json(results.model_dump(mode="json", exclude={"cells": {"__all__": {"items"}}}))
    else:
        _show(results)
        note(f"wrote {out / 'table.md'}, table.csv, table.tex and results.json beside it")
    if len(results.failed) == len(results.cells):
        first = results.failed[0]
        raise EvaluationError(f"no cell could be computed: {first.setting.label}: {first.error}")
    if strict and (read.left_out or any(c.error or c.refused for c in results.cells)):
        raise typer.Exit(1)


@app.command()
def report(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders that eval-baselines wrote.")
    ] = None,
    *,
    format: Annotated[str, typer.Option("--format", help="markdown, csv or latex.")] = "markdown",
    compare_paper: Annotated[
        bool, typer.Option("--compare-paper", help="Set the paper's figures beside the results.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one run's whole story as a web page.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="For the page: the dataset that was edited.")
    ] = None,
    language: Annotated[
        str, typer.Option(help="Of the page at first, zh or en; it holds both.")
    ] = "en",
    json: JsonFlag = False,
) -> None:
    """Print the table of one or more runs, set it beside the paper's, or write a web page.

    With `--compare-paper` rows are matched by model, method, edit language and batch size. With
    `--html` the page shows what is there: the dataset, the evaluation, and what `clm-data analyze`
    found; its figures (PNG, SVG) and tables (CSV, LaTeX) are written beside it.

    Example: `clm-data report results --html results/report.html --dataset clm_demo/dataset`
    """
    if html is not None:
        _page(folders or [Path("eval_results")], html, dataset, language, json)
        return
    from clm_data.eval import tables
    from clm_data.eval.results import read_results

    found = [read_results(folder) for folder in folders or [Path("eval_results")]]
    rows = [row for results in found for row in tables.rows_of(results)]
    if compare_paper:
        _compare(rows, json)
    elif json:
        print_json([vars(row) for row in rows])
    else:
        say(tables.as_text(rows, format).rstrip("\n"))


def _page(folders: list[Path], html: Path, dataset: str | None, language: str, json: bool) -> None:
    from clm_data.errors import ConfigError
    from clm_data.eval.report import write_report
    from clm_data.records import LANGUAGES

    if len(folders) != 1:
        raise ConfigError(f"a page is of one run, {len(folders)} folders are named; name one")
    lang = next((one for one in LANGUAGES if one == language), None)
    if lang is None:
        raise ConfigError(f"--language {language}: the page is in zh or en")
    written = write_report(folders[0], html, dataset=dataset, lang=lang, log=note)
    if json:
        missing = [{"what": one.what.en, "command": one.command} for one in written.missing]
        places = {"tables": str(written.tables), "figures": str(written.figures)}
        print_json({"page": str(written.page), **places, "missing": missing})
        return
    for one in written.missing:
        note(f"missing: {one.what.en} {one.command}".rstrip())
    say(f"{written.page}; tables in {written.tables}, figures in {written.figures}")


def _compare(rows: list[TableRow], json: bool) -> None:
    from clm_data.eval import paper, tables

    pairs = paper.compare(rows)
    if json:
        print_json(
            [
                {
                    "table": pair.table,
                    "ours": vars(pair.ours),
                    "paper": vars(pair.paper),
                    "difference": {n: pair.difference(n) for n in tables.NUMBERS},
                }
                for pair in pairs
            ]
        )
        return
    if pairs:
        say(paper.comparison(pairs).rstrip("\n"))
        note(f"paper: {paper.paper_source()}")
        return
    say(tables.markdown(rows).rstrip("\n"))
    models = sorted({row.model for table in paper.paper_rows().values() for row in table})
    note(
        "no row of these results has a counterpart in the paper (same model, method, language and "
        f"batch size); the paper has {', '.join(models)}"
    )


def _show(results: Results) -> None:
    from clm_data.eval import tables

    say(tables.markdown(tables.rows_of(results)).rstrip("\n"))
    if 0 < len(results.failed) < len(results.cells):
        note(f"{len(results.failed)} of {len(results.cells)} cells failed; the table says why")


def _recipe(
    name: str | None,
    models: list[str] | None,
    given: dict[str, Any],
    machine: dict[str, Any],
) -> Recipe:
    """The recipe that a file and the flags make; a flag wins."""
    from clm_data.errors import ConfigError
    from clm_data.eval.recipe import parse_recipe, read_recipe

    if name is None and not models:
        raise ConfigError("name a model with --model (`tiny` needs no download) or a --recipe")
    base = {} if name is None else read_recipe(name).model_dump()
    base |= {field: value for field, value in given.items() if value is not None}
    if models:
        base["models"] = [{"name": model} for model in models]
    changes = {field: value for field, value in machine.items() if value is not None}
    base["models"] = [{**model, **changes} for model in base["models"]]
    return parse_recipe(base, name or "eval-baselines")


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _sizes(text: str | None) -> list[int | str] | None:
    words = _words(text)
    return None if words is None else [int(w) if w.isdigit() else w for w in words]


def _numbers(text: str) -> list[int | str]:
    return _sizes(text) or []
