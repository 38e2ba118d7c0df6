"""RECT and PRUNE: what may be done to the weight changes of any method, off by default."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clm_data.eval.editors.base import DeltaParams, Editor
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.errors import edit_errors
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest

if TYPE_CHECKING:
    from torch import Tensor

_TINY = 1e-8


@dataclass(frozen=True)
class StabilizedEditor:
    """A method whose weight changes go through RECT, PRUNE or both.

    Attributes:
        editor: The method.
        params: Its hyperparameters.
    """

    editor: Editor[Deltas]
    params: DeltaParams

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """See `Editor.edit`."""
        new = self.editor.edit(model, requests, past=past)
        with edit_errors(f"{new.method} on {model.name}"):
            return stabilized(new, model, self.params, past)


def stabilized(
    deltas: Deltas, model: LoadedModel, params: DeltaParams, past: Deltas | None
) -> Deltas:
    """The weight changes after RECT and then PRUNE, each if it is on.

    Args:
        deltas: The changes of an edit.
        model: The model, without any change applied.
        params: Which of the two are on.
        past: Earlier edits that the changes are on top of.

    Returns:
        The new changes; their sum with `past` is what PRUNE damps.
    """
    earlier: Mapping[str, WeightDelta] = past.weights if past is not None else {}
    weights = {}
    for path, change in deltas.weights.items():
        weight = model.model.get_parameter(path).detach().double()
        weight = weight.T if model.layout.transposed else weight
        before = earlier.get(path)
        new = change
        if params.rect is not None:
            now = weight if before is None else weight + before.dense(weight.device).to(weight)
            new = WeightDelta(keep_largest(new.dense(weight.device), now, params.rect).cpu())
        if params.prune is not None:
            new = _damped_sum(new, before, weight, params.prune)
        weights[path] = new
    return replace(deltas, weights=weights, arrived=None)


def keep_largest(change: Tensor, weight: Tensor, share: float) -> Tensor:
    """The entries of a change with the largest |change / weight|, zero elsewhere.

    Args:
        change: (d, m).
        weight: (d, m), before the change.
        share: How many entries are kept, rounded up; entries that equal the last of them are, too.
    """
    import torch

    ratio = (change.abs() / (weight.abs().to(change) + _TINY)).flatten()
    dropped = ratio.numel() - math.ceil(share * ratio.numel())
    if not dropped:
        return change
    smallest = torch.kthvalue(ratio, dropped + 1).values
    return change.where((ratio >= smallest).view_as(change), 0.0)


def damp(values: Tensor, largest: float, base: float) -> Tensor:
    """log_base(value) - log_base(largest) + largest, for values above `largest`.

    The restraint of PRUNE (Ma et al., 2025). Where it is more than the value itself, which a small
    `largest` makes possible, the value stays.

    Args:
        values: Singular values of a change.
        largest: The largest singular value of the weight.
        base: Base of the logarithm.
    """
    import torch

    damped = (values.clamp(min=1e-30) / largest).log() / math.log(base) + largest
    return torch.where(values > largest, torch.minimum(values, damped), values)


def _damped_sum(
    change: WeightDelta, before: WeightDelta | None, weight: Tensor, base: float
) -> WeightDelta:
    """The change, plus what makes the sum with the earlier one have damped singular values."""
    import torch

    left, values, right = _svd(change if before is None else before + change)
    gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    largest = float(torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt())
    lower = damp(values, largest, base) - values
    found = lower < 0
    if not bool(found.any()):
        return change
    correction = WeightDelta(
        (left[:, found] * lower[found]).float().cpu().contiguous(),
        right[found].float().cpu().contiguous(),
    )
    return change + correction


def _svd(change: WeightDelta) -> tuple[Tensor, Tensor, Tensor]:
    """Left singular vectors (d, r), singular values (r,) and right ones (r, m), float64."""
    import torch

    if change.right is None:
        left, values, right = torch.linalg.svd(change.left.double(), full_matrices=False)
        return left, values, right
    left_basis, left_upper = torch.linalg.qr(change.left.double())
    right_basis, right_upper = torch.linalg.qr(change.right.double().T)
    left, values, right = torch.linalg.svd(left_upper @ right_upper.T, full_matrices=False)
    return left_basis @ left, values, right @ right_basis.T
