"""Where the parts of a decoder are: found by their usual names, or given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from clm_data.eval.errors import LayoutError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LAYERS = (
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "model.decoder.layers",
    "transformer.blocks",
    "biogpt.layers",
    "gpt_neox_japanese.layers",
)
_MLP_OUT = (
    "mlp.down_proj",
    "mlp.c_proj",
    "mlp.dense_4h_to_h",
    "mlp.fc2",
    "mlp.fc_out",
    "fc2",
    "feed_forward.down_proj",
    "feed_forward.w2",
    "ffn.down_proj",
    "mlp_block.down_proj",
    "mlp.Wo",
)
_MLP_GATE = (
    "mlp.gate_proj",
    "feed_forward.gate_proj",
    "feed_forward.w1",
    "mlp_block.gate_proj",
)
_MLP_UP = (
    "mlp.up_proj",
    "mlp.gate_up_proj",
    "mlp.c_fc",
    "mlp.dense_h_to_4h",
    "mlp.fc1",
    "mlp.fc_in",
    "fc1",
    "feed_forward.up_proj",
    "feed_forward.w3",
    "ffn.up_proj",
    "mlp_block.up_proj",
    "mlp.Wi",
)
_ATTN_OUT = (
    "self_attn.o_proj",
    "attn.c_proj",
    "attention.dense",
    "self_attn.out_proj",
    "self_attn.dense",
    "attn.out_proj",
    "self_attention.dense",
    "attn.attention.out_proj",
    "attn.Wo",
)
_NORMS = (
    "model.norm",
    "transformer.ln_f",
    "gpt_neox.final_layer_norm",
    "model.final_layernorm",
    "model.decoder.final_layer_norm",
    "model.decoder.layer_norm",
    "model.layer_norm",
    "model.final_norm",
    "model.embedding_norm",
    "transformer.norm_f",
    "biogpt.layer_norm",
    "gpt_neox_japanese.final_layer_norm",
)
_HEADS = ("lm_head", "embed_out", "output_projection")


MlpPart = Literal["gate", "up", "down"]
"""A projection of the MLP: its gate, its other input projection, or its output projection."""


@dataclass(frozen=True)
class ModelLayout:
    """Dotted paths of a decoder's parts.

    Attributes:
        layers: The list of decoder layers.
        mlp_out: The MLP's output projection, relative to a layer; editors change its weight.
        norm: The final norm.
        head: The projection to the vocabulary.
        attn_out: The attention's output projection, relative to a layer, which only PMET reads;
            empty if no layer has one, as with linear attention.
        transposed: Whether the MLP's weights are stored as (in, out), as in GPT-2's Conv1D.
        mlp_gate: The MLP's gate projection, relative to a layer; empty if there is none.
        mlp_up: The MLP's other input projection, relative to a layer; empty if its name is unknown.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    layers: str
    mlp_out: str
    norm: str
    head: str
    attn_out: str = ""
    transposed: bool = False
    mlp_gate: str = ""
    mlp_up: str = ""

    def weight(self, layer: int, part: MlpPart = "down") -> str:
        """Path of the edited weight of a layer."""
        return f"{self.layers}.{layer}.{self.mlp_part(part)}.weight"

    def mlp_part(self, part: MlpPart) -> str:
        """Path of a projection of the MLP, relative to a layer; empty if there is none."""
        return {"gate": self.mlp_gate, "up": self.mlp_up, "down": self.mlp_out}[part]


def layers_with(model: PreTrainedModel, layers: str, path: str) -> list[int]:
    """Indices of the layers that have a submodule."""
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    depth = len(model.get_submodule(layers))
    return [i for i in range(depth) if f"{layers}.{i}.{path}" in names]


def numbers(layers: Sequence[int]) -> str:
    """`0 to 3`, `0, 2, 5`."""
    if len(layers) > 2 and list(layers) == list(range(layers[0], layers[-1] + 1)):
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers)) or "none"


def experts_note(model: PreTrainedModel, layers: str, layer: int) -> str:
    """Part of a message: a layer has no projection because it is a mixture of experts; or empty."""
    prefix = f"{layers}.{layer}."
    for name, _ in model.named_modules():
        if name.startswith(prefix) and name.endswith("experts"):
            return (
                f", because its MLP is a mixture of experts ({name.removeprefix(prefix)}), whose "
                "output has no single weight to edit"
            )
    return ""


NAME_THEM = "; name the model's parts in a file, and specify it with --layout"
"""End of a message about a part with an unknown name."""


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
        note = next((note for i in range(depth) if (note := experts_note(model, layers, i))), "")
        known = "" if note else f" with a known name{NAME_THEM}"
        raise LayoutError(
            f"{what} is not supported: no layer has a single MLP output projection{known}{note}"
        )
    attention = max(_ATTN_OUT, key=lambda path: sum(at + path in names for at in where))
    first = model.get_submodule(f"{layers}.{layers_with(model, layers, mlp)[0]}.{mlp}")
    return ModelLayout(
        layers=layers,
        mlp_out=mlp,
        attn_out=attention if any(at + attention in names for at in where) else "",
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
    raise LayoutError(f"{model} is not supported: no {what} with a known name{NAME_THEM}")


def check_layout(model: PreTrainedModel, layout: ModelLayout) -> None:
    """Check that a given layout names parts of a model.

    Raises:
        LayoutError: A part does not exist, or the weight is stored in the other orientation.
    """
    names = {name for name, _ in model.named_modules(remove_duplicate=False)}
    what = type(model).__name__
    for part in ("layers", "norm", "head"):
        path = getattr(layout, part)
        if path not in names or (part == "layers" and f"{path}.0" not in names):
            raise LayoutError(
                f"the layout's {part} '{path}' is not {'a list ' if part == 'layers' else ''}in "
                f"{what}; it has {_outer(names)}"
            )
    inside = f"{layout.layers}.0."
    own = ", ".join(sorted(n.removeprefix(inside) for n in names if n.startswith(inside)))
    for part in ("mlp_out", "attn_out", "mlp_gate", "mlp_up"):
        path = getattr(layout, part)
        if (path or part == "mlp_out") and not layers_with(model, layout.layers, path):
            raise LayoutError(
                f"the layout's {part} '{path}' is in no layer of {what}; layer 0 has {own}"
            )
    first = layers_with(model, layout.layers, layout.mlp_out)[0]
    module = model.get_submodule(f"{layout.layers}.{first}.{layout.mlp_out}")
    transposed = type(module).__name__ == "Conv1D"
    if transposed != layout.transposed:
        raise LayoutError(
            f"the layout's transposed must be {str(transposed).lower()} for {what}, whose "
            f"{layout.mlp_out} is a {type(module).__name__}"
        )


def _outer(names: set[str]) -> str:
    """Names of modules outside the layers."""
    return ", ".join(
        sorted(n for n in names if n and not any(part.isdigit() for part in n.split(".")))
    )
