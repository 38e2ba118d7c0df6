"""A causal language model with its tokenizer, and the parts of it that the editors work on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_data.eval.errors import LayoutError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LAYERS = ("model.layers", "transformer.h", "gpt_neox.layers")
_MLP_OUT = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")
_ATTN_OUT = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "self_attn.out_proj")
_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")
_POSITIONS = ("transformer.wpe",)
_HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True)
class ModelLayout:
    """Dotted paths of a decoder's parts.

    Attributes:
        layers: The list of decoder layers.
        mlp_out: The MLP's output projection, relative to a layer; editors change its weight.
        attn_out: The attention's output projection, relative to a layer.
        norm: The final norm.
        head: The projection to the vocabulary.
        positions: A learned position embedding that is added to the input; None for rotary ones.
        transposed: Whether the edited weight is stored as (in, out), as in GPT-2's Conv1D.
    """

    layers: str
    mlp_out: str
    attn_out: str
    norm: str
    head: str
    positions: str | None = None
    transposed: bool = False

    def weight(self, layer: int) -> str:
        """Path of the edited weight of a layer."""
        return f"{self.layers}.{layer}.{self.mlp_out}.weight"


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer and layout; editors change its weights only temporarily.

    Attributes:
        name: Shown in results and messages.
        model: In evaluation mode, its parameters frozen.
        tokenizer: A fast tokenizer.
        layout: Where the model's parts are.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: ModelLayout

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.model.get_submodule(self.layout.layers))

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where token ids go."""
        return self.model.get_input_embeddings().weight.device

    def mlp_out(self, layer: int) -> Module:
        """The MLP output projection of a layer.

        Raises:
            LayoutError: The model has no such layer.
        """
        return self._layer_part(layer, self.layout.mlp_out)

    def attn_out(self, layer: int) -> Module:
        """The attention output projection of a layer.

        Raises:
            LayoutError: The model has no such layer.
        """
        return self._layer_part(layer, self.layout.attn_out)

    def _layer_part(self, layer: int, path: str) -> Module:
        if not 0 <= layer < self.depth:
            raise LayoutError(f"{self.name} has layers 0 to {self.depth - 1}, not {layer}")
        return self.model.get_submodule(f"{self.layout.layers}.{layer}.{path}")

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., vocabulary) of hidden states (..., d) before the final norm.

        They are float32, or float64 if the model is.
        """
        normed = self.model.get_submodule(self.layout.norm)(hidden)
        return at_least_float32(self.model.get_submodule(self.layout.head)(normed))

    def fingerprint(self) -> str:
        """sha256 of the model type and of every parameter's name, shape, dtype and bytes."""
        import torch

        state = hashlib.sha256(str(self.model.config.model_type).encode())
        for name, weight in sorted(self.model.named_parameters()):
            state.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            flat = weight.detach().contiguous().cpu().reshape(-1)
            state.update(memoryview(flat.view(torch.uint8).numpy()))
        return state.hexdigest()

    def tokenizer_fingerprint(self) -> str:
        """sha256 of the tokenizer's full definition."""
        definition = self.tokenizer.backend_tokenizer.to_str()
        return hashlib.sha256(definition.encode()).hexdigest()


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor as float32; unchanged if it is float64."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()


def find_layout(model: PreTrainedModel) -> ModelLayout:
    """Find the parts of a decoder by their usual names.

    Raises:
        LayoutError: A part has none of the known names; the message says what to pass.
    """
    names = {name for name, _ in model.named_modules()}
    layers = _find(model, names, "the list of decoder layers", "layers", _LAYERS)
    first = f"{layers}.0."
    mlp = _find(model, names, "the MLP's output projection", "mlp_out", _MLP_OUT, first)
    attn = _find(model, names, "the attention's output projection", "attn_out", _ATTN_OUT, first)
    positions = next((path for path in _POSITIONS if path in names), None)
    return ModelLayout(
        layers=layers,
        mlp_out=mlp,
        attn_out=attn,
        norm=_find(model, names, "the final norm", "norm", _NORMS),
        head=_find(model, names, "the head", "head", _HEADS),
        positions=positions,
        transposed=type(model.get_submodule(first + mlp)).__name__ == "Conv1D",
    )


def _find(
    model: PreTrainedModel,
    names: set[str],
    what: str,
    field: str,
    paths: Sequence[str],
    prefix: str = "",
) -> str:
    for path in paths:
        if prefix + path in names:
            return path
    raise LayoutError(
        f"{type(model).__name__}: cannot find {what} (looked for {', '.join(paths)}); "
        f"pass a ModelLayout whose '{field}' names it"
    )
