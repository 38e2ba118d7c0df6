"""The exact similarity join, by the method that is fastest for the number of texts."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from clm_data.dedup.join.pairs import MAX_TEXT_LENGTH, DistanceLimit, Pairs, ordered_pairs
from clm_data.dedup.join.with_rapidfuzz import rapidfuzz_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMPY_MIN_TEXTS = 6_000
"""Number of distinct texts from which comparing signatures is reliably faster than rapidfuzz."""
NUMBA_MIN_TEXTS = 60_000
"""Number of distinct texts from which compiled loops are worth the half second of loading them."""
_ROWS_PER_TASK = 1024
_BLOCK_SIZE = 1 << 16

Progress = Callable[[int, int], None]
"""Called with the amount done so far and the total."""
Method = Literal["rapidfuzz", "numpy", "numba"]
"""rapidfuzz on all pairs; signatures compared by numpy; signatures compared by compiled loops."""


class _PairFinder(Protocol):
    def pairs(self, first: int, end: int) -> Iterator[Pairs]: ...


@dataclass(frozen=True)
class DistinctTexts:
    """Texts without repetitions.

    Attributes:
        texts: The distinct texts, in order of first occurrence.
        index: int64, for each original text its position in ``texts``.
    """

    texts: Sequence[str]
    index: NDArray[np.int64]


def similarity_join(
    texts: Sequence[str],
    threshold: Fraction | float,
    *,
    inclusive: bool = False,
    threads: int | None = None,
    method: Method | None = None,
    progress: Progress | None = None,
) -> Iterator[Pairs]:
    """Find all pairs of texts with a similarity above a threshold: exactly those, none missed.

    Time is quadratic in the number of texts, with a small constant for short texts and high
    thresholds. Memory on top of the texts is 8 bytes per character, about 250 bytes per text and a
    few blocks of pairs; the pairs are never all in memory.

    Args:
        texts: Compared as they are, by code points.
        threshold: Similarity threshold, 0 to 1. The result is exact at any value, but signatures
            exclude fewer pairs at lower thresholds and for longer texts.
        inclusive: Whether texts at exactly the threshold are a pair.
        threads: Number of threads. If omitted, all available processors, except that numpy compares
            signatures in one thread: its steps are too short to gain from more.
        method: How to search; chosen by the number of distinct texts if omitted. All methods find
            the same pairs.
        progress: Called with the number of distinct texts compared so far, and in all.

    Yields:
        Non-empty blocks that contain each pair once. Their order depends on the texts, not on the
        number of threads.

    Raises:
        ValueError: The threshold is not between 0 and 1.
    """
    limit = DistanceLimit.at(threshold, inclusive=inclusive)
    if limit.max_distance(0) < 0:
        return
    distinct = distinct_texts(texts)
    found = _distinct_pairs(distinct.texts, limit, threads, method, progress)
    if len(distinct.texts) == len(texts):
        yield from found
    else:
        yield from _with_repetitions(distinct, found)


def distinct_texts(texts: Sequence[str]) -> DistinctTexts:
    """Group equal texts, in linear time."""
    import numpy as np

    unique = tuple(dict.fromkeys(texts))
    if len(unique) == len(texts):
        return DistinctTexts(unique, np.arange(len(texts)))
    positions = dict(zip(unique, range(len(unique)), strict=True))
    index = np.fromiter(map(positions.__getitem__, texts), dtype=np.int64, count=len(texts))
    return DistinctTexts(unique, index)


def _distinct_pairs(
    texts: Sequence[str],
    limit: DistanceLimit,
    threads: int | None,
    method: Method | None,
    progress: Progress | None,
) -> Iterator[Pairs]:
    """:func:`similarity_join` of distinct texts."""
    chosen = method or _fastest_method(texts)
    if chosen == "rapidfuzz" or not texts:
        yield from rapidfuzz_pairs(texts, limit)
        return
    from clm_data.dedup.join.signatures import prepare
    from clm_data.dedup.join.with_numpy import NumpyJoin

    prepared = prepare(texts, limit)
    numpy_join = NumpyJoin(texts, prepared)
    finder: _PairFinder = numpy_join
    dense = numpy_join.is_dense()
    if chosen == "numba" and (method or not dense):
        from clm_data.dedup.join.with_numba import NumbaJoin

        finder = NumbaJoin(texts, prepared)
    workers = threads or (1 if finder is numpy_join and not dense else _available_processors())
    for done, blocks in enumerate(_search(finder, len(texts), workers), start=1):
        yield from blocks
        if progress:
            progress(min(done * _ROWS_PER_TASK, len(texts)), len(texts))


def _fastest_method(texts: Sequence[str]) -> Method:
    if len(texts) < NUMPY_MIN_TEXTS or max(map(len, texts)) > MAX_TEXT_LENGTH:
        return "rapidfuzz"
    if len(texts) < NUMBA_MIN_TEXTS or find_spec("numba") is None:
        return "numpy"
    return "numba"


def _search(finder: _PairFinder, rows: int, workers: int) -> Iterator[list[Pairs]]:
    """The pairs of each task of rows, in order; a few tasks run ahead in other threads."""

    def pairs(first: int) -> list[Pairs]:
        return list(finder.pairs(first, min(first + _ROWS_PER_TASK, rows)))

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[list[Pairs]]] = deque()
        try:
            for first in range(0, rows, _ROWS_PER_TASK):
                waiting.append(pool.submit(pairs, first))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _available_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _with_repetitions(distinct: DistinctTexts, found: Iterator[Pairs]) -> Iterator[Pairs]:
    """Pairs of the original texts: those of equal texts, and those of similar distinct texts."""
    import numpy as np

    counts = np.bincount(distinct.index, minlength=len(distinct.texts))
    begins = np.cumsum(counts) - counts
    members = np.argsort(distinct.index, kind="stable")
    # Pair each member of a group with the members after it.
    places = np.arange(members.size)
    remaining = (begins + counts)[distinct.index[members]] - places - 1
    for item, place in _expand_ranges(places + 1, remaining):
        yield Pairs(members[item], members[place], np.zeros(item.size, np.int64))
    for block in found:
        for item, place in _expand_ranges(begins[block.left], counts[block.left]):
            one, partner, distance = members[place], block.right[item], block.distance[item]
            for at, other in _expand_ranges(begins[partner], counts[partner]):
                yield ordered_pairs(one[at], members[other], distance[at])


def _expand_ranges(
    begins: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Combine each item with every position of its range.

    Args:
        begins: First position of each item's range.
        counts: Length of each item's range.

    Yields:
        Non-empty blocks of items and positions, as parallel arrays.
    """
    import numpy as np

    totals = np.cumsum(counts)
    item = 0
    while item < len(counts):
        done = int(totals[item - 1]) if item else 0
        end = max(item + 1, int(np.searchsorted(totals, done + _BLOCK_SIZE, side="right")))
        items = np.repeat(np.arange(item, end), counts[item:end])
        if items.size:
            offsets = np.arange(items.size) - (totals - counts)[items] + done
            yield items, begins[items] + offsets
        item = end
