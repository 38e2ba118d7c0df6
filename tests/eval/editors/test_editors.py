"""All editors: the model is left unchanged, the deltas work, and errors are one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import (
    ARCHITECTURES,
    BARE_CONTEXTS,
    CONTEXTS,
    LAYERS,
    REQUESTS,
    TEXTS,
    small_model,
    small_params,
)
from safetensors.torch import load_file

from clm_data import bank
from clm_data.errors import UnknownNameError
from clm_data.eval.editors import METHODS, make_editor, method_class, params_for
from clm_data.eval.editors.base import Editor, Setup, TrainedEditor
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import Edit, EditedModel, applied, load_edit
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.keys import LayerwiseForward
from clm_data.eval.editors.known_models import KNOWN_MODELS
from clm_data.eval.editors.moments import LanguageMoments, Moments, second_moments
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EASYEDIT, NATIVE
from clm_data.eval.sweep.answers import Question, predict_answers

MULTILAYER = ("alphaedit", "langedit", "memit", "pmet")
ROUTED = ("grace", "wise")
IN_CONTEXT = ("ice-oracle", "ice-retrieved", "ike")
COMPUTED = sorted(METHODS.keys() - set(IN_CONTEXT))
"""Methods that run the model to edit it."""
WEIGHTS = sorted(METHODS.keys() - {*ROUTED, *IN_CONTEXT})
"""Methods that change weights."""


def _setup(model: LoadedModel) -> Setup:
    moments = second_moments(model, {"all": TEXTS}, LAYERS)
    languages = LanguageMoments(
        {
            "zh": second_moments(model, {"zh": TEXTS[:3]}, LAYERS),
            "en": second_moments(model, {"en": TEXTS[3:]}, LAYERS),
        }
    )
    return Setup(NATIVE, CONTEXTS, moments, language_moments=languages)


def _editor(method: str, model: LoadedModel) -> Any:
    params = small_params(method)
    if method in ("alphaedit", "langedit"):
        params = replace(params, threshold=0.5)
    if method == "rome":
        params = replace(params, use_moments=True)
    if method in IN_CONTEXT:  # every question gets its nearest fact, in rows of few tokens
        params = replace(params, gate="open", demonstrations=0)
    return _made(method, params, _setup(model), model)


def _made(method: str, params: Any, setup: Setup, model: LoadedModel) -> Any:
    """An editor, after its training if it needs any."""
    editor = make_editor(method, params, setup)
    if isinstance(editor, TrainedEditor):
        return editor.fit(model, bank.load_domain(bank.domain_ids()[0]))
    return editor


def _weights(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.model.named_parameters()}


def _has_weights(model: LoadedModel, expected: dict[str, torch.Tensor]) -> bool:
    now = dict(model.model.named_parameters())
    return set(now) == set(expected) and all(torch.equal(now[k], w) for k, w in expected.items())


def _tensors(edit: Edit) -> dict[str, torch.Tensor]:
    """Everything that an edit saves."""
    with TemporaryDirectory() as folder:
        edit.save(Path(folder) / "edit")
        return load_file(Path(folder) / "edit")


def _equal(one: Edit, two: Edit) -> bool:
    first, second = _tensors(one), _tensors(two)
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


def _answers(model: EditedModel) -> list[Any]:
    questions = [Question(one.lang, one.prompt, one.target, one.id) for one in REQUESTS]
    return predict_answers(model, questions, NATIVE)


def _answer_log_prob(model: EditedModel, request: EditRequest) -> float:
    """Mean log-probability of the answer's tokens."""
    question = Question(request.lang, request.prompt, request.target)
    (answer,) = predict_answers(model, [question], NATIVE)
    assert answer is not None
    return sum(answer.log_probabilities) / len(answer.labels)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_edit_leaves_the_model_bit_identical_and_changes_its_answers(
    method: str, dtype: str
) -> None:
    model = small_model("llama", dtype=dtype)
    before, modules, answers = _weights(model), dict(model.model.named_modules()), _answers(model)
    deltas = _editor(method, model).edit(model, REQUESTS)
    assert _has_weights(model, before)
    assert dict(model.model.named_modules()) == modules
    assert not any(len(module._forward_hooks) for module in modules.values())
    assert deltas.edited == ("a", "b", "c")
    assert deltas.refused == ()
    with applied(model, deltas) as edited:
        assert _has_weights(model, before) == (method not in WEIGHTS)
        changed = _answers(edited)
    assert all(old != new for old, new in zip(answers, changed, strict=True))
    assert _has_weights(model, before)
    assert not any(len(module._forward_hooks) for module in modules.values())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_saved_edit_gives_the_same_answers(method: str, tmp_path: Path) -> None:
    model = small_model("llama")
    edit = _editor(method, model).edit(model, REQUESTS)
    edit.save(tmp_path / "edit.safetensors")
    loaded = load_edit(tmp_path / "edit.safetensors")
    assert type(loaded) is type(edit)
    assert (loaded.method, loaded.edited, loaded.origin) == (method, edit.edited, edit.origin)
    with applied(model, edit) as edited:
        answers = _answers(edited)
    with applied(model, loaded) as edited:
        assert _answers(edited) == answers


