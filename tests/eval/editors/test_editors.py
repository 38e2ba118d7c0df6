"""Every editor: what it leaves behind, what it gives, and when it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, TEXTS, small_model, small_params

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.eval.editors import METHODS, make_editor, method_class, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import Contexts, contexts_for, given_contexts
from clm_data.eval.editors.covariance import Moments, second_moments
from clm_data.eval.editors.deltas import Deltas, applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.keys import LayerwiseForward
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest, place
from clm_data.eval.protocols import EASYEDIT, NATIVE

REQUESTS = [
    EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三"),
    EditRequest("b", "en", "The capital of France is", "France", "Rome"),
    EditRequest("c", "zh", "长江发源于", "长江", "黄山"),
]
CONTEXTS = given_contexts({"zh": ("{}", "天气。{}"), "en": ("{}", "The wind. {}")})
LAYERS = (1, 2)


def _setup(model: LoadedModel) -> Setup:
    return Setup(NATIVE, CONTEXTS, second_moments(model, {"all": TEXTS}, LAYERS))


def _editor(method: str, model: LoadedModel) -> Any:
    params = small_params(method)
    if method == "alphaedit":
        params = replace(params, threshold=0.5)
    if method == "rome":
        params = replace(params, use_moments=True)
    return make_editor(method, params, _setup(model))


def _weights(model: LoadedModel) -> dict[str, Any]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def _same(model: LoadedModel, before: dict[str, Any]) -> bool:
    now = dict(model.model.named_parameters())
    return set(now) == set(before) and all(torch.equal(now[k], w) for k, w in before.items())


def _equal(one: Deltas, two: Deltas) -> bool:
    return one.weights.keys() == two.weights.keys() and all(
        torch.equal(delta.dense(), two.weights[path].dense()) for path, delta in one.weights.items()
    )


def _likelihood(model: LoadedModel, requests: list[EditRequest]) -> float:
    """Mean log-probability of the answers' tokens."""
    total = 0.0
    for request in requests:
        placed = place(model.tokenizer, request, NATIVE)
        with torch.no_grad():
            logits = model.model(input_ids=torch.tensor([placed.ids])).logits[0].float()
        total += float(logits.log_softmax(-1)[list(placed.reads), list(placed.labels)].mean())
    return total / len(requests)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_edit_leaves_the_model_bit_identical_and_its_deltas_work(
    method: str, dtype: str
) -> None:
    model = small_model("llama", dtype=dtype)
    before, modules = _weights(model), dict(model.model.named_modules())
    deltas = _editor(method, model).edit(model, REQUESTS)
    assert _same(model, before)
    assert dict(model.model.named_modules()) == modules
    assert not any(len(module._forward_hooks) for module in modules.values())
    assert deltas.edited == ("a", "b", "c")
    assert deltas.refused == ()
    with applied(model, deltas):
        assert not _same(model, before)
    assert _same(model, before)


STRONG: dict[str, dict[str, float]] = {
    "memit": {"moment_weight": 1e-3},
    "pmet": {"moment_weight": 1e-3},
    "alphaedit": {"threshold": 1e9, "ridge": 1e-6},
}
"""Hyperparameters that hold nothing back: a fact's own key gives its target value."""
BARE = given_contexts({"zh": ("{}",), "en": ("{}",)})


@pytest.mark.parametrize("method", sorted(STRONG))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_spreading_methods_reach_their_targets_on_every_architecture(
    architecture: str, method: str
) -> None:
    model = small_model(architecture, tied=architecture in ("qwen2", "gpt2"))
    params = replace(small_params(method), **STRONG[method])
    setup = replace(_setup(model), contexts=BARE)
    facts, _ = place_facts(model, REQUESTS, setup.protocol, setup.contexts)

    def values() -> Any:
        walk = LayerwiseForward(model, [fact.prompts[0] for fact in facts], 4096)
        return walk.mlp_outputs(2) if method == "pmet" else walk.outputs(2)

    now = values()
    noise = torch.randn(now.shape, generator=torch.Generator().manual_seed(0))
    targets = now + 0.3 * noise * now.norm() / noise.norm()
    deltas = method_class(method)(params, setup).edit(model, REQUESTS, targets=targets)
    with applied(model, deltas):
        assert float((values() - targets).norm()) < 0.02 * float((now - targets).norm())


