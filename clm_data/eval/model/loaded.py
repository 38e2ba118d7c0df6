"""A causal language model with its tokenizer, and the parts of it that the editors work on."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.hooks import replaced_input, replaced_modules, skipped_layer
from clm_data.eval.model.layout import (
    MlpPart,
    ModelLayout,
    experts_note,
    layers_with,
    numbers,
)
from clm_data.records import Language

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
        masks: Whether the layers accept a mask and positions of ours. A model with attention
            biases by distance (ALiBi) computes its own; its rows run one by one.
        head_alone: Whether the logits are those of the final norm and the head. In the other models
            they are scaled or capped, by the model's own code.
        gains: By layer, the factor of what leaves the edited projection before it is added to the
            hidden states, such as Granite's residual multiplier; None where it is not constant.
            Empty if all are 1.
        no_gain: Why a gain is None, for messages.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: ModelLayout
    longest: int | None = None
    longest_why: str = ""
    packs: bool = True
    layer_outputs: int | None = None
    masks: bool = True
    head_alone: bool = True
    gains: tuple[float | None, ...] = ()
    no_gain: str = ""

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
        return self._layer_part(layer, self.layout.mlp_out, "layers that can be edited")

    def mlp_part(self, layer: int, part: MlpPart) -> Module:
        """A projection of the MLP of a layer; its weight is a plain matrix.

        Raises:
            LayoutError: The model has no such layer or projection, or its weight is quantized.
        """
        path = self.layout.mlp_part(part)
        if not path:
            raise LayoutError(f"{self.name}: its MLP has no {part} projection with a known name")
        module = self._layer_part(layer, path, "layers that can be edited")
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
            LayoutError: The model has no such layer, or the layer has linear attention.
        """
        if not self.layout.attn_out:
            raise LayoutError(
                f"{self.name}: no layer has an attention output projection, which pmet changes; "
                "use another method"
            )
        return self._layer_part(layer, self.layout.attn_out, "only pmet changes it; it is in layer")

    def gain(self, layer: int) -> float:
        """The factor of an edit on its way from the projection's output to the hidden states.

        Raises:
            LayoutError: The model has no such layer, or the factor is not constant.
        """
        self.mlp_out(layer)
        gain = self.gains[layer] if self.gains else 1.0
        if gain is None:
            raise LayoutError(
                f"{self.name}: a change of the hidden states cannot be edited into layer {layer}, "
                f"{self.no_gain}; use a method that changes the projection's own output: rome, "
                "pmet or fine-tuning"
            )
        return gain

    def _layer_part(self, layer: int, path: str, others: str) -> Module:
        if not 0 <= layer < self.depth:
            raise LayoutError(f"{self.name} has layers 0 to {self.depth - 1}, not {layer}")
        try:
            return self.model.get_submodule(f"{self.layout.layers}.{layer}.{path}")
        except AttributeError as error:
            with_it = layers_with(self.model, self.layout.layers, path)
            raise LayoutError(
                f"{self.name}: layer {layer} has no {path}"
                f"{experts_note(self.model, self.layout.layers, layer)}; {others}: "
                f"{numbers(with_it)}"
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
        if not self.head_alone:
            return at_least_float32(self._own_logits(hidden))
        normed = self.model.get_submodule(self.layout.norm)(hidden)
        return at_least_float32(self.model.get_submodule(self.layout.head)(normed))

    def _own_logits(self, hidden: Tensor) -> Tensor:
        """Logits by the model's own forward, with all layers skipped; each token is a row."""
        import torch

        rows = hidden.reshape(-1, 1, hidden.shape[-1])
        layers = list(self.model.get_submodule(self.layout.layers).children())
        skipped = [skipped_layer(layer, self.layer_outputs) for layer in layers]
        paths = [f"{self.layout.layers}.{index}" for index in range(len(layers))]
        with (
            replaced_modules(self.model, dict(zip(paths, skipped, strict=True))),
            replaced_input(skipped[0], rows),
        ):
            ids = torch.zeros(rows.shape[:2], dtype=torch.long, device=self.device)
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits.view(*hidden.shape[:-1], -1)

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
