"""Running mean and standard deviation of the rows that a method has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_EPSILON = 1e-7


@dataclass(frozen=True, eq=False)
class Normalizer:
    """Mean and sum of squared deviations of rows, by column; `seen` adds rows.

    Attributes:
        count: Number of rows.
        mean: (n,), float64.
        squares: (n,), float64: sum over the rows of the squared deviation from the mean.
    """

    count: int
    mean: Tensor
    squares: Tensor

    @staticmethod
    def of_size(size: int) -> Normalizer:
        """The normalizer of no rows."""
        import torch

        zeros = torch.zeros(size, dtype=torch.float64)
        return Normalizer(0, zeros, zeros)

    def seen(self, rows: Tensor, *, overcount: bool = False) -> Normalizer:
        """The normalizer after more rows (Chan et al., 1983).

        Args:
            rows: (k, n); k may be 0.
            overcount: Count the squared deviations within these rows k / (k - 1) times, as the
                reference implementation of UltraEdit does.
        """
        k = len(rows)
        if k == 0:
            return self
        rows = rows.double().to(self.mean.device)
        within = (rows - rows.mean(0)).square().sum(0)
        within = within * (k / (k - 1)) if overcount and k > 1 else within
        count, shift = self.count + k, rows.mean(0) - self.mean
        return Normalizer(
            count,
            self.mean + shift * (k / count),
            self.squares + within + shift.square() * (self.count * k / count),
        )

    def normalize(self, rows: Tensor) -> Tensor:
        """Rows (k, n) less the mean, over the standard deviation; float64.

        One row has no deviation: a row of zeros is then counted as seen, too.
        """
        import torch

        if self.count < 2:
            known = self.seen(torch.zeros_like(self.mean)[None])
            return known.normalize(rows) if self.count else rows.double()
        deviation = (self.squares / (self.count - 1)).sqrt()
        mean = self.mean.to(rows.device)
        return (rows.double() - mean) / (deviation.to(rows.device) + _EPSILON)

    def as_tensor(self) -> Tensor:
        """(3, n): the count repeated, the mean, the squares."""
        import torch

        count = torch.full_like(self.mean, self.count)
        return torch.stack([count, self.mean, self.squares])

    @staticmethod
    def from_tensor(tensor: Tensor) -> Normalizer:
        """The normalizer that `as_tensor` stored."""
        return Normalizer(int(tensor[0, 0]), tensor[1], tensor[2])
