"""Deduplication: the exact similarity join, and the stage that removes duplicate entries.

Similarity is rapidfuzz's normalized Indel similarity, ``(n - d) / n`` with ``n`` the sum of the
lengths and ``d`` the Indel distance. Texts are a pair if it is *strictly* above the threshold,
decided in integers: at 0.9, if ``10 * d < n``. Texts at exactly 0.9 are both kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from typing import Literal, NamedTuple

from clm_data.dedup.join.all_pairs import similarity_join
from clm_data.dedup.join.index import SimilarityIndex
from clm_data.languages import normalize_text
from clm_data.records import LANGUAGES, Entry, Language, Problem, Rejection, StageResult


class Pair(NamedTuple):
    """Positions of two near-duplicate texts (``left < right``), and their similarity."""

    left: int
    right: int
    ratio: float


def similar_pairs(texts: Sequence[str], threshold: float) -> list[Pair]:
    """All pairs with a similarity strictly above a threshold. The search is exact.

    Args:
        texts: Compared as they are; two empty texts are equal (ratio 1).
        threshold: 0 to 1, taken as the decimal number it prints as. No pair is above 1.

    Returns:
        The pairs, ordered by ``right``, then ``left``.
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
    """Normalized Indel similarity of two texts, 0 to 1; two empty texts are equal."""
    from rapidfuzz.distance import Indel

    return _ratio(len(left) + len(right), Indel.distance(left, right))


Policy = Literal["keep-first", "by-subject"]


def deduplicate_entries(
    entries: Sequence[Entry],
    *,
    threshold: float = 0.9,
    field: str = "zh.prompt",
    policy: Policy = "keep-first",
    reviewed: Container[str] = (),
) -> StageResult[Entry]:
    """Keep the first of duplicate entries.

    An entry is rejected if an earlier *kept* entry has the same prompt and subject in either
    language (``duplicate-fact``), or a similarity above ``threshold`` in ``field``
    (``near-duplicate``). A rejected entry never causes the rejection of another. Texts are compared
    after :func:`clm_data.languages.normalize_text`.

    Two near-duplicates are both kept if people accepted or fixed both, and, with the policy
    ``by-subject``, if their subjects differ in the language of ``field``. The later one then gets
    the warning ``similar-prompt``.

    Args:
        entries: In order of precedence.
        threshold: Similarity threshold; the comparison is strict.
        field: ``"zh.prompt"``, ``"en.prompt"`` or the ``rephrase_prompt`` of either.
        policy: Whether near-duplicates with different subjects are kept.
        reviewed: Ids of the entries that people accepted or fixed.

    Returns:
        The kept entries in their order, and warnings. Each rejection names the kept entry and their
        similarity in ``field``.
    """
    texts = [normalize_text(_text(entry, field)) for entry in entries]
    pairs: dict[int, list[Pair]] = defaultdict(list)
    for pair in similar_pairs(texts, threshold):
        pairs[pair.right].append(pair)
    kept = _KeptEntries(field, policy, reviewed)
    kept_positions: dict[int, int] = {}
    rejected = []
    for index, entry in enumerate(entries):
        similar = [
            (kept_positions[pair.left], pair.ratio)
            for pair in pairs[index]
            if pair.left in kept_positions
        ]
        rejection = kept.offer(entry, texts[index], similar)
        if rejection is None:
            kept_positions[index] = len(kept.entries) - 1
        else:
            rejected.append(rejection)
    return StageResult(tuple(kept.entries), tuple(rejected), tuple(kept.warnings))


