"""The fast join of some tens of thousands of rows, with numpy alone.

Runs of rows of one length, sorted by group counts, are compared with the runs of each length that a
partner may have, all signatures of the one with all of the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clm_data.dedup.join.exact import Pairs, in_order, measured
from clm_data.dedup.join.signatures import Rows

_ROWS = 128
_COLUMNS = 512
_CANDIDATES = 1 << 16
_DENSE = 1 / 8
"""Share of near signatures in a run from which on measuring all of its pairs at once is faster."""
_SAMPLED = 200


class _Run(NamedTuple):
    """Rows of one length against rows of one length.

    Attributes:
        rows: First, and one after the last.
        columns: The same of their partners.
        bound: The largest distance of a pair.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    bound: int

    @property
    def size(self) -> int:
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])


class Signed:
    """Finds the pairs of prepared rows.

    Args:
        texts: As they were given to :func:`clm_data.dedup.join.signatures.prepare`.
        rows: What it made of them.
    """

    def __init__(self, texts: Sequence[str], rows: Rows) -> None:
        self._texts = texts
        self._order = rows.order
        self._data = rows.data
        self._keys = rows.data.keys.tolist()
        self._cells = rows.data.cells.tolist()
        self._lengths = np.unique(rows.data.keys >> 2 * rows.data.field)

    def pairs(self, first: int, end: int) -> Iterator[Pairs]:
        """The pairs whose first row, in the order of the scan, is one from ``first`` to ``end``."""
        buffers = _buffers()
        left: list[NDArray[np.int64]] = []
        right: list[NDArray[np.int64]] = []
        count = 0
        for run in self._runs(first, end):
            near = _near(self._data.words, run, buffers)
            if near.size > _DENSE * run.size:
                yield from self._all(run)
                continue
            row, column = _behind(run, near)
            left.append(row)
            right.append(column)
            count += row.size
            if count >= _CANDIDATES:
                yield from self._verified(left, right)
                left, right, count = [], [], 0
        if count:
            yield from self._verified(left, right)

    def is_dense(self) -> bool:
        """Whether signatures exclude so few pairs that measuring them all at once is faster.

        So it is with low thresholds, and with long texts. Told from a sample of the rows.
        """
        buffers = _buffers()
        near = size = 0
        rows = len(self._data.words)
        for first in np.linspace(0, rows - 1, num=_SAMPLED, dtype=np.int64).tolist():
            for run in self._runs(first, first + 1):
                near += _near(self._data.words, run, buffers).size
                size += run.size
        return near > _DENSE * size

    def _all(self, run: _Run) -> Iterator[Pairs]:
        """The pairs of a run by measuring all of it: in bulk that takes less time for each."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        rows, columns = (
            [self._texts[place] for place in self._order[slice(*side)].tolist()]
            for side in (run.rows, run.columns)
        )
        found = process.cdist(
            rows, columns, scorer=Indel.distance, score_cutoff=run.bound, dtype=np.int32
        )
        one, two = _behind(run, np.flatnonzero(found <= run.bound))
        if one.size:
            apart = found[one - run.rows[0], two - run.columns[0]].astype(np.int64)
            yield in_order(self._order[one], self._order[two], apart)

    def _verified(
        self, left: list[NDArray[np.int64]], right: list[NDArray[np.int64]]
    ) -> Iterator[Pairs]:
        one, two = (self._order[np.concatenate(side)] for side in (left, right))
        return measured(self._texts, one, two, self._data.allowed)

    def _runs(self, first: int, end: int) -> Iterator[_Run]:
        """What to compare."""
        field = self._data.field
        mask = (1 << field) - 1
        cell = bisect_left(self._cells, first + 1) - 1
        while first < end:
            length, low = self._keys[cell] >> 2 * field, self._keys[cell] >> field & mask
            of_length = self._cells[bisect_left(self._keys, (length + 1) << 2 * field)]
            stop = min(first + _ROWS, end, of_length)
            cell = bisect_left(self._cells, stop) - 1
            high = self._keys[cell] >> field & mask
            for other, bound in self._partners(length):
                more = other - length
                gone, new = (bound - more) // 2, (bound + more) // 2
                least = other << 2 * field | max(0, low - gone) << field
                most = other << 2 * field | min(other, high + new) << field | mask
                begin = max(first + 1, self._cells[bisect_left(self._keys, least)])
                last = self._cells[bisect_left(self._keys, most + 1)]
                for column in range(begin, last, _COLUMNS):
                    yield _Run((first, stop), (column, min(column + _COLUMNS, last)), bound)
            first = stop
            cell = bisect_left(self._cells, first + 1) - 1

    def _partners(self, length: int) -> list[tuple[int, int]]:
        """(length, distance) of longer texts that may make a pair, with the distance at most."""
        others = self._lengths[np.searchsorted(self._lengths, length) :]
        bounds = self._data.allowed[length + others]
        # A distance has the parity of the difference of the lengths.
        bounds -= (bounds - (others - length)) & 1
        near = bounds >= others - length
        return list(zip(others[near].tolist(), bounds[near].tolist(), strict=True))


def _buffers() -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.bool_]]:
    size = _ROWS * _COLUMNS
    return np.empty(size, np.uint64), np.empty(size, np.uint8), np.empty(size, np.bool_)


def _near(
    words: NDArray[np.uint64],
    run: _Run,
    buffers: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.bool_]],
) -> NDArray[np.int64]:
    """Where in a run, counted row by row, the signatures are near enough."""
    height, width = run.rows[1] - run.rows[0], run.columns[1] - run.columns[0]
    flipped, apart = (buffer[: height * width].reshape(height, width) for buffer in buffers[:2])
    near = buffers[2][: height * width].reshape(height, width)
    np.bitwise_xor(words[slice(*run.rows), None], words[slice(*run.columns)], out=flipped)
    np.bitwise_count(flipped, out=apart)
    return np.flatnonzero(np.less_equal(apart, run.bound, out=near))


def _behind(run: _Run, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and their partners at places of a run, without those that are not behind their row."""
    row, column = np.divmod(places, run.columns[1] - run.columns[0])
    row += run.rows[0]
    column += run.columns[0]
    behind = row < column
    return row[behind], column[behind]
