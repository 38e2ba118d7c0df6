"""The compiled loops of the fast join. Importing this module imports numba; nothing else does.

They are compiled at the first call and kept on disk: beside this file, or where that cannot be
written in the user's cache folder, or where neither can, not at all. All release the interpreter
lock, so threads run them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numba
import numpy as np

_TASK_ROWS = 32

P = ParamSpec("P")
R = TypeVar("R")


class Found(NamedTuple):
    """Where candidates are written.

    Attributes:
        left: int64, probe rows.
        right: int64, their partners.
        count: int64, one number: candidates so far; beyond the room they are counted only.
    """

    left: Any
    right: Any
    count: Any


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder to keep it in
        return numba.njit(nogil=True)(function)


@_compiled
def popcount(word: Any) -> Any:
    """Number of ones in an unsigned 64-bit word (the compiler knows the idiom: one instruction)."""
    one = np.uint64(1)
    word = word - ((word >> one) & np.uint64(0x5555555555555555))
    twos = np.uint64(0x3333333333333333)
    word = (word & twos) + ((word >> np.uint64(2)) & twos)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@_compiled
def reorder(texts: Any, order: Any) -> Any:
    """The codes and starts of :class:`~clm_data.dedup.join.signatures.Texts` in another order."""
    codes = np.empty_like(texts.codes)
    starts = np.zeros_like(texts.starts)
    for new in range(len(order)):
        old = texts.starts[order[new]]
        size = texts.starts[order[new] + 1] - old
        starts[new + 1] = starts[new] + size
        # Not a slice: numba takes seconds to compile one.
        for at in range(size):
            codes[starts[new] + at] = texts.codes[old + at]
    return codes, starts


@_compiled
def _first(values: Any, least: int) -> Any:
    """Position of the first of ascending values that is at least ``least``."""
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        if values[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


@_compiled
def _compare(words: Any, rows: Any, columns: Any, bound: int, found: Any) -> None:
    """Write the pairs of two ranges of rows whose signatures differ in at most ``bound`` bits."""
    count = found.count[0]
    for row in range(rows[0], rows[1]):
        word = words[row]
        for column in range(max(columns[0], row + 1), columns[1]):
            if popcount(word ^ words[column]) <= bound:
                if count < len(found.left):
                    found.left[count] = row
                    found.right[count] = column
                count += 1
    found.count[0] = count


@_compiled
def _scan_rows(data: Any, key: int, rows: Any, found: Any) -> None:
    """Candidates of a range of rows that share one key."""
    field, mask = data.field, (1 << data.field) - 1
    size, ones, twos = key >> 2 * field, key >> field & mask, key & mask
    longest = data.keys[-1] >> 2 * field
    for other in range(size, longest + 1):
        more = other - size
        # A distance has the parity of the difference of the lengths.
        bound = data.allowed[size + other]
        bound -= (bound - more) & 1
        if bound < more:
            continue
        gone, new = (bound - more) // 2, (bound + more) // 2
        for ones_other in range(max(0, ones - gone), min(other, ones + new) + 1):
            left_over = more - (ones_other - ones)
            spare = bound - abs(ones_other - ones) - abs(left_over)
            if spare < 0:
                continue
            low = max(0, twos + min(0, left_over) - spare // 2)
            high = twos + max(0, left_over) + spare // 2
            prefix = other << 2 * field | ones_other << field
            begin = data.cells[_first(data.keys, prefix | low)]
            end = data.cells[_first(data.keys, (prefix | high) + 1)]
            if end > rows[0]:
                _compare(data.words, rows, (begin, end), bound, found)


@_compiled
def scan(data: Any, first: int, end: int, found: Any) -> Any:
    """Candidates of the probe rows from ``first`` to ``end``, with partners behind them.

    They are what lengths, group counts and signatures cannot exclude.

    Args:
        data: Any :class:`~clm_data.dedup.join.signatures.Sorted`.
        first: First probe row.
        end: One after the last.
        found: Receives the candidates; its count is set.

    Returns:
        The probe row to go on with. ``first`` again: there is too little room for its candidates.
    """
    found.count[0] = 0
    cell = _first(data.cells, first + 1) - 1
    while first < end:
        while data.cells[cell + 1] <= first:
            cell += 1
        before = found.count[0]
        last = min(end, data.cells[cell + 1], first + _TASK_ROWS)
        _scan_rows(data, data.keys[cell], (first, last), found)
        if found.count[0] > len(found.left):
            found.count[0] = before
            break
        first = last
    return first


@_compiled
def _mark(texts: Any, row: int, masks: Any, present: bool) -> Any:
    """Set or clear, for each character of a row, the bits of the places where it stands."""
    begin, end = texts.starts[row], texts.starts[row + 1]
    words = (end - begin + 63) // 64
    for at in range(begin, end):
        place = at - begin
        cell = texts.codes[at] * words + place // 64
        bit = np.uint64(1) << np.uint64(place % 64) if present else np.uint64(0)
        masks[cell] = masks[cell] | bit if present else bit
    return end - begin


@_compiled
def _common(texts: Any, row: int, masks: Any, size: int, state: Any) -> Any:
    """Length of the longest common subsequence of a row and the marked one of ``size``.

    The bit-parallel recurrence of Hyyrö (2004): one addition per character and 64 places.
    """
    words = (size + 63) // 64
    for word in range(words):
        state[word] = ~np.uint64(0)
    for at in range(texts.starts[row], texts.starts[row + 1]):
        base = texts.codes[at] * words
        carry = np.uint64(0)
        for word in range(words):
            old = state[word]
            hit = old & masks[base + word]
            part = old + hit
            total = part + carry
            carry = np.uint64(part < old) | np.uint64(total < part)
            state[word] = total | (old & ~hit)
    common = 0
    for word in range(words):
        places = min(64, size - 64 * word)
        common += places - popcount(state[word] & (~np.uint64(0) >> np.uint64(64 - places)))
    return common


@_compiled
def verify(texts: Any, allowed: Any, left: Any, right: Any, distance: Any) -> Any:
    """Keep the candidates that are pairs, in their order, and note their distances.

    Args:
        texts: In the order of the scan. The longest row in ``left`` decides how much memory is
            taken: 8 bytes per character of the alphabet and 64 places.
        allowed: As in :class:`~clm_data.dedup.join.signatures.Sorted`.
        left: Candidates; the pairs are moved to its front.
        right: As ``left``.
        distance: int64, receives the distances.

    Returns:
        Number of pairs.
    """
    longest = 0
    for row in left:
        longest = max(longest, texts.starts[row + 1] - texts.starts[row])
    state = np.zeros((longest + 63) // 64, np.uint64)
    masks = np.zeros(texts.alphabet * len(state), np.uint64)
    kept, marked, size = 0, -1, 0
    for index in range(len(left)):
        row, other = left[index], right[index]
        if row != marked:
            if marked >= 0:
                _mark(texts, marked, masks, False)
            size = _mark(texts, row, masks, True)
            marked = row
        total = size + texts.starts[other + 1] - texts.starts[other]
        apart = total - 2 * _common(texts, other, masks, size, state)
        if apart <= allowed[total]:
            left[kept], right[kept], distance[kept] = row, other, apart
            kept += 1
    return kept
