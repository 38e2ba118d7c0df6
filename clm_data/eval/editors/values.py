"""Target values: hidden states at the subject with which the model predicts the new answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clm_data.eval.editors.ranges import (
    Count,
    Finite,
    LearningRate,
    NonNegative,
    Positive,
    check_ranges,
)

if TYPE_CHECKING:
    from torch import Tensor

Site = Literal["layer", "mlp", "attn"]
"""Where a change is added at the subject: to the output of a decoder layer, or to the output of its
MLP or attention before it joins the residual stream."""


@dataclass(frozen=True)
class ValueParams:
    """How target values are optimized.

    The loss of a fact is `nll_factor` NLL + `kl_factor` KL + `weight_decay` |change| / |initial|^2.

    Attributes:
        steps: Maximum number of evaluations of the loss, as the reference counts; one more than
            the maximum number of updates.
        lr: Adam's learning rate.
        clamp: Maximum norm of the change, in multiples of the initial value's norm.
        kl_factor: Weight of KL(changed || unchanged) of the next-token distributions after the
            subject of the KL prompt.
        weight_decay: Weight of the change's norm over the initial value's squared norm.
        nll_factor: Weight of the answer's mean negative log likelihood.
        ease_off: PMET's rule: as soon as every answer token is the most likely one, the likelihood
            counts a tenth, and the fact is finished when the weighted KL is at most 0.01.
        stop_at: Loss below which a fact is finished.
    """

    steps: Count
    lr: LearningRate
    clamp: Positive
    kl_factor: NonNegative
    weight_decay: NonNegative
    nll_factor: Positive = 1.0
    ease_off: bool = False
    stop_at: Finite = 0.05

    def __post_init__(self) -> None:
        check_ranges(self)


# Our choice: hidden states of the tiny model are a few hundred times those of a large one.
TINY_VALUES = ValueParams(steps=40, lr=5.0, clamp=1.5, kl_factor=0.0625, weight_decay=1e-3)


@dataclass(frozen=True, eq=False)
class TargetValues:
    """Target values, in the order of the facts.

    Attributes:
        targets: (N, d), float32 (float64 for a float64 model), on the CPU.
        steps: Number of updates, by fact.
    """

    targets: Tensor
    steps: tuple[int, ...]
