"""What makes a pair, decided in integers.

The similarity of two texts is rapidfuzz's normalized Indel similarity (``fuzz.ratio / 100``),
``(n - d) / n`` with ``n`` the sum of their lengths in code points and ``d`` their Indel distance:
the number of insertions and deletions that turn one into the other. Equal texts, two empty ones
included, have similarity 1. At a given threshold, the largest distance of a pair is an integer that
depends on ``n`` only; every join in this package takes it from :class:`DistanceLimit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TEXT_LENGTH = (1 << 21) - 1
"""Characters; if any text is longer, signatures are not used."""


class Pairs(NamedTuple):
    """A block of pairs as three parallel arrays of positions and distances; ``left < right``.

    Attributes:
        left: int64, position of the earlier text.
        right: int64, position of the later text.
        distance: int64, Indel distance of the two.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    distance: NDArray[np.int64]


@dataclass(frozen=True)
class DistanceLimit:
    """The largest Indel distance of a pair, by the sum of the lengths of its texts.

    Attributes:
        threshold: Similarity threshold, 0 to 1, exact.
        inclusive: Whether texts at exactly the threshold are a pair.
    """

    threshold: Fraction
    inclusive: bool = False

    @classmethod
    def at(cls, threshold: Fraction | float, *, inclusive: bool = False) -> DistanceLimit:
        """The limit at a threshold; a float is taken as the decimal number it prints as.

        Raises:
            ValueError: The threshold is not a number from 0 to 1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold} is not between 0 and 1")
        return cls(Fraction(str(threshold)), inclusive)

    def max_distance(self, total_length: int) -> int:
        """The largest distance of a pair; -1 if not even equal texts are a pair.

        Args:
            total_length: Sum of the lengths of the two texts.
        """
        slack = (1 - self.threshold).numerator * total_length
        if self.inclusive:
            return slack // self.threshold.denominator
        if self.threshold == 1:
            return -1
        return max(0, (slack - 1) // self.threshold.denominator)

    def max_distances(self, total_length: int) -> NDArray[np.int64]:
        """:meth:`max_distance` for every sum of lengths from 0 to ``total_length``."""
        import numpy as np

        totals = range(total_length + 1)
        slack = (1 - self.threshold).numerator
        if slack * total_length >= 1 << 63:
            return np.fromiter(map(self.max_distance, totals), np.int64, count=len(totals))
        slacks = slack * np.arange(len(totals), dtype=np.int64)
        if self.inclusive:
            return slacks // self.threshold.denominator
        if self.threshold == 1:
            return slacks - 1
        return np.maximum(0, (slacks - 1) // self.threshold.denominator)


def indel_distance(left: str, right: str, cutoff: int | None = None) -> int:
    """Indel distance of two texts; some larger number if it exceeds ``cutoff``."""
    from rapidfuzz.distance import Indel

    return int(Indel.distance(left, right, score_cutoff=cutoff))


def ordered_pairs(
    first: NDArray[np.int64], second: NDArray[np.int64], distance: NDArray[np.int64]
) -> Pairs:
    """Pairs with ``left < right``, from positions in either order."""
    import numpy as np

    return Pairs(np.minimum(first, second), np.maximum(first, second), distance)
