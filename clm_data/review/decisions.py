"""Applies reviewers' decisions to candidates; the store keeps the original texts.

Decisions are applied in the order in which they were stored. A decision is valid only if its
content hash equals that of a text of the entry that its reviewer saw:

- ``accept``: the text is accepted, also after a fix;
- ``fix``: the changed texts replace the old ones, and the status is ``fixed``. A fix that changes
  nothing has no effect;
- ``reject``: the entry is removed from the dataset; a later ``accept`` or ``fix`` restores it.

A decision replaces those that its reviewer knew (:attr:`clm_data.records.Decision.seen`) and the
reviewer's own earlier ones. Decisions of people who did not know of each other stand side by side.
If they have different results, the entry is in dispute: it stays out of the dataset until a
decision that knows them all settles it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clm_data.errors import StoreError
from clm_data.records import (
    TEXT_FIELDS,
    Candidate,
    Decision,
    LooseFact,
    Problem,
    Rejection,
    ReviewStatus,
)

DISPUTE = "contrary-decisions"
"""Code of an entry on which reviewers disagree."""


@dataclass(frozen=True)
class ReviewResult:
    """Candidates after review."""

    kept: tuple[Candidate, ...]
    """In the order of the input, with fixed texts under the original ids."""
    rejected: tuple[Rejection, ...]
    status: Mapping[str, ReviewStatus]
    """``accepted`` or ``fixed`` by id; other ids are unreviewed, rejected or in dispute."""


@dataclass(frozen=True)
class Opinion:
    """A decision that is in effect."""

    number: int
    """Position among the decisions on the entry, from 0."""
    decision: Decision
    base: Candidate
    """What the reviewer saw."""
    outcome: Candidate | None
    """What the reviewer wants in the dataset; None for a rejected entry."""

    def describe(self) -> str:
        """The reviewer, the verdict, and the fixed texts or the note."""
        decision = self.decision
        details = [f"{name} = '{text}'" for name, text in (decision.fixed or {}).items()]
        details += [decision.note] if decision.note else []
        return f"{decision.reviewer}: {decision.verdict}" + "".join(f" ({d})" for d in details)


class History:
    """An entry and the decisions on it so far."""

    def __init__(self, candidate: Candidate) -> None:
        self.content = candidate
        """What the next reviewer sees: the last agreed text; in a dispute, the text before it."""
        self.opinions: tuple[Opinion, ...] = ()
        """The decisions in effect, oldest first; at most one per reviewer."""
        self.versions = {candidate.content_hash: candidate}
        """All texts that the entry has had, by content hash."""
        self.count = 0
        """Number of decisions, including invalid ones."""

    @property
    def in_dispute(self) -> bool:
        """Whether decisions in effect have different results."""
        return len({each.outcome and each.outcome.content_hash for each in self.opinions}) > 1

    def seen_by(self, content_hash: str, reviewer: str, seen: int | None) -> Candidate | None:
        """The text that a decision refers to; None if it is not valid on any.

        It is the current text, or an earlier one if someone else has changed it since.
        """
        if content_hash == self.content.content_hash:
            return self.content
        others = self._unknown_to(reviewer, seen)
        return self.versions.get(content_hash) if others else None

    def add(self, decision: Decision) -> bool:
        """Apply the next decision; False if it is not valid and has no effect."""
        number, self.count = self.count, self.count + 1
        base = self.seen_by(decision.content_hash, decision.reviewer, decision.seen)
        if base is None:
            return False
        outcome: Candidate | None = None if decision.verdict == "reject" else base
        if decision.verdict == "fix":
            outcome = with_fixes(base, decision.fixed or {})
            if outcome == base:
                return False
            self.versions[outcome.content_hash] = outcome
        rivals = self._unknown_to(decision.reviewer, decision.seen)
        self.opinions = (*rivals, Opinion(number, decision, base, outcome))
        shown = self.opinions[0].base if self.in_dispute else outcome
        self.content = shown or base
        return True

    def _unknown_to(self, reviewer: str, seen: int | None) -> list[Opinion]:
        """Opinions of others that a decision's reviewer did not know."""
        if seen is None:
            return []
        name = _same_name(reviewer)
        return [
            each
            for each in self.opinions
            if each.number >= seen and _same_name(each.decision.reviewer) != name
        ]


def histories(candidates: Iterable[Candidate], decisions: Iterable[Decision]) -> dict[str, History]:
    """The history of every candidate by id, in the order of the input.

    Raises:
        StoreError: A stored fix changes a field that cannot be fixed.
    """
    found = {candidate.id: History(candidate) for candidate in candidates}
    for decision in decisions:
        if decision.entry_id in found:
            found[decision.entry_id].add(decision)
    return found


def apply_decisions(candidates: Iterable[Candidate], decisions: Iterable[Decision]) -> ReviewResult:
    """Apply fixes and rejections, and report the status of the candidates that are kept.

    Decisions on ids that are not among the candidates have no effect.

    Raises:
        StoreError: A stored fix changes a field that cannot be fixed.
    """
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    status: dict[str, ReviewStatus] = {}
    for id_, history in histories(candidates, decisions).items():
        last = history.opinions[-1].decision if history.opinions else None
        if history.in_dispute:
            rejected.append(_dispute(history))
        elif last is not None and last.verdict == "reject":
            rejected.append(_rejection(history.content, last))
        else:
            kept.append(history.content)
            if last is not None:
                status[id_] = "accepted" if last.verdict == "accept" else "fixed"
    return ReviewResult(tuple(kept), tuple(rejected), status)


def current_contents(
    candidates: Iterable[Candidate], decisions: Iterable[Decision]
) -> dict[str, Candidate]:
    """All candidates by id, with fixes applied, including rejected ones."""
    return {id_: each.content for id_, each in histories(candidates, decisions).items()}


def with_fixes(candidate: Candidate, fixed: Mapping[str, str]) -> Candidate:
    """Replace some texts of a candidate; its id and all else stay the same.

    Args:
        candidate: The candidate to fix.
        fixed: New texts by name, e.g. ``zh.prompt``.

    Raises:
        StoreError: A name is not one of :data:`TEXT_FIELDS`.
    """
    unknown = sorted(set(fixed) - set(TEXT_FIELDS))
    if unknown:
        raise StoreError(
            f"a stored fix of entry {candidate.id} changes '{unknown[0]}', which is not a text of "
            "an entry; use the clm-data version that wrote it"
        )
    facts: dict[str, LooseFact] = {}
    for name, text in fixed.items():
        lang, field = name.split(".")
        fact = facts.get(lang) or (candidate.zh if lang == "zh" else candidate.en) or LooseFact()
        facts[lang] = fact.model_copy(update={field: text})
    return candidate.model_copy(update=facts)


def _same_name(reviewer: str) -> str:
    return " ".join(reviewer.split()).casefold()


def _dispute(history: History) -> Rejection:
    message = "; ".join(each.describe() for each in history.opinions)
    return Rejection(
        stage="review",
        id=history.content.id,
        domain=history.content.domain,
        problems=(Problem(code=DISPUTE, message=message),),
        content=history.content.model_dump(mode="json"),
    )


def _rejection(content: Candidate, decision: Decision) -> Rejection:
    message = decision.note or "no reason given"
    return Rejection(
        stage="review",
        id=content.id,
        domain=content.domain,
        problems=(Problem(code="rejected-by-reviewer", message=message),),
        content=content.model_dump(mode="json"),
    )
