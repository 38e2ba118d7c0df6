"""Models are accepted only if they run exactly in parts and edits arrive unscaled."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.paths import docs_script
from helpers.small_models import (
    BARE_CONTEXTS,
    byte_level_tokenizer,
    small_model,
    small_params,
)

from clm_data.errors import ClmDataError
from clm_data.eval.editors import make_editor
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.rome import RomeParams
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import prepare
from clm_data.eval.model.partial_forward import run_layers
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import NATIVE

architectures = docs_script("architectures")


def _random(architecture: str, **settings: Any) -> Any:
    from transformers import AutoModelForCausalLM

    config = architectures.small_config(architecture)
    for name, value in settings.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "norm" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model


def _prepared(architecture: str, **settings: Any) -> LoadedModel:
    return prepare(architecture, _random(architecture, **settings), architectures.bytes_tokenizer())


@pytest.mark.parametrize(
    ("architecture", "cause"),
    [
        ("mixtral", "mixture of experts (mlp.experts)"),
        ("qwen3_moe", "mixture of experts (mlp.experts)"),
        ("openai-gpt", "no final norm"),
        ("dory", "layer 0 run alone differs"),
    ],
)
def test_a_model_that_cannot_be_edited_exactly_is_refused_with_the_cause(
    architecture: str, cause: str
) -> None:
    with pytest.raises(LayoutError) as caught:
        _prepared(architecture)
    message = str(caught.value)
    assert cause in message
    assert "\n" not in message
    assert "pass a ModelLayout" not in message


@pytest.mark.parametrize(
    "architecture",
    [
        "qwen2",
        "glm",
        "stablelm",
        "smollm3",
        "gemma",
        "phi",
        "gptj",
        "gpt2",
        "phi3",
        "falcon",
        "bloom",
        "opt",
        "gpt_neo",
        "nanochat",
        "gemma2",
        "qwen3_5_text",
    ],
)
def test_every_cut_of_an_accepted_model_equals_the_whole_model(architecture: str) -> None:
    loaded = _prepared(architecture)
    ids = torch.tensor([[5, 9, 2, 7, 11, 4, 8]])
    layers = list(loaded.model.get_submodule(loaded.layout.layers).children())
    states = []
    with torch.no_grad():
        for layer in layers:
            with captured_output(layer) as found:
                loaded.model(input_ids=ids, use_cache=False)
            states.append(found[0])
        for start in range(len(layers)):
            for stop in range(start + 1, len(layers) + 1):
                entering = states[start - 1] if start else ids
                found_state = run_layers(loaded, entering, start, stop)
                assert torch.allclose(found_state, states[stop - 1], rtol=1e-4, atol=1e-4)


def captured_output(module: Any) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def watching() -> Any:
        found: list[Any] = []
        handle = module.register_forward_hook(
            lambda _m, _i, out: found.append(out[0] if isinstance(out, tuple) else out)
        )
        try:
            yield found
        finally:
            handle.remove()

    return watching()


def test_layers_keep_the_rotary_embeddings_of_their_place() -> None:
    """Local and global rotary embeddings by position in the list, as in Gemma-3."""
    model = _random("gemma3_text", num_hidden_layers=12)
    from clm_data.eval.model.layout import find_layout

    loaded = LoadedModel("x", model.eval(), byte_level_tokenizer(), find_layout(model))
    ids = torch.tensor([[5, 9, 2, 7, 11, 4, 8]])
    with torch.no_grad(), captured(model.get_submodule("model.norm")) as whole:
        model(input_ids=ids, use_cache=False)
    with torch.no_grad():
        for cut in range(1, 12):
            lower = run_layers(loaded, ids, 0, cut)
            upper = run_layers(loaded, lower, cut, 12)
            assert torch.allclose(upper, whole.input, rtol=1e-4, atol=1e-4), cut


@pytest.mark.parametrize(
    ("architecture", "settings", "cause"),
    [
        ("opt", {"do_layer_norm_before": False}, "OPTForCausalLM"),
        ("falcon", {"alibi": True}, None),
        ("granite", {"residual_multiplier": 1.0, "logits_scaling": 8.0}, None),
        ("stablelm", {"parallel": True}, None),
        ("gpt_neox", {"use_parallel_residual": False}, None),
    ],
)
def test_a_setting_of_the_config_decides(
    architecture: str, settings: dict[str, Any], cause: str | None
) -> None:
    if cause is None:
        assert _prepared(architecture, **settings).editable == [0, 1, 2, 3]
        return
    with pytest.raises(LayoutError) as caught:
        _prepared(architecture, **settings)
    assert cause in str(caught.value)


@pytest.mark.parametrize("architecture", ["deepseek_v2", "deepseek_v3", "glm4_moe", "dots1"])
def test_only_the_dense_layers_of_a_mixture_of_experts_can_be_edited(architecture: str) -> None:
    loaded = _prepared(architecture)
    assert loaded.editable == [0]
    loaded.mlp_out(0)
    with pytest.raises(LayoutError, match=r"layer 2 .*mixture of experts.*can be edited: 0"):
        loaded.mlp_out(2)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gpt2"])
def test_a_text_longer_than_the_positions_is_one_line(architecture: str) -> None:
    loaded = small_model(architecture)
    with pytest.raises(EditError, match=r"a text of 129 tokens is longer.*128 in its config"):
        run_layers(loaded, torch.ones(1, 129, dtype=torch.long), 0, 2)


def test_a_text_longer_than_a_sliding_window_is_refused() -> None:
    loaded = _prepared("mistral", sliding_window=40)
    with pytest.raises(EditError, match="sliding_window 40"):
        run_layers(loaded, torch.ones(1, 41, dtype=torch.long), 0, 2)


def test_quantized_weights_are_refused() -> None:
    model = _random("llama")
    module = model.get_submodule("model.layers.1.mlp.down_proj")
    module.weight = torch.nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(LayoutError, match="layer 1 is not a plain matrix"):
        prepare("q", model, architectures.bytes_tokenizer())


def test_layers_that_share_their_weights_are_refused() -> None:
    model = _random("llama")
    model.model.layers[2].mlp.down_proj = model.model.layers[1].mlp.down_proj
    with pytest.raises(LayoutError, match="layers 1 and 2 share"):
        prepare("q", model, architectures.bytes_tokenizer())


def _edit_and_compare(loaded: LoadedModel) -> None:
    """A ROME edit arrives in the whole model, in parts as in the whole, and is undone."""
    layer = loaded.editable[0]
    params = RomeParams(layer, replace(small_params("rome").values, steps=3))
    request = EditRequest("b", "en", "The capital of France is", "France", "Rome")
    ids = torch.tensor([loaded.tokenizer("The capital of France")["input_ids"]])
    block = loaded.model.get_submodule(f"{loaded.layout.layers}.{layer}")
    before = {name: weight.clone() for name, weight in loaded.model.named_parameters()}

    def measured() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with (
            torch.no_grad(),
            captured(loaded.mlp_out(layer)) as projection,
            captured_output(block) as out,
        ):
            logits = loaded.model(input_ids=ids, use_cache=False).logits[0].float()
        return projection.output.flatten(0, -2)[-1], out[0][0, -1], logits

    deltas = make_editor("rome", params, Setup(NATIVE, BARE_CONTEXTS)).edit(loaded, [request])
    projected, state, logits = measured()
    with applied(loaded, deltas):
        new_projected, new_state, new_logits = measured()
        with torch.no_grad():
            parts = loaded.logits(run_layers(loaded, ids, 0, loaded.depth))[0]
    scale = new_logits.abs().max()
    assert (new_logits - logits).abs().max() > 1e-2 * scale, "the edit has no effect"
    assert (parts - new_logits).abs().max() < 1e-4 * scale
    gain = loaded.gains[layer] if loaded.gains else 1.0
    if gain is not None:  # None behind a norm
        wanted, arrived = (new_projected - projected) * gain, new_state - state
        assert (arrived - wanted).norm() < 1e-3 * wanted.norm()
    now = dict(loaded.model.named_parameters())
    assert all(torch.equal(now[name], weight) for name, weight in before.items())


@pytest.mark.parametrize(
    "architecture",
    ["llama", "gpt2", "gptj", "glm4_moe", "phi", "granite", "falcon", "kimi_linear", "opt", "glm4"],
)
def test_an_edit_of_an_accepted_model_arrives(architecture: str) -> None:
    _edit_and_compare(_prepared(architecture))


@pytest.mark.slow
def test_an_edit_arrives_in_every_architecture_of_the_page() -> None:
    text = Path(architectures.PAGE).read_text("utf-8")
    supported = text.partition("## Supported")[2].partition("## Refused")[0]
    names = re.findall(r"^\| ([\w.-]+) \| `", supported, re.MULTILINE)
    assert len(names) >= 20
    failed = {}
    for name in names:
        try:
            _edit_and_compare(_prepared(name))
        except (AssertionError, ClmDataError) as error:
            failed[name] = str(error).splitlines()[0]
    assert failed == {}


@pytest.mark.slow
def test_the_page_of_architectures_is_current() -> None:
    rows = list(architectures.survey(architectures.architectures()))
    assert len(rows) >= 40
    assert sum(row.supported for row in rows) >= 20
    assert architectures.page(rows) == Path(architectures.PAGE).read_text("utf-8")
