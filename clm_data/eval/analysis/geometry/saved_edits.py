"""Saved weight changes of a sweep: which belong together, and one weight of them at a time."""

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
from clm_data.eval.analysis.geometry.measures import Change, FloatArray, GeometryError
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.results import CellResult, EditLanguage, Setting
from clm_data.records import LANGUAGES

_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class SavedEdit:
    """One file of saved changes; reads one weight at a time.

    Attributes:
        path: The safetensors file.
        k: How many singular vectors are kept of a change.
    """

    path: Path
    k: int = 10

    @cached_property
    def _about(self) -> tuple[Mapping[str, str], frozenset[str]]:
        with _opened(self.path) as file:
            return file.metadata() or {}, frozenset(file.keys())

    @cached_property
    def edited(self) -> tuple[str, ...]:
        """Ids of the edits, ``RECORD:LANGUAGE``, in the order of the factors' columns."""
        return tuple(json.loads(self._about[0].get("edited", "[]")))

    @cached_property
    def facts(self) -> tuple[str, ...]:
        """Ids of the edited records, an edit each."""
        return tuple(edit.rpartition(":")[0] for edit in self.edited)

    @cached_property
    def refused(self) -> frozenset[str]:
        """Ids of records of which an edit could not be placed."""
        refused = json.loads(self._about[0].get("refused", "[]"))
        return frozenset(edit.rpartition(":")[0] for edit, _ in refused)

    @cached_property
    def weights(self) -> dict[int, str]:
        """Path of the changed weight by layer.

        Raises:
            InputFileError: A path names no layer.
        """
        paths = [name.removeprefix("left:") for name in self._about[1] if name.startswith("left:")]
        found = {path: _NUMBER.search(path) for path in paths}
        for path, match in found.items():
            if match is None:
                raise InputFileError(f"{self.path}: '{path}' names no layer")
        return {int(match[1]): path for path, match in sorted(found.items()) if match is not None}

    def change(self, layer: int) -> Change:
        """The change of one layer's weight, in float64.

        Raises:
            InputFileError: The file has no change of that layer.
            GeometryError: It holds NaN or infinity.
        """
        left, right = self._read(f"left:{self._path(layer)}"), None
        if f"right:{self._path(layer)}" in self._about[1]:
            right = self._read(f"right:{self._path(layer)}")
        by_fact = right is not None and left.shape[1] == len(self.facts)
        return Change(left, right, self.facts if by_fact else (), self.k)

    def keys(self, layer: int) -> FloatArray | None:
        """Keys (N, m) of the edited facts in the edited model, where they were saved."""
        name = f"keys:{self._path(layer)}"
        return self._read(name).T if name in self._about[1] else None

    def _path(self, layer: int) -> str:
        if layer not in self.weights:
            raise InputFileError(f"{self.path}: no change of layer {layer}")
        return self.weights[layer]

    def _read(self, name: str) -> FloatArray:
        with _opened(self.path) as file:
            value = np.asarray(file.get_tensor(name).double().numpy())
        if not np.isfinite(value).all():
            raise GeometryError(f"{self.path}: {name} holds NaN or infinity")
        return value


def _opened(path: Path) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "eval") from error
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise InputFileError(f"{path} holds no saved deltas: {error}") from error


@dataclass(frozen=True)
class Group:
    """Cells that differ in the language of the edits alone, with their changes.

    Attributes:
        setting: Of one of them.
        cells: With their single facts, by language.
        batches: By language: the files of the batches, in order; as many for each language.
    """

    setting: Setting
    cells: Mapping[EditLanguage, CellResult]
    batches: Mapping[EditLanguage, tuple[SavedEdit, ...]]

    @property
    def about(self) -> ResultRow:
        """The columns that tell groups apart in tables."""
        return about(self.setting)

    @property
    def count(self) -> int:
        """Batches."""
        return len(next(iter(self.batches.values())))

    def label(self, batch: int) -> int | str:
        """A batch in tables: its number, or ``all`` for the sum of a sequential run."""
        return "all" if self.setting.mode == "sequential" else batch

    def layers(self) -> list[int]:
        """Layers that every edit of the group changed."""
        edits = [edit for files in self.batches.values() for edit in files]
        return sorted(set.intersection(*(set(edit.weights) for edit in edits)))


