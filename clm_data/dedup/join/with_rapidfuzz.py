"""The join by `rapidfuzz.process.cdist`, which needs no signatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from clm_data.dedup.join.pairs import DistanceLimit, Pairs, ordered_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS = 512
_COLUMNS = 8192


def rapidfuzz_pairs(texts: Sequence[str], limit: DistanceLimit) -> Iterator[Pairs]:
    """All pairs within a limit, by comparing every two texts of similar length.

    Takes quadratic time; the fastest method for a few thousand texts.

    Yields:
        Non-empty blocks. Their order depends on the texts only.
    """
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    order = np.argsort(lengths, kind="stable")
    by_length = [texts[index] for index in order.tolist()]
    lengths = lengths[order]
    limits = limit.max_distances(2 * int(lengths[-1])) if texts else np.zeros(0, np.int64)
    for top in range(0, len(by_length), _ROWS):
        rows = by_length[top : top + _ROWS]
        end = _partners_end(lengths, int(lengths[top + len(rows) - 1]), limits)
        for start in range(top, end, _COLUMNS):
            columns = by_length[start : min(start + _COLUMNS, end)]
            cutoff = int(limits[lengths[top + len(rows) - 1] + lengths[start + len(columns) - 1]])
            distances = process.cdist(
                rows, columns, scorer=Indel.distance, score_cutoff=cutoff, dtype=np.int32
            )
            row, column = np.nonzero(distances <= cutoff)
            bounds = limits[lengths[top + row] + lengths[start + column]]
            is_pair = (distances[row, column] <= bounds) & (top + row < start + column)
            row, column = row[is_pair], column[is_pair]
            if row.size:
                first, second = order[top + row], order[start + column]
                yield ordered_pairs(first, second, distances[row, column].astype(np.int64))


def verified_pairs(
    texts: Sequence[str],
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    max_distances: NDArray[np.int64],
) -> Iterator[Pairs]:
    """The candidates that are pairs, with their distances.

    Args:
        texts: All texts.
        first: Positions of one text of each candidate.
        second: Positions of the other text.
        max_distances: The largest distance of a pair, by the sum of the lengths.

    Yields:
        One block; none if no candidate is a pair.
    """
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    if not first.size:
        return
    left, right = ([texts[index] for index in side.tolist()] for side in (first, second))
    lengths = (np.fromiter(map(len, side), np.int64, count=first.size) for side in (left, right))
    bounds = max_distances[sum(lengths)]
    distances = process.cpdist(
        left, right, scorer=Indel.distance, score_cutoff=int(bounds.max()), dtype=np.int32
    )
    is_pair = distances <= bounds
    if is_pair.any():
        yield ordered_pairs(first[is_pair], second[is_pair], distances[is_pair].astype(np.int64))


def _partners_end(
    lengths: NDArray[np.int64], longest: int, max_distances: NDArray[np.int64]
) -> int:
    """How many texts, sorted by length, are short enough to pair with one of length ``longest``."""
    import numpy as np

    # The distance is at least the difference of the lengths.
    longer = np.arange(longest, int(lengths[-1]) + 1)
    partners = longer[longer - longest <= max_distances[longer + longest]]
    return int(np.searchsorted(lengths, partners[-1], side="right")) if partners.size else 0
