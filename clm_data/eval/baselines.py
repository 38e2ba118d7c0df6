"""Answers of the unedited model in `before/KEY.json`: written once a sweep, read for each cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from clm_data.errors import InputFileError
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.results import BaselineResult, CellResult, summarize, write_json

_BASELINES = TypeAdapter(list[BaselineResult])


def write_baseline(folder: Path, key: str, answers: Sequence[BaselineResult]) -> None:
    """Write `before/KEY.json`."""
    write_json(_baseline_file(folder, key), _BASELINES.dump_python(list(answers), mode="json"))


def read_baseline(folder: Path, cell: CellResult) -> dict[str, BaselineResult]:
    """The unedited model's answers that belong to a cell, by id of the record.

    Cells of earlier versions have no key: their answers are in `before/MODEL-PROTOCOL.json`, which
    is used only if its means are those of the cell, as another model of the same label may have
    replaced it.

    Args:
        folder: Folder of the results.
        cell: The cell with its facts.

    Raises:
        InputFileError: The file is missing, damaged, or that of another model; the message says
            how to write it again.
    """
    name = cell.baseline or f"{cell.setting.model}-{cell.setting.protocol}"
    file = _baseline_file(folder, name)
    again = f"run eval-baselines with --out {folder} again to write it"
    try:
        found = _BASELINES.validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise InputFileError(f"{file}: the answers before the edit are missing; {again}") from error
    except (OSError, ValidationError) as error:
        raise InputFileError(
            f"{file}: the answers before the edit cannot be read; {again}"
        ) from error
    answers = {answer.id: answer for answer in found}
    if cell.baseline is None and not _same_means(answers, cell):
        raise InputFileError(
            f"{file}: these answers before the edit are not those of the cell "
            f"{cell.setting.label} but of another run into the same folder; {again}"
        )
    return answers


def has_baseline(folder: Path, cell: CellResult) -> bool:
    """Whether :func:`read_baseline` finds the answers of a cell."""
    try:
        read_baseline(folder, cell)
    except InputFileError:
        return False
    return True


def _baseline_file(folder: Path, name: str) -> Path:
    return folder / "before" / f"{name}.json"


def _same_means(answers: Mapping[str, BaselineResult], cell: CellResult) -> bool:
    """Whether answers have the means that a cell gives for its facts before the edit."""
    if any(item.id not in answers for item in cell.items):
        return False
    facts = [answers[item.id].by_language() for item in cell.items]
    means = summarize(facts, Bootstrap(resamples=0))
    for name, expected in cell.before.items():
        found = means.get(name)
        if (found is None) != (expected is None):
            return False
        if found and expected and not math.isclose(found.mean, expected.mean, abs_tol=1e-9):
            return False
    return True
