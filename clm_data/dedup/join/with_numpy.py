"""The join of tens of thousands of texts, with numpy alone.

Blocks of rows of one length, sorted by their group counts, are compared with blocks of each length
that a partner may have: all signatures of one with all signatures of the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clm_data.dedup.join.pairs import Pairs, ordered_pairs
from clm_data.dedup.join.signatures import PreparedTexts
from clm_data.dedup.join.with_rapidfuzz import verified_pairs

_ROWS = 128
_COLUMNS = 512
_BUFFER_SIZE = 1 << 16
_DENSE = 1 / 8
"""Share of candidates in a block from which measuring all of its pairs is faster."""
_SAMPLED_ROWS = 200

_Buffers = tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.bool_]]


class _Block(NamedTuple):
    """Rows of one length and columns of one length.

    Attributes:
        rows: First row and the row after the last.
        columns: The same for the columns.
        max_distance: The largest distance of a pair.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    max_distance: int

    @property
    def size(self) -> int:
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])


class NumpyJoin:
    """Finds pairs of prepared texts.

    Args:
        texts: The texts given to :func:`clm_data.dedup.join.signatures.prepare`.
        prepared: Its result.
    """

    def __init__(self, texts: Sequence[str], prepared: PreparedTexts) -> None:
        self._texts = texts
        self._order = prepared.order
        self._data = prepared.data
        self._keys = prepared.data.keys.tolist()
        self._key_starts = prepared.data.key_starts.tolist()
        self._lengths = np.unique(prepared.data.keys >> 2 * prepared.data.field_bits)

    def pairs(self, first: int, end: int) -> Iterator[Pairs]:
        """The pairs whose earlier row, in sorted order, is from ``first`` to before ``end``."""
        buffers = _buffers()
        rows: list[NDArray[np.int64]] = []
        columns: list[NDArray[np.int64]] = []
        count = 0
        for block in self._blocks(first, end):
            candidates = _candidates(self._data.signatures, block, buffers)
            if candidates.size > _DENSE * block.size:
                yield from self._all_pairs(block)
                continue
            row, column = _later_columns(block, candidates)
            rows.append(row)
            columns.append(column)
            count += row.size
            if count >= _BUFFER_SIZE:
                yield from self._verified(rows, columns)
                rows, columns, count = [], [], 0
        if count:
            yield from self._verified(rows, columns)

    def is_dense(self) -> bool:
        """Whether signatures exclude too few pairs to be worth comparing, judged by a sample.

        This is the case for low thresholds and for long texts.
        """
        buffers = _buffers()
        candidates = size = 0
        rows = len(self._data.signatures)
        for first in np.linspace(0, rows - 1, num=_SAMPLED_ROWS, dtype=np.int64).tolist():
            for block in self._blocks(first, first + 1):
                candidates += _candidates(self._data.signatures, block, buffers).size
                size += block.size
        return candidates > _DENSE * size

    def _all_pairs(self, block: _Block) -> Iterator[Pairs]:
        """The pairs of a block, by measuring all distances with one call of cdist."""
        from rapidfuzz import process
        from rapidfuzz.distance import Indel

        rows, columns = (
            [self._texts[place] for place in self._order[slice(*side)].tolist()]
            for side in (block.rows, block.columns)
        )
        cutoff = block.max_distance
        distances = process.cdist(
            rows, columns, scorer=Indel.distance, score_cutoff=cutoff, dtype=np.int32
        )
        row, column = _later_columns(block, np.flatnonzero(distances <= cutoff))
        if row.size:
            found = distances[row - block.rows[0], column - block.columns[0]].astype(np.int64)
            yield ordered_pairs(self._order[row], self._order[column], found)

    def _verified(
        self, rows: list[NDArray[np.int64]], columns: list[NDArray[np.int64]]
    ) -> Iterator[Pairs]:
        first, second = (self._order[np.concatenate(side)] for side in (rows, columns))
        return verified_pairs(self._texts, first, second, self._data.max_distances)

    def _blocks(self, first: int, end: int) -> Iterator[_Block]:
        """The blocks that may contain pairs."""
        field = self._data.field_bits
        mask = (1 << field) - 1
        key = bisect_left(self._key_starts, first + 1) - 1
        while first < end:
            length, low = self._keys[key] >> 2 * field, self._keys[key] >> field & mask
            length_end = self._key_starts[bisect_left(self._keys, (length + 1) << 2 * field)]
            stop = min(first + _ROWS, end, length_end)
            key = bisect_left(self._key_starts, stop) - 1
            high = self._keys[key] >> field & mask
            for other, bound in self._partner_lengths(length):
                longer = other - length
                deletions, insertions = (bound - longer) // 2, (bound + longer) // 2
                least = other << 2 * field | max(0, low - deletions) << field
                most = other << 2 * field | min(other, high + insertions) << field | mask
                begin = max(first + 1, self._key_starts[bisect_left(self._keys, least)])
                last = self._key_starts[bisect_left(self._keys, most + 1)]
                for column in range(begin, last, _COLUMNS):
                    yield _Block((first, stop), (column, min(column + _COLUMNS, last)), bound)
            first = stop
            key = bisect_left(self._key_starts, first + 1) - 1

    def _partner_lengths(self, length: int) -> list[tuple[int, int]]:
        """(length, largest distance of a pair) for each length from ``length`` that can pair."""
        others = self._lengths[np.searchsorted(self._lengths, length) :]
        bounds = self._data.max_distances[length + others]
        # A distance has the parity of the difference of the lengths.
        bounds -= (bounds - (others - length)) & 1
        possible = bounds >= others - length
        return list(zip(others[possible].tolist(), bounds[possible].tolist(), strict=True))


def _buffers() -> _Buffers:
    size = _ROWS * _COLUMNS
    return np.empty(size, np.uint64), np.empty(size, np.uint8), np.empty(size, np.bool_)


def _candidates(
    signatures: NDArray[np.uint64], block: _Block, buffers: _Buffers
) -> NDArray[np.int64]:
    """Flat positions in a block where the signatures differ in few enough bits."""
    height, width = block.rows[1] - block.rows[0], block.columns[1] - block.columns[0]
    flipped, bits = (buffer[: height * width].reshape(height, width) for buffer in buffers[:2])
    near = buffers[2][: height * width].reshape(height, width)
    rows, columns = signatures[slice(*block.rows), None], signatures[slice(*block.columns)]
    np.bitwise_xor(rows, columns, out=flipped)
    np.bitwise_count(flipped, out=bits)
    return np.flatnonzero(np.less_equal(bits, block.max_distance, out=near))


def _later_columns(
    block: _Block, places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the flat positions in a block at which the column is after the row."""
    row, column = np.divmod(places, block.columns[1] - block.columns[0])
    row += block.rows[0]
    column += block.columns[0]
    later = row < column
    return row[later], column[later]
