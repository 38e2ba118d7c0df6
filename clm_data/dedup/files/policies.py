"""Which rows stay: what a policy makes of the pairs that the join finds.

Rows are looked at in an order of precedence: that of the file, or the better score first. A row is
removed when a row that *stays* comes before it and is its twin; so a removed row takes no other
with it. With subjects, only twins that have the same one are removed for each other; a row whose
twin has another subject stays and is flagged for review: «世界上最大的海湾是» and
«世界上最大的海峡是» are two facts.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from clm_data.dedup.join.all_pairs import join_codes
from clm_data.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEEP_FIRST = "keep-first"
KEEP_BEST = "keep-best"
BY_SUBJECT = "by-subject"
POLICIES = (KEEP_FIRST, KEEP_BEST, BY_SUBJECT)

MOST_PAIRS = 20_000_000
"""Pairs of different texts that are held at most: 64 bytes each."""
CLOSEST = 10
"""How many of the twins of a flagged row are named."""
UNKNOWN = -1
"""Of a text: nothing to compare. Of a subject: not given, so equal to no other."""

Progress = Callable[[int, int], None]
_Kept = dict[int, dict[int, tuple[int, int]]]
"""(rank, row) by text and subject, in order of rank; an unknown subject is a key of its own."""


class NearDuplicate(NamedTuple):
    """A row that another one is too similar to.

    Attributes:
        row: Its position.
        ratio: Similarity, 0 to 1.
        view: In which of the views.
    """

    row: int
    ratio: float
    view: int


class Removal(NamedTuple):
    """A row that does not stay, and the closest of the rows that stay and come before it."""

    row: int
    twin: NearDuplicate


class Review(NamedTuple):
    """A row that stays although it has twins before it: their subjects differ, or are not known.

    Attributes:
        row: Its position.
        twins: How many rows that stay and come before it are its twins; one that is so in two views
            counts twice.
        closest: The closest of them, at most :data:`CLOSEST`.
    """

    row: int
    twins: int
    closest: tuple[NearDuplicate, ...]


class Cluster(NamedTuple):
    """A row that stays and all that were removed for it, in the order of the file."""

    representative: int
    removed: tuple[Removal, ...]


@dataclass
class View:
    """One text of every row: a field, or several joined. Equal texts are held once.

    Attributes:
        texts: The different ones, in the order of their first row.
        units: For each row the position of its text, or :data:`UNKNOWN`.
    """

    texts: list[str] = field(default_factory=list)
    units: array[int] = field(default_factory=lambda: array("q"))
    _known: dict[str, int] = field(default_factory=dict)

    def add(self, text: str | None) -> None:
        """The text of the next row; None: it has none, and is compared with no other."""
        if text is None:
            self.units.append(UNKNOWN)
            return
        unit = self._known.setdefault(text, len(self.texts))
        if unit == len(self.texts):
            self.texts.append(text)
        self.units.append(unit)

    def text(self, row: int) -> str:
        """The text of a row; empty where it has none."""
        unit = self.units[row]
        return "" if unit == UNKNOWN else self.texts[unit]


@dataclass(frozen=True)
class Outcome:
    """What is to become of the rows.

    Attributes:
        stays: For each row 1 or 0.
        removed: In the order of the file.
        review: In the order of the file.
    """

    stays: bytearray
    removed: tuple[Removal, ...]
    review: tuple[Review, ...]

    @property
    def pairs_to_review(self) -> int:
        """How many pairs of rows are flagged."""
        return sum(review.twins for review in self.review)

    def clusters(self) -> Iterator[Cluster]:
        """Every row for which others were removed, in the order of the file."""
        members: dict[int, list[Removal]] = {}
        for removal in self.removed:
            members.setdefault(removal.twin.row, []).append(removal)
        for representative in sorted(members):
            yield Cluster(representative, tuple(members[representative]))


def decide(
    views: Sequence[View],
    threshold: float,
    *,
    scores: Sequence[float] | None = None,
    subjects: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Which rows stay, and for which rows the others go.

    Two rows are twins when they are equal or more similar than the threshold in one view.

    Args:
        views: Of the same rows, at least one.
        threshold: 0 to 1, without 1; a pair must be strictly over it.
        scores: Of each row: the higher goes before the lower; equal ones in the order of the file.
        subjects: Of each row, as a number; equal ones are equal, :data:`UNKNOWN` equals none.
        progress: Told how many of how many different texts of a view have met their partners.

    Raises:
        UserError: There are more than :data:`MOST_PAIRS` pairs.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold {threshold} is not from 0 to below 1")
    search = _Search([_Neighbours(view.texts, threshold, progress) for view in views], views)
    rows = len(views[0].units)
    stays = bytearray(b"\1") * rows
    removed = []
    review = []
    for rank, row in enumerate(_precedence(rows, scores)):
        subject = 0 if subjects is None else subjects[row]
        twin = search.twin(row, subject)
        if twin is not None:
            stays[row] = 0
            removed.append(Removal(row, twin))
            continue
        if subjects is not None and (flagged := search.others(row)):
            review.append(flagged)
        search.keep(row, rank, subject)
    return Outcome(stays, tuple(sorted(removed)), tuple(sorted(review)))


class _Neighbours:
    """For each of some different texts the texts that it makes a pair with, and how similar."""

    def __init__(self, texts: Sequence[str], threshold: float, progress: Progress | None) -> None:
        import numpy as np

        left, right, apart = _held(texts, threshold, progress)
        sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        whole = sizes[left] + sizes[right]
        ratio = (whole - apart) / np.maximum(whole, 1)
        units = np.concatenate([left, right])
        order = np.argsort(units, kind="stable")
        self._partners = np.concatenate([right, left])[order]
        self._ratios = np.concatenate([ratio, ratio])[order]
        counts = np.bincount(units, minlength=len(texts))
        self._ends = array("q", np.cumsum(counts).astype(np.int64).tobytes())

    def of(self, unit: int) -> Iterator[tuple[int, float]]:
        """The text itself, then the others."""
        yield unit, 1.0
        begin, end = self._ends[unit - 1] if unit else 0, self._ends[unit]
        if begin < end:
            partners, ratios = self._partners[begin:end], self._ratios[begin:end]
            yield from zip(partners.tolist(), ratios.tolist(), strict=True)


@dataclass
class _Search:
    """The rows that stay, by view, text and subject: at most one row for each three of these."""

    neighbours: Sequence[_Neighbours]
    views: Sequence[View]
    kept: list[_Kept] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = [{} for _ in self.views]

    def keep(self, row: int, rank: int, subject: int) -> None:
        key = -2 - row if subject == UNKNOWN else subject
        for view, kept in zip(self.views, self.kept, strict=True):
            unit = view.units[row]
            if unit != UNKNOWN:
                kept.setdefault(unit, {})[key] = (rank, row)

    def twin(self, row: int, subject: int) -> NearDuplicate | None:
        """The closest row that stays and has the same subject; of equally close ones the first."""
        if subject == UNKNOWN:
            return None
        best: tuple[float, int, NearDuplicate] | None = None
        for number, kept, unit, ratio in self._near(row):
            if (found := kept[unit].get(subject)) is not None:
                at = (-ratio, found[0], NearDuplicate(found[1], ratio, number))
                best = at if best is None else min(best, at)
        return best[2] if best else None

    def others(self, row: int) -> Review | None:
        """The rows that stay and are its twins, whatever their subject."""
        near = sorted(self._near(row), key=lambda each: -each[3])
        count = sum(len(kept[unit]) for _, kept, unit, _ in near)
        if not count:
            return None
        twins = (
            (-ratio, rank, NearDuplicate(other, ratio, number))
            for number, kept, unit, ratio in near[: CLOSEST * len(self.views)]
            for rank, other in islice(kept[unit].values(), CLOSEST)
        )
        closest: dict[int, NearDuplicate] = {}
        for _, _, twin in sorted(twins):
            closest.setdefault(twin.row, twin)
        return Review(row, count, tuple(islice(closest.values(), CLOSEST)))

    def _near(self, row: int) -> Iterator[tuple[int, _Kept, int, float]]:
        """(view, what it keeps, text, ratio) of all texts close to the row's with a row kept."""
        for number, (view, kept) in enumerate(zip(self.views, self.kept, strict=True)):
            unit = view.units[row]
            if unit != UNKNOWN:
                for other, ratio in self.neighbours[number].of(unit):
                    if other in kept:
                        yield number, kept, other, ratio


def _held(
    texts: Sequence[str], threshold: float, progress: Progress | None
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """(left, right, distance) of all pairs of different texts."""
    import numpy as np

    blocks: list[tuple[NDArray[np.int32], ...]] = []
    count = 0
    for block in join_codes(texts, threshold, progress=progress):
        count += block.left.size
        if count > MOST_PAIRS:
            raise UserError(
                f"more than {MOST_PAIRS:,} pairs of different texts are over {threshold:g}; "
                "raise --threshold, or compare another field"
            )
        blocks.append(tuple(part.astype(np.int32) for part in block))
    if not blocks:
        none = np.zeros(0, np.int32)
        return none, none, none
    left, right, apart = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return left, right, apart


def _precedence(rows: int, scores: Sequence[float] | None) -> Sequence[int]:
    if scores is None:
        return range(rows)
    return sorted(range(rows), key=lambda row: -scores[row])
