"""How a change of the edited projection's output arrives in the hidden states.

MEMIT and AlphaEdit want a change of the hidden states that leave a layer, and get it by a change of
what leaves the MLP's output projection. Most layers add that output as it is. Some multiply it by a
constant first, by which the change is divided. Some normalize it: then no change of the projection
gives every wanted change of the hidden states, and these methods refuse the layer. ROME, PMET and
fine-tuning work on the projection's own output, or on the loss, so they are exact in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from clm_data.eval.model.batching import padded
from clm_data.eval.model.checks import refused, setting, stated, tolerance
from clm_data.eval.model.hooks import captured, shifted_output
from clm_data.eval.model.partial_forward import run_layers

if TYPE_CHECKING:
    from torch import Tensor

    from clm_data.eval.model.loaded import LoadedModel

_FACTORS = ("residual_multiplier", "scale_depth", "residual_scale", "mlp_multipliers")


def with_gains(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: Sequence[Tensor]
) -> LoadedModel:
    """Measure the gain of each editable layer; see `LoadedModel.gains`.

    Args:
        loaded: The model.
        rows: Token ids.
        states: Hidden states after each layer, (rows, longest, d).

    Raises:
        LayoutError: A change of the projection's output does not arrive at all.
    """
    gains: list[float | None] = [1.0] * loaded.depth
    why = ""
    for layer in loaded.editable:
        gains[layer] = gain = _gain(loaded, rows, states, layer)
        why = why or (_cause(loaded, rows, states, layer) if gain is None else "")
    if all(gain == 1.0 for gain in gains):
        return loaded
    return replace(loaded, gains=tuple(gains), no_gain=why)


def _gain(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: Sequence[Tensor], layer: int
) -> float | None:
    """The constant factor; None if different changes arrive by different factors.

    A first random vector, as long as the hidden state, gives the factor. A second one, in another
    direction and divided by the factor, must arrive as it is.
    """
    import torch

    generator = torch.Generator().manual_seed(layer)
    before = _last(states[layer], rows)
    draws = [torch.randn(before.shape[-1], generator=generator) for _ in range(2)]
    first, second = (
        draw.to(before) * (before.float().norm() / draw.norm().to(before.device)).to(before)
        for draw in draws
    )
    arrived = _arrived(loaded, rows, states, layer, first)
    if _missing(arrived, first) <= tolerance(loaded):
        return 1.0
    gain = float(arrived @ first.double() / (first.double() @ first.double()))
    if abs(gain) < 1e-6:
        raise refused(
            loaded, f"an edit of {loaded.layout.mlp_out} does not arrive in layer {layer}"
        )
    gain = next((c for c in _candidates(loaded) if abs(c / gain - 1) <= tolerance(loaded)), gain)
    arrived = _arrived(loaded, rows, states, layer, (second.double() / gain).to(second))
    return gain if _missing(arrived, second) <= tolerance(loaded) else None


def _missing(arrived: Tensor, wanted: Tensor) -> float:
    return float((arrived - wanted.double()).norm() / wanted.double().norm())


def _candidates(loaded: LoadedModel) -> Iterator[float]:
    """Factors that the config states: a measured one is only exact up to rounding."""
    for name in _FACTORS:
        value = setting(loaded, name)
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, int | float) and one:
                yield float(one)
                yield float(one) / loaded.depth**0.5  # MiniCPM's scale_depth


def _last(hidden: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """The last token of the last row, (d,)."""
    return hidden[len(rows) - 1, len(rows[-1]) - 1]


def _arrived(
    loaded: LoadedModel,
    rows: Sequence[Sequence[int]],
    states: Sequence[Tensor],
    layer: int,
    vector: Tensor,
) -> Tensor:
    """What a vector at the projection's output adds to the hidden state, (d,) float64."""
    import torch

    start = states[layer - 1] if layer else padded(rows, loaded.device)
    before = _last(states[layer], rows)
    place = torch.tensor([(len(rows) - 1) * start.shape[1] + len(rows[-1]) - 1])
    part = loaded.mlp_out(layer)
    with captured(part) as record, shifted_output(part, place, vector[None]):
        after = _last(run_layers(loaded, start, layer, layer + 1), rows).to(before.device)
    if record.output.shape[:-1].numel() != start.shape[:2].numel():
        raise refused(loaded, f"{loaded.layout.mlp_out} does not read one vector per token")
    return (after - before).double()


def _cause(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: Sequence[Tensor], layer: int
) -> str:
    """The module or setting between the edited weight and the residual, for the message."""
    start = states[layer - 1] if layer else padded(rows, loaded.device)
    block = loaded.model.get_submodule(f"{loaded.layout.layers}.{layer}")
    inside = [
        (name, module)
        for name, module in block.named_modules()
        if "norm" in name.lower() and module is not block
    ]
    with ExitStack() as stack:
        output = stack.enter_context(captured(loaded.mlp_out(layer)))
        norms = [(name, stack.enter_context(captured(module))) for name, module in inside]
        run_layers(loaded, start, layer, layer + 1)
    for name, record in norms:
        same = getattr(record, "input", None)
        if same is not None and same.shape == output.output.shape and same.equal(output.output):
            return f"because {name} normalizes the output of {loaded.layout.mlp_out} first"
    names = [name for name in _FACTORS if setting(loaded, name) is not None]
    cause = f" ({stated(loaded, names[0])} in its config)" if names else ""
    return f"because the output of {loaded.layout.mlp_out} is not added by a constant factor{cause}"
