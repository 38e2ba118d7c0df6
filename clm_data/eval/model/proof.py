"""Proof that a model can be edited: it runs layer by layer, and an edit arrives unscaled.

`prove_editable` runs once for each model that is loaded and costs about five short forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clm_data.eval.errors import LayoutError, out_of_memory
from clm_data.eval.model.batching import padded
from clm_data.eval.model.hooks import captured, shifted_output
from clm_data.eval.model.partial_forward import precompute_prefixes, run_layers

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from clm_data.eval.model.loaded import LoadedModel

TEXTS = ("长江发源于青藏高原，流入东海。", "The capital of France is Paris")
"""Texts whose forward passes are compared; they have different lengths."""
_LONGEST = 24
"""Tokens of each text that are used."""
_SOFT_CAP = "final_logit_softcapping"
_LOGIT_FACTORS = ("logit_scale", "logits_scaling", "dim_model_base")
_RESIDUAL_FACTORS = ("residual_multiplier", "scale_depth", "residual_scale")


def tolerance(loaded: LoadedModel) -> float:
    """Largest accepted difference, relative to the largest value compared."""
    import torch

    return 1e-3 if loaded.model.dtype in (torch.float32, torch.float64) else 5e-2


def prove_editable(loaded: LoadedModel, texts: Sequence[str] = TEXTS) -> LoadedModel:
    """Check that a model can be edited exactly.

    For texts of different lengths: each layer run alone, the layers below and above half depth, and
    the tokens before and after a cut give what the whole model gives; a vector added to the output
    of each editable weight arrives unchanged in the hidden states that leave the layer.

    Returns:
        The model; `packs` is False if it runs exactly only with each row on its own.

    Raises:
        LayoutError: A check failed, or the model cannot be run in parts; the message names the
            layer and, where it can be found, the module or setting that is the cause.
    """
    import torch

    _check_weights(loaded)
    if _setting(loaded, _SOFT_CAP) is not None:  # invisible in a model whose logits are small
        raise _refused(
            loaded, f"its logits are capped ({_stated(loaded, _SOFT_CAP)} in its config)"
        )
    rows = _rows(loaded, texts)
    try:
        with torch.no_grad():
            loaded = replace(loaded, layer_outputs=_layer_outputs(loaded))
            whole = _whole(loaded, rows)
            _check_cuts(loaded, rows, *whole)
            loaded = _packed_or_not(loaded, rows, whole[0])
            for layer in loaded.editable:
                _check_arrival(loaded, rows, whole[0], layer)
    except LayoutError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        if _alibi(loaded):
            raise _refused(
                loaded, "its positions are biases of the attention (ALiBi), not embeddings"
            ) from error
        raise _refused(
            loaded, f"it cannot be run layer by layer ({type(error).__name__}: {reason})"
        ) from error
    return loaded


def _refused(loaded: LoadedModel, why: str) -> LayoutError:
    architecture = type(loaded.model).__name__
    return LayoutError(f"{loaded.name} ({architecture}) is not supported: {why}")


def _alibi(loaded: LoadedModel) -> bool:
    stated = getattr(loaded.model.config, "alibi", False)
    return bool(stated) or hasattr(loaded.model.base_model, "build_alibi_tensor")


def _check_weights(loaded: LoadedModel) -> None:
    """Editors add to a floating point matrix that no other layer uses."""
    seen: dict[int, int] = {}
    for layer in loaded.editable:
        weight = getattr(loaded.mlp_out(layer), "weight", None)
        if weight is None or not weight.is_floating_point() or weight.ndim != 2:
            raise _refused(
                loaded,
                f"the weight of {loaded.layout.mlp_out} in layer {layer} is not a plain matrix "
                "(a quantized checkpoint?); use the checkpoint that is not quantized",
            )
        other = seen.setdefault(id(weight), layer)
        if other != layer:
            raise _refused(
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


def _check_cuts(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: list[Tensor], logits: list[Tensor]
) -> None:
    ids, depth = padded(rows, loaded.device), loaded.depth
    for layer in range(depth):
        start = states[layer - 1] if layer else ids
        if not _same(loaded, rows, run_layers(loaded, start, layer, layer + 1), states[layer]):
            raise _refused(
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
        raise _refused(loaded, f"the layers below and above {half} differ from the whole model")
    width = upper.shape[1]
    expected = [_pad(one, width) for one in logits]
    for i, row in enumerate(rows):
        found = loaded.logits(upper[i : i + 1, : len(row)])
        if not _same(loaded, [row], found, expected[i][None]):
            causes = [name for name in _LOGIT_FACTORS if _setting(loaded, name) is not None]
            raise _refused(
                loaded,
                "the whole model's logits are not those of its final norm and head"
                + (f" ({_stated(loaded, causes[0])} in its config)" if causes else ""),
            )


def _pad(logits: Tensor, width: int) -> Tensor:
    import torch

    return torch.nn.functional.pad(logits, (0, 0, 0, width - len(logits)))


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
            raise _refused(
                loaded, "tokens run with stored keys and values differ from the whole model"
            )


def _check_arrival(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: list[Tensor], layer: int
) -> None:
    """A vector added at the weight's output leaves the layer as it is."""
    import torch

    start = states[layer - 1] if layer else padded(rows, loaded.device)
    last = len(rows[0]) - 1
    before = states[layer][0, last]
    generator = torch.Generator().manual_seed(layer)
    direction = torch.randn(before.shape[-1], generator=generator).to(before)
    vector = direction * (before.float().norm() / direction.float().norm()).to(before)
    place = torch.tensor([last], device=before.device)
    part = loaded.mlp_out(layer)
    with captured(part) as record, shifted_output(part, place, vector[None]):
        after = run_layers(loaded, start, layer, layer + 1)[0, last].to(before.device)
    if record.output.shape[:-1] != start.shape[:2]:
        raise _refused(
            loaded, f"{loaded.layout.mlp_out} reads rows and tokens as one dimension, not as two"
        )
    arrived = (after - before).double()
    missing = float((arrived - vector.double()).norm() / vector.double().norm())
    if missing > tolerance(loaded):
        raise _refused(
            loaded,
            f"an edit of {loaded.layout.mlp_out} does not arrive unchanged: "
            f"{missing:.0%} of it is lost in layer {layer}{_cause(loaded, start, layer)}",
        )


def _cause(loaded: LoadedModel, start: Tensor, layer: int) -> str:
    """The module or setting between the edited weight and the residual, for the message."""
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
            return f", because {name} normalizes it first"
    stated = [name for name in _RESIDUAL_FACTORS if _setting(loaded, name) is not None]
    return f", because of {_stated(loaded, stated[0])} in its config" if stated else ""


def _setting(loaded: LoadedModel, name: str) -> Any:
    return getattr(loaded.model.config, name, None)


def _stated(loaded: LoadedModel, name: str) -> str:
    return f"{name} {_setting(loaded, name)}"
