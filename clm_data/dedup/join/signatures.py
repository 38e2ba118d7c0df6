"""The signatures of the fast join: compare numbers instead of texts, only where lengths allow it.

Three facts, each exact, narrow the pairs down before any text is compared. ``d`` is the distance
that a pair of given lengths may have: as many insertions and deletions turn one text into the
other.

1. The signature of a text has 64 bits. Every occurrence of a character (the first ``e``, the
   second ``e``, ...) is assigned one bit, and flips it. One insertion or deletion adds or takes
   one occurrence and flips one bit, so the signatures of a pair differ in at most ``d`` bits.
2. Characters fall into three groups; one insertion or deletion changes one count by one. So the
   rows are sorted by length and by two of the counts, and compared with few runs of rows only.
3. What is left, a few pairs in ten thousand of short texts at 0.9, is verified by its longest
   common subsequence.

Nothing depends on the script or the language: Chinese and English rows part by length and signature
by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clm_data.dedup.join.exact import LONGEST, Limit

FIELD = LONGEST.bit_length()
"""Bits of a length or count in a sort key."""
_OCCURRENCES = 16
"""Occurrences of a character that are told apart; the seventeenth counts as a first again."""
_GROUPS = 3
"""Groups of characters; the key holds the counts of the first two, the third is what remains."""
_CHUNK = 1 << 16
_CHARACTERS = 1 << 18
_CODE_POINTS = 0x110000
_SAMPLE = 4_000
_MOVED = 128
_ROUNDS = 2


class Texts(NamedTuple):
    """All rows, one after the other.

    Attributes:
        codes: The characters as numbers below ``alphabet``, commonest first.
        starts: Where each row begins; one more than there are rows.
        alphabet: Number of different characters.
    """

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]
    alphabet: int


class Sorted(NamedTuple):
    """What a scan sees of rows that are sorted by key.

    Attributes:
        words: Their signatures.
        keys: The different keys, ascending: length, group 0 count and group 1 count of a row, in
            ``field`` bits each.
        cells: Where the rows of each key begin; one more than there are keys.
        allowed: The largest distance of a pair by the sum of the lengths.
        field: :data:`FIELD`.
    """

    words: NDArray[np.uint64]
    keys: NDArray[np.int64]
    cells: NDArray[np.int64]
    allowed: NDArray[np.int64]
    field: int = FIELD


@dataclass(frozen=True)
class Rows:
    """Rows made ready for a scan.

    Attributes:
        order: Where each sorted row stood before.
        texts: As they stood before.
        data: Sorted.
    """

    order: NDArray[np.int64]
    texts: Texts
    data: Sorted


def prepare(texts: Sequence[str], limit: Limit) -> Rows:
    """Encode, sign and sort texts for a scan.

    Args:
        texts: Not empty; none longer than :data:`clm_data.dedup.join.exact.LONGEST`.
        limit: What makes a pair.
    """
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    codes, alphabet = _encode(texts, int(starts[-1]))
    given = Texts(codes, starts, alphabet)
    sample = _sample(given)
    words, keys = _signed(given, _bits(sample), _groups(sample))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    cells = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return Rows(
        order,
        given,
        Sorted(
            words=words[order],
            keys=keys[cells],
            cells=np.append(cells, len(texts)),
            allowed=limit.table(2 * int(sizes.max())),
        ),
    )


def _encode(texts: Sequence[str], total: int) -> tuple[NDArray[np.uint32], int]:
    """All characters as numbers from 0, commonest first, and how many different ones there are."""
    codes = np.empty(total, np.uint32)
    frequency = np.zeros(_CODE_POINTS, np.int64)
    at = highest = 0
    for top in range(0, len(texts), _CHUNK):
        points = np.frombuffer(
            "".join(texts[top : top + _CHUNK]).encode("utf-32-le", "surrogatepass"), np.dtype("<u4")
        )
        codes[at : at + points.size] = points
        counts = np.bincount(points)
        frequency[: counts.size] += counts
        highest = max(highest, counts.size)
        at += points.size
    present = np.flatnonzero(frequency[:highest])
    ranked = present[np.argsort(-frequency[present], kind="stable")]
    number = np.zeros(highest, np.uint32)
    number[ranked] = np.arange(ranked.size, dtype=np.uint32)
    for top in range(0, total, _CHARACTERS):
        codes[top : top + _CHARACTERS] = number[codes[top : top + _CHARACTERS]]
    return codes, int(ranked.size)


def _sample(texts: Texts) -> Texts:
    """A few thousand rows from all over, to see what tells rows apart."""
    rows = np.unique(np.linspace(0, len(texts.starts) - 2, num=_SAMPLE, dtype=np.int64))
    begins, ends = texts.starts[rows], texts.starts[rows + 1]
    codes = np.concatenate(
        [texts.codes[begin:end] for begin, end in zip(begins, ends, strict=True)]
    )
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends - begins)])
    return Texts(codes, starts, texts.alphabet)


def _signed(
    texts: Texts, bits: NDArray[np.uint8], groups: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Signature and sort key of every row.

    Args:
        texts: All rows.
        bits: The bit that each occurrence of each character flips.
        groups: The group, 0 to 2, of each character.
    """
    sizes = np.diff(texts.starts)
    words = np.zeros(sizes.size, np.uint64)
    keys = sizes << FIELD
    for top, end in _runs(texts):
        starts = texts.starts[top : end + 1] - texts.starts[top]
        flips = np.uint64(1) << bits[_occurrences(texts, top, end)].astype(np.uint64)
        filled = np.flatnonzero(sizes[top:end])
        if filled.size:
            words[top + filled] = np.bitwise_xor.reduceat(flips, starts[filled])
        group = groups[texts.codes[texts.starts[top] : texts.starts[end]]]
        for number in range(_GROUPS - 1):
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(group == number)])
            keys[top:end] += before[starts[1:]] - before[starts[:-1]]
            if number == 0:
                keys[top:end] <<= FIELD
    return words, keys


