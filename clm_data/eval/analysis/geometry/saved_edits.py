"""Saved weight changes of a sweep: grouping them for comparison and reading them layer by layer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from clm_data.errors import InputFileError, MissingExtraError
from clm_data.eval import results
from clm_data.eval.analysis.checks import AnalysisError
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix, stacked
from clm_data.eval.csv_tables import VARIANT, ResultRow
from clm_data.eval.editors.tensor_files import is_whole
from clm_data.eval.intervals import FloatArray
from clm_data.eval.results import CellResult, EditLanguage, Setting
from clm_data.records import LANGUAGES

_LAYER_NUMBER = re.compile(r"\.(\d+)\.")
GROUP_COLUMNS = ("model", *VARIANT, "batch_size")
"""Columns of every table that identify a group of cells."""


@dataclass(frozen=True)
class SavedEdit:
    """A file of ``Deltas.save``, read one weight at a time as float64 matrices.

    Attributes:
        path: The safetensors file.
        k: Number of singular vectors to keep of each change.
    """

    path: Path
    k: int = 10

    @cached_property
    def _contents(self) -> tuple[Mapping[str, str], frozenset[str]]:
        """Metadata, and names of the tensors."""
        with _opened(self.path) as file:
            return file.metadata() or {}, frozenset(file.keys())

    @property
    def kind(self) -> str:
        """`deltas`, or the kind of an edit that changes no weights."""
        return self._contents[0].get("kind", "deltas")

    @cached_property
    def facts(self) -> tuple[str, ...]:
        """Record ids of the edits, in the order of the factors' terms; twice for mixed edits."""
        edited = json.loads(self._contents[0].get("edited", "[]"))
        return tuple(edit.rpartition(":")[0] for edit in edited)

    @cached_property
    def refused(self) -> frozenset[str]:
        """Ids of records with an edit that could not be placed."""
        refused = json.loads(self._contents[0].get("refused", "[]"))
        return frozenset(edit.rpartition(":")[0] for edit, _ in refused)

    @cached_property
    def weights(self) -> dict[int, tuple[str, ...]]:
        """Parameter paths of the changed weights by layer; most methods change one per layer.

        Raises:
            InputFileError: A path contains no layer number.
        """
        names = self._contents[1]
        paths = [name.removeprefix("left:") for name in names if name.startswith("left:")]
        found = {path: _LAYER_NUMBER.search(path) for path in paths}
        for path, match in found.items():
            if match is None:
                raise InputFileError(f"{self.path}: '{path}' contains no layer number")
        by_layer: dict[int, tuple[str, ...]] = {}
        for path, match in sorted(found.items()):
            layer = int(match[1]) if match is not None else -1
            by_layer[layer] = (*by_layer.get(layer, ()), path)
        return by_layer

    @cached_property
    def several_inputs(self) -> list[int]:
        """Layers that change weights with different inputs, so that no one matrix holds them."""
        return [
            layer
            for layer, paths in self.weights.items()
            if len({self._input_size(path) for path in paths}) > 1
        ]

    def _input_size(self, path: str) -> int:
        factored = f"right:{path}" in self._contents[1]
        with _opened(self.path) as file:
            shape = file.get_slice(f"{'right' if factored else 'left'}:{path}").get_shape()
        return int(shape[1])

    def change(self, layer: int) -> LowRankMatrix:
        """The change of one layer, shape (d, m): that of its weight, or of its weights stacked.

        Raises:
            InputFileError: The file has no change of that layer.
            AnalysisError: The change contains NaN or infinity, or the layer is in
                :attr:`several_inputs`.
        """
        return stacked([self._matrix(path) for path in self._paths(layer)])

    def _matrix(self, path: str) -> LowRankMatrix:
        left, right = self._read(f"left:{path}"), None
        if f"right:{path}" in self._contents[1]:
            right = self._read(f"right:{path}")
        may_be = self._contents[0].get("by_fact") != "false"  # LoRA's terms belong to no fact
        by_fact = right is not None and may_be and left.shape[1] == len(self.facts)
        return LowRankMatrix(left, right, self.facts if by_fact else (), self.k)

    def keys(self, layer: int) -> FloatArray | None:
        """Keys of the edited facts in the edited model, shape (N, m); None if not saved."""
        paths = self._paths(layer)
        name = f"keys:{paths[0]}"
        return self._read(name).T if len(paths) == 1 and name in self._contents[1] else None

    def _paths(self, layer: int) -> tuple[str, ...]:
        if layer not in self.weights:
            raise InputFileError(f"{self.path}: no weight change for layer {layer}")
        return self.weights[layer]

    def _read(self, name: str) -> FloatArray:
        with _opened(self.path) as file:
            value = np.asarray(file.get_tensor(name).double().numpy())
        if not np.isfinite(value).all():
            raise AnalysisError(f"{self.path}: {name} contains NaN or infinity")
        return value


