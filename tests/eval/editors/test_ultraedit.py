"""UltraEdit: its closed form, its normalizer, and what it must not depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

import numpy as np
from helpers.small_models import BARE_CONTEXTS, REQUESTS, character_tokenizer, small_model

from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.gradients import KeyGradients, read_gradients
from clm_data.eval.editors.normalizer import Normalizer
from clm_data.eval.editors.solve import solve_ridge
from clm_data.eval.editors.training import answer_rows
from clm_data.eval.editors.ultraedit import UltraEdit, UltraEditParams
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest, place
from clm_data.eval.protocols import EASYEDIT, NATIVE

PARAMS = UltraEditParams(gate=(1,), up=(1, 2), down=(3,), lr=1e-3)
SETUP = Setup(NATIVE, BARE_CONTEXTS)


def edit(
    model: LoadedModel,
    requests: list[EditRequest] = REQUESTS,
    setup: Setup = SETUP,
    past: Deltas | None = None,
    **changes: object,
) -> Deltas:
    return UltraEdit(replace(PARAMS, **changes), setup).edit(model, requests, past=past)


def read(
    model: LoadedModel, requests: list[EditRequest] = REQUESTS, tokens_per_batch: int = 4096
) -> dict[str, KeyGradients]:
    facts, _ = place_facts(model, requests, NATIVE, BARE_CONTEXTS)
    modules = {
        model.layout.weight(layer, part): model.mlp_part(layer, part)
        for layer, part in PARAMS.weights()
    }
    sentences = [fact.sentences[0] for fact in facts]
    return read_gradients(
        model, sentences, modules, 1, tokens="answer", tokens_per_batch=tokens_per_batch
    )


@pytest.mark.parametrize(("size", "count"), [(9, 4), (4, 9), (5, 5)])
def test_the_ridge_solution_is_that_of_the_normal_equations(size: int, count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(size, count, generator=generator, dtype=torch.float64)
    values = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    ridge = 0.7
    gram = (keys @ keys.T).numpy() + ridge * np.eye(size)
    direct = np.linalg.solve(gram, (keys @ values).numpy())
    assert np.allclose((solve_ridge(keys, ridge) @ values).numpy(), direct, rtol=1e-10)


def test_the_normalizer_has_the_mean_and_deviation_of_all_rows_seen() -> None:
    rows = np.random.default_rng(0).normal(3, 2, (23, 5))
    normalizer = Normalizer.of_size(5)
    for part in np.split(rows, [1, 2, 9, 9]):
        normalizer = normalizer.seen(torch.from_numpy(part))
    normalizer = Normalizer.from_tensor(normalizer.as_tensor())
    expected = (rows[:4] - rows.mean(0)) / rows.std(0, ddof=1)
    found = normalizer.normalize(torch.from_numpy(rows[:4]))
    assert np.allclose(found.numpy(), expected, rtol=1e-6)


def test_a_single_row_is_normalized_with_a_row_of_zeros() -> None:
    row = torch.tensor([[4.0, -0.5, 0.0]])
    found = Normalizer.of_size(3).seen(row).normalize(row)
    assert torch.allclose(found, torch.tensor([[0.5**0.5, -(0.5**0.5), 0.0]]).double(), atol=1e-5)


def test_overcounting_counts_deviations_within_a_part_more_often() -> None:
    rows = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).double()
    plain, more = Normalizer.of_size(2).seen(rows), Normalizer.of_size(2).seen(rows, overcount=True)
    assert torch.allclose(more.squares, plain.squares * 1.5)
    assert torch.isfinite(more.seen(rows[:1], overcount=True).squares).all()


def test_keys_and_gradients_are_those_of_the_whole_model() -> None:
    model = small_model("llama", dtype="float64")
    found = read(model)
    request = REQUESTS[1]
    placed = place(model.tokenizer, request, NATIVE)
    weight = model.model.get_parameter(model.layout.weight(2, "up"))
    weight.requires_grad_(True)
    logits = model.model(input_ids=torch.tensor([placed.ids])).logits[0]
    log_probs = logits.log_softmax(-1)[list(placed.reads), list(placed.labels)]
    (expected,) = torch.autograd.grad(-log_probs.mean(), weight)
    weight.requires_grad_(False)
    of_all = read_gradients(
        model,
        [placed],
        {"up": model.mlp_part(2, "up")},
        2,
        tokens="all",
        tokens_per_batch=4096,
    )["up"]
    assert of_all.counts == (len(placed.ids) + 1,)
    assert torch.allclose(of_all.gradients.T @ of_all.keys, expected, atol=1e-9)
    assert torch.equal(of_all.gradients[-1], torch.zeros_like(of_all.gradients[-1]))
    mine = found[model.layout.weight(2, "up")]
    start = mine.counts[0]
    end = start + mine.counts[1]
    assert mine.counts == tuple(len(place(model.tokenizer, r, NATIVE).labels) for r in REQUESTS)
    assert torch.allclose(mine.keys[start:end], of_all.keys[list(placed.reads)], atol=1e-9)
    assert torch.allclose(mine.gradients[start:end], of_all.gradients[list(placed.reads)])


def test_the_change_is_the_normalized_gradient_written_at_the_keys() -> None:
    model = small_model("llama", dtype="float64")
    deltas, found = edit(model), read(model)
    shared = [model.layout.weight(layer, part) for layer, part in ((1, "gate"), (1, "up"))]
    shared += [model.layout.weight(2, "up")]
    rows = {p: torch.cat([f.keys, f.gradients], 1).numpy() for p, f in found.items()}
    both = np.concatenate([rows[path] for path in shared])
    for path in shared:
        keys = found[path].keys.numpy()
        normal = (rows[path] - both.mean(0)) / (both.std(0, ddof=1) + 1e-7)
        a, g = normal[:, : keys.shape[1]], normal[:, keys.shape[1] :]
        values = -PARAMS.lr * (a**2).sum(1, keepdims=True) * g
        direct = np.linalg.solve(keys.T @ keys + np.eye(keys.shape[1]), keys.T @ values).T
        assert np.allclose(deltas.weights[path].dense().numpy(), direct, rtol=1e-4, atol=1e-8)


def test_batches_and_padding_change_the_result_by_rounding_only() -> None:
    model = small_model("qwen2", dtype="float64")
    whole, parts = read(model), read(model, tokens_per_batch=1)
    for path, found in whole.items():
        assert torch.allclose(found.keys, parts[path].keys, atol=1e-12)
        assert torch.allclose(found.gradients, parts[path].gradients, atol=1e-12)
    model.tokenizer.padding_side = "left"
    assert torch.equal(read(model)[path].keys, whole[path].keys)


def test_facts_of_a_step_do_not_depend_on_their_order() -> None:
    model = small_model("llama", dtype="float64")
    one, two = edit(model), edit(model, REQUESTS[::-1])
    for path, delta in one.weights.items():
        assert torch.allclose(delta.dense(), two.weights[path].dense(), atol=1e-7)


def test_a_vanishing_learning_rate_changes_nothing() -> None:
    model = small_model("llama")
    deltas = edit(model, lr=1e-60)
    assert all(not delta.dense().any() for delta in deltas.weights.values())


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gpt2", "gpt_neox"])
def test_an_edit_makes_the_answers_more_likely(architecture: str) -> None:
    model = small_model(architecture, tied=architecture == "gpt2")
    gate = () if architecture in ("gpt2", "gpt_neox") else (1,)

    def log_prob(request: EditRequest) -> float:
        placed = place(model.tokenizer, request, NATIVE)
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([placed.ids])).logits[0]
        return float(logits.log_softmax(-1)[list(placed.reads), list(placed.labels)].mean())

    before = [log_prob(request) for request in REQUESTS]
    weights = {name: w.detach().clone() for name, w in model.model.named_parameters()}
    deltas = edit(model, gate=gate, lr=1e-4)
    with applied(model, deltas):
        after = [log_prob(request) for request in REQUESTS]
    assert np.mean(after) > np.mean(before)
    assert all(torch.equal(w, weights[name]) for name, w in model.model.named_parameters())


def test_a_first_batch_of_one_answer_token_gives_a_finite_change() -> None:
    model = small_model("llama", tokenizer=character_tokenizer(["鲁迅的原名是张三"]))
    request = EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张")
    deltas = edit(model, [request], gate=(), up=(1,), down=())
    (delta,) = deltas.weights.values()
    assert delta.left.shape[1] == 1
    assert torch.isfinite(delta.dense()).all()
    assert delta.dense().any()


def test_the_normalizer_of_a_sequence_has_seen_its_earlier_edits(tmp_path: Path) -> None:
    model = small_model("llama", dtype="float64")
    first = edit(model, REQUESTS[:2])
    first.save(tmp_path / "first.safetensors")
    loaded = Deltas.load(tmp_path / "first.safetensors")
    assert loaded.state.keys() == first.state.keys()
    both = first.plus(edit(model, REQUESTS[2:], past=loaded))
    steps = edit(model, facts_per_step=2)
    for path, delta in steps.weights.items():
        assert torch.allclose(delta.dense(), both.weights[path].dense(), atol=1e-6)
    for name, tensor in steps.state.items():
        assert torch.allclose(tensor, both.state[name], atol=1e-6)
    (up,) = (t for name, t in both.state.items() if name.endswith("32x48"))
    tokens = sum(len(place(model.tokenizer, r, NATIVE).labels) for r in REQUESTS)
    assert int(up[0, 0]) == 3 * tokens
    restarted = replace(SETUP, protocol=replace(NATIVE, ultraedit_normalizer="edit"))
    alone = edit(model, REQUESTS[2:], setup=restarted, past=first)
    assert int(alone.state["normalizer.32x48"][0, 0]) < int(up[0, 0])


def test_the_easyedit_protocol_reads_every_token_up_to_the_end_of_the_answer() -> None:
    model = small_model("llama")
    request = REQUESTS[1]
    text = f"{request.prompt} {request.target}"
    deltas = edit(model, [request], setup=replace(SETUP, protocol=EASYEDIT))
    tokens = len(model.tokenizer(text)["input_ids"])
    assert int(deltas.state["normalizer.48x32"][0, 0]) == tokens


def test_with_the_easyedit_protocol_an_answer_is_all_tokens_after_those_of_the_prompt() -> None:
    model = small_model("llama")
    placed, _ = place_facts(model, REQUESTS, EASYEDIT, BARE_CONTEXTS)
    facts, rows, refused = answer_rows(model, placed, EASYEDIT)
    assert (facts, refused) == (placed, ())
    for request, row in zip(REQUESTS, rows, strict=True):
        ids = tuple(model.tokenizer(f"{request.prompt} {request.target}")["input_ids"])
        prompt = len(model.tokenizer(request.prompt)["input_ids"])
        assert (row.ids, row.labels, row.prompt) == (ids[:-1], ids[prompt:], prompt)
    # For target values, EasyEdit cuts the answer inside a Chinese character and encodes it again.
    assert rows[0].ids != placed[0].sentences[0].ids
    assert answer_rows(model, placed, NATIVE)[1] == [fact.sentences[0] for fact in placed]


def test_a_change_of_many_tokens_is_stored_dense() -> None:
    model = small_model("llama")
    few, many = edit(model), edit(model, REQUESTS * 8)
    path = model.layout.weight(1, "up")
    assert few.weights[path].right is not None
    assert many.weights[path].right is None
    assert many.weights[path].dense().shape == (48, 32)


def test_a_missing_projection_or_layer_is_one_line() -> None:
    with pytest.raises(LayoutError, match="its MLP has no gate projection with a known name"):
        edit(small_model("gpt2"))
    with pytest.raises(LayoutError, match="has layers 0 to 4, not 9"):
        edit(small_model("llama"), up=(9,))
    with pytest.raises(EditError, match="no layer to edit in gate, up or down"):
        UltraEditParams()


def test_other_layers_are_edited_in_the_same_projections() -> None:
    params = UltraEditParams(gate=(1,), up=(2, 3)).with_layers((0, 4))
    assert (params.gate, params.up, params.down) == ((0, 4), (0, 4), ())
    assert params.edited_layers == (0, 4)
    assert params.moment_layers == ()