def _runs(texts: Texts) -> Iterator[tuple[int, int]]:
    """(first, end) of rows that have, but for one long row, a bounded number of characters."""
    rows = len(texts.starts) - 1
    top = 0
    while top < rows:
        room = texts.starts[top] + _CHARACTERS
        end = max(top + 1, int(np.searchsorted(texts.starts, room, side="right")) - 1)
        yield top, min(end, rows)
        top = end


def _occurrences(texts: Texts, top: int, end: int) -> NDArray[np.int64]:
    """The characters of a run, row by row but in no order within a row, with their occurrence.

    Returns:
        For each: code times :data:`_OCCURRENCES`, and how many equal ones its row has before it.
    """
    starts = texts.starts[top : end + 1]
    shift = max(1, int(texts.alphabet - 1).bit_length())
    keys = np.repeat(np.arange(end - top, dtype=np.int64) << shift, np.diff(starts))
    keys |= texts.codes[starts[0] : starts[-1]]
    keys.sort()
    places = np.arange(keys.size)
    first = np.where(np.concatenate([[True], keys[1:] != keys[:-1]])[: keys.size], places, 0)
    places -= np.maximum.accumulate(first)
    return (keys & ((1 << shift) - 1)) * _OCCURRENCES + places % _OCCURRENCES


def _bits(sample: Texts) -> NDArray[np.uint8]:
    """The bit of each occurrence of each character: those that tell rows apart share least.

    An occurrence that half of the rows have tells most, one that all or none have nothing; in that
    order they are dealt out to the bits in turn.
    """
    rows = len(sample.starts) - 1
    seen = np.zeros(sample.alphabet * _OCCURRENCES, np.int64)
    for top, end in _runs(sample):
        seen += np.bincount(_occurrences(sample, top, end), minlength=seen.size)
    # First occurrences before second ones, as most characters are in no row of the sample.
    telling = (seen * (rows - seen)).reshape(-1, _OCCURRENCES).T
    bits = np.empty(seen.size, np.uint8)
    bits[np.argsort(-telling.ravel(), kind="stable")] = np.arange(seen.size) % 64
    return bits.reshape(telling.shape).T.ravel()


def _groups(sample: Texts) -> NDArray[np.uint8]:
    """The group of each character: such that rows of one length differ much in the group counts.

    The commonest characters are moved from group to group as long as that raises the product of
    the variances of the group counts; characters that come together stand together then.
    """
    groups = (np.arange(sample.alphabet) % _GROUPS).astype(np.uint8)
    scatter = _scatter(sample)
    place = groups[: len(scatter)]
    member = place[:, None] == np.arange(_GROUPS)
    shared = scatter @ member
    spread = (member * shared).sum(axis=0)
    for character in list(range(len(scatter))) * _ROUNDS:
        own, alone = place[character], scatter[character, character]
        spread[own] += alone - 2 * shared[character, own]
        shared[:, own] -= scatter[character]
        grown = spread + alone + 2 * shared[character]
        gain = np.log(np.maximum(grown, 1e-9)) - np.log(np.maximum(spread, 1e-9))
        new = int(np.argmax(gain))
        spread[new] = grown[new]
        shared[:, new] += scatter[character]
        place[character] = new
    return groups


def _scatter(sample: Texts) -> NDArray[np.float64]:
    """Covariance of the counts of the commonest characters among rows of one length."""
    sizes = np.diff(sample.starts)
    width = min(sample.alphabet, _MOVED)
    row = np.repeat(np.arange(sizes.size), sizes)
    common = sample.codes < width
    cells = row[common] * width + sample.codes[common]
    counts = np.bincount(cells, minlength=sizes.size * width).reshape(sizes.size, width)
    order = np.argsort(sizes, kind="stable")
    _, first, many = np.unique(sizes[order], return_index=True, return_counts=True)
    counts = counts[order].astype(np.float32)
    means = np.add.reduceat(counts, first) / many[:, None].astype(np.float32)
    counts -= np.repeat(means, many, axis=0)
    # Not by ``@``: the threads that it starts spin on for longer than this takes.
    return np.asarray(np.einsum("ri,rj->ij", counts, counts) / sizes.size, np.float64)
