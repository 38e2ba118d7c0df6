"""Proof that a model can be edited: it runs layer by layer, and an edit arrives unscaled.

`prove_editable` runs once for each model that is loaded and costs about five short forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clm_data.eval.errors import LayoutError, out_of_memory
from clm_data.eval.model.arrival import with_gains
from clm_data.eval.model.batching import padded
from clm_data.eval.model.checks import refused, setting, stated, tolerance
from clm_data.eval.model.partial_forward import precompute_prefixes, run_layers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from clm_data.eval.model.loaded import LoadedModel

TEXTS = ("长江发源于青藏高原，流入东海。", "The capital of France is Paris")
"""Texts whose forward passes are compared; they have different lengths."""
_LONGEST = 24
"""Tokens of each text that are used."""
_CAPS = ("final_logit_softcapping", "logits_soft_cap")
_LOGIT_FACTORS = ("logit_scale", "logits_scaling", "dim_model_base", "lm_head_multiplier")


def prove_editable(loaded: LoadedModel, texts: Sequence[str] = TEXTS) -> LoadedModel:
    """Check that a model can be edited exactly.

    For texts of different lengths: each layer run alone, the layers below and above half depth, and
    the tokens before and after a cut give what the whole model gives. How a vector added to the
    output of each editable weight arrives in the hidden states is measured (see `arrival`).

    Returns:
        The model, with `packs`, `masks`, `head_alone` and `gains` as found.

    Raises:
        LayoutError: A check failed, or the model cannot be run in parts; the message names the
            layer and, where it can be found, the module or setting that is the cause.
    """
    import torch

    _check_weights(loaded)
    rows = _rows(loaded, texts)
    try:
        with torch.no_grad():
            loaded = replace(
                loaded, layer_outputs=_layer_outputs(loaded), head_alone=not _capped(loaded)
            )
            states, logits = _whole(loaded, rows)
            loaded = _masked_or_not(loaded, rows, states)
            loaded = _head_or_own(loaded, rows, states[-1], logits)
            loaded = _packed_or_not(loaded, rows, states)
            return with_gains(loaded, rows, states)
    except LayoutError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        raise refused(
            loaded, f"it cannot be run layer by layer ({type(error).__name__}: {reason})"
        ) from error


def _capped(loaded: LoadedModel) -> bool:
    """Whether the config caps the logits, which does not show in a model whose logits are small."""
    return any(setting(loaded, name) is not None for name in _CAPS)


def _check_weights(loaded: LoadedModel) -> None:
    """Editors add to a floating point matrix that no other layer uses."""
    seen: dict[int, int] = {}
    for layer in loaded.editable:
        weight = getattr(loaded.mlp_out(layer), "weight", None)
        if weight is None or not weight.is_floating_point() or weight.ndim != 2:
            raise refused(
                loaded,
                f"the weight of {loaded.layout.mlp_out} in layer {layer} is not a plain matrix "
                "(a quantized checkpoint?); use the checkpoint that is not quantized",
            )
        other = seen.setdefault(id(weight), layer)
        if other != layer:
            raise refused(
                loaded, f"layers {other} and {layer} share the weight of {loaded.layout.mlp_out}"
            )


def _rows(loaded: LoadedModel, texts: Sequence[str]) -> list[list[int]]:
    """Token rows of different lengths."""
    size = loaded.model.get_input_embeddings().weight.shape[0]
    longest = min(_LONGEST, loaded.longest or _LONGEST)
    rows = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    rows = [[token % size for token in row][:longest] or [1 % size] for row in rows]
    rows[-1] = rows[-1][: max(2, longest // 2)]
    return rows


@contextmanager
def _outputs(modules: Sequence[Module]) -> Iterator[list[Tensor]]:
    """The first output of each module in the last forward pass."""
    import torch

    found = [torch.empty(0)] * len(modules)

    def hook(index: int) -> Any:
        def record(_module: Module, _inputs: Any, out: Any) -> None:
            found[index] = (out[0] if isinstance(out, tuple) else out).detach()

        return record

    handles = [module.register_forward_hook(hook(i)) for i, module in enumerate(modules)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _layer_outputs(loaded: LoadedModel) -> int | None:
    """Length of the tuple that the first layer returns; None if it returns a tensor."""
    import torch

    found: list[int | None] = []
    layer = loaded.model.get_submodule(f"{loaded.layout.layers}.0")
    handle = layer.register_forward_hook(
        lambda _m, _i, out: found.append(len(out) if isinstance(out, tuple) else None)
    )
    try:
        ids = torch.tensor([[1]], device=loaded.device)
        loaded.model(input_ids=ids, use_cache=False)
    finally:
        handle.remove()
    return found[0]


def _whole(loaded: LoadedModel, rows: Sequence[Sequence[int]]) -> tuple[list[Tensor], list[Tensor]]:
    """Padded hidden states after each layer, (rows, longest, d), and each row's logits.

    Each row runs alone, without padding.
    """
    import torch

    layers = list(loaded.model.get_submodule(loaded.layout.layers).children())
    width = max(map(len, rows))
    by_row, logits = [], []
    for row in rows:
        with _outputs(layers) as states:
            ids = torch.tensor([list(row)], device=loaded.device)
            logits.append(loaded.model(input_ids=ids, use_cache=False).logits[0].float())
            pad = (0, 0, 0, width - len(row))
            by_row.append([torch.nn.functional.pad(state, pad) for state in states])
    states = [
        torch.cat([row.to(one[0].device) for row in one]) for one in zip(*by_row, strict=True)
    ]
    return states, logits


def _same(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], found: Tensor, expected: Tensor
) -> bool:
    """Whether the rows' real tokens agree."""
    expected = expected.to(found.device)
    scale = max(float(expected.abs().max()), 1e-6)
    return all(
        bool(
            (found[i, : len(row)] - expected[i, : len(row)]).abs().max()
            <= tolerance(loaded) * scale
        )
        for i, row in enumerate(rows)
    )


