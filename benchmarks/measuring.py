"""What the benchmarks of edits share: facts of the bundled bank, clocks, and counted operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from clm_data import bank
from clm_data.eval.editors.base import Stopwatch
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.memit import Memit
from clm_data.eval.editors.value_optimizer import optimize_target_values
from clm_data.eval.editors.values import TargetValues
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest

T = TypeVar("T")


class FlopCounter(TorchDispatchMode):
    """Counts operations; torch's own counter cannot follow `torch.autograd.grad` in modules."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(  # type: ignore[no-untyped-def]
        self, func, types, args=(), kwargs=None
    ):
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def timed(work: Callable[[], T], device: str = "cpu") -> tuple[T, float, float]:
    """The result, wall seconds and CPU seconds; a GPU has finished its work at both ends."""
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wait(device)
    return result, time.perf_counter() - wall, time.process_time() - cpu


def wait(device: str) -> None:
    """Wait until a GPU has finished its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def product_rate(
    device: str = "cpu", dtype: torch.dtype = torch.float32, size: int = 1024, times: int = 5
) -> float:
    """FLOP/s of a matrix product, the best of five rounds: by CPU time, on a GPU by wall time."""
    left = torch.rand(size, size, device=device, dtype=dtype)
    right = torch.rand(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(5):
        _, wall, cpu = timed(lambda: [left @ right for _ in range(times)], device)
        seconds.append(wall if device.startswith("cuda") else cpu)
    return 2 * size**3 * times / min(seconds)


def bank_texts() -> list[str]:
    """True English sentences of the bundled bank, for second moments."""
    facts = [entry.en for name in bank.domain_ids() for entry in bank.load_domain(name)]
    return [
        f"{prompt} {fact.ground_truth}"
        for fact in facts
        for prompt in (fact.prompt, fact.rephrase_prompt)
    ]


def edit(
    model: LoadedModel,
    requests: Sequence[EditRequest],
    facts: Sequence[PlacedFact],
    editor: Memit,
) -> tuple[TargetValues, Deltas, dict[str, float]]:
    """The same as `editor.edit`, but returns the target values and the seconds by phase, too."""
    watch, params = Stopwatch(), editor.params
    with watch.phase("values"):
        values = optimize_target_values(
            model,
            facts,
            params.layers[-1],
            params.values,
            tokens_per_batch=editor.setup.tokens_per_batch,
        )
    found = editor.edit_to_targets(model, requests, values.targets)
    return values, found, {**watch.seconds, **found.seconds}


def shares(seconds: Mapping[str, float]) -> str:
    """Shares of phases in their sum, in words."""
    total = sum(seconds.values())
    return ", ".join(f"{phase} {100 * part / total:.1f} %" for phase, part in seconds.items())