class IncrementalDeduplicator:
    """:func:`deduplicate_entries` for one entry at a time.

    Args:
        entries: Known entries, offered first.
        threshold: As for :func:`deduplicate_entries`.
        field: As for :func:`deduplicate_entries`.
        policy: As for :func:`deduplicate_entries`.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        threshold: float = 0.9,
        field: str = "zh.prompt",
        policy: Policy = "keep-first",
    ) -> None:
        self._field = field
        self._index = SimilarityIndex(threshold)
        self._kept = _KeptEntries(field, policy, ())
        for entry in entries:
            self.offer(entry)

    def __len__(self) -> int:
        return len(self._kept.entries)

    def offer(self, entry: Entry) -> Rejection | None:
        """Add an entry if it is new; otherwise return why it is rejected."""
        text = normalize_text(_text(entry, self._field))
        rejection = self._kept.offer(entry, text, self._index.matches(text))
        if rejection is None:
            self._index.add(text)
        return rejection


class _KeptEntries:
    """The entries kept so far, and the rule by which another is kept or rejected."""

    def __init__(self, field: str, policy: Policy, reviewed: Container[str]) -> None:
        self._field = field
        self._policy = policy
        self._reviewed = reviewed
        self._texts: list[str] = []
        self._first: dict[tuple[Language, str, str], int] = {}
        self.entries: list[Entry] = []
        self.warnings: list[tuple[str, Problem]] = []

    def offer(
        self, entry: Entry, text: str, similar: Sequence[tuple[int, float]]
    ) -> Rejection | None:
        """Keep the entry, or return why not.

        Args:
            entry: The next entry.
            text: Its normalized text in the compared field.
            similar: Position among the kept entries, and ratio, of those above the threshold.
        """
        keys = _fact_keys(entry)
        problems = [
            _duplicate_fact(self.entries[at], similarity(self._texts[at], text), key)
            for key in keys
            if (at := self._first.get(key)) is not None
        ]
        tolerated = [match for match in similar if self._is_tolerated(entry, match[0])]
        counted = [match for match in similar if match not in tolerated]
        if counted and not problems:
            problems = [self._near_duplicate("near-duplicate", counted)]
        if problems:
            return _rejection(entry, problems)
        if tolerated:
            self.warnings.append((entry.id, self._near_duplicate("similar-prompt", tolerated)))
        self._first.update((key, len(self.entries)) for key in keys)
        self.entries.append(entry)
        self._texts.append(text)
        return None

    def _is_tolerated(self, entry: Entry, at: int) -> bool:
        """Whether both are kept although they are near-duplicates."""
        kept = self.entries[at]
        if entry.id in self._reviewed and kept.id in self._reviewed:
            return True
        return self._policy == "by-subject" and have_different_subjects(entry, kept, self._field)

    def _near_duplicate(self, code: str, similar: Sequence[tuple[int, float]]) -> Problem:
        at, ratio = max(similar, key=lambda match: (match[1], -match[0]))
        kept = self.entries[at]
        lang, name = self._field.split(".")
        return Problem(
            code=code,
            message=f"{ratio:.3f} similar to {kept.id}: '{_text(kept, self._field)}'",
            lang="zh" if lang == "zh" else "en",
            field=name,
            twin=kept.id,
            ratio=ratio,
        )


def have_different_subjects(left: Entry, right: Entry, field: str) -> bool:
    """Whether two entries have different subjects, after normalization.

    Args:
        left: An entry.
        right: Another entry.
        field: The compared field; the subjects are those of its language.
    """
    lang = field.split(".", maxsplit=1)[0]
    one, other = (str(getattr(entry, lang).subject) for entry in (left, right))
    return normalize_text(one) != normalize_text(other)


def _ratio(total_length: int, distance: int) -> float:
    return (total_length - distance) / total_length if total_length else 1.0


def _text(entry: Entry, field: str) -> str:
    lang, name = field.split(".")
    return str(getattr(getattr(entry, lang), name))


def _fact_keys(entry: Entry) -> list[tuple[Language, str, str]]:
    return [
        (lang, normalize_text(entry.fact(lang).prompt), normalize_text(entry.fact(lang).subject))
        for lang in LANGUAGES
    ]


def _duplicate_fact(kept: Entry, ratio: float, key: tuple[Language, str, str]) -> Problem:
    lang, prompt, subject = key
    return Problem(
        code="duplicate-fact",
        message=f"prompt '{prompt}' and subject '{subject}' are those of {kept.id}",
        lang=lang,
        field="prompt",
        twin=kept.id,
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
