"""Layouts of known and unknown architectures, and what loading refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

# ruff: noqa: E402 (what follows needs torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.small_models import ARCHITECTURES, byte_level_tokenizer, small_model

from clm_data.errors import InputFileError
from clm_data.eval.errors import LayoutError
from clm_data.eval.model.loaded import ModelLayout, find_layout
from clm_data.eval.model.loading import load_model, prepare


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layouts_are_found_from_how_a_model_is_built(architecture: str, tied: bool) -> None:
    model = small_model(architecture, tied=tied)
    layout = model.layout
    assert model.depth == 5
    assert layout.transposed == (architecture == "gpt2")
    assert (layout.positions is not None) == (architecture == "gpt2")
    weight = model.model.get_parameter(layout.weight(3))
    inner = {"gpt2": (128, 32), "gpt_neox": (32, 48)}.get(architecture, (32, 48))
    assert tuple(weight.shape) == inner
    assert model.attn_out(0) is not model.mlp_out(0)
    assert not any(w.requires_grad for w in model.model.parameters())


def _unlike(kind: str, **sizes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))


def test_an_unknown_architecture_is_told_what_to_supply() -> None:
    model = _unlike(
        "bloom", vocab_size=300, hidden_size=16, n_layer=2, n_head=2, tie_word_embeddings=False
    )
    with pytest.raises(LayoutError, match="cannot find the attention's output") as caught:
        find_layout(model)
    assert "pass a ModelLayout whose 'attn_out' names it" in str(caught.value)


def test_a_model_that_does_more_than_its_parts_is_refused() -> None:
    sizes = {
        "vocab_size": 500,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    }
    model = _unlike("gemma2", **sizes)
    with pytest.raises(LayoutError, match="cannot be edited yet"):
        prepare("gemma", model, byte_level_tokenizer())


def test_a_layout_may_be_given() -> None:
    model = small_model("llama")
    layout = ModelLayout(
        "model.layers", "mlp.down_proj", "self_attn.o_proj", "model.norm", "lm_head"
    )
    assert prepare("again", model.model, model.tokenizer, layout).layout == layout


def test_a_folder_is_loaded_with_its_own_tokenizer(tmp_path: Path) -> None:
    made = small_model("qwen2", tied=True)
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu")
    assert loaded.fingerprint() == made.fingerprint()
    assert loaded.tokenizer("鲁迅")["input_ids"] == made.tokenizer("鲁迅")["input_ids"]
    halves = load_model(str(tmp_path), device="cpu", dtype="bfloat16")
    assert halves.model.dtype == torch.bfloat16
    assert halves.fingerprint() != made.fingerprint()


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="cannot be loaded"):
        load_model(str(tmp_path), device="cpu")
    with pytest.raises(InputFileError, match="name a tokenizer folder"):
        load_model("gguf:smollm2")
    with pytest.raises(InputFileError, match="no such GGUF file"):
        load_model(f"gguf:{tmp_path / 'x.gguf'}", tokenizer=tmp_path)