UNCONSTRAINED: dict[str, dict[str, float]] = {
    "memit": {"moment_weight": 1e-3},
    "pmet": {"moment_weight": 1e-3},
    "alphaedit": {"threshold": 1e9, "ridge": 1e-6},
    "langedit": {"threshold": 1e9, "ridge": 1e-6},
}
"""Hyperparameters that protect nothing, so that a fact's key yields its target value exactly."""


@pytest.mark.parametrize("method", MULTILAYER)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_multilayer_methods_reach_given_target_values(architecture: str, method: str) -> None:
    model = small_model(architecture, tied=architecture in ("qwen2", "gpt2"))
    params = replace(small_params(method), **UNCONSTRAINED[method])
    setup = replace(_setup(model), contexts=BARE_CONTEXTS)
    facts, _ = place_facts(model, REQUESTS, setup.protocol, setup.contexts)

    def values() -> torch.Tensor:
        forward = LayerwiseForward(model, [fact.prompts[0] for fact in facts], 4096)
        top = LAYERS[-1]
        return forward.projection_outputs(top) if method == "pmet" else forward.layer_outputs(top)

    current = values()
    noise = torch.randn(current.shape, generator=torch.Generator().manual_seed(0))
    targets = current + 0.3 * noise * current.norm() / noise.norm()
    deltas = method_class(method)(params, setup).edit_to_targets(model, REQUESTS, targets)
    with applied(model, deltas):
        assert float((values() - targets).norm()) < 0.02 * float((current - targets).norm())


def test_the_number_of_given_target_values_must_be_that_of_the_facts() -> None:
    model = small_model("llama")
    with pytest.raises(EditError, match="memit: 2 target values for 3 facts"):
        _editor("memit", model).edit_to_targets(model, REQUESTS, torch.zeros(2, 32))


@pytest.mark.parametrize("method", ["rome", "ft", "ft-m", "locft-bf", *ROUTED])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_single_layer_methods_make_the_answer_more_likely(architecture: str, method: str) -> None:
    model = small_model(architecture, tied=architecture in ("qwen2", "gpt2"))
    params = small_params(method)
    if method == "rome":  # the hidden states of these models are small, so the steps must be, too
        params = replace(params, values=replace(params.values, lr=0.05))
    editor = _made(method, params, replace(_setup(model), contexts=BARE_CONTEXTS), model)
    for request in REQUESTS:
        deltas = editor.edit(model, [request])
        before = _answer_log_prob(model, request)
        with applied(model, deltas) as edited:
            assert _answer_log_prob(edited, request) > before


@pytest.mark.parametrize("method", COMPUTED)
def test_editors_of_different_models_share_no_state(method: str) -> None:
    one, two = small_model("llama", seed=1), small_model("llama", seed=2)
    first = _editor(method, one).edit(one, REQUESTS)
    other = _editor(method, two).edit(two, REQUESTS)
    again = _editor(method, one).edit(one, REQUESTS)
    assert _equal(first, again)
    assert not _equal(first, other)


@pytest.mark.parametrize("method", COMPUTED)
def test_an_edit_does_not_depend_on_earlier_edits_of_the_same_editor(method: str) -> None:
    model = small_model("qwen2")
    editor = _editor(method, model)
    first = editor.edit(model, REQUESTS[:1])
    editor.edit(model, REQUESTS[1:])
    assert _equal(first, editor.edit(model, REQUESTS[:1]))


