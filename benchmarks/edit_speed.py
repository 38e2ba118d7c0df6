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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from measuring import FlopCounter, bank_texts, edit, product_rate, shares, timed
from plain_memit import plain_memit

from clm_data import bank
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import sample_contexts
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.memit import Memit, MemitParams
from clm_data.eval.editors.moments import Moments, second_moments
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import load_model
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT

TOKENIZER = Path(__file__).parents[2] / "shared" / "reference" / "smollm2_tokenizer"


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
    params = Memit.PARAMS["smollm2-135m"]
    if options.steps is not None:
        params = replace(params, values=replace(params.values, steps=options.steps))
    moments = second_moments(model, {"en": bank_texts()}, params.layers)
    setup = Setup(EASYEDIT, sample_contexts(model, EASYEDIT), moments)
    for count in options.facts:
        compare(model, requests[:count], setup, params)


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


def _print_rate(work: Callable[[], object], cpu: float) -> None:
    """GFLOP/s of the edit and of a matrix product, both by CPU time."""
    best = product_rate() / 1e9
    with FlopCounter() as counter:
        work()
    rate = counter.total / cpu / 1e9
    print(
        f"  {counter.total / 1e9:.0f} GFLOP at {rate:.1f} GFLOP/s, "
        f"{100 * rate / best:.0f} % of a float32 matrix product ({best:.1f} GFLOP/s)"
    )


def _print_times(name: str, wall: float, cpu: float, seconds: Mapping[str, float]) -> None:
    print(f"  {name:8} {wall:8.1f} s wall {cpu:8.1f} s CPU; {shares(seconds)}", flush=True)


if __name__ == "__main__":
    main()
