"""How much faster a whole MEMIT edit is than the plain loop, in one run, at equal target values.

    python benchmarks/edit_speed.py [--facts 10 50] [--tokenizer DIR]

SmolLM2-135M on the CPU. Facts and text for the second moments are English sentences of the bundled
bank; the moments are computed before the clock starts, for both. Wall and CPU seconds are printed:
on a machine that others use at the same time the latter tell more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from plain_memit import plain_memit

from clm_data.bank import load_entries
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import contexts_for
from clm_data.eval.editors.covariance import Moments, second_moments
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.memit import Memit, MemitParams
from clm_data.eval.editors.values import Values, target_values
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
    parser.add_argument("--steps", type=int, help="fewer steps, for a quick look")
    options = parser.parse_args()
    model = load_model("gguf:smollm2", tokenizer=options.tokenizer, device="cpu")
    entries = [entry.en for domain in load_entries().values() for entry in domain]
    entries = entries[:: max(1, len(entries) // max(options.facts))]
    requests = [
        EditRequest(str(i), "en", fact.prompt, fact.subject, fact.target_new)
        for i, fact in enumerate(entries)
    ]
    texts = [
        f"{text} {fact.ground_truth}"
        for domain in load_entries().values()
        for fact in (entry.en for entry in domain)
        for text in (fact.prompt, fact.rephrase_prompt)
    ]
    params = Memit.PARAMS["smollm2-135m"]
    if options.steps is not None:
        params = replace(params, values=replace(params.values, steps=options.steps))
    moments = second_moments(model, {"en": texts}, params.layers)
    setup = Setup(EASYEDIT, contexts_for(model, EASYEDIT), moments)
    for count in options.facts:
        compare(model, requests[:count], setup, params)


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """The result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def compare(
    model: LoadedModel, requests: list[EditRequest], setup: Setup, params: MemitParams
) -> None:
    """Edit the same facts both ways."""
    facts, _ = place_facts(model, requests, setup)
    # Factorised anew: a part of the edit until it is kept.
    moments = Moments(dict(setup.needed_moments("memit").by_layer))
    editor = Memit(params, replace(setup, moments=moments))
    (values, found, seconds), wall, cpu = timed(lambda: in_two_parts(model, requests, editor))
    print(f"{len(facts)} facts, {sum(values.steps)} updates")
    _line("ours", wall, cpu, seconds)
    plain, plain_wall, plain_cpu = timed(
        lambda: plain_memit(model, facts, dict(moments.by_layer), params)
    )
    errors = [
        (found.weights[model.layout.weight(layer)].dense() - change).norm() / change.norm()
        for layer, change in plain.changes.items()
    ]
    _line("plain", plain_wall, plain_cpu, plain.seconds)
    print(f"  faster: {plain_wall / wall:.1f} times by the wall, {plain_cpu / cpu:.1f} by CPU time")
    cosine = torch.cosine_similarity(values.targets, plain.targets).min()
    print(f"  least cosine of the target values {cosine:.6f}, largest error {max(errors):.1e}")


def in_two_parts(
    model: LoadedModel, requests: list[EditRequest], editor: Memit
) -> tuple[Values, Deltas, dict[str, float]]:
    """What ``editor.edit`` does, with the target values kept for the comparison."""
    began = time.perf_counter()
    facts, _ = place_facts(model, requests, editor.setup)
    values = target_values(model, facts, editor.params.layers[-1], editor.params.values)
    seconds = {"values": time.perf_counter() - began}
    found = editor.edit(model, requests, targets=values.targets)
    return values, found, {**seconds, **found.seconds}


def _line(name: str, wall: float, cpu: float, seconds: dict[str, float]) -> None:
    total = sum(seconds.values())
    shares = ", ".join(f"{phase} {100 * part / total:.1f} %" for phase, part in seconds.items())
    print(f"  {name:5} {wall:8.1f} s wall {cpu:8.1f} s CPU; {shares}", flush=True)


if __name__ == "__main__":
    main()
