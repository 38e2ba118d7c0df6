"""A causal language model with its tokenizer, and the parts of it that the editors work on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clm_data.eval.errors import EditError, LayoutError
from clm_data.records import Language

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LAYERS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers")
_MLP_OUT = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "mlp.fc_out", "fc2")
_MLP_GATE = ("mlp.gate_proj",)
_MLP_UP = (
    "mlp.up_proj",
    "mlp.gate_up_proj",
    "mlp.c_fc",
    "mlp.dense_h_to_4h",
    "mlp.fc1",
    "mlp.fc_in",
    "fc1",
)
_ATTN_OUT = (
    "self_attn.o_proj",
    "attn.c_proj",
    "attention.dense",
    "self_attn.out_proj",
    "self_attn.dense",
    "attn.out_proj",
    "self_attention.dense",
)
_NORMS = (
    "model.norm",
    "transformer.ln_f",
    "gpt_neox.final_layer_norm",
    "model.final_layernorm",
    "model.decoder.final_layer_norm",
)
_HEADS = ("lm_head", "embed_out")


MlpPart = Literal["gate", "up", "down"]
"""A projection of the MLP: its gate, its other input projection, or its output projection."""


@dataclass(frozen=True)
class ModelLayout:
    """Dotted paths of a decoder's parts.

    Attributes:
        layers: The list of decoder layers.
        mlp_out: The MLP's output projection, relative to a layer; editors change its weight.
        attn_out: The attention's output projection, relative to a layer.
        norm: The final norm.
        head: The projection to the vocabulary.
        transposed: Whether the MLP's weights are stored as (in, out), as in GPT-2's Conv1D.
        mlp_gate: The MLP's gate projection, relative to a layer; empty if there is none.
        mlp_up: The MLP's other input projection, relative to a layer; empty if its name is unknown.
    """

    layers: str
    mlp_out: str
    attn_out: str
    norm: str
    head: str
    transposed: bool = False
    mlp_gate: str = ""
    mlp_up: str = ""

    def weight(self, layer: int, part: MlpPart = "down") -> str:
        """Path of the edited weight of a layer."""
        return f"{self.layers}.{layer}.{self.mlp_part(part)}.weight"

    def mlp_part(self, part: MlpPart) -> str:
        """Path of a projection of the MLP, relative to a layer; empty if there is none."""
        return {"gate": self.mlp_gate, "up": self.mlp_up, "down": self.mlp_out}[part]


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer and layout; editors change its weights only temporarily.

    Evaluation asks it as it asks an edited model: `base`, `rewrite` and `routed` change nothing.

    Attributes:
        name: Shown in results and messages.
        model: In evaluation mode, its parameters frozen.
        tokenizer: A fast tokenizer.
        layout: Where the model's parts are.
        longest: Maximum tokens of a row: the number of positions, or the length from which some
            layers ignore early tokens; None if the model's config states none.
        longest_why: Where the config states it.
        packs: Whether rows can run side by side in one row of a batch, with a mask between them
            and keys and values of earlier tokens stored. Linear attention, for one, reads neither.
        layer_outputs: Length of the tuple that a decoder layer returns; None if it returns a
            tensor.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: ModelLayout
    longest: int | None = None
    longest_why: str = ""
    packs: bool = True
    layer_outputs: int | None = None

    @property
    def base(self) -> LoadedModel:
        """The model itself; see `clm_data.eval.editors.edits.EditedModel`."""
        return self

    def rewrite(self, prompt: str, lang: Language) -> str:
        """The prompt as it is."""
        return prompt

    def routed(self, prompt: Tensor) -> AbstractContextManager[None]:
        """Changes nothing."""
        return nullcontext()

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

    def mlp_part(self, layer: int, part: MlpPart) -> Module:
        """A projection of the MLP of a layer; its weight is a plain matrix.

        Raises:
            LayoutError: The model has no such layer or projection, or its weight is quantized.
        """
        path = self.layout.mlp_part(part)
        if not path:
            raise LayoutError(f"{self.name}: its MLP has no {part} projection with a known name")
        module = self._layer_part(layer, path)
        weight = getattr(module, "weight", None)
        if weight is None or not weight.is_floating_point() or weight.ndim != 2:
            raise LayoutError(
                f"{self.name}: the weight of {path} in layer {layer} is not a plain matrix (a "
                "quantized checkpoint?); use the checkpoint that is not quantized"
            )
        return module

    def attn_out(self, layer: int) -> Module:
        """The attention output projection of a layer.

        Raises:
            LayoutError: The model has no such layer.
        """
        return self._layer_part(layer, self.layout.attn_out)

    def _layer_part(self, layer: int, path: str) -> Module:
        if not 0 <= layer < self.depth:
            raise LayoutError(f"{self.name} has layers 0 to {self.depth - 1}, not {layer}")
        try:
            return self.model.get_submodule(f"{self.layout.layers}.{layer}.{path}")
        except AttributeError as error:
            with_it = layers_with(self.model, self.layout.layers, path)
            raise LayoutError(
                f"{self.name}: layer {layer} has no {path}"
                f"{_experts_note(self.model, self.layout.layers, layer)}; layers that can be "
                f"edited: {_numbers(with_it)}"
            ) from error

    def check_length(self, tokens: int) -> None:
        """Check that a row of tokens is not longer than the model can be measured with.

        Raises:
            EditError: It is; the message says where the limit comes from.
        """
        if self.longest is not None and tokens > self.longest:
            raise EditError(
                f"{self.name}: a text of {tokens} tokens is longer than this model allows "
                f"({self.longest_why} in its config); leave out records with longer texts, or use "
                "another model"
            )

    @property
    def editable(self) -> list[int]:
        """Layers with a single MLP output projection; the others are mixtures of experts."""
        return layers_with(self.model, self.layout.layers, self.layout.mlp_out)

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


def layers_with(model: PreTrainedModel, layers: str, path: str) -> list[int]:
    """Indices of the layers that have a submodule."""
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    depth = len(model.get_submodule(layers))
    return [i for i in range(depth) if f"{layers}.{i}.{path}" in names]


def _numbers(layers: Sequence[int]) -> str:
    """`0 to 3`, `0, 2, 5`."""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers)) or "none"


def _experts_note(model: PreTrainedModel, layers: str, layer: int) -> str:
    prefix = f"{layers}.{layer}."
    for name, _ in model.named_modules():
        if name.startswith(prefix) and name.endswith("experts"):
            return (
                f", because its MLP is a mixture of experts ({name.removeprefix(prefix)}), whose "
                "output has no single weight to edit"
            )
    return ""


def find_layout(model: PreTrainedModel) -> ModelLayout:
    """Find the parts of a decoder by their usual names.

    Raises:
        LayoutError: A part has none of the known names; the message says which.
    """
    names = {name for name, _ in model.named_modules()}
    what = type(model).__name__
    layers = _find(what, names, "list of decoder layers", _LAYERS)
    depth = len(model.get_submodule(layers))
    where = [f"{layers}.{i}." for i in range(depth)]
    mlp = next((p for p in _MLP_OUT if any(at + p in names for at in where)), None)
    if mlp is None:
        note = next((note for i in range(depth) if (note := _experts_note(model, layers, i))), "")
        known = "" if note else f" with a known name ({', '.join(_MLP_OUT)})"
        raise LayoutError(
            f"{what} is not supported: no layer has a single MLP output projection{known}{note}"
        )
    attention = [p for p in _ATTN_OUT if all(at + p in names for at in where)]
    if not attention:
        some = next((p for p in _ATTN_OUT if any(at + p in names for at in where)), "")
        lacking = next((i for i in range(depth) if where[i] + some not in names), 0)
        raise LayoutError(
            f"{what} is not supported: layer {lacking} has no attention output projection with a "
            f"known name ({', '.join(_ATTN_OUT)}); linear attention and state spaces have none"
        )
    first = model.get_submodule(f"{layers}.{layers_with(model, layers, mlp)[0]}.{mlp}")
    return ModelLayout(
        layers=layers,
        mlp_out=mlp,
        attn_out=attention[0],
        norm=_find(what, names, "final norm", _NORMS),
        head=_find(what, names, "head", _HEADS),
        transposed=type(first).__name__ == "Conv1D",
        mlp_gate=next((p for p in _MLP_GATE if any(at + p in names for at in where)), ""),
        mlp_up=next((p for p in _MLP_UP if any(at + p in names for at in where)), ""),
    )


def _find(model: str, names: set[str], what: str, paths: Sequence[str]) -> str:
    for path in paths:
        if path in names:
            return path
    raise LayoutError(f"{model} is not supported: no {what} with a known name ({', '.join(paths)})")
