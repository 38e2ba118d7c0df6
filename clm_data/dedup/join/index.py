"""The incremental index: is this text new against everything known? Exact, one text at a time.

It uses the signatures of :mod:`clm_data.dedup.join.signatures` in a form that needs no corpus: 128
bits, the bit of an occurrence drawn by a fixed hash. Texts stand on shelves by length, so a
question looks at the lengths that a pair may have, compares signatures there, and measures the
few that remain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from clm_data.dedup.join.exact import Limit, distance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_HALF = (1 << 64) - 1


class Match(NamedTuple):
    """A known text that is more similar to the asked one than the threshold.

    Attributes:
        position: Which one: how many texts were added before it.
        ratio: Similarity, 0 to 1.
    """

    position: int
    ratio: float


@dataclass
class _Shelf:
    """The texts of one length: their positions and signatures, with room to grow."""

    words: NDArray[np.uint64]
    positions: list[int] = field(default_factory=list)

    def put(self, position: int, words: tuple[int, int]) -> None:
        import numpy as np

        count = len(self.positions)
        if count == self.words.shape[1]:
            self.words = np.concatenate([self.words, np.empty_like(self.words)], axis=1)
        self.words[:, count] = words
        self.positions.append(position)

    def within(self, words: tuple[int, int], bound: int) -> list[int]:
        """Positions whose signatures differ in at most ``bound`` bits."""
        import numpy as np

        used = self.words[:, : len(self.positions)]
        apart = np.bitwise_count(used[0] ^ np.uint64(words[0]))
        apart += np.bitwise_count(used[1] ^ np.uint64(words[1]))
        return [self.positions[index] for index in np.flatnonzero(apart <= bound).tolist()]


class SimilarityIndex:
    """Known texts that can be asked for the twins of a new one.

    Equal to the join: asking for each text before adding it gives the pairs that
    :func:`clm_data.dedup.join.all_pairs.similarity_join` finds among them.

    Args:
        threshold: 0 to 1; a pair must be strictly over it.
        texts: Texts to begin with.
        inclusive: Whether a pair at exactly the threshold counts too.
    """

    def __init__(
        self,
        threshold: Fraction | float,
        texts: Iterable[str] = (),
        *,
        inclusive: bool = False,
    ) -> None:
        self._limit = Limit.of(threshold, inclusive=inclusive)
        self._shelves: dict[int, _Shelf] = {}
        self._texts: list[str] = []
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, position: int) -> str:
        return self._texts[position]

    def add(self, text: str) -> int:
        """Make a text known, twin or not; returns its position."""
        import numpy as np

        position = len(self._texts)
        if len(text) not in self._shelves:
            self._shelves[len(text)] = _Shelf(np.empty((2, 4), np.uint64))
        self._shelves[len(text)].put(position, _signature(text))
        self._texts.append(text)
        return position

    def matches(self, text: str) -> list[Match]:
        """All known texts that make a pair with this one, in the order in which they were added."""
        words = _signature(text)
        found = []
        for length, shelf in self._shelves.items():
            size = length + len(text)
            bound = self._limit.allowed(size)
            if bound < abs(length - len(text)):
                continue
            for position in shelf.within(words, bound):
                apart = distance(text, self._texts[position], bound)
                if apart <= bound:
                    found.append(Match(position, (size - apart) / size if size else 1.0))
        return sorted(found)


def _signature(text: str) -> tuple[int, int]:
    """128 bits; each occurrence of a character flips one, so an insertion or deletion does too."""
    word = 0
    for letter, count in Counter(text).items():
        for occurrence in range(count):
            mixed = ord(letter) * 0x9E3779B97F4A7C15 + occurrence * 0xC2B2AE3D27D4EB4F
            word ^= 1 << ((mixed & _HALF) >> 57)
    return word & _HALF, word >> 64
