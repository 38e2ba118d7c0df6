"""Signatures: 64-bit numbers that exclude most pairs of texts without comparing the texts.

Three exact facts narrow down the pairs before any text is compared. Let ``d`` be the largest
distance of a pair of given lengths, that is, the number of insertions and deletions that turn one
text into the other.

1. Each occurrence of a character in a text (the first ``e``, the second ``e``, ...) is assigned one
   of 64 bits and flips it in the text's signature. One insertion or deletion adds or removes one
   occurrence, so it flips one bit: the signatures of a pair differ in at most ``d`` bits.
2. Characters are divided into three groups. One insertion or deletion changes the count of one
   group by one. Rows are sorted by length and two of the counts, so that a row is compared with a
   few ranges of rows only.
3. The remaining candidates, a few in ten thousand for short texts at 0.9, are verified by their
   longest common subsequence.

Nothing here depends on script or language.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clm_data.dedup.join.pairs import MAX_TEXT_LENGTH, DistanceLimit

FIELD_BITS = MAX_TEXT_LENGTH.bit_length()
"""Bits of a length or count in a sort key."""
_OCCURRENCES = 16
"""Occurrences of a character with a bit of their own; the 17th shares the bit of the first."""
_GROUPS = 3
"""Groups of characters. A key has the counts of two; length and these two give the third."""
_TEXTS_PER_CHUNK = 1 << 16
_CHARACTERS_PER_CHUNK = 1 << 18
_CODE_POINTS = 0x110000
_SAMPLE_SIZE = 4_000
_REGROUPED_CHARACTERS = 128
_REGROUPING_ROUNDS = 2


class EncodedTexts(NamedTuple):
    """All texts as one array of character codes.

    Attributes:
        codes: uint32, the characters of all texts, numbered by falling frequency from 0.
        starts: int64, the start of each text in ``codes``, and the end of the last.
        alphabet: Number of different characters.
    """

    codes: NDArray[np.uint32]
    starts: NDArray[np.int64]
    alphabet: int


class SortedSignatures(NamedTuple):
    """Signatures of texts sorted by key.

    Attributes:
        signatures: uint64, one per text.
        keys: int64, the distinct keys in ascending order. A key is the length, the count of group 0
            and the count of group 1, in ``field_bits`` bits each.
        key_starts: int64, the first row of each key, and the number of rows.
        max_distances: int64, the largest distance of a pair, by the sum of the lengths.
        field_bits: :data:`FIELD_BITS`.
    """

    signatures: NDArray[np.uint64]
    keys: NDArray[np.int64]
    key_starts: NDArray[np.int64]
    max_distances: NDArray[np.int64]
    field_bits: int = FIELD_BITS


@dataclass(frozen=True)
class PreparedTexts:
    """Texts that are ready for a search.

    Attributes:
        order: int64, the original position of each sorted row.
        texts: The texts in their original order.
        data: Signatures in sorted order.
    """

    order: NDArray[np.int64]
    texts: EncodedTexts
    data: SortedSignatures


def prepare(texts: Sequence[str], limit: DistanceLimit) -> PreparedTexts:
    """Encode texts, compute their signatures and sort them.

    Args:
        texts: Not empty; none longer than :data:`clm_data.dedup.join.pairs.MAX_TEXT_LENGTH`.
        limit: What makes a pair.
    """
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    codes, alphabet = _encode(texts, int(starts[-1]))
    encoded = EncodedTexts(codes, starts, alphabet)
    sample = _sample(encoded)
    signatures, keys = _signatures(encoded, _occurrence_bits(sample), _character_groups(sample))
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    key_starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return PreparedTexts(
        order,
        encoded,
        SortedSignatures(
            signatures=signatures[order],
            keys=keys[key_starts],
            key_starts=np.append(key_starts, len(texts)),
            max_distances=limit.max_distances(2 * int(lengths.max())),
        ),
    )


def _encode(texts: Sequence[str], total: int) -> tuple[NDArray[np.uint32], int]:
    """The characters of all texts, numbered by falling frequency from 0, and how many differ."""
    codes = np.empty(total, np.uint32)
    frequency = np.zeros(_CODE_POINTS, np.int64)
    at = highest = 0
    for top in range(0, len(texts), _TEXTS_PER_CHUNK):
        joined = "".join(texts[top : top + _TEXTS_PER_CHUNK])
        points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
        codes[at : at + points.size] = points
        counts = np.bincount(points)
        frequency[: counts.size] += counts
        highest = max(highest, counts.size)
        at += points.size
    present = np.flatnonzero(frequency[:highest])
    ranked = present[np.argsort(-frequency[present], kind="stable")]
    number = np.zeros(highest, np.uint32)
    number[ranked] = np.arange(ranked.size, dtype=np.uint32)
    for top in range(0, total, _CHARACTERS_PER_CHUNK):
        codes[top : top + _CHARACTERS_PER_CHUNK] = number[codes[top : top + _CHARACTERS_PER_CHUNK]]
    return codes, int(ranked.size)


def _sample(texts: EncodedTexts) -> EncodedTexts:
    """A few thousand evenly spaced texts, to learn which characters distinguish texts."""
    rows = np.unique(np.linspace(0, len(texts.starts) - 2, num=_SAMPLE_SIZE, dtype=np.int64))
    begins, ends = texts.starts[rows], texts.starts[rows + 1]
    codes = np.concatenate(
        [texts.codes[begin:end] for begin, end in zip(begins, ends, strict=True)]
    )
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends - begins)])
    return EncodedTexts(codes, starts, texts.alphabet)


def _signatures(
    texts: EncodedTexts, bits: NDArray[np.uint8], groups: NDArray[np.uint8]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Signature and sort key of every text.

    Args:
        texts: All texts.
        bits: The bit of each occurrence of each character, shape (alphabet * 16,).
        groups: The group of each character, 0 to 2, shape (alphabet,).
    """
    lengths = np.diff(texts.starts)
    signatures = np.zeros(lengths.size, np.uint64)
    keys = lengths << FIELD_BITS
    for top, end in _chunks(texts):
        starts = texts.starts[top : end + 1] - texts.starts[top]
        flips = np.uint64(1) << bits[_occurrences(texts, top, end)].astype(np.uint64)
        not_empty = np.flatnonzero(lengths[top:end])
        if not_empty.size:
            signatures[top + not_empty] = np.bitwise_xor.reduceat(flips, starts[not_empty])
        group = groups[texts.codes[texts.starts[top] : texts.starts[end]]]
        for number in range(_GROUPS - 1):
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(group == number)])
            keys[top:end] += before[starts[1:]] - before[starts[:-1]]
            if number == 0:
                keys[top:end] <<= FIELD_BITS
    return signatures, keys


