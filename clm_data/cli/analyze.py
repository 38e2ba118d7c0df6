"""The command that analyses the edits of a sweep: analyze."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clm_data.cli.app import app
from clm_data.cli.common import JsonFlag, State, note, print_json, say


@app.command()
def analyze(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="What eval-baselines wrote.")] = Path(
        "eval_results"
    ),
    *,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="The dataset that was edited; default: WORKSPACE/dataset, if it is there."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Label of a model whose states to read; may be repeated. Default: all."),
    ] = None,
    states: Annotated[
        bool, typer.Option("--states/--no-states", help="Load the models and read their states.")
    ] = True,
    cache: Annotated[Path | None, typer.Option(help="Folder of tiny models.")] = None,
    json: JsonFlag = False,
) -> None:
    """Explain why edits do or do not cross languages: geometry of edits, language vectors.

    Geometry needs the weight changes that `eval-baselines --save-deltas` keeps, of edits in zh, en
    and mix. States need the model and the dataset. Tables go to FOLDER/analysis, figures to
    FOLDER/figures; `clm-data report FOLDER --html FOLDER/report.html` makes a page of them.

    Example: `clm-data analyze eval_results --dataset clm_demo/dataset`
    """
    from clm_data.errors import MissingExtraError

    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingExtraError("torch", "eval") from error
    from clm_data.eval.analysis.run import analyse_folder
    from clm_data.eval.dataset import load_dataset
    from clm_data.eval.environment import default_cache_folder
    from clm_data.eval.figures.draw import draw_figures

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    state: State = ctx.obj
    source = (dataset or _workspace_dataset(state)) if states else None
    done = analyse_folder(
        folder,
        dataset=load_dataset(source) if source is not None else None,
        models=model or (),
        states=states,
        cache=cache or default_cache_folder(),
        log=note,
    )
    note("drawing the figures")
    drawn = draw_figures(folder / "analysis", folder / "figures")
    files = sorted({file for one in drawn for pair in one.files.values() for file in pair})
    if json:
        print_json(
            {
                "tables": [str(file) for file in done.tables],
                "figures": [str(file) for file in files],
                "left_out": done.left_out,
            }
        )
        return
    for reason in done.left_out:
        note(f"left out: {reason}")
    say(f"{len(done.tables)} tables in {folder / 'analysis'}")
    say(f"{len(drawn)} figures in {folder / 'figures'}")


def _workspace_dataset(state: State) -> str | None:
    """The dataset of the workspace; None where there is neither."""
    from clm_data.errors import ConfigError

    try:
        folder = state.workspace().path / "dataset"
    except ConfigError:
        return None
    return str(folder) if folder.is_dir() else None
