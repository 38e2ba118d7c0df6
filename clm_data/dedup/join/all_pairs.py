"""The exact join of any number of texts: in the way that is fastest for so many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from clm_data.dedup.join.exact import LONGEST, Limit, Pairs, in_order, plain_pairs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGNED_FROM = 6_000
"""Different texts from which on comparing signatures is surely faster than the plain join."""
COMPILED_FROM = 60_000
"""Different texts from which on it pays to load the compiled loops, which takes half a second."""
_SPAN = 1024
_CHUNK = 1 << 16

Progress = Callable[[int, int], None]
Way = Literal["plain", "signed", "compiled"]
"""All against all by rapidfuzz; signatures compared by numpy; the same in compiled loops."""


class _Finder(Protocol):
    def pairs(self, first: int, end: int) -> Iterator[Pairs]: ...


@dataclass(frozen=True)
class Distinct:
    """The different ones among texts.

    Attributes:
        texts: In the order of their first occurrence.
        group: int64, for each given text the position of its equal in ``texts``.
    """

    texts: Sequence[str]
    group: NDArray[np.int64]


def similarity_join(
    texts: Sequence[str],
    threshold: Fraction | float,
    *,
    inclusive: bool = False,
    threads: int | None = None,
    way: Way | None = None,
    progress: Progress | None = None,
) -> Iterator[Pairs]:
    """All pairs of texts more similar than a threshold, none missed and none invented.

    Beside the texts this takes 8 bytes a character, about 250 a text and a few blocks of pairs; the
    pairs are never all held.

    Args:
        texts: Compared as they are given, code point by code point.
        threshold: 0 to 1, exact at any value. What is gained over measuring all pairs shrinks with
            lower thresholds and longer texts.
        inclusive: Whether a pair at exactly the threshold counts too.
        threads: How many to use. Where not given, all processors that this process may use; but one
            where numpy compares signatures, in steps that are too short to run side by side.
        way: How; that which suits the number of different texts where not given. The pairs are the
            same.
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
    found = distinct_pairs(unique.texts, limit, threads=threads, way=way, progress=progress)
    if len(unique.texts) == len(texts):
        yield from found
    else:
        yield from _expanded(unique, found)


def distinct(texts: Sequence[str]) -> Distinct:
    """Find equal texts; linear."""
    import numpy as np

    unique = tuple(dict.fromkeys(texts))
    if len(unique) == len(texts):
        return Distinct(unique, np.arange(len(texts)))
    places = dict(zip(unique, range(len(unique)), strict=True))
    groups = np.fromiter(map(places.__getitem__, texts), dtype=np.int64, count=len(texts))
    return Distinct(unique, groups)


def distinct_pairs(
    texts: Sequence[str],
    limit: Limit,
    *,
    threads: int | None = None,
    way: Way | None = None,
    progress: Progress | None = None,
) -> Iterator[Pairs]:
    """:func:`similarity_join` of texts of which no two are equal."""
    chosen = way or _way(texts)
    if chosen == "plain" or not texts:
        yield from plain_pairs(texts, limit)
        return
    from clm_data.dedup.join.signatures import prepare
    from clm_data.dedup.join.with_numpy import Signed

    rows = prepare(texts, limit)
    signed = Signed(texts, rows)
    finder: _Finder = signed
    dense = signed.is_dense()
    if chosen == "compiled" and (way or not dense):
        from clm_data.dedup.join.with_numba import Compiled

        finder = Compiled(texts, rows)
    workers = threads or (1 if finder is signed and not dense else _processors())
    for done, blocks in enumerate(_spans(finder, len(texts), workers), start=1):
        yield from blocks
        if progress:
            progress(min(done * _SPAN, len(texts)), len(texts))


def _way(texts: Sequence[str]) -> Way:
    if len(texts) < SIGNED_FROM or max(map(len, texts)) > LONGEST:
        return "plain"
    if len(texts) < COMPILED_FROM or find_spec("numba") is None:
        return "signed"
    return "compiled"


def _spans(finder: _Finder, rows: int, workers: int) -> Iterator[list[Pairs]]:
    """The pairs of each span of rows, in turn; a few spans are worked on ahead."""

    def pairs(first: int) -> list[Pairs]:
        return list(finder.pairs(first, min(first + _SPAN, rows)))

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[list[Pairs]]] = deque()
        try:
            for first in range(0, rows, _SPAN):
                waiting.append(pool.submit(pairs, first))
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
                yield in_order(one[at], members[other], apart[at])


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
