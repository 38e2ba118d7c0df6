"""The whole analysis of a results folder: geometry, states, and what edits do to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.eval.analysis.evaluation_tables import write_evaluation_tables
from clm_data.eval.analysis.geometry import tables as geometry
from clm_data.eval.csv_tables import write_rows
from clm_data.eval.dataset import EvalSet
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import CellResult, Results, read_results
from clm_data.eval.sweep.open_model import open_model
from clm_data.log import Log, silent
from clm_data.records import Record


@dataclass
class Analysed:
    """What an analysis did.

    Attributes:
        tables: The CSV files that were written.
        left_out: What was not analysed, and why.
    """

    tables: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def analyse_folder(
    folder: Path,
    *,
    dataset: EvalSet | None = None,
    models: Sequence[str] = (),
    states: bool = True,
    cache: Path,
    tiny_config: TinyConfig | None = None,
    log: Log = silent,
) -> Analysed:
    """Write ``FOLDER/analysis/*.csv``.

    Args:
        folder: What ``eval-baselines`` wrote; geometry needs ``--save-deltas``.
        dataset: The whole dataset that was given to it; None: no states are read.
        models: Labels of the models whose states are read; none: all of them.
        states: Whether to load models and read their states at all.
        cache: Folder of trained tiny models.
        tiny_config: Of the tiny model, where it is not the usual.
        log: Called with progress messages.

    Raises:
        InputFileError: No results, another dataset, or there is nothing to analyse.
        UnknownNameError: The results have no such model.
        EditError: A number came out beyond its range, or a model cannot be read.
    """
    results = read_results(folder)
    labels = list(dict.fromkeys(cell.setting.model for cell in results.cells))
    for name in models:
        if name not in labels:
            raise UnknownNameError("model of these results", name, labels)
    done = Analysed()
    _geometry(folder, done, log)
    if not states:
        done.left_out.append("states: not asked for")
    elif dataset is None:
        done.left_out.append("states: name the dataset that was edited with --dataset")
    else:
        _check(dataset, results)
        _states(folder, results, dataset, models or labels, cache, tiny_config, done, log)
    if not done.tables:
        raise InputFileError(f"{folder}: nothing could be analysed: {'; '.join(done.left_out)}")
    done.tables += write_evaluation_tables(folder / "analysis", results)
    return done


def _geometry(folder: Path, done: Analysed, log: Log) -> None:
    if not any((folder / "deltas").glob("*.safetensors")):
        done.left_out.append(
            "geometry: no weight changes there; run eval-baselines with --save-deltas"
        )
        return
    found = geometry.analyse(folder, log=log)
    done.tables += geometry.write(folder / "analysis", found)
    for row in found.skipped:
        name = f"{row['model']} {row['method']} {row['language']} batch {row['batch_size']}"
        done.left_out.append(f"geometry of {name}: {row['reason']}")


def _check(dataset: EvalSet, results: Results) -> None:
    """That the dataset is the one that was edited.

    Raises:
        InputFileError: It is another one.
    """
    enough = len(dataset.records) >= results.records
    if not enough or dataset.first(results.records).key != results.dataset_key:
        raise InputFileError(
            f"{dataset.name} is not the dataset these results were made with "
            f"({results.records} records, sha256 {results.dataset_key[:12]}…); name that one"
        )


def _states(
    folder: Path,
    results: Results,
    dataset: EvalSet,
    wanted: Sequence[str],
    cache: Path,
    tiny_config: TinyConfig | None,
    done: Analysed,
    log: Log,
) -> None:
    if not results.recipe:
        done.left_out.append("states: the results do not say which models; run the sweep again")
        return
    recipe = Recipe.model_validate(results.recipe)
    used = dataset.first(results.records).records
    tables: dict[str, list[dict[str, Any]]] = {}
    for spec in recipe.models:
        cells = [
            cell
            for cell in results.cells
            if cell.setting.model == spec.shown and cell.status == "done"
        ]
        if spec.shown not in wanted or not cells:
            continue
        loaded = open_model(spec, used, cache, tiny_config, log)
        for name, rows in _of_model(folder, loaded, recipe, used, cells, done, log).items():
            tables.setdefault(name, []).extend(rows)
        del loaded
    for name, rows in tables.items():
        file = folder / "analysis" / f"{name}.csv"
        write_rows(file, rows, _columns(name))
        done.tables.append(file)


def _columns(name: str) -> tuple[str, ...] | None:
    from clm_data.eval.analysis.language import edited_tables as edit_tables
    from clm_data.eval.analysis.language import vectors as language_vectors

    return language_vectors.COLUMNS.get(name) or edit_tables.COLUMNS.get(name)


def _of_model(
    folder: Path,
    loaded: LoadedModel,
    recipe: Recipe,
    records: Sequence[Record],
    cells: Sequence[CellResult],
    done: Analysed,
    log: Log,
) -> dict[str, list[dict[str, Any]]]:
    from clm_data.eval.analysis.geometry.saved_edits import find_edits
    from clm_data.eval.analysis.language.edited_states import analyse_edits
    from clm_data.eval.analysis.language.states import collect
    from clm_data.eval.analysis.language.vectors import analyse
    from clm_data.eval.protocols import get_protocol

    log(f"states of {loaded.name}")
    states = collect(loaded, records, get_protocol(recipe.protocols[0]))
    tables = dict(analyse(states))
    if any((folder / "deltas").glob(f"{cells[0].key}-*.safetensors")):
        log(f"what edits do to states of {loaded.name}")
        tables |= analyse_edits(loaded, states, records, find_edits(folder).groups)
    else:
        done.left_out.append(f"edited states of {loaded.name}: no weight changes there")
    return tables
