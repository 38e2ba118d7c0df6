"""Edits of architectures with parallel blocks, factors, capped logits, ALiBi or norms."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.paths import docs_script
from helpers.small_models import BARE_CONTEXTS, REQUESTS, TEXTS, small_params

from clm_data.eval.editors import make_editor, method_class, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import place_facts
from clm_data.eval.editors.moments import second_moments
from clm_data.eval.errors import LayoutError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import prepare
from clm_data.eval.model.partial_forward import run_layers
from clm_data.eval.placement import place
from clm_data.eval.protocols import NATIVE

architectures = docs_script("architectures")

PARALLEL = ["gptj", "gpt_neox", "phi", "falcon", "codegen", "cohere"]
"""Attention and MLP read the same normed input, and both are added to the residual."""
EXACT = [
    *PARALLEL,
    "biogpt",
    "bloom",
    "cohere2",
    "falcon_h1",
    "gpt_neo",
    "granite",
    "jamba",
    "lfm2",
    "mbart",
    "minicpm3",
    "modernbert-decoder",
    "mpt",
    "nanochat",
    "opt",
    "qwen3_5_text",
    "recurrent_gemma",
    "vaultgemma",
    "xglm",
]
NORMED = ["exaone4", "gemma2", "gemma3_text", "glm4", "hyperclovax", "olmo2", "olmo3"]
_FACTOR = {"granite": 0.22, "falcon_h1": 0.3, "minicpm3": 1.4 / 4**0.5}


@cache
def _prepared(architecture: str, dtype: str = "float32") -> LoadedModel:
    model = architectures.small_random(architecture)
    assert model is not None
    tokenizer = architectures.bytes_tokenizer()
    return prepare(architecture, model.to(getattr(torch, dtype)), tokenizer)


def _whole_states(loaded: LoadedModel, ids: tuple[int, ...], layer: int) -> Any:
    """The hidden states that leave a layer in the model's own forward, (tokens, d)."""
    found = []
    handle = loaded.model.get_submodule(f"{loaded.layout.layers}.{layer}").register_forward_hook(
        lambda _m, _i, out: found.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        loaded.model(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()
    return found[0][0]


@pytest.mark.parametrize("architecture", EXACT)
def test_memit_reaches_its_target_values_in_the_whole_model(architecture: str) -> None:
    """In the model's own forward, the residual after the last edited layer is the target."""
    loaded = _prepared(architecture)
    layers = tuple(loaded.editable[:2])
    moments = second_moments(loaded, {"all": TEXTS}, layers)
    setup = Setup(NATIVE, BARE_CONTEXTS, moments)
    facts, _ = place_facts(loaded, REQUESTS, NATIVE, BARE_CONTEXTS)
    prompts = [fact.prompts[0].up_to_subject for fact in facts]

    def values() -> Any:
        return torch.stack([_whole_states(loaded, ids, layers[-1])[-1] for ids in prompts])

    current = values()
    noise = torch.randn(current.shape, generator=torch.Generator().manual_seed(0))
    targets = current + 0.3 * noise * current.norm() / noise.norm()
    params = replace(small_params("memit"), layers=layers, moment_weight=1e-3)
    deltas = method_class("memit")(params, setup).edit_to_targets(loaded, REQUESTS, targets)
    with applied(loaded, deltas):
        missing = float((values() - targets).norm() / (current - targets).norm())
    assert missing < 0.02
    assert deltas.arrived == pytest.approx(1, abs=0.02)
    assert torch.equal(values(), current)


@pytest.mark.parametrize("architecture", [*NORMED, "gptj", "bloom", "granite", "opt", "cohere"])
def test_the_answer_becomes_more_likely_in_the_whole_model(architecture: str) -> None:
    loaded = _prepared(architecture)
    method = "rome" if architecture in NORMED else "memit"
    layers = tuple(loaded.editable[:2])
    params = small_params(method).with_layers(layers)
    params = replace(params, values=replace(params.values, lr=0.05))
    if method == "memit":
        params = replace(params, moment_weight=1e-3)
    moments = second_moments(loaded, {"all": TEXTS}, layers)
    request = REQUESTS[1]
    placed = place(loaded.tokenizer, request, NATIVE)
    ids = torch.tensor([placed.ids])

    def whole() -> tuple[Any, float]:
        with torch.no_grad():
            logits = loaded.model(input_ids=ids, use_cache=False).logits[0].float()
        answer = logits.log_softmax(-1)[list(placed.reads), list(placed.labels)]
        return logits, float(answer.mean())

    _, before = whole()
    deltas = make_editor(method, params, Setup(NATIVE, BARE_CONTEXTS, moments)).edit(
        loaded, [request]
    )
    with applied(loaded, deltas):
        logits, after = whole()
        with torch.no_grad():
            parts = loaded.logits(run_layers(loaded, ids, 0, loaded.depth))[0]
    assert after > before + 0.02, (before, after)
    assert (parts - logits).abs().max() < 1e-3 * logits.abs().max()


@pytest.mark.parametrize(
    ("architecture", "method"), [*((one, "memit") for one in NORMED), ("glm4", "alphaedit")]
)
def test_a_target_in_the_residual_is_refused_behind_a_norm(architecture: str, method: str) -> None:
    loaded = _prepared(architecture)
    params = small_params(method).with_layers((0, 1))
    moments = second_moments(loaded, {"all": TEXTS}, (0, 1))
    editor = make_editor(method, params, Setup(NATIVE, BARE_CONTEXTS, moments))
    with pytest.raises(
        LayoutError, match=r"norm.* normalizes the output of .*: rome, pmet or fine-tuning"
    ):
        editor.edit(loaded, REQUESTS)


@pytest.mark.parametrize("method", ["ft", "lora", "ultraedit", "grace", "pmet", "rome"])
@pytest.mark.parametrize(("architecture", "model"), [("gptj", "gpt-j-6b"), ("gpt2", "gpt2-xl")])
def test_the_hyperparameters_of_gpt_models_name_parts_that_they_have(
    architecture: str, model: str, method: str
) -> None:
    loaded = _prepared(architecture)
    setup = Setup(NATIVE, BARE_CONTEXTS, second_moments(loaded, {"all": TEXTS}, (0, 1)))
    params = params_for(method, model).with_layers((0, 1))
    fewer = {"append_eos": False, "epochs": 2, "steps": 2}  # the tokenizer has no end
    params = replace(params, **{k: v for k, v in fewer.items() if hasattr(params, k)})
    assert make_editor(method, params, setup).edit(loaded, REQUESTS[:1]).edited


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", sorted(_FACTOR))
def test_a_constant_factor_is_that_of_the_config(architecture: str, dtype: str) -> None:
    loaded = _prepared(architecture, dtype)
    assert loaded.gain(0) == _FACTOR[architecture]


@pytest.mark.parametrize("architecture", ["cohere", "gemma2", "granite", "minicpm3", "nanochat"])
def test_scaled_and_capped_logits_are_those_of_the_model(architecture: str) -> None:
    loaded = _prepared(architecture)
    ids = torch.tensor([[5, 9, 2, 7, 11, 4, 8]])
    hidden = run_layers(loaded, ids, 0, loaded.depth)
    with torch.no_grad():
        whole = loaded.model(input_ids=ids, use_cache=False).logits
        norm = loaded.model.get_submodule(loaded.layout.norm)
        plain = loaded.model.get_submodule(loaded.layout.head)(norm(hidden))
        assert torch.allclose(loaded.logits(hidden), whole, rtol=1e-4, atol=1e-5)
        assert torch.allclose(loaded.logits(hidden[0, 3:5]), whole[0, 3:5], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain, whole, rtol=1e-3, atol=1e-4)


def test_linear_attention_has_no_projection_for_pmet() -> None:
    loaded = _prepared("qwen3_5_text")
    loaded.attn_out(3)
    with pytest.raises(LayoutError, match=r"layer 0 has no self_attn.o_proj.* in layer: 3"):
        loaded.attn_out(0)
    with pytest.raises(LayoutError, match="no layer has an attention output projection"):
        _prepared("recurrent_gemma").attn_out(0)
