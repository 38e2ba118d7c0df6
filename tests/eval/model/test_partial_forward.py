"""Running part of a model gives what running all of it gives, in float64, on every architecture."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, small_model

from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import given_contexts
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.keys import LayerwiseForward
from clm_data.eval.editors.values import ValueParams, target_values
from clm_data.eval.model.hooks import add_at, captured
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.partial_forward import _bins, make_tail
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
CONTEXTS = given_contexts(
    {"zh": ("{}", "这里的天气。{}", "我想。{}"), "en": ("{}", "The wind is. {}", "You. {}")}
)
SETUP = Setup(NATIVE, CONTEXTS)


def _changed_logits(model: LoadedModel, ids: list[int], pivot: int, layer: int, shift: Any) -> Any:
    """The plain way: the whole sentence through the whole model, with one hook."""

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
def test_a_tail_gives_the_logits_of_a_full_forward(
    architecture: str, layer: int, tied: bool
) -> None:
    model = small_model(architecture, tied=tied, dtype="float64")
    shift = torch.linspace(-1, 1, 32, dtype=torch.float64)
    tail = make_tail(model, ROWS, PIVOTS, layer + 1)
    packed = tail.pack(range(len(ROWS)))
    hidden = add_at(packed.hidden, packed.offsets, shift.expand(len(ROWS), -1))
    with torch.no_grad():
        logits = model.logits(packed.run(hidden))
        for row, (ids, pivot) in enumerate(zip(ROWS, PIVOTS, strict=True)):
            wanted = _changed_logits(model, ids, pivot, layer, shift)[pivot:]
            begin = int(packed.offsets[row])
            assert torch.allclose(logits[begin : begin + len(wanted)], wanted, atol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_some_rows_run_as_they_did_among_all(architecture: str) -> None:
    model = small_model(architecture, dtype="float64")
    tail = make_tail(model, ROWS, PIVOTS, 2)
    every, some = tail.pack(range(len(ROWS))), tail.pack([2, 0, 4], [[1, 2], [0]])
    with torch.no_grad():
        whole, part = every.run(every.hidden), some.run(some.hidden)
    for slot, row in enumerate([2, 0, 4]):
        for at in range(len(ROWS[row]) - PIVOTS[row]):
            found = part[int(some.offsets[slot]) + at]
            assert torch.allclose(found, whole[int(every.offsets[row]) + at], atol=1e-12)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_bins_hold_every_row_once_and_are_mostly_full(lengths: list[int]) -> None:
    bins = _bins(lengths)
    assert sorted(i for one in bins for i in one) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in one) for one in bins]
    assert max(sums) <= max(32, *lengths)
    assert len(bins) == 1 or sorted(sums)[0] + sorted(sums)[1] > max(32, *lengths)


def _plain_target(model: LoadedModel, fact: Any, layer: int, params: ValueParams) -> Any:
    """One fact at a time, full forwards, torch's own Adam."""
    rows = [(r.ids, r.subject) for r in fact.rows] + [(fact.kl.ids, fact.kl.subject)]
    module = model.model.get_submodule(f"{model.layout.layers}.{layer}")
    with torch.no_grad(), captured(module) as seen:
        model.model(input_ids=torch.tensor([rows[0][0]]), use_cache=False)
    first = seen.output[0, rows[0][1]]
    change = torch.zeros_like(first, requires_grad=True)
    adam = torch.optim.Adam([change], lr=params.lr)
    before = None
    for step in range(params.steps):
        logits = [
            _changed_logits(model, list(ids), at, layer, change).log_softmax(-1) for ids, at in rows
        ]
        nll = torch.stack(
            [
                -out[list(r.reads), list(r.labels)].mean()
                for out, r in zip(logits[:-1], fact.rows, strict=True)
            ]
        ).mean()
        now = logits[-1][rows[-1][1]]
        before = now.detach() if before is None else before
        kl = params.kl_factor * (now.exp() * (now - before)).sum()
        loss = nll + kl + params.weight_decay * change.norm() / first.norm() ** 2
        if loss < params.stop_at or step == params.steps - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            radius = params.clamp * first.norm()
            if change.norm() > radius:
                change *= radius / change.norm()
    return (first + change).detach(), step


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tokens", [4096, 40])
def test_batched_target_values_equal_plain_ones(architecture: str, tokens: int) -> None:
    model = small_model(architecture, dtype="float64")
    facts, refused = place_facts(model, REQUESTS, SETUP.protocol, SETUP.contexts)
    assert not refused
    params = ValueParams(
        steps=12, lr=0.3, clamp=0.9, kl_factor=0.06, weight_decay=0.01, stop_at=1.0
    )
    found = target_values(model, facts, 2, params, tokens_per_batch=tokens)
    for fact, target, steps in zip(facts, found.targets, found.steps, strict=True):
        wanted, count = _plain_target(model, fact, 2, params)
        assert steps == count
        assert torch.allclose(target, wanted, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_keys_are_what_enters_the_projection_at_the_subject(architecture: str) -> None:
    model = small_model(architecture, dtype="float64")
    facts, _ = place_facts(model, REQUESTS, SETUP.protocol, SETUP.contexts)
    prompts = [prompt for fact in facts for prompt in fact.prompts]
    walk = LayerwiseForward(model, prompts, 64)
    for layer in (0, 2, 4):
        walk.to(layer)
        found = walk.inputs(layer)
        outputs = walk.outputs(4)
        block = model.model.get_submodule(f"{model.layout.layers}.4")
        for index, prompt in enumerate(prompts):
            with (
                torch.no_grad(),
                captured(model.mlp_out(layer)) as seen,
                captured(block) as last,
            ):
                model.model(input_ids=torch.tensor([prompt.ids]), use_cache=False)
            assert torch.allclose(found[index], seen.input[0, prompt.subject], atol=1e-10)
            assert torch.allclose(outputs[index], last.output[0, prompt.subject], atol=1e-10)


def test_float16_weights_are_optimised_in_float32() -> None:
    model = small_model("llama", dtype="bfloat16")
    facts, _ = place_facts(model, REQUESTS, SETUP.protocol, SETUP.contexts)
    params = ValueParams(steps=5, lr=0.1, clamp=1.0, kl_factor=0.06, weight_decay=0.01)
    assert target_values(model, facts, 2, params).targets.dtype == torch.float32
