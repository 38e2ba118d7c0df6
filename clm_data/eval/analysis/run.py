"""The analysis of a results folder: geometry of edits, language vectors, and edited states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.eval.analysis.evaluation_tables import write_evaluation_tables
from clm_data.eval.analysis.geometry import tables as geometry
from clm_data.eval.analysis.geometry.saved_edits import find_edits
from clm_data.eval.analysis.language import edited_tables
from clm_data.eval.analysis.language import tables as language
from clm_data.eval.analysis.language.edited_states import edited_state_tables, edits_mlp_outputs
from clm_data.eval.analysis.language.states import read_states
from clm_data.eval.csv_tables import ResultTables, write_tables
from clm_data.eval.dataset import EvalSet
from clm_data.eval.environment import require_eval_extra
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.protocols import get_protocol
from clm_data.eval.recipe import ModelSpec, Recipe
from clm_data.eval.results import CellResult, Results, read_results
from clm_data.eval.sweep.open_model import open_model
from clm_data.log import Log, silent
from clm_data.records import Record

COLUMNS = geometry.COLUMNS | language.COLUMNS | edited_tables.COLUMNS
"""Columns of every table, without those of the evaluation."""


@dataclass
class AnalysisSummary:
    """What an analysis wrote.

    Attributes:
        tables: The CSV files.
        left_out: What was not analyzed, and why.
    """

    tables: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def analyze_folder(
    folder: Path,
    *,
    dataset: EvalSet | None = None,
    models: Sequence[str] = (),
    states: bool = True,
    cache: Path,
    tiny_config: TinyConfig | None = None,
    log: Log = silent,
) -> AnalysisSummary:
    """Analyze the edits of a sweep and write ``FOLDER/analysis/*.csv``.

    Args:
        folder: Folder that ``eval-baselines`` wrote; the geometry of edits needs
            ``--save-deltas``.
        dataset: The whole dataset that was given to ``eval-baselines``. Without it no states are
            read.
        models: Labels of the models whose states are read; empty: all.
        states: Whether to load the models and read their states.
        cache: Folder of trained tiny models.
        tiny_config: Size and training of the tiny model, if not the default.
        log: Called with progress messages.

    Raises:
        MissingExtraError: The extra ``eval`` is not installed.
        InputFileError: There are no results, they belong to another dataset, or nothing can be
            analyzed.
        UnknownNameError: The results have no model of that label.
        EditError: A measure is NaN or out of its range, or a model cannot be read.
    """
    require_eval_extra()
    results = read_results(folder)
    labels = _checked_labels(models, results)
    run = _Run(folder, results, AnalysisSummary(), log)
    run.analyze_geometry()
    if not states:
        run.summary.left_out.append("states: not requested")
    elif dataset is None:
        run.summary.left_out.append("states: specify the dataset that was edited with --dataset")
    else:
        _check_dataset(dataset, results)
        records = dataset.first(results.records).records
        load = partial(open_model, records=records, cache=cache, tiny_config=tiny_config, log=log)
        run.analyze_states(labels, records, load)
    summary = run.summary
    if not summary.tables:
        reasons = "; ".join(summary.left_out)
        raise InputFileError(f"{folder}: nothing can be analyzed: {reasons}")
    summary.tables += write_evaluation_tables(folder / "analysis", results)
    return summary


def _checked_labels(models: Sequence[str], results: Results) -> Sequence[str]:
    """Labels of the models to analyze; all models of the results if none are named.

    Raises:
        UnknownNameError: The results have no model of that label.
    """
    known = list(dict.fromkeys(cell.setting.model for cell in results.cells))
    for name in models:
        if name not in known:
            raise UnknownNameError("model of these results", name, known)
    return models or known


def _check_dataset(dataset: EvalSet, results: Results) -> None:
    """Check that the dataset is the one that was edited.

    Raises:
        InputFileError: It is another one.
    """
    enough = len(dataset.records) >= results.records
    if not enough or dataset.first(results.records).key != results.dataset_key:
        raise InputFileError(
            f"{dataset.name} is not the dataset of these results ({results.records} records, "
            f"sha256 {results.dataset_key[:12]}…); use the dataset that was edited"
        )


@dataclass(frozen=True)
class _Run:
    """One analysis of a results folder; adds to its summary."""

    folder: Path
    results: Results
    summary: AnalysisSummary
    log: Log

    def analyze_geometry(self) -> None:
        """Write the geometry tables if weight changes were saved."""
        if not any((self.folder / "deltas").glob("*.safetensors")):
            self.summary.left_out.append(
                "geometry: no saved weight changes; run eval-baselines with --save-deltas"
            )
            return
        tables = geometry.geometry_tables(self.folder, log=self.log)
        self._write(tables)
        for row in tables["geometry_skipped"]:
            cell = f"{row['model']} {row['method']} {row['language']} batch {row['batch_size']}"
            self.summary.left_out.append(f"geometry of {cell}: {row['reason']}")

    def analyze_states(
        self,
        labels: Sequence[str],
        records: Sequence[Record],
        load: Callable[[ModelSpec], LoadedModel],
    ) -> None:
        """Write the tables of states and edited states, over all models with these labels."""
        if not self.results.recipe:
            self.summary.left_out.append(
                "states: results.json does not contain the models; run eval-baselines again"
            )
            return
        recipe = Recipe.model_validate(self.results.recipe)
        tables: ResultTables = {}
        for spec in recipe.models:
            cells = [
                cell
                for cell in self.results.cells
                if cell.setting.model == spec.shown and cell.status == "done"
            ]
            if spec.shown in labels and cells:
                loaded = load(spec)
                found = self._state_tables(loaded, recipe.protocols[0], records, cells)
                for name, rows in found.items():
                    tables.setdefault(name, []).extend(rows)
                del loaded
        self._write(tables)

    def _state_tables(
        self,
        loaded: LoadedModel,
        protocol: str,
        records: Sequence[Record],
        cells: Sequence[CellResult],
    ) -> ResultTables:
        """Tables of one model's states, and of its edited states if weight changes were saved."""
        self.log(f"states of {loaded.name}")
        states = read_states(loaded, records, get_protocol(protocol))
        tables = language.language_tables(states)
        if any((self.folder / "deltas").glob(f"{cells[0].key}-*.safetensors")):
            self.log(f"edited states of {loaded.name}")
            groups = find_edits(self.folder).groups
            self.summary.left_out += [
                f"edited states of {group.name}: other weights "
                "than the MLP's output projections are edited"
                for group in groups
                if group.setting.model == loaded.name and not edits_mlp_outputs(group, loaded)
            ]
            tables |= edited_state_tables(loaded, states, records, groups)
        else:
            self.summary.left_out.append(f"edited states of {loaded.name}: no saved weight changes")
        return tables

    def _write(self, tables: ResultTables) -> None:
        self.summary.tables += write_tables(self.folder / "analysis", tables, COLUMNS)