def about(setting: Setting) -> ResultRow:
    """A cell's place in the grid but for the language; ``layers`` is empty for a method's own."""
    return {
        "model": setting.model,
        "method": setting.method,
        "protocol": setting.protocol,
        "mode": setting.mode,
        "layers": " ".join(map(str, setting.layers or ())),
        "batch_size": setting.batch_size,
    }


ABOUT = ("model", "method", "protocol", "mode", "layers", "batch_size")
"""The columns of :func:`about`."""


@dataclass(frozen=True)
class Found:
    """What a results folder holds for the analysis.

    Attributes:
        groups: In the order of the recipe.
        skipped: (setting, reason) of what cannot be analysed.
    """

    groups: tuple[Group, ...]
    skipped: tuple[tuple[Setting, str], ...]


def find_edits(folder: Path, *, k: int = 10, batches: int = 20) -> Found:
    """The saved changes of a sweep.

    Args:
        folder: What ``eval-baselines --save-deltas`` wrote.
        k: How many singular vectors are kept of a change.
        batches: Of a cell, at most.

    Raises:
        InputFileError: No results, or none of their cells has saved changes.
    """
    skipped: list[tuple[Setting, str]] = []
    cells: dict[Setting, dict[EditLanguage, CellResult]] = {}
    files: dict[str, tuple[SavedEdit, ...]] = {}
    for cell in results.read_results(folder).cells:
        whole, reason = _whole(folder, cell)
        if whole is None:
            skipped.append((cell.setting, reason))
            continue
        paths = sorted((folder / "deltas").glob(f"{cell.key}-*.safetensors"))
        files[cell.key] = tuple(SavedEdit(path, k) for path in paths[:batches])
        if len(paths) > batches:
            skipped.append(
                (cell.setting, f"batches {batches} to {len(paths) - 1}: beyond the most")
            )
        place = cell.setting.model_copy(update={"language": "zh"})
        cells.setdefault(place, {})[cell.setting.language] = whole
    if not cells:
        raise InputFileError(
            f"{folder}: no saved weight changes; run eval-baselines with --save-deltas into a new "
            "folder"
        )
    groups = []
    for place, members in cells.items():
        group = Group(place, members, {lang: files[cell.key] for lang, cell in members.items()})
        reason = _misfit(group)
        if reason:
            skipped.append((place, reason))
        else:
            groups.append(group)
    return Found(tuple(groups), tuple(skipped))


def _whole(folder: Path, cell: CellResult) -> tuple[CellResult | None, str]:
    if cell.status == "failed":
        return None, f"failed: {cell.error}"
    wanted = 1 if cell.setting.mode == "sequential" else cell.batches
    found = len(list((folder / "deltas").glob(f"{cell.key}-*.safetensors")))
    if found != wanted:
        return None, f"{found} of {wanted} saved weight changes are there"
    whole = results.read_cell(folder, cell.key)
    return whole, "" if whole is not None else f"cells/{cell.key}.json cannot be read"


def _misfit(group: Group) -> str:
    """Why a group cannot be analysed; empty where it can."""
    missing = [lang for lang in LANGUAGES if lang not in group.cells]
    if missing:
        return f"no edits in {' and '.join(missing)} to compare with"
    if len({len(files) for files in group.batches.values()}) > 1:
        return "one language has more batches than another"
    for batch in range(group.count):
        of = [files[batch] for files in group.batches.values()]
        if len({frozenset(edit.facts) | edit.refused for edit in of}) > 1:
            return f"batch {batch} has other facts in one language than in another"
    return "" if group.layers() else "no layer was changed in every language"
