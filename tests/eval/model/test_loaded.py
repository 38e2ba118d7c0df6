"""Layouts of known and unknown architectures, loading, and its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, small_model

from clm_data.errors import InputFileError
from clm_data.eval.errors import LayoutError
from clm_data.eval.model.layout import ModelLayout, find_layout
from clm_data.eval.model.loading import load_model, prepare


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_layout_of_known_architectures_is_found(architecture: str, tied: bool) -> None:
    model = small_model(architecture, tied=tied)
    layout = model.layout
    assert model.depth == 5
    assert layout.transposed == (architecture == "gpt2")
    weight = model.model.get_parameter(layout.weight(3))
    assert tuple(weight.shape) == ((128, 32) if architecture == "gpt2" else (32, 48))
    assert model.attn_out(0) is not model.mlp_out(0)
    assert not any(w.requires_grad for w in model.model.parameters())


def _new_model(architecture: str, **sizes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes))


def test_the_error_for_an_unknown_architecture_names_the_part() -> None:
    model = _new_model("ctrl", vocab_size=300, n_embd=16, n_layer=2, n_head=2, dff=32)
    with pytest.raises(LayoutError, match="no layer has a single MLP output projection"):
        find_layout(model)


def test_a_given_layout_is_used() -> None:
    model = small_model("llama")
    layout = ModelLayout("model.layers", "mlp.down_proj", "model.norm", "lm_head")
    assert prepare("again", model.model, model.tokenizer, layout).layout == layout


def test_a_saved_model_is_loaded_with_its_tokenizer_and_dtype(tmp_path: Path) -> None:
    saved = small_model("qwen2", tied=True)
    saved.model.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    assert loaded.fingerprint() == saved.fingerprint()
    assert loaded.tokenizer("鲁迅")["input_ids"] == saved.tokenizer("鲁迅")["input_ids"]
    half = load_model(str(tmp_path), device="cpu", dtype="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half.fingerprint() != saved.fingerprint()


def test_what_cannot_be_loaded_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be loaded"):
        load_model(str(tmp_path), device="cpu")
    with pytest.raises(InputFileError, match="choose a tokenizer folder"):
        load_model("gguf:smollm2")
    with pytest.raises(InputFileError, match="no such GGUF file"):
        load_model(f"gguf:{tmp_path / 'x.gguf'}", tokenizer=tmp_path)
