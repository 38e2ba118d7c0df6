"""Loading a causal language model, and finding the parts that the editors work on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.eval.errors import LayoutError

_LAYERS = ("model.layers", "transformer.h", "gpt_neox.layers")
_MLP_OUT = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2")
_ATTN_OUT = ("self_attn.o_proj", "attn.c_proj", "attention.dense", "self_attn.out_proj")
_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm")
_POSITIONS = ("transformer.wpe",)
_HEADS = ("lm_head", "embed_out")


@dataclass(frozen=True)
class ModelLayout:
    """Where the parts stand, as dotted paths from the model.

    Attributes:
        layers: The list of decoder layers.
        mlp_out: The MLP's output projection, from a layer; the weight that is edited.
        attn_out: The attention's output projection, from a layer.
        norm: The final norm.
        head: The projection to the vocabulary.
        positions: A learnt position embedding that is added to the input; None for rotary ones.
        transposed: The edited weight is stored ``(in, out)``, as in GPT-2's Conv1D.
    """

    layers: str
    mlp_out: str
    attn_out: str
    norm: str
    head: str
    positions: str | None = None
    transposed: bool = False

    def weight(self, layer: int) -> str:
        """Path of the edited weight of one layer."""
        return f"{self.layers}.{layer}.{self.mlp_out}.weight"


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer and layout. The weights are changed only inside ``applied``."""

    name: str
    model: Any
    tokenizer: Any
    layout: ModelLayout

    @property
    def depth(self) -> int:
        """Number of decoder layers."""
        return len(self.model.get_submodule(self.layout.layers))

    @property
    def device(self) -> Any:
        """Where input tokens go."""
        return self.model.get_input_embeddings().weight.device

    def mlp_out(self, layer: int) -> Any:
        """The MLP output projection of one layer.

        Raises:
            LayoutError: The model has no such layer.
        """
        return self._part(layer, self.layout.mlp_out)

    def attn_out(self, layer: int) -> Any:
        """The attention output projection of one layer.

        Raises:
            LayoutError: The model has no such layer.
        """
        return self._part(layer, self.layout.attn_out)

    def _part(self, layer: int, path: str) -> Any:
        if not 0 <= layer < self.depth:
            raise LayoutError(f"{self.name} has layers 0 to {self.depth - 1}, not {layer}")
        return self.model.get_submodule(f"{self.layout.layers}.{layer}.{path}")

    def logits(self, hidden: Any) -> Any:
        """Logits, at least float32, from hidden states before the final norm."""
        normed = self.model.get_submodule(self.layout.norm)(hidden)
        return at_least_float32(self.model.get_submodule(self.layout.head)(normed))

    def fingerprint(self) -> str:
        """sha256 over every weight, byte for byte, and the configuration's shape."""
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


def at_least_float32(tensor: Any) -> Any:
    """The tensor in float32, or as it is where it is float64."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()


def find_layout(model: Any) -> ModelLayout:
    """Find the parts of a decoder from how it is built.

    Raises:
        LayoutError: A part is not where any known architecture has it; says what to supply.
    """
    names = {name for name, _ in model.named_modules()}
    layers = _first(model, names, "the list of decoder layers", "layers", _LAYERS)
    inside = f"{layers}.0."
    mlp = _first(model, names, "the MLP's output projection", "mlp_out", _MLP_OUT, inside)
    attn = _first(model, names, "the attention's output projection", "attn_out", _ATTN_OUT, inside)
    positions = next((path for path in _POSITIONS if path in names), None)
    return ModelLayout(
        layers=layers,
        mlp_out=mlp,
        attn_out=attn,
        norm=_first(model, names, "the final norm", "norm", _NORMS),
        head=_first(model, names, "the head", "head", _HEADS),
        positions=positions,
        transposed=type(model.get_submodule(inside + mlp)).__name__ == "Conv1D",
    )


def _first(
    model: Any, names: set[str], what: str, field: str, paths: Sequence[str], inside: str = ""
) -> str:
    for path in paths:
        if inside + path in names:
            return path
    raise LayoutError(
        f"{type(model).__name__}: cannot find {what} (looked for {', '.join(paths)}); "
        f"pass a ModelLayout whose '{field}' names it"
    )