def _edit_forever(editor: Editor, model: LoadedModel) -> None:
    while True:
        editor.edit(model, REQUESTS)


@pytest.mark.parametrize("method", COMPUTED)
@pytest.mark.parametrize("passes", [3, 9, 25])
def test_an_interrupted_edit_leaves_the_model_bit_identical(method: str, passes: int) -> None:
    model = small_model("llama")
    editor = _editor(method, model)
    before, modules = _weights(model), dict(model.model.named_modules())
    calls = 0

    def interrupt(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > passes:
            raise KeyboardInterrupt

    handle = model.mlp_out(2).register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        _edit_forever(editor, model)
    handle.remove()
    assert _has_weights(model, before)
    assert dict(model.model.named_modules()) == modules
    assert not any(weight.requires_grad for weight in model.model.parameters())


@pytest.mark.parametrize("method", sorted(METHODS))
def test_an_edit_with_past_edits_is_computed_on_top_of_them(method: str) -> None:
    model = small_model("llama", dtype="float64")
    editor = _editor(method, model)
    before = _weights(model)
    first = editor.edit(model, REQUESTS[:2])
    second = editor.edit(model, REQUESTS[2:], past=first)
    assert _has_weights(model, before)
    both = first.plus(second)
    assert both.edited == ("a", "b", "c")
    if method not in WEIGHTS:
        return
    for path, delta in both.weights.items():
        total = first.weights[path].dense() + second.weights[path].dense()
        assert torch.allclose(delta.dense(), total, atol=1e-6)
    with applied(model, first):
        if method not in ("alphaedit", "langedit", "ultraedit"):  # they read more than weights
            assert _equal(second, editor.edit(model, REQUESTS[2:]))


def test_alphaedit_protects_the_keys_of_past_edits() -> None:
    model = small_model("llama")
    editor = _editor("alphaedit", model)
    editor = make_editor("alphaedit", replace(editor.params, ridge=1e-3), editor.setup)
    first = editor.edit(model, REQUESTS[:2])
    path = model.layout.weight(LAYERS[0])
    keys = first.keys[path]
    assert keys.shape == (48, 2)

    def effect_on_keys(deltas: Deltas) -> float:
        change = deltas.weights[path].dense()
        return float((change @ keys).norm() / change.norm())

    protected = editor.edit(model, REQUESTS[2:], past=first)
    unprotected = editor.edit(model, REQUESTS[2:], past=replace(first, keys={}))
    assert effect_on_keys(protected) < 0.2 * effect_on_keys(unprotected)


def test_facts_that_cannot_be_placed_are_listed_and_the_others_edited() -> None:
    model = small_model("llama")
    bad = EditRequest("x", "zh", "鲁迅的原名是", "巴金", "张三")
    deltas = _editor("memit", model).edit(model, [REQUESTS[0], bad, REQUESTS[1]])
    assert deltas.edited == ("a", "b")
    ((name, reason),) = deltas.refused
    assert name == "x"
    assert '"巴金" is not in the prompt' in reason
    with pytest.raises(EditError, match="no fact can be edited"):
        _editor("memit", model).edit(model, [bad])


@pytest.mark.parametrize("method", COMPUTED)
def test_a_missing_layer_is_a_layout_error(method: str) -> None:
    model = small_model("llama")
    params = params_for(method, "smollm2-135m").with_layers((20,))
    none = Moments({})
    setup = Setup(NATIVE, CONTEXTS, none, language_moments=LanguageMoments({"en": none}))
    with pytest.raises(LayoutError, match="has layers 0 to 4, not"):
        _made(method, params, setup, model).edit(model, REQUESTS)


def test_missing_moments_and_nan_are_edit_errors() -> None:
    model = small_model("llama")
    params = small_params("memit")
    with pytest.raises(EditError, match="needs second moments"):
        make_editor("memit", params, Setup(NATIVE, CONTEXTS)).edit(model, REQUESTS)
    broken = Moments({layer: torch.full((48, 48), float("nan")) for layer in LAYERS})
    before = _weights(model)
    with pytest.raises(EditError, match="a second moment contains NaN"):
        make_editor("memit", params, Setup(NATIVE, CONTEXTS, broken)).edit(model, REQUESTS)
    assert _has_weights(model, before)
    with pytest.raises(EditError, match="no second moment for layer 1"):
        make_editor("memit", params, Setup(NATIVE, CONTEXTS, Moments({}))).edit(model, REQUESTS)


def test_running_out_of_memory_is_an_edit_error() -> None:
    model = small_model("llama")
    editor = _editor("memit", model)
    before = _weights(model)

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    handle = model.mlp_out(2).register_forward_hook(fail)
    with pytest.raises(EditError, match="memit on llama-0: out of memory; lower tokens_per_batch"):
        editor.edit(model, REQUESTS)
    handle.remove()
    assert _has_weights(model, before)


def test_unknown_methods_and_models_suggest_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean memit"):
        method_class("memitt")
    with pytest.raises(UnknownNameError, match="did you mean llama-3-8b"):
        params_for("rome", "llama-3-8bb")


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_hyperparameters_for_every_model(method: str) -> None:
    assert set(method_class(method).PARAMS) == set(KNOWN_MODELS)


@pytest.mark.parametrize("model", sorted(KNOWN_MODELS))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_hyperparameters_edit_layers_that_the_model_has(method: str, model: str) -> None:
    sizes, params = KNOWN_MODELS[model], params_for(method, model)
    depth = sizes["n_layer"] if "n_layer" in sizes else sizes["num_hidden_layers"]
    assert all(0 <= layer < depth for layer in (*params.edited_layers, *params.moment_layers))


@pytest.mark.parametrize("method", sorted(METHODS))
def test_qwen2_and_qwen25_have_one_config_and_so_the_same_hyperparameters(method: str) -> None:
    assert KNOWN_MODELS["qwen2-7b"] == KNOWN_MODELS["qwen2.5-7b"]
    assert params_for(method, "qwen2-7b") == params_for(method, "qwen2.5-7b")


@pytest.mark.parametrize("method", MULTILAYER)
def test_multilayer_params_edit_and_read_moments_of_the_same_layers(method: str) -> None:
    params = params_for(method, "tiny").with_layers((1, 2, 3))
    assert params.edited_layers == params.moment_layers == (1, 2, 3)
    assert params == replace(params_for(method, "tiny"), layers=(1, 2, 3))


def test_multilayer_params_need_ascending_layers() -> None:
    for layers in ((), (2, 1), (1, 1)):
        with pytest.raises(EditError, match="ascending order"):
            params_for("memit", "tiny").with_layers(layers)


@pytest.mark.parametrize("method", ["rome", "ft", "ft-m", "locft-bf", *ROUTED])
def test_single_layer_params_take_the_last_of_several_layers(method: str) -> None:
    params = params_for(method, "tiny").with_layers((1, 3))
    assert params.edited_layers == (3,)
    assert params.moment_layers == ()


def test_rome_reads_the_moment_of_its_layer_only_if_asked_to() -> None:
    params = replace(params_for("rome", "tiny"), use_moments=True)
    assert params.moment_layers == params.edited_layers == (1,)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_edits_with_the_easyedit_protocol(method: str) -> None:
    model = small_model("llama")
    editor = _editor(method, model)
    requests = [request for request in REQUESTS if request.lang == "en"]
    setup = replace(editor.setup, protocol=EASYEDIT)
    deltas = replace(editor, setup=setup).edit(model, requests)
    assert deltas.edited == ("b",)


def test_the_padding_side_of_the_tokenizer_does_not_matter() -> None:
    model = small_model("llama")
    right = _editor("pmet", model).edit(model, REQUESTS)
    model.tokenizer.padding_side = "left"
    assert _equal(right, _editor("pmet", model).edit(model, REQUESTS))


def test_tokens_per_batch_changes_the_result_by_rounding_only() -> None:
    model = small_model("llama", dtype="float64")
    editor = _editor("memit", model)
    batched = make_editor("memit", editor.params, replace(editor.setup, tokens_per_batch=30))
    one, two = editor.edit(model, REQUESTS), batched.edit(model, REQUESTS)
    for path, delta in one.weights.items():
        assert torch.allclose(delta.dense(), two.weights[path].dense(), rtol=1e-4, atol=1e-6)