@pytest.mark.parametrize("method", ["rome", "ft"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_single_layer_methods_make_the_answer_likelier_on_every_architecture(
    architecture: str, method: str
) -> None:
    model = small_model(architecture, tied=architecture in ("qwen2", "gpt2"))
    params = small_params(method)
    if method == "rome":  # these models' states are small, and so must the steps be
        params = replace(params, values=replace(params.values, lr=0.05))
    editor = make_editor(method, params, replace(_setup(model), contexts=BARE))
    for request in REQUESTS:
        deltas = editor.edit(model, [request])
        low = _likelihood(model, [request])
        with applied(model, deltas):
            assert _likelihood(model, [request]) > low


@pytest.mark.parametrize("method", sorted(METHODS))
def test_no_state_survives_between_models(method: str) -> None:
    one, two = small_model("llama", seed=1), small_model("llama", seed=2)
    first = _editor(method, one).edit(one, REQUESTS)
    other = _editor(method, two).edit(two, REQUESTS)
    again = _editor(method, one).edit(one, REQUESTS)
    assert _equal(first, again)
    assert not _equal(first, other)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_one_editor_edits_different_facts_independently(method: str) -> None:
    model = small_model("qwen2")
    editor = _editor(method, model)
    first = editor.edit(model, REQUESTS[:1])
    editor.edit(model, REQUESTS[1:])
    assert _equal(first, editor.edit(model, REQUESTS[:1]))


class _StopError(Exception):
    pass


def _edit_forever(editor: Any, model: LoadedModel) -> None:
    while True:
        editor.edit(model, REQUESTS)


def _fail_inside(model: LoadedModel, deltas: Deltas, before: dict[str, Any]) -> None:
    with applied(model, deltas):
        assert not _same(model, before)
        raise _StopError


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("after", [3, 9, 25])
def test_an_interrupted_edit_leaves_the_model_bit_identical(method: str, after: int) -> None:
    model = small_model("llama")
    editor = _editor(method, model)
    before, modules = _weights(model), dict(model.model.named_modules())
    calls = 0

    def stop(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt

    handle = model.mlp_out(2).register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        _edit_forever(editor, model)
    handle.remove()
    assert _same(model, before)
    assert dict(model.model.named_modules()) == modules
    assert not any(weight.requires_grad for weight in model.model.parameters())


def test_deltas_are_taken_back_when_what_is_done_with_them_fails() -> None:
    model = small_model("gpt2")
    deltas = _editor("memit", model).edit(model, REQUESTS)
    before = _weights(model)
    with pytest.raises(_StopError):
        _fail_inside(model, deltas, before)
    assert _same(model, before)


def test_deltas_survive_saving(tmp_path: Path) -> None:
    model = small_model("llama")
    for method in ("alphaedit", "ft"):
        deltas = _editor(method, model).edit(model, REQUESTS)
        deltas.save(tmp_path / "deltas.safetensors")
        again = Deltas.load(tmp_path / "deltas.safetensors")
        assert _equal(deltas, again)
        assert again.edited == deltas.edited
        assert again.keys.keys() == deltas.keys.keys()
        assert all(torch.equal(again.keys[path], keys) for path, keys in deltas.keys.items())
    (tmp_path / "other").write_bytes(b"no tensors")
    with pytest.raises(InputFileError, match="holds no saved deltas"):
        Deltas.load(tmp_path / "other")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_later_edit_comes_on_top_of_an_earlier_one(method: str) -> None:
    model = small_model("llama", dtype="float64")
    editor = _editor(method, model)
    before = _weights(model)
    first = editor.edit(model, REQUESTS[:2])
    second = editor.edit(model, REQUESTS[2:], past=first)
    assert _same(model, before)
    both = first.plus(second)
    assert both.edited == ("a", "b", "c")
    for path, delta in both.weights.items():
        whole = first.weights[path].dense() + second.weights[path].dense()
        assert torch.allclose(delta.dense(), whole, atol=1e-6)
    with applied(model, first):
        if method != "alphaedit":
            assert _equal(second, editor.edit(model, REQUESTS[2:]))


def test_alphaedit_protects_the_keys_of_earlier_edits() -> None:
    model = small_model("llama")
    editor = _editor("alphaedit", model)
    editor = make_editor("alphaedit", replace(editor.params, ridge=1e-3), editor.setup)
    first = editor.edit(model, REQUESTS[:2])
    path = model.layout.weight(LAYERS[0])
    keys = first.keys[path]
    assert keys.shape == (48, 2)

    def touched(deltas: Deltas) -> float:
        change = deltas.weights[path].dense()
        return float((change @ keys).norm() / change.norm())

    kept = editor.edit(model, REQUESTS[2:], past=first)
    free = editor.edit(model, REQUESTS[2:], past=replace(first, keys={}))
    assert touched(kept) < 0.2 * touched(free)


@pytest.mark.parametrize("transposed", ["llama", "gpt2"])
def test_a_change_has_the_orientation_of_the_layer(transposed: str) -> None:
    model = small_model(transposed)
    deltas = _editor("memit", model).edit(model, REQUESTS)
    module = model.mlp_out(1)
    inner = torch.randn(1, 48 if transposed == "llama" else 128)
    delta = deltas.weights[model.layout.weight(1)].dense()
    with torch.no_grad():
        before = module(inner)
        with applied(model, deltas):
            after = module(inner)
    assert torch.allclose(after - before, inner @ delta.T, atol=1e-4)


def test_facts_that_cannot_be_placed_are_named_and_the_others_edited() -> None:
    model = small_model("llama")
    bad = EditRequest("x", "zh", "鲁迅的原名是", "巴金", "张三")
    deltas = _editor("memit", model).edit(model, [REQUESTS[0], bad, REQUESTS[1]])
    assert deltas.edited == ("a", "b")
    ((name, why),) = deltas.refused
    assert name == "x"
    assert '"巴金" is not in the prompt' in why
    with pytest.raises(EditError, match="no fact can be edited"):
        _editor("memit", model).edit(model, [bad])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_layer_that_the_model_lacks_is_one_line(method: str) -> None:
    model = small_model("llama")
    params = params_for(method, "smollm2-135m")
    setup = Setup(NATIVE, CONTEXTS, Moments({}))
    with pytest.raises(LayoutError, match="has layers 0 to 4, not"):
        make_editor(method, params, setup).edit(model, REQUESTS)


def test_missing_moments_and_nan_are_one_line() -> None:
    model = small_model("llama")
    params = small_params("memit")
    with pytest.raises(EditError, match="needs second moments"):
        make_editor("memit", params, Setup(NATIVE, CONTEXTS)).edit(model, REQUESTS)
    broken = Moments({layer: torch.full((48, 48), float("nan")) for layer in LAYERS})
    before = _weights(model)
    with pytest.raises(EditError, match="a second moment came out as NaN"):
        make_editor("memit", params, Setup(NATIVE, CONTEXTS, broken)).edit(model, REQUESTS)
    assert _same(model, before)
    with pytest.raises(EditError, match="no second moment for layer 1"):
        make_editor("memit", params, Setup(NATIVE, CONTEXTS, Moments({}))).edit(model, REQUESTS)


def test_running_out_of_memory_is_one_line() -> None:
    model = small_model("llama")
    editor = _editor("memit", model)
    before = _weights(model)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    handle = model.mlp_out(2).register_forward_hook(full)
    with pytest.raises(EditError, match="memit on llama-0: out of memory; lower tokens_per_batch"):
        editor.edit(model, REQUESTS)
    handle.remove()
    assert _same(model, before)


def test_unknown_methods_and_models_suggest_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean memit"):
        method_class("memitt")
    with pytest.raises(UnknownNameError, match="did you mean llama-3-8b"):
        params_for("rome", "llama-3-8bb")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_values_for_every_model(method: str) -> None:
    wanted = {"llama-3-8b", "qwen2-7b", "mistral-7b", "llama2-chinese-7b", "smollm2-135m", "tiny"}
    assert set(method_class(method).PARAMS) == wanted


@pytest.mark.parametrize("method", ["memit", "alphaedit", "pmet"])
def test_multilayer_params_edit_and_read_moments_of_the_same_layers(method: str) -> None:
    params = params_for(method, "tiny").with_layers((1, 2, 3))
    assert params.edited_layers == params.moment_layers == (1, 2, 3)
    assert params == replace(params_for(method, "tiny"), layers=(1, 2, 3))


@pytest.mark.parametrize("method", ["rome", "ft"])
def test_single_layer_params_take_the_last_of_several_layers(method: str) -> None:
    params = params_for(method, "tiny").with_layers((1, 3))
    assert params.edited_layers == (3,)
    assert params.moment_layers == ()


def test_rome_reads_the_moment_of_its_layer_only_if_asked_to() -> None:
    params = replace(params_for("rome", "tiny"), use_moments=True)
    assert params.moment_layers == params.edited_layers == (1,)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_easyedit_protocol_edits_too(method: str) -> None:
    model = small_model("llama")
    setup = replace(_setup(model), protocol=EASYEDIT)
    requests = [r for r in REQUESTS if r.lang == "en"]
    params = small_params(method)
    deltas = make_editor(method, params, setup).edit(model, requests)
    assert deltas.edited == ("b",)


def test_contexts_follow_language_seed_and_model() -> None:
    one, two = small_model("llama", seed=1), small_model("llama", seed=2)
    found = contexts_for(one, NATIVE)
    assert found == contexts_for(one, NATIVE)
    assert found != contexts_for(one, NATIVE, seed=7)
    assert found != contexts_for(two, NATIVE)
    assert set(found.templates) == {"zh", "en"}
    assert set(contexts_for(one, EASYEDIT).templates) == {"en"}
    for lang, begin, end in (("zh", "这", "。{}"), ("en", "The", ". {}")):
        bare, first, *_rest = found.templates[lang]
        assert bare == "{}"
        assert first.startswith(begin)
        assert all(
            text.endswith(end) and text.count("{") == 1 for text in found.templates[lang][1:]
        )
    assert given_contexts(found.as_json()["templates"]).templates == found.templates
    with pytest.raises(EditError, match="equally many"):
        given_contexts({"zh": ("{}",), "en": ("{}", "So. {}")})
    with pytest.raises(EditError, match="must begin with the bare"):
        given_contexts({"zh": ("好。{}",)})
    with pytest.raises(EditError, match="no contexts in 'zh'"):
        Contexts({"en": ("{}",)}).for_fact(NATIVE, "zh")


def test_the_tokenizers_padding_side_changes_nothing() -> None:
    model = small_model("llama")
    right = _editor("pmet", model).edit(model, REQUESTS)
    model.tokenizer.padding_side = "left"
    assert _equal(right, _editor("pmet", model).edit(model, REQUESTS))


def test_tokens_per_batch_bounds_memory_and_not_the_result() -> None:
    model = small_model("llama", dtype="float64")
    whole = _editor("memit", model)
    parts = make_editor("memit", whole.params, replace(whole.setup, tokens_per_batch=30))
    one, two = whole.edit(model, REQUESTS), parts.edit(model, REQUESTS)
    for path, delta in one.weights.items():
        assert torch.allclose(delta.dense(), two.weights[path].dense(), rtol=1e-4, atol=1e-6)
