"""Applies reviewers' decisions to candidates; the store keeps the original texts.

Decisions are applied in the order in which they were stored. A decision is valid only if its
content hash equals that of the entry's text at that point, so a verdict never applies to a text
that its reviewer did not see. Invalid decisions stay in the store and have no effect. The last
valid decision wins, regardless of who made it:

- ``accept``: the current text is accepted, also after a fix;
- ``fix``: the changed texts replace the old ones, and the status is ``fixed``. Later verdicts must
  refer to the hash of the new text. A fix that changes nothing has no effect;
- ``reject``: the entry is removed from the dataset; a later ``accept`` or ``fix`` restores it.
"""

from __future__ import annotations

from collections import defaultdict
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


@dataclass(frozen=True)
class ReviewResult:
    """Candidates after review."""

    kept: tuple[Candidate, ...]
    """In the order of the input, with fixed texts under the original ids."""
    rejected: tuple[Rejection, ...]
    status: Mapping[str, ReviewStatus]
    """``accepted`` or ``fixed`` by id; other ids are unreviewed or rejected."""


@dataclass(frozen=True)
class _Reviewed:
    content: Candidate
    last: Decision | None
    """The last valid decision."""


def apply_decisions(candidates: Iterable[Candidate], decisions: Iterable[Decision]) -> ReviewResult:
    """Apply fixes and rejections, and report the status of the candidates that are kept.

    Decisions on ids that are not among the candidates have no effect.

    Raises:
        StoreError: A stored fix changes a field that cannot be fixed.
    """
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    status: dict[str, ReviewStatus] = {}
    for reviewed in _review(candidates, decisions):
        content, last = reviewed.content, reviewed.last
        if last is not None and last.verdict == "reject":
            rejected.append(_rejection(content, last))
            continue
        kept.append(content)
        if last is not None:
            status[content.id] = "accepted" if last.verdict == "accept" else "fixed"
    return ReviewResult(tuple(kept), tuple(rejected), status)


def current_contents(
    candidates: Iterable[Candidate], decisions: Iterable[Decision]
) -> dict[str, Candidate]:
    """All candidates by id, with fixes applied, including rejected ones."""
    return {reviewed.content.id: reviewed.content for reviewed in _review(candidates, decisions)}


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


def _review(candidates: Iterable[Candidate], decisions: Iterable[Decision]) -> list[_Reviewed]:
    by_id: defaultdict[str, list[Decision]] = defaultdict(list)
    for decision in decisions:
        by_id[decision.entry_id].append(decision)
    reviewed = []
    for candidate in candidates:
        content, last = candidate, None
        for decision in by_id.get(candidate.id, ()):
            if decision.content_hash != content.content_hash:
                continue
            if decision.verdict == "fix":
                after = with_fixes(content, decision.fixed or {})
                if after == content:
                    continue
                content = after
            last = decision
        reviewed.append(_Reviewed(content, last))
    return reviewed


def _rejection(content: Candidate, decision: Decision) -> Rejection:
    message = decision.note or "no reason given"
    return Rejection(
        stage="review",
        id=content.id,
        domain=content.domain,
        problems=(Problem(code="rejected-by-reviewer", message=message),),
        content=content.model_dump(mode="json"),
    )
