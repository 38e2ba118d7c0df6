"""Choose which rows to keep, given the pairs of near-duplicates.

Rows are visited in order of precedence: source order, or the highest score first. A row is removed
if it is a near-duplicate of a row *kept* before it, so a removed row never causes the removal of
another. With subjects, a row is removed only for a near-duplicate with the same subject; a row
whose near-duplicates have other subjects is kept and flagged for review: "世界上最大的海湾是" and
"世界上最大的海峡是" are two facts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from clm_data.dedup.join.all_pairs import Progress, similarity_join
from clm_data.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KEEP_FIRST = "keep-first"
KEEP_BEST = "keep-best"
BY_SUBJECT = "by-subject"
POLICIES = (KEEP_FIRST, KEEP_BEST, BY_SUBJECT)

MAX_PAIRS = 20_000_000
"""Limit on the number of pairs of distinct texts, which take 64 bytes each."""
MAX_CLOSEST = 10
"""How many near-duplicates of a flagged row are listed."""
NO_ID = -1
"""Id of a missing text, which is not compared, or a missing subject, which equals no other."""

_Kept = dict[int, dict[int, tuple[int, int]]]
"""(rank, row) by text id and subject id, in order of rank.

Rows without a subject get a subject id of their own.
"""


class NearDuplicate(NamedTuple):
    """A row that another row is too similar to.

    Attributes:
        row: Its position.
        ratio: Similarity, 0 to 1.
        column: The compared column in which they are similar.
    """

    row: int
    ratio: float
    column: int


class Removal(NamedTuple):
    """A removed row, and the most similar of the rows kept before it."""

    row: int
    duplicate_of: NearDuplicate


class FlaggedRow(NamedTuple):
    """A kept row with near-duplicates whose subjects differ from its own or are missing.

    Attributes:
        row: Its position.
        near_duplicates: How many of the rows kept before it are near-duplicates; a row that is
            similar in two columns counts twice.
        closest: The most similar of them, at most :data:`MAX_CLOSEST`.
    """

    row: int
    near_duplicates: int
    closest: tuple[NearDuplicate, ...]


class Cluster(NamedTuple):
    """A kept row and the rows removed as its near-duplicates, in source order."""

    representative: int
    removed: tuple[Removal, ...]


@dataclass
class TextColumn:
    """One text per row; equal texts are stored once.

    Attributes:
        texts: The distinct texts, in order of first occurrence.
        ids: For each row the position of its text in ``texts``, or :data:`NO_ID`.
    """

    texts: list[str] = field(default_factory=list)
    ids: array[int] = field(default_factory=lambda: array("q"))
    _positions: dict[str, int] = field(default_factory=dict)

    def add(self, text: str | None) -> None:
        """Append the text of the next row; a row with None is not compared."""
        if text is None:
            self.ids.append(NO_ID)
            return
        text_id = self._positions.setdefault(text, len(self.texts))
        if text_id == len(self.texts):
            self.texts.append(text)
        self.ids.append(text_id)

    def text(self, row: int) -> str:
        """The text of a row; empty if it has none."""
        text_id = self.ids[row]
        return "" if text_id == NO_ID else self.texts[text_id]


@dataclass(frozen=True)
class Selection:
    """Which rows are kept, removed and flagged.

    Attributes:
        keep: For each row 1 if it is kept, else 0.
        removed: In source order.
        flagged: In source order.
    """

    keep: bytearray
    removed: tuple[Removal, ...]
    flagged: tuple[FlaggedRow, ...]

    @property
    def flagged_pairs(self) -> int:
        """Number of pairs of rows that are flagged."""
        return sum(flagged.near_duplicates for flagged in self.flagged)

    def clusters(self) -> Iterator[Cluster]:
        """The kept rows that have removed near-duplicates, in source order."""
        members: dict[int, list[Removal]] = {}
        for removal in self.removed:
            members.setdefault(removal.duplicate_of.row, []).append(removal)
        for representative in sorted(members):
            yield Cluster(representative, tuple(members[representative]))


def select_rows(
    columns: Sequence[TextColumn],
    threshold: float,
    *,
    scores: Sequence[float] | None = None,
    subjects: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Choose the rows to keep.

    Two rows are near-duplicates if in some column their texts are equal or their similarity is
    above the threshold.

    Args:
        columns: At least one, all of the same rows.
        threshold: In [0, 1); the comparison is strict.
        scores: Score of each row. Higher scores take precedence, ties are in source order.
        subjects: Subject id of each row; :data:`NO_ID` equals no other.
        progress: Called with the number of distinct texts of a column compared so far, and in all.

    Raises:
        UserError: There are more than :data:`MAX_PAIRS` pairs.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold {threshold} is not in [0, 1)")
    kept = _KeptRows([_Neighbors(each.texts, threshold, progress) for each in columns], columns)
    rows = len(columns[0].ids)
    keep = bytearray(b"\1") * rows
    removed = []
    flagged = []
    for rank, row in enumerate(_precedence(rows, scores)):
        subject = 0 if subjects is None else subjects[row]
        duplicate_of = kept.closest(row, subject)
        if duplicate_of is not None:
            keep[row] = 0
            removed.append(Removal(row, duplicate_of))
            continue
        if subjects is not None and (flag := kept.of_any_subject(row)):
            flagged.append(flag)
        kept.add(row, rank, subject)
    return Selection(keep, tuple(sorted(removed)), tuple(sorted(flagged)))


class _Neighbors:
    """The texts similar to each text, with their similarity."""

    def __init__(self, texts: Sequence[str], threshold: float, progress: Progress | None) -> None:
        import numpy as np

        left, right, distances = _all_pairs(texts, threshold, progress)
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        totals = lengths[left] + lengths[right]
        ratios = (totals - distances) / np.maximum(totals, 1)
        ids = np.concatenate([left, right])
        order = np.argsort(ids, kind="stable")
        self._neighbors = np.concatenate([right, left])[order]
        self._ratios = np.concatenate([ratios, ratios])[order]
        counts = np.bincount(ids, minlength=len(texts))
        self._ends = array("q", np.cumsum(counts).astype(np.int64).tobytes())

    def of(self, text_id: int) -> Iterator[tuple[int, float]]:
        """(text id, similarity): the text itself, then its neighbors."""
        yield text_id, 1.0
        begin, end = self._ends[text_id - 1] if text_id else 0, self._ends[text_id]
        if begin < end:
            neighbors, ratios = self._neighbors[begin:end], self._ratios[begin:end]
            yield from zip(neighbors.tolist(), ratios.tolist(), strict=True)


@dataclass
class _KeptRows:
    """The rows kept so far, at most one for each column, text and subject."""

    neighbors: Sequence[_Neighbors]
    columns: Sequence[TextColumn]
    kept: list[_Kept] = field(init=False)

    def __post_init__(self) -> None:
        self.kept = [{} for _ in self.columns]

    def add(self, row: int, rank: int, subject: int) -> None:
        key = -2 - row if subject == NO_ID else subject
        for column, kept in zip(self.columns, self.kept, strict=True):
            text_id = column.ids[row]
            if text_id != NO_ID:
                kept.setdefault(text_id, {})[key] = (rank, row)

    def closest(self, row: int, subject: int) -> NearDuplicate | None:
        """The most similar kept row with the same subject; of ties the first."""
        if subject == NO_ID:
            return None
        best: tuple[float, int, NearDuplicate] | None = None
        for column, kept, text_id, ratio in self._similar(row):
            if (found := kept[text_id].get(subject)) is not None:
                candidate = (-ratio, found[0], NearDuplicate(found[1], ratio, column))
                best = candidate if best is None else min(best, candidate)
        return best[2] if best else None

    def of_any_subject(self, row: int) -> FlaggedRow | None:
        """The near-duplicates of a row among the kept rows, whatever their subject."""
        similar = sorted(self._similar(row), key=lambda each: -each[3])
        count = sum(len(kept[text_id]) for _, kept, text_id, _ in similar)
        if not count:
            return None
        ranked = (
            (-ratio, rank, NearDuplicate(other, ratio, column))
            for column, kept, text_id, ratio in similar[: MAX_CLOSEST * len(self.columns)]
            for rank, other in islice(kept[text_id].values(), MAX_CLOSEST)
        )
        closest: dict[int, NearDuplicate] = {}
        for _, _, duplicate in sorted(ranked):
            closest.setdefault(duplicate.row, duplicate)
        return FlaggedRow(row, count, tuple(islice(closest.values(), MAX_CLOSEST)))

    def _similar(self, row: int) -> Iterator[tuple[int, _Kept, int, float]]:
        """(column, its kept rows, text id, ratio) of each similar text of which a row is kept."""
        for number, (column, kept) in enumerate(zip(self.columns, self.kept, strict=True)):
            text_id = column.ids[row]
            if text_id != NO_ID:
                for other, ratio in self.neighbors[number].of(text_id):
                    if other in kept:
                        yield number, kept, other, ratio


def _all_pairs(
    texts: Sequence[str], threshold: float, progress: Progress | None
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """All pairs of distinct texts, as (left, right, distance)."""
    import numpy as np

    blocks: list[tuple[NDArray[np.int32], ...]] = []
    count = 0
    for block in similarity_join(texts, threshold, progress=progress):
        count += block.left.size
        if count > MAX_PAIRS:
            raise UserError(
                f"more than {MAX_PAIRS:,} pairs of distinct texts have a similarity above "
                f"{threshold:g}; raise --threshold, or compare another field"
            )
        blocks.append(tuple(part.astype(np.int32) for part in block))
    if not blocks:
        none = np.zeros(0, np.int32)
        return none, none, none
    left, right, distances = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return left, right, distances


def _precedence(rows: int, scores: Sequence[float] | None) -> Sequence[int]:
    if scores is None:
        return range(rows)
    return sorted(range(rows), key=lambda row: -scores[row])
