"""Running a sweep: each cell is written when it is finished, so an interrupted sweep resumes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from clm_data.errors import ClmDataError, InputFileError
from clm_data.eval import baselines, results, tables
from clm_data.eval.dataset import EvalSet
from clm_data.eval.easyedit.found import EasyEdit, find_easyedit
from clm_data.eval.environment import default_cache_folder, require_eval_extra
from clm_data.eval.model.tiny import TinyConfig
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import CellResult, Results, WeightDifference
from clm_data.eval.sweep.cell import failed_cell
from clm_data.eval.sweep.open_model import open_model
from clm_data.eval.sweep.plan import PlannedCell, finished_cell, plan_cells
from clm_data.eval.sweep.progress import SweepProgress
from clm_data.eval.sweep.weight_differences import weight_differences
from clm_data.eval.sweep.workbench import ModelWorkbench
from clm_data.eval.threads import measured_threads
from clm_data.log import Log, silent


def run_sweep(
    recipe: Recipe,
    dataset: EvalSet,
    *,
    out: Path,
    cache: Path | None = None,
    save_deltas: bool = False,
    tiny_config: TinyConfig | None = None,
    easyedit: Callable[[], EasyEdit] = find_easyedit,
    log: Log = silent,
) -> Results:
    """Compute the cells of a recipe, and write results and tables.

    Cells that an earlier run into the same folder finished are read, not computed again. A cell
    that fails is recorded with the reason, and the sweep continues; a later run retries it.

    Args:
        recipe: The grid; it may use only the first records of the dataset.
        dataset: The whole dataset.
        out: Folder of the results.
        cache: Folder of trained tiny models and second moments; default: `default_cache_folder()`.
        save_deltas: Whether to save the weight changes, in `out/deltas`.
        tiny_config: Size and training of the tiny model, if not the default.
        easyedit: Finds EasyEdit's environment; called if a cell needs it.
        log: Called with progress messages.

    Raises:
        InputFileError: The dataset has too few records, or `out` cannot be written.
        MissingExtraError: torch or transformers is not installed.
    """
    require_eval_extra()
    if not dataset.records:
        raise InputFileError(f"{dataset.name}: the dataset is empty; use one with records")
    records = dataset.first(recipe.facts).records
    cache, tiny_config = cache or default_cache_folder(), tiny_config or TinyConfig()
    deltas_folder = out / "deltas" if save_deltas else None

    def open_workbench(cell: PlannedCell) -> ModelWorkbench:
        model = open_model(cell.spec, records, cache, tiny_config, log)
        return ModelWorkbench(
            model, cell, recipe, dataset, out=out, cache=cache, deltas_folder=deltas_folder, log=log
        )

    with _write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    planned = plan_cells(recipe, dataset, tiny_config, easyedit)
    cells = _without_computing(planned, out, deltas_folder, log)
    with _write_errors(out):
        _measure_missing_baselines(planned, cells, out, open_workbench, log)
    for index, cell in _compute_missing(planned, cells.keys(), open_workbench, log):
        with _write_errors(out):
            results.write_cell(out, cell)
        cells[index] = cell
    done = [cells[index] for index in range(len(planned))]
    _log_other_cells(out, done, log)
    differences = {} if deltas_folder is None else weight_differences(done, deltas_folder)
    return _write(out, recipe, dataset, done, differences)


def _log_other_cells(out: Path, cells: Sequence[CellResult], log: Log) -> None:
    """Log how many cells of earlier commands are in the folder, but not in its results."""
    others = results.saved_cells(out) - {cell.key for cell in cells}
    if others:
        log(
            f"cells of this command, in results.json and the tables: {len(cells)}; of others, only "
            f"in cells/: {len(others)}; to have all in the tables, ask for all in one command, "
            "which reads what is finished"
        )


def _write(
    out: Path,
    recipe: Recipe,
    dataset: EvalSet,
    cells: Sequence[CellResult],
    differences: Mapping[str, dict[str, WeightDifference]],
) -> Results:
    """Write the summary and the tables of all cells."""
    used = dataset.first(recipe.facts)
    found = Results(
        title=recipe.title,
        dataset=Path(dataset.name).name,
        dataset_key=used.key,
        records=len(used.records),
        seed=recipe.seed,
        recipe=recipe.model_dump(mode="json"),
        cells=tuple(cells),
        differences=dict(differences),
    )
    with _write_errors(out):
        results.write_results(out, found)
        tables.write_tables(out, found)
    return found


@contextmanager
def _write_errors(out: Path) -> Iterator[None]:
    """Turn an OSError into an InputFileError that names the folder of results."""
    try:
        yield
    except OSError as error:
        raise InputFileError(
            f"{out}: cannot be written ({error.strerror or error}); choose another with --out"
        ) from error


def _without_computing(
    planned: Sequence[PlannedCell | CellResult], out: Path, deltas_folder: Path | None, log: Log
) -> dict[int, CellResult]:
    """By index: cells that failed while planning, and those that an earlier run finished."""
    cells: dict[int, CellResult] = {}
    for index, cell in enumerate(planned):
        if isinstance(cell, CellResult):
            cells[index] = cell
            log(f"failed: {cell.setting.label}: {cell.error}")
        elif (result := finished_cell(out, cell, deltas_folder)) is not None:
            cells[index] = result
    finished = sum(cell.status == "done" for cell in cells.values())
    if finished:
        log(f"{finished} of {len(planned)} cells already computed")
    return cells


def _measure_missing_baselines(
    planned: Sequence[PlannedCell | CellResult],
    finished: Mapping[int, CellResult],
    out: Path,
    open_workbench: Callable[[PlannedCell], ModelWorkbench],
    log: Log,
) -> None:
    """Write the answers before the edit of finished cells whose file is missing or damaged.

    They are measured again if the file was deleted, or if an earlier version wrote the folder.
    """
    missing = {
        cell.baseline: cell
        for index, cell in enumerate(planned)
        if isinstance(cell, PlannedCell)
        and index in finished
        and not baselines.has_baseline(out, finished[index])
    }
    for cell in missing.values():
        try:
            open_workbench(cell).measure_baseline(cell)
        except ClmDataError as error:
            log(f"left out: the answers of {cell.spec.shown} before the edit: {error}")
        _free_memory()


def _compute_missing(
    planned: Sequence[PlannedCell | CellResult],
    known: Container[int],
    open_workbench: Callable[[PlannedCell], ModelWorkbench],
    log: Log,
) -> Iterator[tuple[int, CellResult]]:
    """Compute the cells whose indices are not known, model by model; yields index and result."""
    todo = {
        index: cell
        for index, cell in enumerate(planned)
        if index not in known and isinstance(cell, PlannedCell)
    }
    progress = SweepProgress(len(todo))
    for spec in dict.fromkeys(cell.spec for cell in todo.values()):
        of_model = {index: cell for index, cell in todo.items() if cell.spec == spec}
        computed = _compute_model(list(of_model.values()), open_workbench, progress, log)
        with measured_threads(log):
            yield from zip(of_model, computed, strict=True)
        _free_memory()


def _compute_model(
    cells: Sequence[PlannedCell],
    open_workbench: Callable[[PlannedCell], ModelWorkbench],
    progress: SweepProgress,
    log: Log,
) -> Iterator[CellResult]:
    """Compute the cells of one model; if it cannot be opened, all of them fail."""
    try:
        workbench = open_workbench(cells[0])
    except Exception as error:  # the sweep continues with the next model
        for cell in cells:
            yield _failed(cell, error, progress, log)
        return
    try:
        for cell in cells:
            yield _compute_cell(workbench, cell, progress, log)
    finally:
        workbench.close()


def _compute_cell(
    workbench: ModelWorkbench, cell: PlannedCell, progress: SweepProgress, log: Log
) -> CellResult:
    begin, label = time.monotonic(), f"{progress.position} {cell.setting.label}"
    log(label)

    def batch_done(done: int, total: int) -> None:
        if progress.update(done / total):
            log(f"{label}: {done} of {total} batches; {progress.time_left}")

    try:
        result = workbench.compute(cell, batch_done)
    except Exception as error:  # the sweep continues with the next cell
        result = _failed(cell, error, progress, log)
    if result.status == "failed":  # only here does the traceback no longer hold the cell's tensors
        _free_memory()
        return result
    progress.finish_cell()
    seconds = time.monotonic() - begin
    log(f"{label}: {tables.one_line(result)}, {seconds:.0f} s; {progress.time_left}")
    return result


def _failed(cell: PlannedCell, error: Exception, progress: SweepProgress, log: Log) -> CellResult:
    result = failed_cell(cell.key, cell.setting, error)
    log(f"{progress.position} failed: {cell.setting.label}: {result.error}")
    progress.finish_cell()
    return result


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
