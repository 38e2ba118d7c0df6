"""One step of Adam, for tensors that are optimized outside a torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Averages = tuple["Tensor", "Tensor"]
"""Running averages of the gradient and of its square."""


def adam_step(value: Tensor, grad: Tensor, averages: Averages, step: int, lr: float) -> Tensor:
    """One Adam step (Kingma and Ba, 2015) with betas 0.9 and 0.999 and epsilon 1e-8.

    Args:
        value: Any shape.
        grad: The loss's gradient at `value`.
        averages: Running averages, each of the shape of `value`, zero at first; updated in place.
        step: Counts from 1.
        lr: Learning rate.

    Returns:
        The new value, detached.
    """
    mean, square = averages
    mean.mul_(0.9).add_(grad, alpha=0.1)
    square.mul_(0.999).addcmul_(grad, grad, value=0.001)
    width = square.sqrt() / (1 - 0.999**step) ** 0.5 + 1e-8
    return value.detach() - lr / (1 - 0.9**step) * mean / width
