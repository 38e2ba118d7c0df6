"""One cell of a sweep: batch by batch, edit the model, measure it, and restore it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clm_data.errors import ClmDataError
from clm_data.eval.editors.base import Editor, Stopwatch
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import Edit, applied
from clm_data.eval.editors.tensor_files import is_whole
from clm_data.eval.errors import EditError, out_of_memory
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.placement import EditRequest
from clm_data.eval.results import (
    CellResult,
    Checkpoint,
    EditLanguage,
    FactResult,
    Refusal,
    Setting,
    Summary,
    by_domain,
    summarize,
)
from clm_data.eval.sweep.measure import Evaluator, RecordAnswers
from clm_data.records import LANGUAGES, Language, Record

Progress = Callable[[int, int], None]
"""Called with the number of finished batches and the number of all batches."""


def requests_for(records: Sequence[Record], language: EditLanguage) -> list[EditRequest]:
    """The edits of some records; `mix` edits each record in both languages, one after the other."""
    languages: tuple[Language, ...] = LANGUAGES if language == "mix" else (language,)
    return [
        EditRequest(
            id=f"{record.id}:{lang}",
            lang=lang,
            prompt=record.fact(lang).prompt,
            subject=record.fact(lang).subject,
            target=record.fact(lang).target_new,
        )
        for record in records
        for lang in languages
    ]


def batches_of(records: int, size: int, max_batches: int | None = None) -> list[range]:
    """Indices of the full batches, in order; the rest of the records is left out.

    Raises:
        EditError: There are too few records for one batch.
    """
    if size > records:
        raise EditError(f"a batch of {size} facts from {records} records; lower the batch size")
    count = records // size if max_batches is None else min(max_batches, records // size)
    return [range(i * size, (i + 1) * size) for i in range(count)]


def run_cell(
    evaluator: Evaluator,
    editor: Editor[Any],
    setting: Setting,
    key: str,
    *,
    bootstrap: Bootstrap,
    max_batches: int | None = None,
    checkpoints: int = 0,
    deltas_folder: Path | None = None,
    progress: Progress | None = None,
) -> CellResult:
    """Compute a cell. The model is restored afterwards, bit for bit.

    Args:
        evaluator: Measures the model that is edited.
        editor: The method with its hyperparameters.
        setting: The cell's place in the grid.
        key: The cell's key.
        bootstrap: Settings of the intervals.
        max_batches: Edit only the first N batches; None edits all.
        checkpoints: Number of measurements during a sequential run, including the final one.
        deltas_folder: Folder for the edits; None does not save them.
        progress: Called after each batch.

    Raises:
        EditError: The edit failed.
    """
    batches = batches_of(len(evaluator.records), setting.batch_size, max_batches)
    run = _CellRun(evaluator, editor, setting, bootstrap)
    stops = measured_after(len(batches), checkpoints)
    for number, batch in enumerate(batches):
        run.edit(batch)
        last = number + 1 == len(batches)
        if not run.sequential:
            run.measure(batch)
            run.save_edits(deltas_folder, _delta_name(key, number))
        elif last or number + 1 in stops:
            run.measure(range(batch.stop))
            if number + 1 in stops:
                run.add_checkpoint()
        if run.sequential and last:
            run.save_edits(deltas_folder, _delta_name(key, None))
        if progress is not None:
            progress(number + 1, len(batches))
    return run.result(key, [index for batch in batches for index in batch], len(batches))


class _CellRun:
    """A cell while it is computed."""

    def __init__(
        self, evaluator: Evaluator, editor: Editor[Any], setting: Setting, bootstrap: Bootstrap
    ) -> None:
        self.evaluator, self.editor = evaluator, editor
        self.setting, self.bootstrap = setting, bootstrap
        self.sequential = setting.mode == "sequential"
        self.baseline = evaluator.baseline  # before the first edit
        self.edits: Edit | None = None
        self.items: list[FactResult] = []
        self.refused: list[Refusal] = []
        self.arrived: list[float] = []
        self.checkpoints: list[Checkpoint] = []
        self.stopwatch = Stopwatch()

    def edit(self, batch: range) -> None:
        """Compute the edit of a batch: on top of earlier ones in a sequential run."""
        records = [self.evaluator.records[i] for i in batch]
        past = self.edits if self.sequential else None
        with self.stopwatch.phase("edit"):
            requests = requests_for(records, self.setting.language)
            new: Edit = self.editor.edit(self.evaluator.model, requests, past=past)
            self.edits = new if past is None else past.plus(new)
        if new.arrived is not None:
            self.arrived.append(new.arrived)
        self.refused += [Refusal(id=one, reason=why) for one, why in new.refused]
        for name, seconds in new.seconds.items():
            phase = f"edit: {name}"
            total = self.stopwatch.seconds.get(phase, 0.0)
            self.stopwatch.seconds[phase] = total + seconds

    def measure(self, indices: range) -> None:
        """Measure records with the edits applied."""
        model = self.evaluator.model
        with self.stopwatch.phase("measure"), applied(model, self.edits) as edited:
            answers = self.evaluator.after(indices, edited)
        items = [self._fact(i, answer) for i, answer in zip(indices, answers, strict=True)]
        self.items = items if self.sequential else self.items + items

    def _fact(self, index: int, answers: RecordAnswers) -> FactResult:
        record = self.evaluator.records[index]
        return FactResult(
            id=record.id,
            domain=record.domain,
            batch=index // self.setting.batch_size,
            zh=answers.measures["zh"],
            en=answers.measures["en"],
            continuation=answers.continuation,
        )

    def add_checkpoint(self) -> None:
        """Record the latest measurement as a checkpoint of the sequential run."""
        self.checkpoints.append(Checkpoint(edited=len(self.items), after=self._after()))

    def _after(self) -> Summary:
        return summarize([item.by_language() for item in self.items], self.bootstrap)

    def save_edits(self, folder: Path | None, name: str) -> None:
        """Write the edits, if there is a folder for them."""
        edits = self.edits
        if folder is None or edits is None:
            return
        if isinstance(edits, Deltas):
            edits = edits.with_base(self.evaluator.model.model)
        folder.mkdir(parents=True, exist_ok=True)
        edits.save(folder / f"{name}.safetensors")

    def result(self, key: str, measured: Sequence[int], batches: int) -> CellResult:
        """The finished cell.

        Args:
            key: The cell's key.
            measured: Indices of the measured records.
            batches: Number of batches.
        """
        baseline = [self.baseline[i].measures for i in measured]
        seconds = {name: round(value, 3) for name, value in self.stopwatch.seconds.items()}
        return CellResult(
            key=key,
            setting=self.setting,
            status="done",
            facts=len(measured),
            batches=batches,
            left_out=len(self.evaluator.records) - len(measured),
            arrived=round(sum(self.arrived) / len(self.arrived), 4) if self.arrived else None,
            refused=tuple(self.refused),
            before=summarize(baseline, self.bootstrap),
            after=self._after(),
            domains=by_domain(self.items),
            checkpoints=tuple(self.checkpoints),
            items=tuple(self.items),
            seconds=seconds,
        )


def failed_cell(key: str, setting: Setting, error: Exception) -> CellResult:
    """A cell that could not be computed, with the reason in one line."""
    reason = " ".join(str(error).split())
    if out_of_memory(error):
        reason = "out of memory; lower tokens_per_batch"
    elif not isinstance(error, ClmDataError):
        reason = f"{type(error).__name__}: {reason}"
    return CellResult(key=key, setting=setting, status="failed", error=reason)


def measured_after(batches: int, checkpoints: int) -> set[int]:
    """Numbers of batches after which a sequential run is measured, evenly spaced."""
    count = min(checkpoints, batches)
    return {round(batches * (i + 1) / count) for i in range(count)}


def has_deltas(folder: Path, cell: CellResult) -> bool:
    """Whether all edits of a finished cell are in a folder, in files that are whole."""
    files = edit_files(folder, cell)
    return bool(files) and all(is_whole(file) for file in files)


def edit_files(folder: Path, cell: CellResult) -> list[Path]:
    """The saved edits of a finished cell: one per batch, or the one of a sequential run.

    Empty if one of them is not in the folder.
    """
    names = [_delta_name(cell.key, None)]
    if cell.setting.mode != "sequential":
        names = [_delta_name(cell.key, number) for number in range(cell.batches)]
    files = [folder / f"{name}.safetensors" for name in names]
    return files if all(file.is_file() for file in files) else []


def _delta_name(key: str, batch: int | None) -> str:
    return f"{key}-all" if batch is None else f"{key}-{batch:04d}"
