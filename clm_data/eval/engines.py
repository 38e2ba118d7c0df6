"""EasyEdit's cells compared with ours of the same setting: metrics and weight changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.results import CellResult, Results, Setting, WeightDifference


@dataclass(frozen=True)
class EngineRow:
    """EasyEdit's cell minus ours.

    Attributes:
        setting: The setting of EasyEdit's cell.
        version: EasyEdit with its version.
        differences: Percentage points by measure; None if either has no value.
        relative: The largest relative difference of a weight's change; None if not saved.
        cosine: The smallest cosine of the two changes of a weight; None if not saved.
    """

    setting: Setting
    version: str
    differences: dict[str, float | None]
    relative: float | None = None
    cosine: float | None = None


def engine_pairs(cells: Sequence[CellResult]) -> list[tuple[CellResult, CellResult]]:
    """Finished cells of the same setting: ours and EasyEdit's."""
    done = [cell for cell in cells if cell.status == "done"]
    ours = {cell.setting: cell for cell in done if cell.setting.backend == "clm-data"}
    pairs = []
    for cell in done:
        same = ours.get(cell.setting.model_copy(update={"backend": "clm-data"}))
        if cell.setting.backend == "easyeditor" and same is not None:
            pairs.append((same, cell))
    return pairs


def engine_rows(results: Results) -> list[EngineRow]:
    """One row per setting that both engines computed."""
    rows = []
    for ours, theirs in engine_pairs(results.cells):
        weights = list(results.differences.get(theirs.key, {}).values())
        rows.append(
            EngineRow(
                theirs.setting,
                theirs.engine_version,
                {name: _difference(ours, theirs, name) for name in PAPER_MEASURES},
                max((one.relative for one in weights), default=None),
                min((one.cosine for one in weights), default=None),
            )
        )
    return rows


def _difference(ours: CellResult, theirs: CellResult, name: str) -> float | None:
    first, second = ours.after.get(name), theirs.after.get(name)
    return None if first is None or second is None else 100 * (second.mean - first.mean)


__all__ = ["EngineRow", "WeightDifference", "engine_pairs", "engine_rows"]