def _chunks(texts: EncodedTexts) -> Iterator[tuple[int, int]]:
    """(first, end) of chunks of texts with a bounded number of characters, or one long text."""
    rows = len(texts.starts) - 1
    top = 0
    while top < rows:
        limit = texts.starts[top] + _CHARACTERS_PER_CHUNK
        end = max(top + 1, int(np.searchsorted(texts.starts, limit, side="right")) - 1)
        yield top, min(end, rows)
        top = end


def _occurrences(texts: EncodedTexts, top: int, end: int) -> NDArray[np.int64]:
    """Number the occurrences of each character within each text of a chunk.

    Returns:
        ``code * 16 + n`` for the n-th occurrence (from 0, modulo 16) of a character in its text;
        text by text, but sorted by code within a text.
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


def _occurrence_bits(sample: EncodedTexts) -> NDArray[np.uint8]:
    """Assign a bit to each occurrence of each character.

    An occurrence that half of the texts have is the most informative, one that all or none have is
    not. Occurrences are assigned to the 64 bits round-robin, the most informative first, so that
    informative ones share bits as little as possible.
    """
    rows = len(sample.starts) - 1
    seen = np.zeros(sample.alphabet * _OCCURRENCES, np.int64)
    for top, end in _chunks(sample):
        seen += np.bincount(_occurrences(sample, top, end), minlength=seen.size)
    # Transposed to put first occurrences first: most characters are in no text of the sample.
    informative = (seen * (rows - seen)).reshape(-1, _OCCURRENCES).T
    bits = np.empty(seen.size, np.uint8)
    bits[np.argsort(-informative.ravel(), kind="stable")] = np.arange(seen.size) % 64
    return bits.reshape(informative.shape).T.ravel()


def _character_groups(sample: EncodedTexts) -> NDArray[np.uint8]:
    """Assign a group to each character so that the group counts of equally long texts vary a lot.

    The most frequent characters are moved between groups as long as that increases the product of
    the variances of the group counts; characters that occur together end up in one group.
    """
    groups = (np.arange(sample.alphabet) % _GROUPS).astype(np.uint8)
    covariance = _covariance(sample)
    group = groups[: len(covariance)]
    member = group[:, None] == np.arange(_GROUPS)
    shared = covariance @ member
    spread = (member * shared).sum(axis=0)
    for character in list(range(len(covariance))) * _REGROUPING_ROUNDS:
        old, alone = group[character], covariance[character, character]
        spread[old] += alone - 2 * shared[character, old]
        shared[:, old] -= covariance[character]
        grown = spread + alone + 2 * shared[character]
        gain = np.log(np.maximum(grown, 1e-9)) - np.log(np.maximum(spread, 1e-9))
        new = int(np.argmax(gain))
        spread[new] = grown[new]
        shared[:, new] += covariance[character]
        group[character] = new
    return groups


def _covariance(sample: EncodedTexts) -> NDArray[np.float64]:
    """Covariance of the counts of the most frequent characters, among texts of equal length."""
    sizes = np.diff(sample.starts)
    width = min(sample.alphabet, _REGROUPED_CHARACTERS)
    row = np.repeat(np.arange(sizes.size), sizes)
    common = sample.codes < width
    cells = row[common] * width + sample.codes[common]
    counts = np.bincount(cells, minlength=sizes.size * width).reshape(sizes.size, width)
    order = np.argsort(sizes, kind="stable")
    _, first, many = np.unique(sizes[order], return_index=True, return_counts=True)
    counts = counts[order].astype(np.float32)
    means = np.add.reduceat(counts, first) / many[:, None].astype(np.float32)
    counts -= np.repeat(means, many, axis=0)
    # Not ``@``: its threads would keep spinning for longer than this takes.
    return np.asarray(np.einsum("ri,rj->ij", counts, counts) / sizes.size, np.float64)
