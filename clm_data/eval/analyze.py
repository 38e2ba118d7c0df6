"""Analyze the edits of a sweep and draw the figures: ``clm-data analyze``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clm_data.eval.dataset import DatasetSource, load_dataset
from clm_data.log import Log, silent


@dataclass(frozen=True)
class AnalysisReport:
    """What :func:`analyze` wrote.

    Attributes:
        tables: The CSV files, in ``FOLDER/analysis``.
        figures: The PNG and SVG files, in ``FOLDER/figures``.
        left_out: What was not analyzed, and why.
    """

    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    left_out: tuple[str, ...]


def analyze(
    folder: str | Path,
    *,
    dataset: DatasetSource | None = None,
    models: Sequence[str] = (),
    states: bool = True,
    cache: str | Path | None = None,
    log: Log = silent,
) -> AnalysisReport:
    """Compare the edits of a sweep across languages and draw the figures.

    Weight changes are compared if the sweep saved them (``eval-baselines --save-deltas``). Language
    vectors, and what edits do to hidden states, need the models and the dataset.

    Args:
        folder: Folder that ``eval-baselines`` wrote.
        dataset: The dataset that was edited, as :func:`~clm_data.eval.dataset.load_dataset` takes
            it. Without it no model is loaded.
        models: Labels of the models whose states are read; empty: all.
        states: Whether to load the models and read their states.
        cache: Folder of tiny models; default: the one that ``eval-baselines`` uses.
        log: Called with progress messages.

    Raises:
        MissingExtraError: The extra `eval` is not installed.
        InputFileError: There are no results, the dataset is not the one that was edited, or there
            is nothing to analyze.
        UnknownNameError: The results have no model of that label.
        EditError: A number is out of its range, or a model cannot be read.
    """
    from clm_data.eval.environment import default_cache_folder, require_eval_extra

    require_eval_extra()
    from clm_data.eval.analysis.run import analyze_folder
    from clm_data.eval.figures.draw import draw_figures
    from clm_data.eval.threads import measured_threads

    folder = Path(folder)
    loaded = load_dataset(dataset) if states and dataset is not None else None
    with measured_threads(log if loaded is not None else silent):
        done = analyze_folder(
            folder,
            dataset=loaded,
            models=models,
            states=states,
            cache=Path(cache or default_cache_folder()),
            log=log,
        )
    log("drawing the figures")
    drawn = draw_figures(folder / "analysis", folder / "figures")
    files = sorted(file for figure in drawn for file in figure.paths)
    return AnalysisReport(tuple(done.tables), tuple(files), tuple(done.left_out))
