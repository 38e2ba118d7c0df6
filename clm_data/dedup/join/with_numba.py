"""The join of many texts, by compiled loops. Importing this module imports numba."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from clm_data.dedup.join import kernels
from clm_data.dedup.join.pairs import Pairs, ordered_pairs
from clm_data.dedup.join.signatures import EncodedTexts, PreparedTexts
from clm_data.dedup.join.with_rapidfuzz import verified_pairs

_BUFFER_SIZE = 1 << 18
_MAX_COMPILED_LENGTH = 1024
"""Longest text that the compiled loop verifies; longer ones are left to rapidfuzz."""


class NumbaJoin:
    """Finds pairs of prepared texts.

    Args:
        texts: The texts given to :func:`clm_data.dedup.join.signatures.prepare`.
        prepared: Its result.
    """

    def __init__(self, texts: Sequence[str], prepared: PreparedTexts) -> None:
        self._given = texts
        self._order = prepared.order
        self._data = prepared.data
        codes, starts = kernels.reorder(prepared.texts, prepared.order)
        self._texts = EncodedTexts(codes, starts, prepared.texts.alphabet)

    def pairs(self, first: int, end: int) -> Iterator[Pairs]:
        """The pairs whose earlier row, in sorted order, is from ``first`` to before ``end``."""
        found = _buffer(_BUFFER_SIZE)
        while first < end:
            reached = kernels.find_candidates(self._data, first, end, found)
            count = int(found.total[0])
            if count:
                yield from self._verified(found.left[:count], found.right[:count])
            if reached == first:
                found = _buffer(4 * len(found.left))
            first = reached

    def _verified(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Iterator[Pairs]:
        order, starts = self._order, self._texts.starts
        short = starts[left + 1] - starts[left] <= _MAX_COMPILED_LENGTH
        one, two = left[short], right[short]
        distance = np.empty_like(one)
        count = kernels.verify(self._texts, self._data.max_distances, one, two, distance)
        if count:
            yield ordered_pairs(order[one[:count]], order[two[:count]], distance[:count])
        one, two = order[left[~short]], order[right[~short]]
        yield from verified_pairs(self._given, one, two, self._data.max_distances)


def _buffer(size: int) -> kernels.Candidates:
    return kernels.Candidates(
        np.empty(size, np.int64), np.empty(size, np.int64), np.zeros(1, np.int64)
    )
