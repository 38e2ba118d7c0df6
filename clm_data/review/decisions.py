"""What reviewers decided, applied to what models wrote: the model's text stays in the store.

Decisions apply in the order in which they were stored. One counts only if its content hash is that
of the entry's text at that point, so a verdict never holds for a text its reviewer did not see; the
others stay in the store and have no effect. The last one that counts wins, whoever made it:

- ``accept``: the text as it stands is accepted, also after a fix;
- ``fix``: the changed texts replace the old ones, status ``fixed``; later verdicts must name the
  hash of the new text. A fix that changes nothing has no effect;
- ``reject``: the entry leaves the dataset; a later ``accept`` or ``fix`` brings it back.
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
    StageResult,
)


@dataclass(frozen=True)
class Decided:
    """Candidates after review.

    ``sifted.kept`` carries the fixed texts under unchanged ids, in the order of the input.
    """

    sifted: StageResult[Candidate]
    status: Mapping[str, ReviewStatus]
    """``accepted`` or ``fixed`` by id; an id that is not there is unreviewed or rejected."""


@dataclass(frozen=True)
class _Judged:
    content: Candidate
    last: Decision | None
    """The last decision that counts."""


def apply_decisions(candidates: Iterable[Candidate], decisions: Iterable[Decision]) -> Decided:
    """Overlay fixes, set aside what was rejected, and tell the status of the rest.

    Decisions on ids that are not among the candidates have no effect.

    Raises:
        StoreError: A stored fix names a field that cannot be fixed.
    """
    kept: list[Candidate] = []
    rejected: list[Rejection] = []
    status: dict[str, ReviewStatus] = {}
    for judged in _judge(candidates, decisions):
        content, last = judged.content, judged.last
        if last is not None and last.verdict == "reject":
            rejected.append(_rejection(content, last))
            continue
        kept.append(content)
        if last is not None:
            status[content.id] = "accepted" if last.verdict == "accept" else "fixed"
    return Decided(StageResult(kept=tuple(kept), rejected=tuple(rejected)), status)


def current_contents(
    candidates: Iterable[Candidate], decisions: Iterable[Decision]
) -> dict[str, Candidate]:
    """The text of every candidate after all fixes, by id; rejected ones too."""
    return {judged.content.id: judged.content for judged in _judge(candidates, decisions)}


def with_fixes(candidate: Candidate, fixed: Mapping[str, str]) -> Candidate:
    """The candidate with some of its texts replaced; id and everything else unchanged.

    Args:
        candidate: What to fix.
        fixed: New text by name: ``zh.prompt``.

    Raises:
        StoreError: A name that is not one of the ten texts of an entry.
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


def _judge(candidates: Iterable[Candidate], decisions: Iterable[Decision]) -> list[_Judged]:
    by_id: defaultdict[str, list[Decision]] = defaultdict(list)
    for decision in decisions:
        by_id[decision.entry_id].append(decision)
    judged = []
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
        judged.append(_Judged(content, last))
    return judged


def _rejection(content: Candidate, decision: Decision) -> Rejection:
    message = decision.note or "no reason given"
    return Rejection(
        stage="review",
        id=content.id,
        domain=content.domain,
        problems=(Problem(code="rejected-by-reviewer", message=message),),
        content=content.model_dump(mode="json"),
    )
