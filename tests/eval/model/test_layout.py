"""Layouts that are given: what they must name, and the proof that they work."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.example_records import example_records
from helpers.small_models import REQUESTS, small_model

import clm_data
from clm_data.errors import ConfigError
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.edits import applied
from clm_data.eval.errors import LayoutError
from clm_data.eval.model.layout import ModelLayout, check_layout, find_layout
from clm_data.eval.model.loading import prepare
from clm_data.eval.protocols import NATIVE
from clm_data.eval.recipe import ModelSpec, Recipe

LLAMA = ModelLayout("model.layers", "mlp.down_proj", "model.norm", "lm_head", "self_attn.o_proj")


def _with_unknown_names() -> Any:
    """A model whose MLP has other names, as in a model with code of its own."""

    class Mlp(torch.nn.Module):
        def __init__(self, old: Any) -> None:
            super().__init__()
            self.gate, self.wide, self.out = old.gate_proj, old.up_proj, old.down_proj

        def forward(self, x: Any) -> Any:
            return self.out(torch.nn.functional.silu(self.gate(x)) * self.wide(x))

    saved = small_model("llama")
    for layer in saved.model.model.layers:
        layer.mlp = Mlp(layer.mlp)
    return saved


def test_a_model_with_unknown_names_is_edited_with_a_layout() -> None:
    saved = _with_unknown_names()
    with pytest.raises(LayoutError, match=r"no .* projection with a known name; .* --layout"):
        find_layout(saved.model)
    layout = replace(LLAMA, mlp_out="mlp.out")
    loaded = prepare("odd", saved.model, saved.tokenizer, layout)
    setup = Setup(NATIVE, contexts_from({"zh": ("{}",), "en": ("{}",)}))
    deltas = make_editor("rome", params_for("rome", "tiny"), setup).edit(loaded, REQUESTS[:1])
    assert list(deltas.weights) == ["model.layers.1.mlp.out.weight"]
    weight = loaded.mlp_out(1).weight
    before = weight.detach().clone()
    with applied(loaded, deltas):
        assert not torch.equal(weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "model.nrom"}, r"norm 'model.nrom' is not in LlamaForCausalLM; it has .*norm"),
        ({"layers": "model.norm"}, "layers 'model.norm' is not a list in"),
        (
            {"mlp_out": "mlp.out"},
            r"mlp_out 'mlp.out' is in no layer .* layer 0 has .*mlp.down_proj",
        ),
        ({"attn_out": "attn.o"}, "attn_out 'attn.o' is in no layer"),
        ({"transposed": True}, "transposed must be false .* mlp.down_proj is a Linear"),
    ],
)
def test_a_layout_that_names_no_part_says_which_there_are(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(LayoutError, match=message) as caught:
        check_layout(small_model("llama").model, replace(LLAMA, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"norm": "model.layers.0.input_layernorm"}, {"mlp_out": "mlp.up_proj"}],
)
def test_a_layout_with_another_part_is_refused_by_the_proof(change: dict[str, Any]) -> None:
    saved = small_model("llama")
    with pytest.raises(LayoutError, match="is not supported"):
        prepare("x", saved.model, saved.tokenizer, replace(LLAMA, **change))


def test_a_file_or_a_recipe_gives_the_layout(tmp_path: Path) -> None:
    saved = small_model("llama")
    saved.model.save_pretrained(tmp_path / "m")
    saved.tokenizer.save_pretrained(tmp_path / "m")
    file = tmp_path / "layout.yaml"
    file.write_text(yaml.safe_dump(asdict(LLAMA)), "utf-8")
    options: dict[str, Any] = {
        "model": str(tmp_path / "m"),
        "methods": "ft",
        "params": "tiny",
        "languages": "en",
        "device": "cpu",
    }
    records = example_records(1)
    given = clm_data.evaluate(records, out=tmp_path / "one", layout=file, **options)
    found = clm_data.evaluate(records, out=tmp_path / "two", **options)
    assert [cell.error for cell in (*given.cells, *found.cells)] == [None, None]
    assert given.cells[0].after == found.cells[0].after
    assert given.cells[0].key != found.cells[0].key
    recipe = Recipe.model_validate(given.recipe)
    assert recipe.models[0].layout == LLAMA
    assert "layout" not in found.recipe["models"][0]
    assert "revision" not in found.recipe["models"][0]
    wrong = clm_data.evaluate(
        records, out=tmp_path / "three", layout={**asdict(LLAMA), "norm": "x"}, **options
    )
    assert "the layout's norm 'x' is not in" in str(wrong.cells[0].error)


def test_an_unknown_field_of_a_layout_is_named(tmp_path: Path) -> None:
    file = tmp_path / "layout.yaml"
    file.write_text("layers: a\nmlp_out: b\nnorm: c\nhaed: d\n", "utf-8")
    with pytest.raises(ConfigError, match=r"layout.yaml: head: "):
        clm_data.evaluate(example_records(1), model="tiny", layout=file, out=tmp_path / "out")
    with pytest.raises(ValueError, match="haed"):
        ModelSpec.model_validate({"name": "x", "layout": {**asdict(LLAMA), "haed": "d"}})


def test_the_tiny_model_has_no_layout(tmp_path: Path) -> None:
    found = clm_data.evaluate(
        example_records(1), model="tiny", layout=LLAMA, out=tmp_path / "out", cache=tmp_path
    )
    assert all("leave out --revision and --layout" in str(cell.error) for cell in found.cells)
