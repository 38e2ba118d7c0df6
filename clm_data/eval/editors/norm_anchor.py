"""Norm-anchored scaling (NAS) of target values.

Liu et al., Toward Ultra-Long-Horizon Sequential Model Editing, 2026 (arXiv 2602.02543). A value is
what the MLP adds at the subject: without an edit v0, with the target value v*. In a long sequence
of edits the norms of v* grow. NAS scales every v* to the mean norm in the unedited model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from clm_data.eval.errors import EditError

if TYPE_CHECKING:
    from torch import Tensor

_STATE = "nas.norm"
_DROPPED = 0.05
"""Share of the largest norms that the mean leaves out, as in the reference."""


def anchor_norm(values: Tensor) -> Tensor:
    """The norm to scale values to, a scalar: the mean norm of those of the first edit.

    The first edit is made in the unedited model. (The reference takes the mean over other facts.)

    Args:
        values: v* of the first edit, (N, d).
    """
    norms = values.norm(dim=1).sort().values
    return norms[: len(norms) - int(_DROPPED * len(norms))].mean()


def past_norm(state: Mapping[str, Tensor]) -> Tensor:
    """The norm that the first edit of a sequence has left in `Deltas.state`.

    Raises:
        EditError: The earlier edits were made without NAS.
    """
    if _STATE not in state:
        raise EditError("nas needs earlier edits that were made with nas; edit them with it, too")
    return state[_STATE]


def anchor_state(norm: Tensor) -> dict[str, Tensor]:
    """The norm for `Deltas.state`, from which later edits read it."""
    return {_STATE: norm.detach().cpu()}


def anchored(values: Tensor, unchanged: Tensor, norm: Tensor) -> Tensor:
    """Values scaled to a norm; one with more than twice the norm is replaced by the unchanged one.

    Args:
        values: v*, (N, d).
        unchanged: v0, (N, d).
        norm: A scalar.
    """
    import torch

    size = values.norm(dim=1, keepdim=True)
    norm = norm.to(values)
    return torch.where(size > 2 * norm, unchanged, values * (norm / size.clamp(min=1e-30)))
