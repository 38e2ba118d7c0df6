"""Deduplicate: the exact similarity join, and the keep-first filter on top of it.

Similarity is rapidfuzz's normalised Indel similarity, ``(s - d) / s`` with ``s`` the sum of the
lengths and ``d`` the Indel distance. A pair counts when it is *strictly* over the threshold,
decided in integers: at 0.9, ``10 * d < s``. At exactly 0.9 both are kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from clm_data.dedup.join.all_pairs import similarity_join
from clm_data.dedup.join.index import SimilarityIndex
from clm_data.languages import normalize_text
from clm_data.records import LANGUAGES, Entry, Language, Problem, Rejection, StageResult


class Pair(NamedTuple):
    """Two texts more similar than a threshold; ``left < right`` are their positions."""

    left: int
    right: int
    ratio: float


def similar_pairs(texts: Sequence[str], threshold: float) -> list[Pair]:
    """All pairs whose similarity is strictly over a threshold, none missed and none invented.

    Args:
        texts: Compared as they are given; two empty texts are equal (ratio 1).
        threshold: 0 to 1, taken as the decimal number it prints as. Nothing is over 1.

    Returns:
        The pairs, by ``right``, then ``left``.
    """
    found = [
        Pair(left, right, _ratio(len(texts[left]) + len(texts[right]), distance))
        for block in similarity_join(texts, threshold)
        for left, right, distance in zip(
            block.left.tolist(), block.right.tolist(), block.distance.tolist(), strict=True
        )
    ]
    return sorted(found, key=lambda pair: (pair.right, pair.left))


def similarity(left: str, right: str) -> float:
    """Normalised Indel similarity of two texts, 0 to 1; two empty texts are equal."""
    from rapidfuzz.distance import Indel

    return _ratio(len(left) + len(right), Indel.distance(left, right))


def deduplicate_entries(
    entries: Sequence[Entry], *, threshold: float = 0.9, field: str = "zh.prompt"
) -> StageResult[Entry]:
    """Keep the first of entries that say the same.

    An entry goes when an earlier *kept* one has the same (prompt, subject) in either language
    (``duplicate-fact``), or a text of more than ``threshold`` similarity in ``field``
    (``near-duplicate``). An entry that went takes no other with it. Texts are compared after
    :func:`clm_data.languages.normalize_text`.

    Args:
        entries: In order of precedence.
        threshold: Similarity from which on, itself excluded, two entries are one.
        field: ``"zh.prompt"``, ``"en.prompt"`` or the rephrasing of either.

    Returns:
        Kept entries in their order; each rejection names its twin and the ratio in ``field``.
    """
    texts = [normalize_text(_text(entry, field)) for entry in entries]
    twins: dict[int, list[Pair]] = defaultdict(list)
    for pair in similar_pairs(texts, threshold):
        twins[pair.right].append(pair)
    kept = _Kept(field)
    places: dict[int, int] = {}
    rejected = []
    for index, entry in enumerate(entries):
        near = [(places[pair.left], pair.ratio) for pair in twins[index] if pair.left in places]
        rejection = kept.offer(entry, texts[index], near)
        if rejection is None:
            places[index] = len(kept.entries) - 1
        else:
            rejected.append(rejection)
    return StageResult(tuple(kept.entries), tuple(rejected))


class IncrementalDeduplicator:
    """:func:`deduplicate_entries` one entry at a time: is this entry new against everything known?

    Args:
        entries: What is known; of entries that say the same, the first.
        threshold: As for :func:`deduplicate_entries`.
        field: As for :func:`deduplicate_entries`.
    """

    def __init__(
        self, entries: Iterable[Entry] = (), *, threshold: float = 0.9, field: str = "zh.prompt"
    ) -> None:
        self._field = field
        self._index = SimilarityIndex(threshold)
        self._kept = _Kept(field)
        for entry in entries:
            self.offer(entry)

    def __len__(self) -> int:
        return len(self._kept.entries)

    def offer(self, entry: Entry) -> Rejection | None:
        """Take an entry in; where it is not new, leave it out and say why."""
        text = normalize_text(_text(entry, self._field))
        rejection = self._kept.offer(entry, text, self._index.matches(text))
        if rejection is None:
            self._index.add(text)
        return rejection


class _Kept:
    """Entries that were kept, and the rule by which another joins them."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._texts: list[str] = []
        self._first: dict[tuple[Language, str, str], int] = {}
        self.entries: list[Entry] = []

    def offer(self, entry: Entry, text: str, near: Sequence[tuple[int, float]]) -> Rejection | None:
        """Keep the entry, or say why not; ``near``: positions of kept twins, and their ratios."""
        keys = _fact_keys(entry)
        problems = [
            _duplicate_fact(self.entries[at], similarity(self._texts[at], text), key)
            for key in keys
            if (at := self._first.get(key)) is not None
        ]
        if near and not problems:
            at, ratio = max(near, key=lambda twin: (twin[1], -twin[0]))
            problems = [_near_duplicate(self.entries[at], ratio, self._field)]
        if problems:
            return _rejection(entry, problems)
        self._first.update((key, len(self.entries)) for key in keys)
        self.entries.append(entry)
        self._texts.append(text)
        return None


def _ratio(size: int, distance: int) -> float:
    return (size - distance) / size if size else 1.0


def _text(entry: Entry, field: str) -> str:
    lang, name = field.split(".")
    return str(getattr(getattr(entry, lang), name))


def _fact_keys(entry: Entry) -> list[tuple[Language, str, str]]:
    return [
        (lang, normalize_text(entry.fact(lang).prompt), normalize_text(entry.fact(lang).subject))
        for lang in LANGUAGES
    ]


def _duplicate_fact(twin: Entry, ratio: float, key: tuple[Language, str, str]) -> Problem:
    lang, prompt, subject = key
    return Problem(
        code="duplicate-fact",
        message=f"prompt '{prompt}' and subject '{subject}' are those of {twin.id}",
        lang=lang,
        field="prompt",
        twin=twin.id,
        ratio=ratio,
    )


def _near_duplicate(twin: Entry, ratio: float, field: str) -> Problem:
    lang, name = field.split(".")
    return Problem(
        code="near-duplicate",
        message=f"{ratio:.3f} similar to {twin.id}: '{_text(twin, field)}'",
        lang="zh" if lang == "zh" else "en",
        field=name,
        twin=twin.id,
        ratio=ratio,
    )


def _rejection(entry: Entry, problems: Sequence[Problem]) -> Rejection:
    return Rejection(
        stage="deduplicate",
        id=entry.id,
        domain=entry.domain,
        problems=tuple(problems),
        content=entry.model_dump(mode="json"),
    )
