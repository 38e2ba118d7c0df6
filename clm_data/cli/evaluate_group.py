"""The commands of the group `eval`: setup-easyeditor, save-model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import clm_data
from clm_data.cli.app import EVALUATE
from clm_data.cli.evaluate import existing_dataset
from clm_data.cli.output import JsonFlag, State, counted, log, print_json, say
from clm_data.cli.report import RESULTS

app = typer.Typer()
eval_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    eval_app,
    name="eval",
    help="Save an edited model; set up EasyEdit.",
    rich_help_panel=EVALUATE,
)


@eval_app.command("setup-easyeditor")
def setup_easyeditor(
    folder: Annotated[Path, typer.Argument(help="Folder of the environment to make.")],
    *,
    checkout: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a git checkout of EasyEdit. Default: the release on the package index."
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(help="Interpreter to make it from. Default: a version that fits."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Make an environment with EasyEdit for `eval-baselines --backend easyeditor`.

    Installs pinned packages with pip. The release has MEMIT, ROME and FT for older models; a
    checkout has AlphaEdit, PMET, FT-M, LoRA, UltraEdit, GRACE and WISE as well.

    Example: `clm-data eval setup-easyeditor ~/easyedit`
    """
    made = clm_data.setup_easyeditor(folder, checkout=checkout, python=python, log=log)
    if json:
        print_json(made.as_json())
        return
    say(f"{made}")
    for name, value in made.variables.items():
        say(f"export {name}={value}")


@eval_app.command("save-model")
def save_model(
    ctx: typer.Context,
    out: Annotated[Path, typer.Argument(help="New or empty folder for the model.")],
    *,
    results: Annotated[
        Path, typer.Option(help="Folder that `eval-baselines --save-deltas` wrote.")
    ] = RESULTS,
    cell: Annotated[
        str | None,
        typer.Option(help="Key of the cell, or its beginning. Default: the only one."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=0, help="Number of the batch, if the cell edits several. Default: the only one."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="The edited dataset; only for the model tiny. Default: the workspace's."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of tiny models. Default: as for eval-baselines.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(help="Model repository NAMESPACE/NAME to push the folder to."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Create the repository as private.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Merge the edit of a finished cell into the model and save a model folder.

    The folder loads with transformers: weights, tokenizer, a card, and `clm_data_edit.json`, which
    says what was edited.

    Example: `clm-data eval save-model edited --cell 3f2a`
    """
    state: State = ctx.obj
    done = clm_data.save_model(
        results,
        out,
        cell=cell,
        batch=batch,
        dataset=dataset or existing_dataset(state.workspace),
        cache=cache,
        push=push,
        private=private,
        log=log,
    )
    if json:
        print_json(done.as_json())
        return
    edits, weights = counted(done.edited, "edit"), counted(len(done.weights), "weight")
    say(f"{done.folder}: {done.label}: {edits} in {weights}")
    if done.url is not None:
        say(f"pushed to {done.url}")
