"""Thresholds as integer ratios, and the plain join: what "more similar than" means, without floats.

The similarity of two texts is ``(s - d) / s``, with ``s`` the sum of their lengths in code points
and ``d`` their Indel distance (deletions and insertions; rapidfuzz's ``fuzz.ratio`` over 100). At a
threshold ``n / m`` the largest distance that still makes a pair is an integer that depends on ``s``
only; every join of this package asks :class:`Limit` for it. Identical texts, two empty ones
included, have the similarity 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONGEST = (1 << 21) - 1
"""Characters; where a text has more, the join is the plain one, whatever the number of texts."""
_ROWS = 512
_COLUMNS = 8192


class Pairs(NamedTuple):
    """A block of pairs, as three parallel arrays; ``left < right`` are positions in the texts.

    Attributes:
        left: int64, the earlier text.
        right: int64, the later text.
        distance: int64, the Indel distance of the two.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    distance: NDArray[np.int64]


@dataclass(frozen=True)
class Limit:
    """How similar two texts must be to make a pair.

    Attributes:
        threshold: 0 to 1, exact.
        inclusive: Whether a pair at exactly the threshold counts; by default it does not.
    """

    threshold: Fraction
    inclusive: bool = False

    @classmethod
    def of(cls, threshold: Fraction | float, *, inclusive: bool = False) -> Limit:
        """The limit at a threshold; a float is taken as the decimal number it prints as.

        Raises:
            ValueError: The threshold is not a number from 0 to 1.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold {threshold} is not between 0 and 1")
        return cls(Fraction(str(threshold)), inclusive)

    def allowed(self, size: int) -> int:
        """The largest distance of a pair.

        Args:
            size: Sum of the lengths of the two texts.

        Returns:
            -1 where nothing, not even two identical texts, makes a pair.
        """
        slack = (1 - self.threshold).numerator * size
        if self.inclusive:
            return slack // self.threshold.denominator
        if self.threshold == 1:
            return -1
        return max(0, (slack - 1) // self.threshold.denominator)

    def table(self, size: int) -> NDArray[np.int64]:
        """:meth:`allowed` of every sum of lengths from 0 to ``size``."""
        import numpy as np

        slack = (1 - self.threshold).numerator
        if slack * size >= 1 << 63:
            return np.fromiter(map(self.allowed, range(size + 1)), dtype=np.int64, count=size + 1)
        exact = slack * np.arange(size + 1, dtype=np.int64)
        if self.inclusive:
            return exact // self.threshold.denominator
        if self.threshold == 1:
            return exact - 1
        return np.maximum(0, (exact - 1) // self.threshold.denominator)


def distance(left: str, right: str, cutoff: int | None = None) -> int:
    """Indel distance of two texts; some number over ``cutoff`` where it is larger than that."""
    from rapidfuzz.distance import Indel

    return int(Indel.distance(left, right, score_cutoff=cutoff))


def plain_pairs(texts: Sequence[str], limit: Limit) -> Iterator[Pairs]:
    """All pairs within a limit, by comparing every two texts of similar length.

    Quadratic, and the faster way for a few thousand texts.

    Yields:
        Non-empty blocks in an order that depends on the texts only.
    """
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    order = np.argsort(sizes, kind="stable")
    ranked = [texts[index] for index in order.tolist()]
    sizes = sizes[order]
    allowed = limit.table(2 * int(sizes[-1])) if texts else np.zeros(0, np.int64)
    for top in range(0, len(ranked), _ROWS):
        rows = ranked[top : top + _ROWS]
        ends = _last_partner(sizes, int(sizes[top + len(rows) - 1]), allowed)
        for start in range(top, ends, _COLUMNS):
            columns = ranked[start : min(start + _COLUMNS, ends)]
            cutoff = int(allowed[sizes[top + len(rows) - 1] + sizes[start + len(columns) - 1]])
            found = process.cdist(
                rows, columns, scorer=Indel.distance, score_cutoff=cutoff, dtype=np.int32
            )
            row, column = np.nonzero(found <= cutoff)
            bound = allowed[sizes[top + row] + sizes[start + column]]
            near = (found[row, column] <= bound) & (top + row < start + column)
            row, column = row[near], column[near]
            if row.size:
                one, two = order[top + row], order[start + column]
                yield in_order(one, two, found[row, column].astype(np.int64))


def measured(
    texts: Sequence[str],
    one: NDArray[np.int64],
    two: NDArray[np.int64],
    allowed: NDArray[np.int64],
) -> Iterator[Pairs]:
    """Those of some candidates that are pairs, with their distances.

    Args:
        texts: All texts.
        one: Positions of one side of each candidate.
        two: Of the other side.
        allowed: The largest distance of a pair by the sum of the lengths.

    Yields:
        One block, or none where there would be nothing in it.
    """
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    if not one.size:
        return
    left, right = ([texts[index] for index in side.tolist()] for side in (one, two))
    sizes = (np.fromiter(map(len, side), np.int64, count=one.size) for side in (left, right))
    bound = allowed[sum(sizes)]
    found = process.cpdist(
        left, right, scorer=Indel.distance, score_cutoff=int(bound.max()), dtype=np.int32
    )
    near = found <= bound
    if near.any():
        yield in_order(one[near], two[near], found[near].astype(np.int64))


def in_order(one: NDArray[np.int64], two: NDArray[np.int64], apart: NDArray[np.int64]) -> Pairs:
    """Pairs whose sides may stand either way round."""
    import numpy as np

    return Pairs(np.minimum(one, two), np.maximum(one, two), apart)


def _last_partner(sizes: NDArray[np.int64], longest: int, allowed: NDArray[np.int64]) -> int:
    """How many of the sorted lengths are at most that of the longest partner of a text."""
    import numpy as np

    # The distance is at least the difference of the lengths.
    lengths = np.arange(longest, int(sizes[-1]) + 1)
    partners = lengths[lengths - longest <= allowed[lengths + longest]]
    return int(np.searchsorted(sizes, partners[-1], side="right")) if partners.size else 0
