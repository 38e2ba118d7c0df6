"""The compiled loops of the join. Only :mod:`clm_data.dedup.join.with_numba` imports this module.

Importing it imports numba. Functions are compiled at their first call; the machine code is cached
next to this file, else in the user's cache folder, else nowhere. All functions release the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from clm_data.dedup.join.signatures import EncodedTexts, SortedSignatures

_ROWS_PER_COMPARISON = 32

P = ParamSpec("P")
R = TypeVar("R")


class Candidates(NamedTuple):
    """A buffer for pairs of rows that may be similar.

    Attributes:
        left: int64, rows.
        right: int64, later rows.
        total: int64, one number: candidates so far. Those beyond the size of the buffer are counted
            but not stored.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    total: NDArray[np.int64]


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no writable cache folder
        return numba.njit(nogil=True)(function)


@_compiled
def popcount(word: np.uint64) -> np.int64:
    """Number of ones in an unsigned 64-bit word; the compiler turns it into one instruction."""
    one = np.uint64(1)
    word = word - ((word >> one) & np.uint64(0x5555555555555555))
    twos = np.uint64(0x3333333333333333)
    word = (word & twos) + ((word >> np.uint64(2)) & twos)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@_compiled
def reorder(
    texts: EncodedTexts, order: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """``codes`` and ``starts`` of the texts in another order."""
    codes = np.empty_like(texts.codes)
    starts = np.zeros_like(texts.starts)
    for new in range(len(order)):
        old = texts.starts[order[new]]
        size = texts.starts[order[new] + 1] - old
        starts[new + 1] = starts[new] + size
        # A loop, since numba takes seconds to compile a slice.
        for at in range(size):
            codes[starts[new] + at] = texts.codes[old + at]
    return codes, starts


@_compiled
def _lower_bound(values: NDArray[np.int64], least: int) -> int:
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
def _compare_signatures(
    signatures: NDArray[np.uint64],
    rows: tuple[int, int],
    columns: tuple[int, int],
    max_bits: int,
    found: Candidates,
) -> None:
    """Add the pairs of two ranges of rows whose signatures differ in at most ``max_bits`` bits."""
    count = found.total[0]
    for row in range(rows[0], rows[1]):
        signature = signatures[row]
        for column in range(max(columns[0], row + 1), columns[1]):
            if popcount(signature ^ signatures[column]) <= max_bits:
                if count < len(found.left):
                    found.left[count] = row
                    found.right[count] = column
                count += 1
    found.total[0] = count


@_compiled
def _scan_rows(data: SortedSignatures, key: int, rows: tuple[int, int], found: Candidates) -> None:
    """Add the candidates of a range of rows that share one sort key."""
    field, mask = data.field_bits, (1 << data.field_bits) - 1
    length, first_count, second_count = key >> 2 * field, key >> field & mask, key & mask
    longest = data.keys[-1] >> 2 * field
    for other in range(length, longest + 1):
        longer = other - length
        # A distance has the parity of the difference of the lengths.
        bound = data.max_distances[length + other]
        bound -= (bound - longer) & 1
        if bound < longer:
            continue
        deletions, insertions = (bound - longer) // 2, (bound + longer) // 2
        least, most = max(0, first_count - deletions), min(other, first_count + insertions)
        for other_count in range(least, most + 1):
            change = other_count - first_count
            remaining = longer - change
            spare = bound - abs(change) - abs(remaining)
            if spare < 0:
                continue
            low = max(0, second_count + min(0, remaining) - spare // 2)
            high = second_count + max(0, remaining) + spare // 2
            prefix = other << 2 * field | other_count << field
            begin = data.key_starts[_lower_bound(data.keys, prefix | low)]
            end = data.key_starts[_lower_bound(data.keys, (prefix | high) + 1)]
            if end > rows[0]:
                _compare_signatures(data.signatures, rows, (begin, end), bound, found)


@_compiled
def find_candidates(data: SortedSignatures, first: int, end: int, found: Candidates) -> int:
    """Find the pairs that lengths, group counts and signatures cannot exclude.

    Args:
        data: The signatures of all rows.
        first: The first row to search partners for.
        end: The row after the last one.
        found: Receives pairs of these rows and later rows; its total is reset first.

    Returns:
        The row to continue with; ``first`` if the buffer is too small for the candidates of its
        range.
    """
    found.total[0] = 0
    key = _lower_bound(data.key_starts, first + 1) - 1
    while first < end:
        while data.key_starts[key + 1] <= first:
            key += 1
        before = found.total[0]
        last = min(end, data.key_starts[key + 1], first + _ROWS_PER_COMPARISON)
        _scan_rows(data, data.keys[key], (first, last), found)
        if found.total[0] > len(found.left):
            found.total[0] = before
            break
        first = last
    return first


@_compiled
def _set_masks(texts: EncodedTexts, row: int, masks: NDArray[np.uint64], present: bool) -> int:
    """Set (or clear) for each character the bits of its positions in a row; returns its length."""
    begin, end = texts.starts[row], texts.starts[row + 1]
    words = (end - begin + 63) // 64
    for at in range(begin, end):
        place = at - begin
        cell = texts.codes[at] * words + place // 64
        bit = np.uint64(1) << np.uint64(place % 64) if present else np.uint64(0)
        masks[cell] = masks[cell] | bit if present else bit
    return int(end - begin)


@_compiled
def _lcs_length(
    texts: EncodedTexts, row: int, masks: NDArray[np.uint64], size: int, state: NDArray[np.uint64]
) -> int:
    """Length of the longest common subsequence of a row and the row of the masks.

    The bit-parallel recurrence of Hyyrö (2004): one addition per character and 64 positions.

    Args:
        texts: All rows.
        row: One row.
        masks: Character masks of the other row, by :func:`_set_masks`.
        size: Length of the other row.
        state: A buffer of one word per 64 positions.
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
        common += places - int(popcount(state[word] & (~np.uint64(0) >> np.uint64(64 - places))))
    return common


@_compiled
def verify(
    texts: EncodedTexts,
    max_distances: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    distance: NDArray[np.int64],
) -> int:
    """Move the candidates that are pairs to the front, in their order, with their distances.

    Memory is 8 bytes per character of the alphabet and 64 characters of the longest row in
    ``left``.

    Args:
        texts: All rows, in the order of the signatures.
        max_distances: As in :class:`~clm_data.dedup.join.signatures.SortedSignatures`.
        left: Rows of the candidates; modified.
        right: Their partners; modified.
        distance: int64, receives the distances.

    Returns:
        Number of pairs.
    """
    longest = 0
    for row in left:
        longest = max(longest, texts.starts[row + 1] - texts.starts[row])
    state = np.zeros((longest + 63) // 64, np.uint64)
    masks = np.zeros(texts.alphabet * len(state), np.uint64)
    pairs, masked, size = 0, -1, 0
    for index in range(len(left)):
        row, other = left[index], right[index]
        if row != masked:
            if masked >= 0:
                _set_masks(texts, masked, masks, False)
            size = _set_masks(texts, row, masks, True)
            masked = row
        total = size + texts.starts[other + 1] - texts.starts[other]
        indel = total - 2 * _lcs_length(texts, other, masks, size, state)
        if indel <= max_distances[total]:
            left[pairs], right[pairs], distance[pairs] = row, other, indel
            pairs += 1
    return pairs
