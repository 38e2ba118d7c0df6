"""Saved weight changes of EasyEdit's cells, compared with ours of the same settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.engines import engine_pairs
from clm_data.eval.results import CellResult, WeightDifference
from clm_data.eval.sweep.cell import edit_files


def weight_differences(
    cells: Sequence[CellResult], folder: Path
) -> dict[str, dict[str, WeightDifference]]:
    """Compare the weight changes of the cells that both engines computed.

    Args:
        cells: All cells of a sweep.
        folder: Folder of the weight changes.

    Returns:
        By key of EasyEdit's cell and by parameter path; settings whose files are not all there are
        left out.

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
    """By parameter path, over all batches."""
    sums: dict[str, list[float]] = {}
    for first, second in files:
        ours, theirs = Deltas.load(first).weights, Deltas.load(second).weights
        for path in sorted(ours.keys() & theirs.keys()):
            a, b = ours[path].dense().double(), theirs[path].dense().double()
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
