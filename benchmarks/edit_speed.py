"""Speed of a MEMIT edit compared with plain loops, in one run, at equal target values.

    python benchmarks/edit_speed.py [--facts 10 50] [--tokenizer DIR]

Edits SmolLM2-135M on the CPU. The facts, and the text for the second moments, are English sentences
of the bundled bank; the second moments are computed before the clock starts. Wall and CPU seconds
are printed; on a machine that is shared with other processes, CPU seconds are more reliable. The
rate of floating-point operations is that of the edit's own operations, counted while they run once
more, next to the rate of a plain float32 matrix product on the same machine in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from plain_memit import plain_memit
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from clm_data import bank
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import sample_contexts
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.memit import Memit, MemitParams
from clm_data.eval.editors.moments import Moments, second_moments
from clm_data.eval.editors.value_optimizer import optimize_target_values
from clm_data.eval.editors.values import TargetValues
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT

TOKENIZER = Path(__file__).parents[2] / "shared" / "reference" / "smollm2_tokenizer"
T = TypeVar("T")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    parser.add_argument("--steps", type=int, help="fewer optimization steps, for a quick run")
    options = parser.parse_args()
    model = load_model("gguf:smollm2", tokenizer=options.tokenizer, device="cpu")
    facts = [entry.en for name in bank.domain_ids() for entry in bank.load_domain(name)]
    some = facts[:: max(1, len(facts) // max(options.facts))]
    requests = [
        EditRequest(str(i), "en", fact.prompt, fact.subject, fact.target_new)
        for i, fact in enumerate(some)
    ]
    texts = [
        f"{prompt} {fact.ground_truth}"
        for fact in facts
        for prompt in (fact.prompt, fact.rephrase_prompt)
    ]
    params = Memit.PARAMS["smollm2-135m"]
    if options.steps is not None:
        params = replace(params, values=replace(params.values, steps=options.steps))
    moments = second_moments(model, {"en": texts}, params.layers)
    setup = Setup(EASYEDIT, sample_contexts(model, EASYEDIT), moments)
    for count in options.facts:
        compare(model, requests[:count], setup, params)


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """The result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def compare(
    model: LoadedModel, requests: Sequence[EditRequest], setup: Setup, params: MemitParams
) -> None:
    """Edit the same facts both ways, and print times and differences."""
    facts, _ = place_facts(model, requests, setup.protocol, setup.contexts)
    # A new object, so that factorizing the moments is part of the edit.
    moments = Moments(setup.require_moments("memit").by_layer)
    editor = Memit(params, replace(setup, moments=moments))
    (values, found, seconds), wall, cpu = timed(lambda: edit(model, requests, facts, editor))
    print(f"{len(facts)} facts, {sum(values.steps)} updates")
    _print_times("clm-data", wall, cpu, seconds)
    plain, plain_wall, plain_cpu = timed(
        lambda: plain_memit(model, facts, dict(moments.by_layer), params)
    )
    errors = [
        (found.weights[model.layout.weight(layer)].dense() - change).norm() / change.norm()
        for layer, change in plain.changes.items()
    ]
    _print_times("plain", plain_wall, plain_cpu, plain.seconds)
    print(f"  speedup: {plain_wall / wall:.1f} by wall time, {plain_cpu / cpu:.1f} by CPU time")
    _print_rate(lambda: edit(model, requests, facts, editor), cpu)
    cosine = torch.cosine_similarity(values.targets, plain.targets).min()
    print(f"  minimum cosine of target values {cosine:.6f}, maximum error {max(errors):.1e}")


def edit(
    model: LoadedModel,
    requests: Sequence[EditRequest],
    facts: Sequence[PlacedFact],
    editor: Memit,
) -> tuple[TargetValues, Deltas, dict[str, float]]:
    """The same as `editor.edit`, but returns the target values, too."""
    start = time.perf_counter()
    values = optimize_target_values(model, facts, editor.params.layers[-1], editor.params.values)
    seconds = {"values": time.perf_counter() - start}
    found = editor.edit_to_targets(model, requests, values.targets)
    return values, found, {**seconds, **found.seconds}


class _FlopCounter(TorchDispatchMode):
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


def _print_rate(work: Callable[[], object], cpu: float) -> None:
    """GFLOP/s of the edit and of a matrix product, both by CPU time."""
    best = max(_product_rate() for _ in range(5))
    with _FlopCounter() as counter:
        work()
    rate = counter.total / cpu / 1e9
    print(
        f"  {counter.total / 1e9:.0f} GFLOP at {rate:.1f} GFLOP/s, "
        f"{100 * rate / best:.0f} % of a float32 matrix product ({best:.1f} GFLOP/s)"
    )


def _product_rate(size: int = 1024, times: int = 5) -> float:
    left, right = torch.rand(size, size), torch.rand(size, size)
    _, _, cpu = timed(lambda: [left @ right for _ in range(times)])
    return 2 * size**3 * times / cpu / 1e9


def _print_times(name: str, wall: float, cpu: float, seconds: Mapping[str, float]) -> None:
    total = sum(seconds.values())
    shares = ", ".join(f"{phase} {100 * part / total:.1f} %" for phase, part in seconds.items())
    print(f"  {name:8} {wall:8.1f} s wall {cpu:8.1f} s CPU; {shares}", flush=True)


if __name__ == "__main__":
    main()
