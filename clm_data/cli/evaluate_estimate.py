"""Printing what `eval-baselines --dry-run` estimates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from clm_data.cli.output import counted, log, print_json, print_table, say, say_block

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clm_data.eval.estimate.report import EvaluationEstimate, ModelEstimate

_BUSY = 1.3
"""Slowdown from which the machine is said to be busy."""


def show_estimate(found: EvaluationEstimate, *, as_json: bool) -> None:
    """Print an estimate: models, cells and totals."""
    if as_json:
        print_json(found.as_json())
        return
    for model in found.models:
        _show_model(model)
    print_table(
        found.table_title(),
        ["cell", "state", "time", "memory", "reason"],
        [
            [
                cell.setting.label,
                cell.state,
                "" if cell.state == "refused" else duration(cell.seconds),
                "" if cell.state == "refused" else size(cell.peak),
                cell.reason,
            ]
            for cell in found.cells
        ],
    )
    known = "" if found.seconds is not None else f" ({duration(found.known_seconds)} are known)"
    say(
        f"{counted(found.count('to compute'), 'cell')} to compute, {found.count('done')} done, "
        f"{found.count('refused')} refused; estimated time {duration(found.seconds)}{known}, "
        "without downloads and loading"
    )
    busy = max((model.slowdown or 1.0 for model in found.models), default=1.0)
    if busy >= _BUSY and found.seconds:
        log(
            f"other processes use the machine: the measurement took {busy:.1f} times as long as "
            "it would have alone"
        )


def _show_model(model: ModelEstimate) -> None:
    say(
        f"{model.model}: {model.architecture}, {model.parameters / 1e6:,.1f} million parameters, "
        f"{model.dtype} on {model.device}, {model.tokens_per_batch} tokens per batch"
    )
    fits = {True: "fits", False: "does not fit", None: "unknown whether it fits"}[model.fits]
    say(f"  estimated memory: {size(model.peak)} of {size(model.free)} free, {fits}")
    say_block(_parts(model.memory), 2)
    if model.main_memory:
        total, free = sum(model.main_memory.values()), model.free_main
        say(f"  estimated main memory: {size(total)} of {size(free)} free")
        say_block(_parts(model.main_memory), 2)
    if model.seconds:
        shared = "; ".join(f"{name} {duration(one)}" for name, one in model.seconds.items())
        say(f"  estimated time before the cells: {shared}")
    if model.scale is not None:
        say(f"  times are scaled by {model.scale:.2f}, as finished cells took")
    if model.remark:
        log(f"  {model.remark}")


def _parts(memory: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size(count)}" for name, count in memory.items())


def size(count: int | None) -> str:
    """Bytes in words."""
    if count is None:
        return "unknown"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float | None) -> str:
    """Seconds in words."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
