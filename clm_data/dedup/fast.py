"""The exact join of any number of texts: the plain one for few, the compiled one for many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING

from clm_data.dedup.exact import Limit, Pairs, distance, plain_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clm_data.dedup.blocking import Rows

FAST_FROM = 12_000
"""Different texts from which on loading the compiled loops pays: that takes 0.6 s, as does the
plain join of so many short prompts."""
_SPAN = 1024
_CANDIDATES = 1 << 18
_MARKED = 1024
"""Longest row whose common subsequences the compiled loop finds; rapidfuzz does it for others."""
_CHUNK = 1 << 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Distinct:
    """The different ones among texts.

    Attributes:
        texts: In the order of their first occurrence.
        group: int64, for each given text the position of its equal in ``texts``.
    """

    texts: Sequence[str]
    group: NDArray[np.int64]


def join_codes(
    texts: Sequence[str],
    threshold: Fraction | float,
    *,
    inclusive: bool = False,
    threads: int | None = None,
    fast_from: int = FAST_FROM,
    progress: Progress | None = None,
) -> Iterator[Pairs]:
    """All pairs of texts more similar than a threshold, none missed and none invented.

    Beside the texts this takes 8 bytes a character, about 250 a text and a few blocks of pairs; the
    pairs are never all held.

    Args:
        texts: Compared as they are given, code point by code point.
        threshold: 0 to 1. Exact at any value, fast from 0.7 on.
        inclusive: Whether a pair at exactly the threshold counts too.
        threads: How many to use; all processors that this process may use where not given.
        fast_from: Number of different texts from which on the compiled loops are used.
        progress: Told how many of how many different texts have met their partners.

    Yields:
        Non-empty blocks; each pair once. The order of the pairs depends on the texts, and not on
        the number of threads.

    Raises:
        ValueError: The threshold is not between 0 and 1.
    """
    limit = Limit.of(threshold, inclusive=inclusive)
    if limit.allowed(0) < 0:
        return
    unique = distinct(texts)
    found = distinct_pairs(
        unique.texts, limit, threads=threads, fast_from=fast_from, progress=progress
    )
    if len(unique.texts) == len(texts):
        yield from found
    else:
        yield from _expanded(unique, found)


def distinct(texts: Sequence[str]) -> Distinct:
    """Find equal texts; linear."""
    import numpy as np

    first: dict[str, int] = {}
    group = (first.setdefault(text, len(first)) for text in texts)
    groups = np.fromiter(group, dtype=np.int64, count=len(texts))
    return Distinct(tuple(first), groups)


def distinct_pairs(
    texts: Sequence[str],
    limit: Limit,
    *,
    threads: int | None = None,
    fast_from: int = FAST_FROM,
    progress: Progress | None = None,
) -> Iterator[Pairs]:
    """:func:`join_codes` of texts of which no two are equal; the plain join where they are few."""
    if len(texts) < fast_from or find_spec("numba") is None:
        yield from plain_pairs(texts, limit)
        return
    from clm_data.dedup import blocking, kernels

    if max(map(len, texts), default=0) > kernels.MASK:
        yield from plain_pairs(texts, limit)
        return
    rows = blocking.prepare(texts, limit)
    for done, blocks in enumerate(_spans(texts, rows, threads or _processors()), start=1):
        yield from blocks
        if progress:
            progress(min(done * _SPAN, len(texts)), len(texts))


def _spans(texts: Sequence[str], rows: Rows, workers: int) -> Iterator[list[Pairs]]:
    """The pairs of each span of rows, in turn; a few spans are worked on ahead."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[list[Pairs]]] = deque()
        try:
            for first in range(0, len(texts), _SPAN):
                waiting.append(pool.submit(_join_span, texts, rows, first))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _join_span(texts: Sequence[str], rows: Rows, first: int) -> list[Pairs]:
    """The pairs whose first row, in the order of the scan, is one of a span."""
    import numpy as np

    from clm_data.dedup import kernels

    blocks: list[Pairs] = []
    end = min(first + _SPAN, len(texts))
    room = _CANDIDATES
    found = kernels.Found(np.empty(room, np.int64), np.empty(room, np.int64), np.zeros(1, np.int64))
    while first < end:
        reached = kernels.scan(rows.data, first, end, found)
        count = int(found.count[0])
        if reached == first:
            room *= 4
            found = kernels.Found(np.empty(room, np.int64), np.empty(room, np.int64), found.count)
        if count:
            blocks.extend(_verified(texts, rows, found.left[:count], found.right[:count]))
        first = reached
    return blocks


def _verified(
    texts: Sequence[str], rows: Rows, left: NDArray[np.int64], right: NDArray[np.int64]
) -> Iterator[Pairs]:
    import numpy as np

    from clm_data.dedup import kernels

    allowed, starts, order = rows.data.allowed, rows.texts.starts, rows.order
    short = starts[left + 1] - starts[left] <= _MARKED
    one, two = left[short], right[short]
    apart = np.empty_like(one)
    kept = kernels.verify(rows.texts, allowed, one, two, apart)
    if kept:
        yield _in_order(order[one[:kept]], order[two[:kept]], apart[:kept])
    one, two = order[left[~short]], order[right[~short]]
    measured = (_distance(texts[i], texts[j], allowed) for i, j in zip(one, two, strict=True))
    apart = np.fromiter(measured, dtype=np.int64, count=one.size)
    near = apart >= 0
    if near.any():
        yield _in_order(one[near], two[near], apart[near])


def _distance(left: str, right: str, allowed: NDArray[np.int64]) -> int:
    """Distance of a pair, or -1 where the two are none."""
    bound = int(allowed[len(left) + len(right)])
    found = distance(left, right, bound)
    return found if found <= bound else -1


def _in_order(one: NDArray[np.int64], two: NDArray[np.int64], apart: NDArray[np.int64]) -> Pairs:
    import numpy as np

    return Pairs(np.minimum(one, two), np.maximum(one, two), apart)


def _expanded(unique: Distinct, found: Iterator[Pairs]) -> Iterator[Pairs]:
    """Pairs of distinct texts, and of equal ones, as pairs of the texts as given."""
    import numpy as np

    sizes = np.bincount(unique.group, minlength=len(unique.texts))
    begins = np.cumsum(sizes) - sizes
    members = np.argsort(unique.group, kind="stable")
    # Each member with those behind it in its group: they are equal.
    places = np.arange(members.size)
    behind = (begins + sizes)[unique.group[members]] - places - 1
    for item, place in _each(places + 1, behind):
        yield Pairs(members[item], members[place], np.zeros(item.size, np.int64))
    for block in found:
        for item, place in _each(begins[block.left], sizes[block.left]):
            one, partner, apart = members[place], block.right[item], block.distance[item]
            for at, other in _each(begins[partner], sizes[partner]):
                yield _in_order(one[at], members[other], apart[at])


def _each(
    begins: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Each item with every position of its range, in blocks.

    Args:
        begins: Where the range of an item begins.
        counts: How long it is.

    Yields:
        Items and positions, as parallel arrays, none of them empty.
    """
    import numpy as np

    totals = np.cumsum(counts)
    item = 0
    while item < len(counts):
        done = int(totals[item - 1]) if item else 0
        end = max(item + 1, int(np.searchsorted(totals, done + _CHUNK, side="right")))
        items = np.repeat(np.arange(item, end), counts[item:end])
        if items.size:
            offsets = np.arange(items.size) - (totals - counts)[items] + done
            yield items, begins[items] + offsets
        item = end
