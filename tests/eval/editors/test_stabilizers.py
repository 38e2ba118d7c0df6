"""RECT, PRUNE, NAS and EMMET: what they do when they are on, and nothing when they are off."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import BARE_CONTEXTS, LAYERS, REQUESTS, TEXTS, small_model, small_params

from clm_data.eval.editors import METHODS, make_editor, method_class
from clm_data.eval.editors.base import DeltaParams, Setup, ValueMethodParams
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.keys import LayerwiseForward
from clm_data.eval.editors.moments import LanguageMoments, second_moments
from clm_data.eval.editors.norm_anchor import anchor_norm, anchored
from clm_data.eval.editors.solve import cholesky, solve_equality, solve_least_squares
from clm_data.eval.editors.stabilizers import StabilizedEditor, damp, keep_largest, stabilized
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import NATIVE

DELTA_METHODS = [
    method for method in METHODS if isinstance(method_class(method).PARAMS["tiny"], DeltaParams)
]
VALUE_METHODS = [
    method
    for method in DELTA_METHODS
    if isinstance(method_class(method).PARAMS["tiny"], ValueMethodParams)
]


def editor(method: str, model: LoadedModel, **changes: Any) -> Any:
    moments = second_moments(model, {"all": TEXTS}, LAYERS)
    languages = LanguageMoments({"en": moments})
    setup = Setup(NATIVE, BARE_CONTEXTS, moments, language_moments=languages)
    params = replace(small_params(method), **changes)
    return make_editor(method, params, setup)


def edit(method: str, model: LoadedModel, **changes: Any) -> Deltas:
    deltas = editor(method, model, **changes).edit(model, REQUESTS)
    assert isinstance(deltas, Deltas)
    return deltas


def equal(one: Deltas, two: Deltas) -> bool:
    return all(
        torch.equal(delta.dense(), two.weights[path].dense()) for path, delta in one.weights.items()
    )


def test_every_method_that_changes_weights_has_the_switches() -> None:
    assert {"memit", "alphaedit", "langedit", "pmet", "rome", "ft", "ultraedit"} <= set(
        DELTA_METHODS
    )
    assert set(VALUE_METHODS) == {"memit", "alphaedit", "langedit", "pmet", "rome"}


@pytest.mark.parametrize("method", DELTA_METHODS)
def test_rect_keeps_the_given_share_of_each_change(method: str) -> None:
    model = small_model("gpt2" if method == "ft" else "llama")
    plain, kept = edit(method, model), edit(method, model, rect=0.25)
    assert kept.edited == plain.edited
    assert kept.arrived is None
    for path, delta in plain.weights.items():
        full, part = delta.dense(), kept.weights[path].dense()
        weight = model.model.get_parameter(path).detach()
        weight = weight.T if model.layout.transposed else weight
        ratio = (full / weight).abs()
        changed = part != 0
        assert torch.equal(part[changed], full[changed])
        moved = int((full != 0).sum())
        assert int(changed.sum()) == pytest.approx(min(moved, 0.25 * full.numel()), abs=1)
        assert ratio[changed].min() >= ratio[~changed].max() * (1 - 1e-4)


def test_off_is_the_method_itself() -> None:
    model = small_model("llama")
    for method in DELTA_METHODS:
        assert not isinstance(editor(method, model), StabilizedEditor)
    assert isinstance(editor("memit", model, prune=1.2), StabilizedEditor)
    whole = edit("memit", model, rect=1.0)
    assert equal(whole, edit("memit", model))


def test_rect_compares_with_the_weight_that_earlier_edits_changed() -> None:
    model = small_model("llama")
    path = model.layout.weight(1)
    weight = model.model.get_parameter(path).detach()
    past = Deltas("memit", model.name, {path: WeightDelta(-0.999 * weight)})
    change = Deltas("memit", model.name, {path: WeightDelta(torch.ones_like(weight))})
    params = replace(small_params("memit"), rect=0.1)
    found = stabilized(change, model, params, past).weights[path].dense()
    expected = keep_largest(torch.ones_like(weight), weight * 0.001, 0.1)
    assert torch.equal(found != 0, expected != 0)


def test_keep_largest_counts_a_weight_of_zero_as_changed_most() -> None:
    change = torch.tensor([[1.0, 2.0, 0.0, 3.0]])
    weight = torch.tensor([[0.0, 1.0, 0.0, -100.0]])
    assert keep_largest(change, weight, 0.5).tolist() == [[1.0, 2.0, 0.0, 0.0]]
    assert keep_largest(change, weight, 1.0) is change


def test_damping_is_logarithmic_above_the_largest_singular_value() -> None:
    values = torch.tensor([1.0, 10.0, 20.0, 80.0], dtype=torch.float64)
    expected = [1.0, 10.0, 10 + math.log(2, 1.2), 10 + math.log(8, 1.2)]
    assert damp(values, 10.0, 1.2).tolist() == pytest.approx(expected)
    small = damp(torch.tensor([1.0, 2.0]).double(), 0.5, 1.2)
    assert small.tolist() == [1.0, 2.0]  # the logarithm would be larger


@pytest.mark.parametrize("dense", [False, True])
def test_prune_damps_the_singular_values_of_the_sum_of_all_edits(dense: bool) -> None:
    model = small_model("llama", dtype="float64")
    path = model.layout.weight(1)
    weight = model.model.get_parameter(path).detach()
    largest = float(torch.linalg.matrix_norm(weight, 2))
    generator = torch.Generator().manual_seed(0)

    def random(scale: float) -> WeightDelta:
        left = torch.randn(32, 3, generator=generator) * scale
        change = WeightDelta(left, torch.randn(3, 48, generator=generator))
        return WeightDelta(change.dense()) if dense else change

    past = Deltas("memit", model.name, {path: random(0.5)})
    new = Deltas("memit", model.name, {path: random(1.0)})
    params = replace(small_params("memit"), prune=1.5)
    found = past.plus(stabilized(new, model, params, past)).weights[path].dense().double()
    total = past.plus(new).weights[path].dense().double()
    left, values, right = torch.linalg.svd(total, full_matrices=False)
    assert float(values[0]) > largest
    expected = left @ torch.diag(damp(values, largest, 1.5)) @ right
    assert torch.allclose(found, expected, atol=1e-4 * float(values[0]))
    small = Deltas("memit", model.name, {path: random(1e-3)})
    assert stabilized(small, model, params, None).weights[path] is small.weights[path]


def test_anchored_values_have_the_mean_norm_and_outliers_stay() -> None:
    values = torch.diag(torch.tensor([1.0, 2.0, 3.0, 20.0]))
    unchanged = torch.ones(4, 4)
    found = anchored(values, unchanged, torch.tensor(4.0))
    assert torch.equal(found[:3].norm(dim=1), torch.full((3,), 4.0))
    assert torch.equal(found[3], unchanged[3])
    norms = torch.arange(1.0, 41.0)
    assert float(anchor_norm(torch.diag(norms))) == pytest.approx(float(norms[:38].mean()))


def value_norms(model: LoadedModel, deltas: Deltas, layer: int) -> torch.Tensor:
    """Norms of what the MLP of a layer adds at each subject."""
    facts, _ = place_facts(model, REQUESTS, NATIVE, BARE_CONTEXTS)
    with applied(model, deltas):
        forward = LayerwiseForward(model, [fact.prompts[0] for fact in facts], 4096)
        return forward.projection_outputs(layer).norm(dim=1)


@pytest.mark.parametrize("method", VALUE_METHODS)
def test_nas_gives_all_values_one_norm_which_later_edits_keep(method: str) -> None:
    model = small_model("llama", dtype="float64")
    changes: dict[str, Any] = {"nas": True}
    if method != "rome":  # one layer, and nothing protected: the target values are met
        changes["layers"] = (1,)
    if method in ("memit", "pmet"):
        changes["moment_weight"] = 1e-6
    elif method != "rome":
        changes |= {"threshold": 1e9, "ridge": 1e-9}
    layer = 1
    first = edit(method, model, **changes)
    norm = float(first.state["nas.norm"])
    norms = value_norms(model, first, layer)
    if method == "rome":  # its facts are edited one after another
        assert norms[-1] == pytest.approx(norm, rel=1e-3)
    else:
        assert norms.tolist() == pytest.approx([norm] * 3, rel=1e-3)
    plain = edit(method, model, **(changes | {"nas": False}))
    assert plain.state == {}
    assert float(value_norms(model, plain, layer).std()) > 1e-3 * norm
    again = editor(method, model, **changes)
    second = again.edit(model, REQUESTS[:1], past=first)
    assert float(second.state["nas.norm"]) == norm
    with pytest.raises(EditError, match="earlier edits that were made with nas"):
        again.edit(model, REQUESTS[:1], past=plain)


def test_emmet_meets_the_targets_exactly_and_is_the_limit_of_memit() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(200, 12, generator=generator, dtype=torch.float64)
    factor, _ = cholesky(data.T @ data / 200)
    keys = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    solution = solve_equality(keys, factor)
    assert torch.allclose(solution.T @ keys, torch.eye(4).double(), atol=1e-10)
    limit = solve_least_squares(keys, factor, 1e-9)
    assert torch.allclose(solution, limit, rtol=1e-6, atol=1e-8)
    moment = data.T @ data / 200
    direct = torch.linalg.inv(moment) @ keys
    direct = direct @ torch.linalg.inv(keys.T @ direct)
    assert torch.allclose(solution, direct, atol=1e-10)


def test_emmet_refuses_equal_keys() -> None:
    keys = torch.ones(5, 2, dtype=torch.float64)
    with pytest.raises(EditError, match="the keys of the facts depend on each other"):
        solve_equality(keys, torch.eye(5, dtype=torch.float64))


@pytest.mark.parametrize("method", ["memit", "pmet"])
def test_emmet_arrives_at_the_target_values(method: str) -> None:
    model = small_model("llama", dtype="float64")
    exact = edit(method, model, emmet=True, moment_weight=1e6, layers=(1,))
    plain = edit(method, model, moment_weight=1e6, layers=(1,))
    assert exact.arrived == pytest.approx(1.0, abs=1e-5)
    assert plain.arrived is not None
    assert plain.arrived < 0.9


def test_a_fact_that_wants_no_change_is_no_part_of_the_share_that_arrives() -> None:
    model = small_model("llama", dtype="float64")
    memit = editor("memit", model, layers=(1,), moment_weight=1e-6)
    facts, _ = place_facts(model, REQUESTS, NATIVE, BARE_CONTEXTS)
    forward = LayerwiseForward(model, [fact.prompts[0] for fact in facts], 4096)
    values = forward.layer_outputs(1)
    targets = values.clone()
    assert memit.edit_to_targets(model, REQUESTS, targets).arrived is None
    targets[0] += 1.0
    assert memit.edit_to_targets(model, REQUESTS, targets).arrived == pytest.approx(1.0, abs=1e-3)
