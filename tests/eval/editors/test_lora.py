"""LoRA: the adapter against plain loops, and its merged change against the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, BARE_CONTEXTS, REQUESTS, small_model

from clm_data.eval.analysis.geometry.saved_edits import SavedEdit
from clm_data.eval.editors import params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.lora import (
    Factors,
    Lora,
    LoraParams,
    adapted,
    adapted_maps,
    initial_factors,
)
from clm_data.eval.editors.training import Sentence, training_sentences
from clm_data.eval.errors import LayoutError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE

BASE = LoraParams(epochs=4, lr=1e-2, rank=2, alpha=4.0, dropout=0.0, stop_at=0.0)
OWN = {
    "gpt2": ["attn.c_attn"],
    "gpt_neox": ["attention.query_key_value"],
}
"""The adapted maps of architectures with one projection to query, key and value."""


def _edit(
    model: LoadedModel,
    params: LoraParams,
    requests: Sequence[EditRequest] = REQUESTS,
    past: Deltas | None = None,
    tokens_per_batch: int = 4096,
) -> Deltas:
    setup = Setup(NATIVE, BARE_CONTEXTS, tokens_per_batch=tokens_per_batch)
    return Lora(params, setup).edit(model, requests, past=past)


def _sentences(model: LoadedModel, params: LoraParams) -> list[Sentence]:
    facts, _ = place_facts(model, REQUESTS, NATIVE, BARE_CONTEXTS)
    return training_sentences(model, facts, NATIVE, params)[1]


def _logits(model: LoadedModel) -> torch.Tensor:
    ids = torch.arange(2, 12)[None]
    with torch.no_grad():
        return model.model(input_ids=ids).logits[0].float()


def _difference(one: Deltas, two: Deltas) -> float:
    assert one.weights.keys() == two.weights.keys()
    return max(
        float((delta.dense() - two.weights[path].dense()).abs().max())
        for path, delta in one.weights.items()
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_projections_of_query_and_value_of_every_layer_are_adapted(architecture: str) -> None:
    model = small_model(architecture)
    own = OWN.get(architecture, ["self_attn.q_proj", "self_attn.v_proj"])
    expected = [f"{model.layout.layers}.{i}.{name}" for i in range(5) for name in own]
    assert adapted_maps(model, BASE) == expected
    some = adapted_maps(model, BASE.with_layers((1, 3)))
    assert some == [path for path in expected if ".1." in path or ".3." in path]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_untrained_adapter_changes_no_bit(architecture: str, dtype: str) -> None:
    model = small_model(architecture, dtype=dtype)
    before = _logits(model)
    with adapted(model, initial_factors(model, BASE), BASE):
        assert torch.equal(_logits(model), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_merged_change_gives_the_logits_of_the_adapter(architecture: str) -> None:
    model = small_model(architecture)
    factors = initial_factors(model, BASE)
    before = _logits(model)
    Lora(BASE, Setup(NATIVE, BARE_CONTEXTS)).train(model, _sentences(model, BASE), factors)
    with adapted(model, factors, BASE):
        unmerged = _logits(model)
    deltas = _edit(model, BASE)
    with applied(model, deltas):
        merged = _logits(model)
    assert torch.equal(_logits(model), before)
    assert float((merged - unmerged).abs().max()) < 1e-4
    assert float((merged - before).abs().max()) > 1e-2


def _plain(model: LoadedModel, params: LoraParams) -> dict[str, torch.Tensor]:
    """The changes after whole forward passes with changed weights, and torch's own Adam."""
    factors = initial_factors(model, params)
    tensors = [tensor.requires_grad_() for pair in factors.values() for tensor in pair]
    adam = torch.optim.Adam(tensors, lr=params.lr)

    def changes() -> dict[str, torch.Tensor]:
        return {f"{p}.weight": params.scale * b @ a for p, (a, b) in factors.items()}

    for _ in range(params.epochs):
        adam.zero_grad()
        weights = {
            path: model.model.get_parameter(path)
            + (change.T if model.layout.transposed else change)
            for path, change in changes().items()
        }
        losses = []
        for one in _sentences(model, params):
            ids = torch.tensor([one.ids])
            out = torch.func.functional_call(model.model, weights, kwargs={"input_ids": ids})
            losses.append(
                torch.nn.functional.cross_entropy(
                    out.logits[0, list(one.places)], torch.tensor(one.labels)
                )
            )
        torch.stack(losses).mean().backward()
        adam.step()
    return {path: change.detach() for path, change in changes().items()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_changes_are_those_of_a_plain_loop_with_adam(architecture: str) -> None:
    model = small_model(architecture, dtype="float64")
    found, expected = _edit(model, BASE).weights, _plain(model, BASE)
    assert found.keys() == expected.keys()
    for path, change in expected.items():
        assert float((found[path].dense() - change).abs().max()) < 1e-5
        assert float(change.abs().max()) > 1e-3


def test_the_change_of_each_weight_is_kept_as_factors_of_the_rank(tmp_path: Path) -> None:
    model = small_model("llama")
    deltas = _edit(model, BASE)
    for delta in deltas.weights.values():
        assert delta.left.shape[1] == 2
        assert delta.right is not None
        assert delta.right.shape == (2, 32)
    file = tmp_path / "lora.safetensors"
    deltas.save(file)
    assert _difference(deltas, Deltas.load(file)) == 0


def test_geometry_stacks_the_projections_of_a_layer_and_gives_no_term_to_a_fact(
    tmp_path: Path,
) -> None:
    file = tmp_path / "lora.safetensors"
    for architecture, rows in (("llama", 32 + 16), ("gpt2", 3 * 32)):
        model = small_model(architecture)
        deltas = _edit(model, replace(BASE, rank=len(REQUESTS)))
        deltas.save(file)
        assert not Deltas.load(file).by_fact
        saved = SavedEdit(file)
        assert sorted(saved.weights) == [0, 1, 2, 3, 4]
        change = saved.change(1)
        assert change.shape == (rows, 32)
        assert not change.by_fact
        inside = [delta.dense() for path, delta in deltas.weights.items() if ".1." in path]
        assert change.norm == pytest.approx(float(torch.cat(inside).norm()), rel=1e-5)
    assert (_edit(model, BASE).plus(_edit(model, BASE))).by_fact is False


def test_the_result_does_not_depend_on_how_facts_are_batched() -> None:
    model = small_model("llama", dtype="float64")
    assert _difference(_edit(model, BASE), _edit(model, BASE, tokens_per_batch=1)) < 1e-5


def test_the_seed_decides_start_minibatches_and_dropped_inputs() -> None:
    model = small_model("llama")
    for params in (BASE, replace(BASE, batch_size=2), replace(BASE, dropout=0.5)):
        found = _edit(model, params)
        assert _difference(found, _edit(model, params)) == 0
        assert _difference(found, _edit(model, replace(params, seed=1))) > 1e-3
    assert _difference(_edit(model, BASE), _edit(model, replace(BASE, dropout=0.5))) > 1e-3


def test_inputs_are_dropped_in_training_only_and_the_others_scaled() -> None:
    model = small_model("llama")
    params = replace(BASE, dropout=0.5)
    drawn = torch.Generator().manual_seed(0)
    factors: Factors = {
        path: (a, torch.randn(b.shape, generator=drawn))
        for path, (a, b) in initial_factors(model, params).items()
    }
    (path, (a, b)), *_ = factors.items()
    module, inputs = model.model.get_submodule(path), torch.ones(1000, 32)
    with torch.no_grad():
        plain = module(inputs)
        with adapted(model, factors, params):
            whole = module(inputs) - plain
        with adapted(model, factors, params, dropping=True):
            dropped = module(inputs) - plain
    assert torch.allclose(whole, params.scale * inputs @ a.T @ b.T, atol=1e-4)
    assert not torch.allclose(dropped, whole, atol=1e-2)
    assert torch.allclose(dropped.mean(0), whole.mean(0), atol=0.2 * float(whole.abs().max()))


def test_a_later_edit_is_trained_on_top_of_an_earlier_one_and_adds_to_its_rank() -> None:
    model = small_model("llama")
    first = _edit(model, BASE, REQUESTS[:1])
    second = _edit(model, BASE, REQUESTS[1:], first)
    assert all(delta.left.shape[1] == 4 for delta in first.plus(second).weights.values())
    assert _difference(second, _edit(model, BASE, REQUESTS[1:])) > 1e-4


def test_facts_one_after_another_train_the_same_adapter_on() -> None:
    model = small_model("llama", dtype="float64")
    params = replace(BASE, batch_size=1, order="depth-first")
    factors = initial_factors(model, params)
    lora = Lora(params, Setup(NATIVE, BARE_CONTEXTS))
    for sentence in _sentences(model, params):
        lora.train(model, [sentence], factors)
    found = _edit(model, params)
    for path, (a, b) in factors.items():
        expected = params.scale * b @ a
        assert float((found.weights[f"{path}.weight"].dense() - expected).abs().max()) < 1e-5


def test_what_cannot_be_adapted_is_an_error_that_names_it() -> None:
    model = small_model("llama")
    with pytest.raises(LayoutError, match=r"layer 0 has no w_q for LoRA; choose .* q_proj"):
        _edit(model, replace(BASE, targets=("w_q",)))
    with pytest.raises(LayoutError, match=r"input_layernorm .* is not a plain linear map"):
        _edit(model, replace(BASE, targets=("input_layernorm",)))
    with pytest.raises(LayoutError, match="has layers 0 to 4, not 7"):
        _edit(model, BASE.with_layers((1, 7)))


def test_other_linear_maps_can_be_adapted() -> None:
    model = small_model("llama")
    deltas = _edit(model, replace(BASE, targets=("up_proj", "o_proj"), layers=(2,)))
    assert set(deltas.weights) == {
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.2.self_attn.o_proj.weight",
    }


def test_the_settings_of_the_reference_are_kept_but_for_the_rate_and_the_order() -> None:
    params = params_for("lora", "llama-3-8b")  # EasyEdit, hparams/LoRA/llama3-8b.yaml
    assert isinstance(params, LoraParams)
    assert (params.rank, params.alpha, params.dropout, params.epochs) == (8, 32, 0.1, 70)
    assert (params.order, params.objective, params.append_eos) == ("breadth-first", "answer", True)
