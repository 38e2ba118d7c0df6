"""Partial forward passes agree with full ones, in float64, on every architecture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, small_model

from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.keys import LayerwiseForward
from clm_data.eval.editors.value_optimizer import optimize_target_values
from clm_data.eval.editors.values import ValueParams
from clm_data.eval.model.hooks import add_at, captured
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.partial_forward import _first_fit, precompute_prefixes
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE

ROWS = [[5, 9, 2, 7, 11, 4], [3, 8], [6, 1, 12, 13, 14, 15, 16, 2], [4], [5, 9, 1], [6, 1, 12, 3]]
PIVOTS = [2, 1, 5, 0, 2, 2]

REQUESTS = [
    EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三"),
    EditRequest("b", "en", "The capital of France is", "France", "Rome in Italy"),
    EditRequest("c", "zh", "《红楼梦》的作者是", "《红楼梦》", "杜甫"),
    EditRequest("d", "en", "Water boils at", "Water", "3 degrees"),
]
CONTEXTS = contexts_from(
    {"zh": ("{}", "这里的天气。{}", "我想。{}"), "en": ("{}", "The wind is. {}", "You. {}")}
)
SETUP = Setup(NATIVE, CONTEXTS)


def _shifted_logits(
    model: LoadedModel, ids: Sequence[int], pivot: int, layer: int, shift: torch.Tensor
) -> torch.Tensor:
    """Logits (tokens, vocabulary) of a full forward pass with a shift added at one position."""

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[0, pivot] += shift
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    module = model.model.get_submodule(f"{model.layout.layers}.{layer}")
    handle = module.register_forward_hook(add)
    try:
        return model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", [1, 3, 4])
def test_running_suffixes_yields_the_logits_of_a_full_forward(
    architecture: str, layer: int, tied: bool
) -> None:
    model = small_model(architecture, tied=tied, dtype="float64")
    shift = torch.linspace(-1, 1, 32, dtype=torch.float64)
    suffixes = precompute_prefixes(model, ROWS, PIVOTS, layer + 1)
    packed = suffixes.pack(range(len(ROWS)))
    hidden = add_at(packed.hidden, packed.pivots, shift.expand(len(ROWS), -1))
    with torch.no_grad():
        logits = model.logits(packed.run(hidden))
        for row, (ids, pivot) in enumerate(zip(ROWS, PIVOTS, strict=True)):
            expected = _shifted_logits(model, ids, pivot, layer, shift)[pivot:]
            start = int(packed.pivots[row])
            assert torch.allclose(logits[start : start + len(expected)], expected, atol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cached_keys_and_values_are_passed_under_the_name_that_transformers_uses_now(
    architecture: str,
) -> None:
    model = small_model(architecture, dtype="float64")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("error", message=".*past_key_values.*")
        packed = precompute_prefixes(model, ROWS, PIVOTS, 2).pack(range(len(ROWS)))
        assert packed.cached
        packed.run(packed.hidden)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_does_not_depend_on_the_rows_it_runs_with(architecture: str) -> None:
    model = small_model(architecture, dtype="float64")
    suffixes = precompute_prefixes(model, ROWS, PIVOTS, 2)
    every, some = suffixes.pack(range(len(ROWS))), suffixes.pack([2, 0, 4], [[1, 2], [0]])
    with torch.no_grad():
        all_states, some_states = every.run(every.hidden), some.run(some.hidden)
    for slot, row in enumerate([2, 0, 4]):
        for at in range(len(ROWS[row]) - PIVOTS[row]):
            found = some_states[int(some.pivots[slot]) + at]
            expected = all_states[int(every.pivots[row]) + at]
            assert torch.allclose(found, expected, atol=1e-12)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_first_fit_bins_hold_every_row_once_with_little_padding(lengths: list[int]) -> None:
    bins = _first_fit(lengths)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in one) for one in bins]
    assert max(sums) <= max(32, *lengths)
    assert len(bins) == 1 or sorted(sums)[0] + sorted(sums)[1] > max(32, *lengths)


def _target_by_full_forwards(
    model: LoadedModel, fact: PlacedFact, layer: int, params: ValueParams
) -> tuple[torch.Tensor, int]:
    """The target value and the number of updates, with full forward passes and torch's Adam."""
    rows = [(row.ids, row.subject) for row in (*fact.sentences, fact.kl_prompt)]
    module = model.model.get_submodule(f"{model.layout.layers}.{layer}")
    with torch.no_grad(), captured(module) as record:
        model.model(input_ids=torch.tensor([rows[0][0]]), use_cache=False)
    initial = record.output[0, rows[0][1]]
    change = torch.zeros_like(initial, requires_grad=True)
    adam = torch.optim.Adam([change], lr=params.lr)
    baseline = None
    for step in range(params.steps):
        logits = [
            _shifted_logits(model, ids, at, layer, change).log_softmax(-1) for ids, at in rows
        ]
        nll = torch.stack(
            [
                -out[list(row.reads), list(row.labels)].mean()
                for out, row in zip(logits[:-1], fact.sentences, strict=True)
            ]
        ).mean()
        log_probs = logits[-1][rows[-1][1]]
        baseline = log_probs.detach() if baseline is None else baseline
        kl = params.kl_factor * (log_probs.exp() * (log_probs - baseline)).sum()
        loss = nll + kl + params.weight_decay * change.norm() / initial.norm() ** 2
        if loss < params.stop_at or step == params.steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            radius = params.clamp * initial.norm()
            if change.norm() > radius:
                change *= radius / change.norm()
    return (initial + change).detach(), step


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tokens_per_batch", [4096, 40])
def test_batched_target_values_equal_those_of_full_forwards(
    architecture: str, tokens_per_batch: int
) -> None:
    model = small_model(architecture, dtype="float64")
    facts, refused = place_facts(model, REQUESTS, SETUP.protocol, SETUP.contexts)
    assert not refused
    params = ValueParams(
        steps=12, lr=0.3, clamp=0.9, kl_factor=0.06, weight_decay=0.01, stop_at=1.0
    )
    found = optimize_target_values(model, facts, 2, params, tokens_per_batch=tokens_per_batch)
    for fact, target, steps in zip(facts, found.targets, found.steps, strict=True):
        expected, count = _target_by_full_forwards(model, fact, 2, params)
        assert steps == count
        assert torch.allclose(target, expected, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_layerwise_forward_reads_states_at_the_subject(
    architecture: str,
) -> None:
    model = small_model(architecture, dtype="float64")
    facts, _ = place_facts(model, REQUESTS, SETUP.protocol, SETUP.contexts)
    prompts = [prompt for fact in facts for prompt in fact.prompts]
    forward = LayerwiseForward(model, prompts, 64)
    for layer in (0, 2, 4):
        forward.advance_to(layer)
        keys = forward.projection_inputs(layer)
        outputs = forward.layer_outputs(4)
        block = model.model.get_submodule(f"{model.layout.layers}.4")
        for index, prompt in enumerate(prompts):
            with (
                torch.no_grad(),
                captured(model.mlp_out(layer)) as projection,
                captured(block) as last,
            ):
                model.model(input_ids=torch.tensor([prompt.ids]), use_cache=False)
            assert torch.allclose(keys[index], projection.input[0, prompt.subject], atol=1e-10)
            assert torch.allclose(outputs[index], last.output[0, prompt.subject], atol=1e-10)


def test_target_values_of_bfloat16_models_are_float32() -> None:
    model = small_model("llama", dtype="bfloat16")
    facts, _ = place_facts(model, REQUESTS, SETUP.protocol, SETUP.contexts)
    params = ValueParams(steps=5, lr=0.1, clamp=1.0, kl_factor=0.06, weight_decay=0.01)
    assert optimize_target_values(model, facts, 2, params).targets.dtype == torch.float32