def _masked_or_not(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: list[Tensor]
) -> LoadedModel:
    """Check the layers with our mask and positions, or if that fails, with the model's own."""
    try:
        _check_cuts(loaded, rows, states)
    except Exception as error:  # whatever a mask that the layers do not know raises
        if out_of_memory(error):
            raise
        own = replace(loaded, masks=False, packs=False)
        try:
            _check_cuts(own, rows, states)
        except Exception as second:
            if out_of_memory(second):
                raise
            raise error from second
        return own
    return loaded


def _check_cuts(loaded: LoadedModel, rows: Sequence[Sequence[int]], states: list[Tensor]) -> None:
    ids, depth = padded(rows, loaded.device), loaded.depth
    for layer in range(depth):
        start = states[layer - 1] if layer else ids
        if not _same(loaded, rows, run_layers(loaded, start, layer, layer + 1), states[layer]):
            raise refused(
                loaded,
                f"layer {layer} run alone differs from the same layer in the whole model "
                "(it uses more than the hidden states and positions)",
            )
    half = max(1, depth // 2)
    lower = run_layers(loaded, ids, 0, half)
    upper = run_layers(loaded, lower, half, depth)
    if not (
        _same(loaded, rows, lower, states[half - 1]) and _same(loaded, rows, upper, states[-1])
    ):
        raise refused(loaded, f"the layers below and above {half} differ from the whole model")


def _head_or_own(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], last: Tensor, logits: list[Tensor]
) -> LoadedModel:
    """Check the logits of the last hidden states, by norm and head or the model's own code."""

    def right(one: LoadedModel) -> bool:
        found = (one.logits(last[i : i + 1, : len(row)]) for i, row in enumerate(rows))
        return all(
            its.shape[-1] == expected.shape[-1] and _same(one, [row], its, expected[None])
            for row, its, expected in zip(rows, found, logits, strict=True)
        )

    if right(loaded):
        return loaded
    own = replace(loaded, head_alone=False)
    if right(own):
        return own
    causes = [name for name in _LOGIT_FACTORS if setting(loaded, name) is not None]
    raise refused(
        loaded,
        "the whole model's logits are not those of its final norm and head"
        + (f" ({stated(loaded, causes[0])} in its config)" if causes else ""),
    )


def _packed_or_not(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: list[Tensor]
) -> LoadedModel:
    try:
        _check_packed(loaded, rows, states)
    except Exception as error:  # whatever a cache or mask that the layers do not know raises
        if out_of_memory(error):
            raise
        loaded = replace(loaded, packs=False)
        _check_packed(loaded, rows, states)
    return loaded


def _check_packed(loaded: LoadedModel, rows: Sequence[Sequence[int]], states: list[Tensor]) -> None:
    """Rows packed into one bin behind stored keys and values, as in value optimization."""
    pivots = [len(row) // 2 for row in rows]
    suffixes = precompute_prefixes(loaded, rows, pivots, loaded.depth // 2)
    packed = suffixes.pack(range(len(rows)), [list(range(len(rows)))])
    out = packed.run(packed.hidden)
    for i, row in enumerate(rows):
        at, length = int(packed.pivots[i]), len(row) - pivots[i]
        expected = states[-1][i : i + 1, pivots[i] : len(row)]
        if not _same(loaded, [row[pivots[i] :]], out[None, at : at + length], expected):
            raise refused(
                loaded, "tokens run with stored keys and values differ from the whole model"
            )
