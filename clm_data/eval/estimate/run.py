"""Estimating a sweep: what `clm-data eval-baselines --dry-run` does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clm_data.eval.dataset import DatasetSource, load_dataset
from clm_data.eval.easyedit.found import find_easyedit
from clm_data.eval.environment import default_cache_folder, require_eval_extra
from clm_data.eval.estimate.model import ModelCells
from clm_data.eval.estimate.report import CellEstimate, EvaluationEstimate
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import CellResult
from clm_data.eval.sweep.evaluate import chosen_recipe, listed
from clm_data.eval.sweep.plan import PlannedCell, finished_cell, plan_cells
from clm_data.log import Log, silent


def estimate_evaluation(
    dataset: DatasetSource,
    *,
    recipe: str | Path | Recipe | None = None,
    model: str | Sequence[str] | None = None,
    out: str | Path = "eval_results",
    cache: str | Path | None = None,
    save_deltas: bool = False,
    easyedit_python: str | Path | None = None,
    log: Log = silent,
    **options: Any,
) -> EvaluationEstimate:
    """Estimate memory and time of :func:`evaluate`, without loading weights or writing anything.

    Memory comes from the models' configs and the lengths of the texts, time from a short
    measurement of two layers on this machine, as if nothing else ran on it. Of cells that an
    earlier run finished in `out`, the measured seconds are given, and the estimates of the others
    are scaled to them. Times are upper limits where a method can stop early; they leave out
    downloads and loading. What is unknown is None. Of a model on the Hub, the config and the
    tokenizer are downloaded.

    The arguments are those of :func:`evaluate`.

    Example:
        >>> found = estimate_evaluation("clm_demo/dataset", model="tiny", methods=["memit"])
        >>> found.seconds, found.models[0].peak, found.models[0].fits

    Raises:
        MissingExtraError: The extra `eval` is not installed.
        ConfigError: Neither a model nor a recipe is given, or a value or name is invalid.
        UnknownNameError: There is no such recipe.
        InputFileError: The dataset cannot be read or has too few records.
    """
    require_eval_extra()
    chosen = chosen_recipe(recipe, listed(model), options)
    loaded = load_dataset(dataset)
    planned = plan_cells(chosen, loaded, TinyConfig(), partial(find_easyedit, easyedit_python))
    deltas = Path(out) / "deltas" if save_deltas else None
    finished = {
        index: result
        for index, cell in enumerate(planned)
        if isinstance(cell, PlannedCell)
        and (result := finished_cell(Path(out), cell, deltas)) is not None
    }
    found: dict[int, CellEstimate] = {
        index: CellEstimate(cell.setting, "refused", cell.error)
        for index, cell in enumerate(planned)
        if isinstance(cell, CellResult)
    }
    models = []
    for spec in dict.fromkeys(cell.spec for cell in planned if isinstance(cell, PlannedCell)):
        cells = {
            index: cell
            for index, cell in enumerate(planned)
            if isinstance(cell, PlannedCell) and cell.spec == spec
        }
        folder = Path(cache or default_cache_folder())
        about, estimates = ModelCells(spec, cells, finished, chosen, loaded, folder, log).estimate()
        found |= estimates
        models += [] if about is None else [about]
    return EvaluationEstimate(
        chosen.title,
        len(loaded.first(chosen.facts).records),
        tuple(models),
        tuple(found[index] for index in range(len(planned))),
    )
