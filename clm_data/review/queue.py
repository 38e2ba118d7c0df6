"""Selects the entries to review, with their problems, and counts what is reviewed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clm_data.codes import CODES
from clm_data.records import (
    TEXT_FIELDS,
    Candidate,
    Decision,
    Entry,
    Problem,
    Rejection,
    ReviewStatus,
)
from clm_data.review.cells import MAX_CELL, encode
from clm_data.review.decisions import DISPUTE

ItemStatus = ReviewStatus | Literal["rejected", "contrary"]


@dataclass(frozen=True)
class Item:
    """One entry as shown to a reviewer."""

    id: str
    content_hash: str
    """Hash of exactly these texts."""
    domain: str | None
    texts: Mapping[str, str]
    """Texts by the names in :data:`TEXT_FIELDS`; a missing text is empty."""
    problems: tuple[Problem, ...] = ()
    status: ItemStatus = "unreviewed"
    decisions: int = 0
    """Number of decisions on this entry so far."""


@dataclass(frozen=True)
class Queue:
    """The items to review, and the ids of those that cannot be exported."""

    items: tuple[Item, ...]
    too_long: tuple[str, ...] = ()
    """Ids of items with a text that exceeds the limit of a spreadsheet cell."""


def item_of(
    content: Candidate | Entry,
    problems: Iterable[Problem] = (),
    status: ItemStatus = "unreviewed",
    decisions: int = 0,
) -> Item:
    """Make the item of an entry or candidate."""
    return Item(
        id=content.id,
        content_hash=content.content_hash,
        domain=content.domain,
        texts=texts_of(content),
        problems=tuple(problems),
        status=status,
        decisions=decisions,
    )


def texts_of(content: Candidate | Entry) -> dict[str, str]:
    """The texts by the names in :data:`TEXT_FIELDS`; a missing text is empty."""
    texts = {}
    for name in TEXT_FIELDS:
        lang, field = name.split(".")
        fact = content.zh if lang == "zh" else content.en
        texts[name] = (getattr(fact, field) or "") if fact is not None else ""
    return texts


def build_queue(
    entries: Iterable[Entry],
    warnings: Iterable[tuple[str, Problem]],
    status: Mapping[str, ReviewStatus],
    *,
    rejected: Iterable[Rejection] = (),
    contents: Mapping[str, Candidate] | None = None,
    decisions: Sequence[Decision] = (),
    domains: Iterable[str] = (),
    unreviewed_only: bool = True,
    limit: int | None = None,
) -> Queue:
    """Select what to review: entries in dispute, kept ones in order, then rejected ones.

    Args:
        entries: The entries in the dataset.
        warnings: (entry id, warning) pairs.
        status: Review status by id; an id without a status is unreviewed.
        rejected: Rejections to include. One without content, from an answer that could not be
            parsed, is skipped.
        contents: Current content of every candidate by id
            (:func:`clm_data.review.decisions.current_contents`).
        decisions: All decisions so far.
        domains: Include only these domains; default: all.
        unreviewed_only: Leave out entries with a verdict on their current text.
        limit: Maximum number of items.
    """
    problems: defaultdict[str, list[Problem]] = defaultdict(list)
    for id_, problem in warnings:
        problems[id_].append(problem)
    count = Counter(decision.entry_id for decision in decisions)
    items = [
        item_of(entry, problems[entry.id], status.get(entry.id, "unreviewed"), count[entry.id])
        for entry in entries
    ]
    for rejection in rejected:
        content = (contents or {}).get(rejection.id)
        if content is not None:
            verdict: ItemStatus = "rejected" if rejection.stage == "review" else "unreviewed"
            verdict = status.get(rejection.id, verdict)
            verdict = "contrary" if rejection.code == DISPUTE else verdict
            items.append(item_of(content, rejection.problems, verdict, count[rejection.id]))
    items.sort(key=lambda item: item.status != "contrary")
    wanted = set(domains)
    chosen = [
        item
        for item in items
        if (not wanted or item.domain in wanted)
        and (not unreviewed_only or item.status in ("contrary", "unreviewed"))
    ]
    return _queue_of(chosen, limit)


def _queue_of(items: Sequence[Item], limit: int | None) -> Queue:
    """Split items by whether they fit into spreadsheet cells."""
    too_long = {item.id for item in items if any(map(_overflows, item.texts.values()))}
    return Queue(
        items=tuple(item for item in items if item.id not in too_long)[:limit],
        too_long=tuple(item.id for item in items if item.id in too_long),
    )


def describe(problems: Iterable[Problem]) -> str:
    """Describe problems in both languages, one per line.

    A line is ``错误 error | zh.prompt | code | Chinese / English | message``.
    """
    lines = []
    for problem in problems:
        code = CODES[problem.code]
        severity = "错误 error" if code.severity == "error" else "提醒 warning"
        where = ".".join(part for part in (problem.lang, problem.field) if part)
        parts = (severity, where, problem.code, f"{code.zh} / {code.en}", problem.message)
        lines.append(" | ".join(part for part in parts if part))
    return "\n".join(lines)


@dataclass(frozen=True)
class DomainStatus:
    """Review counts of one domain. ``entries == accepted + fixed + unreviewed``."""

    domain: str | None
    entries: int
    accepted: int
    fixed: int
    rejected: int
    """Rejected by reviewers; not counted in ``entries``."""
    unreviewed: int
    contrary: int = 0
    """Reviewers disagree; not counted in ``entries``."""


def count_by_domain(
    entries: Iterable[Entry],
    status: Mapping[str, ReviewStatus],
    rejected: Iterable[Rejection],
    domains: Iterable[str] = (),
) -> list[DomainStatus]:
    """Count by domain, in the order of ``domains``, then other domains by name, then none."""
    counts: dict[str | None, Counter[str]] = {}
    for entry in entries:
        counts.setdefault(entry.domain, Counter())[status.get(entry.id, "unreviewed")] += 1
    for rejection in rejected:
        if rejection.stage == "review":
            kind = "contrary" if rejection.code == DISPUTE else "rejected"
            counts.setdefault(rejection.domain, Counter())[kind] += 1
    rank = {name: index for index, name in enumerate(domains)}
    order = sorted(counts, key=lambda name: (name is None, rank.get(name or "", len(rank)), name))
    return [
        DomainStatus(
            domain=name,
            entries=counts[name].total() - counts[name]["rejected"] - counts[name]["contrary"],
            accepted=counts[name]["accepted"],
            fixed=counts[name]["fixed"],
            rejected=counts[name]["rejected"],
            unreviewed=counts[name]["unreviewed"],
            contrary=counts[name]["contrary"],
        )
        for name in order
    ]


def _overflows(text: str) -> bool:
    return len(encode(text)) > MAX_CELL