def _opened(path: Path) -> Any:
    """The open safetensors file, a context manager."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "eval") from error
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise InputFileError(f"{path}: cannot be read as saved weight changes ({error})") from error


@dataclass(frozen=True)
class EditGroup:
    """Cells that differ only in the editing language, with their saved changes.

    Attributes:
        setting: The common setting; its language has no meaning.
        cells: Cells with their facts, by editing language.
        batches: Saved changes of each batch, by editing language; equally many for each.
    """

    setting: Setting
    cells: Mapping[EditLanguage, CellResult]
    batches: Mapping[EditLanguage, tuple[SavedEdit, ...]]

    @property
    def columns(self) -> ResultRow:
        """Values of :data:`GROUP_COLUMNS`."""
        return group_columns(self.setting)

    @property
    def name(self) -> str:
        """The group in messages."""
        return " ".join(str(value) for value in self.columns.values() if value != "")

    @property
    def count(self) -> int:
        """Number of batches."""
        return len(next(iter(self.batches.values())))

    def label(self, batch: int) -> int | str:
        """The batch number in tables; ``all`` for a sequential run, whose changes are summed."""
        return "all" if self.setting.mode == "sequential" else batch

    def layers(self) -> list[int]:
        """Layers that every edit of the group changes, in ascending order."""
        edits = [edit for files in self.batches.values() for edit in files]
        return sorted(set.intersection(*(set(edit.weights) for edit in edits)))


def group_columns(setting: Setting) -> ResultRow:
    """Values of :data:`GROUP_COLUMNS`; ``layers`` is empty if they are the method's own."""
    return {
        "model": setting.model,
        "method": setting.engine_method,
        "protocol": setting.protocol,
        "mode": setting.mode,
        "layers": " ".join(map(str, setting.layers or ())),
        "batch_size": setting.batch_size,
    }


@dataclass(frozen=True)
class FoundEdits:
    """Saved changes in a results folder.

    Attributes:
        groups: What can be compared, in the order of the recipe.
        skipped: What cannot, as (setting, reason).
    """

    groups: tuple[EditGroup, ...]
    skipped: tuple[tuple[Setting, str], ...]


def find_edits(folder: Path, *, k: int = 10, max_batches: int = 20) -> FoundEdits:
    """Find the saved weight changes of a sweep and group them across languages.

    Args:
        folder: Folder that ``eval-baselines --save-deltas`` wrote.
        k: Number of singular vectors to keep of each change.
        max_batches: Maximum number of batches per cell.

    Raises:
        InputFileError: There are no results, or no cell has saved changes.
    """
    skipped: list[tuple[Setting, str]] = []
    members: dict[Setting, dict[EditLanguage, CellResult]] = {}
    files: dict[str, tuple[SavedEdit, ...]] = {}
    for summary in results.read_results(folder).cells:
        cell, reason = _complete_cell(folder, summary)
        if cell is None:
            skipped.append((summary.setting, reason))
            continue
        paths = _saved_files(folder, cell)
        files[cell.key] = tuple(SavedEdit(path, k) for path in paths[:max_batches])
        if len(paths) > max_batches:
            reason = f"batches from {max_batches} are not analyzed; the cell has {len(paths)}"
            skipped.append((cell.setting, reason))
        common = cell.setting.model_copy(update={"language": "zh"})
        members.setdefault(common, {})[cell.setting.language] = cell
    if not members:
        raise InputFileError(
            f"{folder}: no saved weight changes ({skipped[0][1] if skipped else 'no cells'}); run "
            "eval-baselines with --save-deltas into a new folder"
        )
    groups = []
    for common, cells in members.items():
        group = EditGroup(common, cells, {lang: files[cell.key] for lang, cell in cells.items()})
        reason = _why_not_comparable(group)
        if reason:
            skipped.append((common, reason))
        else:
            groups.append(group)
    return FoundEdits(tuple(groups), tuple(skipped))


def _saved_files(folder: Path, cell: CellResult) -> list[Path]:
    return sorted((folder / "deltas").glob(f"{cell.key}-*.safetensors"))


def _complete_cell(folder: Path, summary: CellResult) -> tuple[CellResult | None, str]:
    """The cell with its facts, or None and the reason why it cannot be analyzed."""
    if summary.status == "failed":
        return None, f"failed: {summary.error}"
    expected = 1 if summary.setting.mode == "sequential" else summary.batches
    files = _saved_files(folder, summary)
    if len(files) != expected:
        return None, f"found {len(files)} of {expected} files of weight changes"
    damaged = next((file.name for file in files if not is_whole(file)), None)
    if damaged is not None:
        return None, f"{damaged} is damaged; run eval-baselines again with --save-deltas"
    cell = results.read_cell(folder, summary.key)
    if cell is None:
        return None, f"cells/{summary.key}.json cannot be read"
    present = {"setting": summary.setting, "baseline": summary.baseline}
    return cell.model_copy(update=present), ""


def _why_not_comparable(group: EditGroup) -> str:
    """Why a group cannot be compared across languages; empty if it can."""
    edits = [edit for files in group.batches.values() for edit in files]
    if not any(edit.weights for edit in edits):
        return "the method changes no weights"
    missing = [lang for lang in LANGUAGES if lang not in group.cells]
    if missing:
        return f"no edits in {' and '.join(missing)} to compare with"
    if len({len(files) for files in group.batches.values()}) > 1:
        return "the languages have different numbers of batches"
    for batch in range(group.count):
        same = [files[batch] for files in group.batches.values()]
        if len({frozenset(edit.facts) | edit.refused for edit in same}) > 1:
            return f"the languages have different facts in batch {batch}"
    mixed = sorted({layer for edit in edits for layer in edit.several_inputs})
    if mixed:
        return f"layer {mixed[0]} changes weights with different inputs, which cannot be stacked"
    return "" if group.layers() else "no layer is changed in every language"
