"""The fast join of many rows: the compiled loops of :mod:`kernels`, which this module loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from clm_data.dedup.join import kernels
from clm_data.dedup.join.exact import Pairs, in_order, measured
from clm_data.dedup.join.signatures import Rows, Texts

_CANDIDATES = 1 << 18
_MARKED = 1024
"""Longest row whose common subsequences the compiled loop finds; rapidfuzz does it for others."""


class Compiled:
    """Finds the pairs of prepared rows.

    Args:
        texts: As they were given to :func:`clm_data.dedup.join.signatures.prepare`.
        rows: What it made of them.
    """

    def __init__(self, texts: Sequence[str], rows: Rows) -> None:
        self._given = texts
        self._order = rows.order
        self._data = rows.data
        codes, starts = kernels.reorder(rows.texts, rows.order)
        self._texts = Texts(codes, starts, rows.texts.alphabet)

    def pairs(self, first: int, end: int) -> Iterator[Pairs]:
        """The pairs whose first row, in the order of the scan, is one from ``first`` to ``end``."""
        found = _room(_CANDIDATES)
        while first < end:
            reached = kernels.scan(self._data, first, end, found)
            count = int(found.count[0])
            if count:
                yield from self._verified(found.left[:count], found.right[:count])
            if reached == first:
                found = _room(4 * len(found.left))
            first = reached

    def _verified(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> Iterator[Pairs]:
        order, starts = self._order, self._texts.starts
        short = starts[left + 1] - starts[left] <= _MARKED
        one, two = left[short], right[short]
        apart = np.empty_like(one)
        kept = kernels.verify(self._texts, self._data.allowed, one, two, apart)
        if kept:
            yield in_order(order[one[:kept]], order[two[:kept]], apart[:kept])
        one, two = order[left[~short]], order[right[~short]]
        yield from measured(self._given, one, two, self._data.allowed)


def _room(size: int) -> kernels.Found:
    return kernels.Found(np.empty(size, np.int64), np.empty(size, np.int64), np.zeros(1, np.int64))
