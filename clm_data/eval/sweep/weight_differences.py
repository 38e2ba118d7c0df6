"""Saved edits of EasyEdit's cells, compared with ours of the same settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from clm_data.eval.editors.codebook import Codebook
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import Edit, load_edit
from clm_data.eval.editors.side_memory import SideMemory
from clm_data.eval.engines import engine_pairs
from clm_data.eval.results import CellResult, WeightDifference
from clm_data.eval.sweep.cell import edit_files

if TYPE_CHECKING:
    from torch import Tensor


def weight_differences(
    cells: Sequence[CellResult], folder: Path
) -> dict[str, dict[str, WeightDifference]]:
    """Compare the edits of the cells that both engines computed.

    Args:
        cells: All cells of a sweep.
        folder: Folder of the edits.

    Returns:
        By key of EasyEdit's cell and by parameter path, or by `keys` and `values` for a codebook;
        settings whose files are not all there are left out.

    Raises:
        InputFileError: A file cannot be read.
    """
    found = {}
    for ours, theirs in engine_pairs(cells):
        first, second = edit_files(folder, ours), edit_files(folder, theirs)
        if first and second:
            found[theirs.key] = _compare(list(zip(first, second, strict=True)))
    return found


def _compare(files: Sequence[tuple[Path, Path]]) -> dict[str, WeightDifference]:
    """By name of a tensor, over all batches."""
    sums: dict[str, list[float]] = {}
    for first, second in files:
        ours, theirs = _tensors(load_edit(first)), _tensors(load_edit(second))
        for path in sorted(ours.keys() & theirs.keys()):
            a, b = ours[path](), theirs[path]()
            if a.shape != b.shape:  # codebooks of different facts
                continue
            values = ((b - a).square().sum(), a.square().sum(), b.square().sum(), (a * b).sum())
            total = sums.setdefault(path, [0.0] * len(values))
            sums[path] = [old + float(new) for old, new in zip(total, values, strict=True)]
    return {
        path: WeightDifference(
            relative=math.sqrt(difference / own), cosine=product / math.sqrt(own * other)
        )
        for path, (difference, own, other, product) in sums.items()
        if own > 0 and other > 0
    }


def _tensors(edit: Edit) -> dict[str, Callable[[], Tensor]]:
    """What is compared of an edit, by name; dense changes are made when they are needed."""
    if isinstance(edit, Deltas):
        return {path: partial(_dense, delta) for path, delta in edit.weights.items()}
    if isinstance(edit, Codebook):
        return {"keys": edit.keys.double, "values": edit.values.double}
    if isinstance(edit, SideMemory):
        return {f"side memory {shard.number}": shard.change.double for shard in edit.shards}
    return {}


def _dense(delta: WeightDelta) -> Tensor:
    return delta.dense().double()
