"""An incremental index of texts: which known texts are similar to a new one? Exact.

It uses the signatures of :mod:`clm_data.dedup.join.signatures` in a form that needs no corpus: 128
bits, with the bit of each occurrence of a character chosen by a fixed hash. Texts are grouped by
length. A query looks at the lengths that a pair may have, compares signatures there, and measures
the distance to the few texts that remain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from clm_data.dedup.join.pairs import DistanceLimit, indel_distance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LOW_64_BITS = (1 << 64) - 1


class Match(NamedTuple):
    """An indexed text that is similar to the query.

    Attributes:
        position: The number of texts added before it.
        ratio: Similarity, 0 to 1.
    """

    position: int
    ratio: float


@dataclass
class _LengthGroup:
    """The texts of one length: their positions and signatures, in arrays with room to grow."""

    signatures: NDArray[np.uint64]
    positions: list[int] = field(default_factory=list)

    def add(self, position: int, signature: tuple[int, int]) -> None:
        import numpy as np

        count = len(self.positions)
        if count == self.signatures.shape[1]:
            unused = np.empty_like(self.signatures)
            self.signatures = np.concatenate([self.signatures, unused], axis=1)
        self.signatures[:, count] = signature
        self.positions.append(position)

    def within(self, signature: tuple[int, int], max_bits: int) -> list[int]:
        """Positions of the texts whose signatures differ in at most ``max_bits`` bits."""
        import numpy as np

        used = self.signatures[:, : len(self.positions)]
        bits = np.bitwise_count(used[0] ^ np.uint64(signature[0]))
        bits += np.bitwise_count(used[1] ^ np.uint64(signature[1]))
        return [self.positions[index] for index in np.flatnonzero(bits <= max_bits).tolist()]


class SimilarityIndex:
    """An index of texts that finds those similar to a new one.

    Equivalent to the join: querying each text before adding it gives the pairs that
    :func:`clm_data.dedup.join.all_pairs.similarity_join` finds.

    Args:
        threshold: Similarity threshold, 0 to 1; the comparison is strict.
        texts: Texts to add first.
        inclusive: Whether texts at exactly the threshold match.
    """

    def __init__(
        self,
        threshold: Fraction | float,
        texts: Iterable[str] = (),
        *,
        inclusive: bool = False,
    ) -> None:
        self._limit = DistanceLimit.at(threshold, inclusive=inclusive)
        self._groups: dict[int, _LengthGroup] = {}
        self._texts: list[str] = []
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, position: int) -> str:
        return self._texts[position]

    def add(self, text: str) -> int:
        """Add a text, even if it has matches; returns its position."""
        import numpy as np

        position = len(self._texts)
        if len(text) not in self._groups:
            self._groups[len(text)] = _LengthGroup(np.empty((2, 4), np.uint64))
        self._groups[len(text)].add(position, _signature(text))
        self._texts.append(text)
        return position

    def matches(self, text: str) -> list[Match]:
        """All indexed texts that are a pair with ``text``, in the order they were added."""
        signature = _signature(text)
        found = []
        for length, group in self._groups.items():
            total = length + len(text)
            bound = self._limit.max_distance(total)
            if bound < abs(length - len(text)):
                continue
            for position in group.within(signature, bound):
                distance = indel_distance(text, self._texts[position], bound)
                if distance <= bound:
                    found.append(Match(position, (total - distance) / total if total else 1.0))
        return sorted(found)


def _signature(text: str) -> tuple[int, int]:
    """128 bits as two integers.

    Each occurrence of a character flips one bit, so an insertion or deletion flips one too.
    """
    word = 0
    for letter, count in Counter(text).items():
        for occurrence in range(count):
            mixed = ord(letter) * 0x9E3779B97F4A7C15 + occurrence * 0xC2B2AE3D27D4EB4F
            word ^= 1 << ((mixed & _LOW_64_BITS) >> 57)
    return word & _LOW_64_BITS, word >> 64
