"""The fast exact join: compare signatures instead of texts, and only where lengths allow it.

Three facts, each exact, narrow the pairs down before any text is compared. ``d`` is the distance
that a pair of given lengths may have: as many insertions and deletions turn one text into the
other.

1. The signature of a text has 64 bits. Every occurrence of a character (the first ``e``, the
   second ``e``, ...) is assigned one bit, and flips it. One insertion or deletion adds or takes
   one occurrence and flips one bit, so the signatures of a pair differ in at most ``d`` bits.
2. Characters fall into three groups; one insertion or deletion changes one count by one. So the
   rows are sorted by length and by two of the counts, and compared with few runs of rows only.
3. What is left, a few pairs in ten thousand, is verified by its longest common subsequence.

Equal texts are joined once and expanded at the end. Nothing depends on the script or the language:
Chinese and English rows part by length and signature by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_data.dedup import kernels
from clm_data.dedup.exact import Limit

_CHUNK = 1 << 16
_CODE_POINTS = 0x110000
_SAMPLE = 4_000
_MOVED = 128
_ROUNDS = 4


@dataclass(frozen=True)
class Rows:
    """Rows made ready: sorted for the scan, and where each stood before."""

    order: NDArray[np.int64]
    texts: kernels.Texts
    data: kernels.Sorted


def prepare(texts: Sequence[str], limit: Limit) -> Rows:
    """Encode, sign and sort texts for the scan.

    Args:
        texts: Not empty; none longer than ``kernels.MASK``.
        limit: What makes a pair.
    """
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    codes, alphabet = _encode(texts, int(starts[-1]))
    given = kernels.Texts(codes, starts, alphabet)
    bits = _bits(kernels.occurrences(given), len(texts))
    words, ones, twos = kernels.signatures(given, bits, _groups(given))
    keys = sizes << 2 * kernels.FIELD | ones << kernels.FIELD | twos
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    cells = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    codes, starts = kernels.reorder(given, order)
    return Rows(
        order,
        kernels.Texts(codes, starts, alphabet),
        kernels.Sorted(
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
    at = 0
    for top in range(0, len(texts), _CHUNK):
        points = np.frombuffer(
            "".join(texts[top : top + _CHUNK]).encode("utf-32-le", "surrogatepass"), np.dtype("<u4")
        )
        codes[at : at + points.size] = points
        frequency += np.bincount(points, minlength=_CODE_POINTS)
        at += points.size
    present = np.flatnonzero(frequency)
    ranked = present[np.argsort(-frequency[present], kind="stable")]
    number = np.zeros(_CODE_POINTS, np.uint32)
    number[ranked] = np.arange(ranked.size, dtype=np.uint32)
    for top in range(0, total, 1 << 20):
        codes[top : top + (1 << 20)] = number[codes[top : top + (1 << 20)]]
    return codes, int(ranked.size)


def _bits(seen: NDArray[np.int64], rows: int) -> NDArray[np.uint8]:
    """The bit of each occurrence of each character: those that tell rows apart share least.

    An occurrence that half of the rows have tells most, one that all or none have nothing; in that
    order they are dealt out to the bits in turn.
    """
    telling = (seen * (rows - seen)).ravel()
    bits = np.empty(telling.size, np.uint8)
    bits[np.argsort(-telling, kind="stable")] = np.arange(telling.size) % 64
    return bits.reshape(seen.shape)


def _groups(texts: kernels.Texts) -> NDArray[np.uint8]:
    """The group of each character: such that rows of one length differ much in the group counts.

    The commonest characters are moved from group to group as long as that raises the product of
    the variances of the group counts; characters that come together stand together then.
    """
    groups = (np.arange(texts.alphabet) % kernels.GROUPS).astype(np.uint8)
    scatter = _scatter(texts)
    place = groups[: len(scatter)]
    member = place[:, None] == np.arange(kernels.GROUPS)
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


def _scatter(texts: kernels.Texts) -> NDArray[np.float64]:
    """Covariance of the counts of the commonest characters among rows of one length, sampled."""
    rows = np.linspace(0, len(texts.starts) - 2, num=_SAMPLE, dtype=np.int64)
    rows = np.unique(rows)
    width = min(texts.alphabet, _MOVED)
    counts = np.zeros((rows.size, width))
    for index, row in enumerate(rows.tolist()):
        codes = texts.codes[texts.starts[row] : texts.starts[row + 1]]
        counts[index] = np.bincount(codes[codes < width], minlength=width)
    sizes = texts.starts[rows + 1] - texts.starts[rows]
    _, length, many = np.unique(sizes, return_inverse=True, return_counts=True)
    means = np.zeros((many.size, width))
    np.add.at(means, length, counts)
    counts -= (means / many[:, None])[length]
    return counts.T @ counts / rows.size
