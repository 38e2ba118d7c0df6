"""Counts over a dataset for the card, the chart and ``clm-data stats``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Literal

from clm_data.codes import CODES, Severity
from clm_data.domain import Domain
from clm_data.records import (
    FACT_FIELDS,
    LANGUAGES,
    PROBE_FIELDS,
    Frozen,
    Language,
    Problem,
    Record,
    Rejection,
    ReviewStatus,
    Stage,
)
from clm_data.tabular import Tabular

STAGES = ("parse", "review", "validate", "deduplicate", "reviewed-only", "locality")
"""Stages of a build, in order. ``reviewed-only`` occurs only in builds with that option."""


def stage_position(stage: str) -> int:
    """Position of a stage in a build; unknown stages come last."""
    return STAGES.index(stage) if stage in STAGES else len(STAGES)


class DomainCount(Frozen):
    """Counts for one domain."""

    id: str | None
    """None for records whose source does not name a domain."""
    zh: str
    en: str
    quota: int | None
    """Number of entries to generate; None for a domain that is not in the domain file."""
    records: int
    accepted: int
    fixed: int
    unreviewed: int


class RejectionCount(Frozen):
    """Number of rejections by one stage for one reason."""

    stage: Stage
    code: str
    count: int


class WarningCount(Frozen):
    """Number of warnings of one kind on kept records."""

    code: str
    severity: Severity
    count: int


class Length(Frozen):
    """Lengths of one field, in characters."""

    lang: Language
    field: str
    min: int
    median: float
    max: int


class OriginCount(Frozen):
    """Number of records from one source."""

    kind: Literal["model", "bank", "import"]
    name: str
    licence: str | None
    """None if unknown."""
    records: int
    prompt_hashes: tuple[str, ...]
    """sha256 of the rendered prompts that produced them, sorted."""


class Stats(Frozen, Tabular):
    """Counts for a dataset."""

    records: int
    accepted: int
    """Records that a reviewer accepted unchanged."""
    fixed: int
    """Records that a reviewer corrected."""
    unreviewed: int
    """Records that have not been reviewed."""
    domains: tuple[DomainCount, ...]
    """Domains in file order, including empty ones, then other domains by id."""
    rejected: tuple[RejectionCount, ...]
    warnings: tuple[WarningCount, ...]
    lengths: tuple[Length, ...]
    """Empty if there are no records."""
    origins: tuple[OriginCount, ...]
    """Largest first."""

    def as_json(self) -> dict[str, Any]:
        """The JSON value that ``clm-data stats --json`` prints."""
        return self.model_dump(mode="json")

    def table_title(self) -> str:
        """Records, and how many of them people reviewed."""
        return f"{self.records} records, {self.accepted + self.fixed} reviewed"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each domain that has records or a quota."""
        return [domain.model_dump() for domain in self.domains if domain.records or domain.quota]


def statistics(
    records: Sequence[Record],
    rejected: Sequence[Rejection],
    warnings: Iterable[tuple[str, Problem]] = (),
    domains: Mapping[str, Domain] | None = None,
) -> Stats:
    """Count a dataset.

    Args:
        records: The records of the dataset.
        rejected: The rejected items. Each is counted once, under its first problem.
        warnings: (record id, warning) pairs for kept records.
        domains: Domains by id, for names and quotas. By default only domains with records count.
    """
    review: Counter[ReviewStatus] = Counter(record.review for record in records)
    reasons = Counter((rejection.stage, rejection.code) for rejection in rejected)
    warned = Counter(problem.code for _, problem in warnings)
    codes = list(CODES)
    return Stats(
        records=len(records),
        accepted=review["accepted"],
        fixed=review["fixed"],
        unreviewed=review["unreviewed"],
        domains=tuple(_by_domain(records, domains or {})),
        rejected=tuple(
            RejectionCount(stage=stage, code=code, count=count)
            for (stage, code), count in sorted(
                reasons.items(), key=lambda item: (stage_position(item[0][0]), -item[1], item[0][1])
            )
        ),
        warnings=tuple(
            WarningCount(code=code, severity=CODES[code].severity, count=count)
            for code, count in sorted(warned.items(), key=lambda item: codes.index(item[0]))
        ),
        lengths=tuple(_lengths(records)),
        origins=tuple(_by_origin(records)),
    )


def _by_domain(records: Sequence[Record], domains: Mapping[str, Domain]) -> Iterator[DomainCount]:
    counts = Counter((record.domain, record.review) for record in records)
    found = {record.domain for record in records}
    others = sorted(name for name in found if name is not None and name not in domains)
    unnamed: list[str | None] = [None] if None in found else []
    for name in (*domains, *others, *unnamed):
        domain = domains.get(name) if name is not None else None
        review = {status: counts[name, status] for status in ("accepted", "fixed", "unreviewed")}
        yield DomainCount(
            id=name,
            zh=domain.zh if domain else name or "未注明",
            en=domain.en if domain else name or "not stated",
            quota=domain.quota if domain else None,
            records=sum(review.values()),
            **review,
        )


def _lengths(records: Sequence[Record]) -> Iterator[Length]:
    if not records:
        return
    for lang in LANGUAGES:
        for field in (*FACT_FIELDS, *PROBE_FIELDS):
            sizes = [
                len(getattr(r.fact(lang) if field in FACT_FIELDS else r.probe(lang), field))
                for r in records
            ]
            yield Length(
                lang=lang, field=field, min=min(sizes), median=median(sizes), max=max(sizes)
            )


def _by_origin(records: Sequence[Record]) -> list[OriginCount]:
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        origin = record.origin
        groups.setdefault((origin.kind, origin.name, origin.licence), []).append(record)
    counts = [
        OriginCount(
            kind=kind,
            name=name,
            licence=licence,
            records=len(group),
            prompt_hashes=tuple(
                sorted({r.origin.prompt_hash for r in group if r.origin.prompt_hash is not None})
            ),
        )
        for (kind, name, licence), group in groups.items()
    ]
    return sorted(counts, key=lambda o: (-o.records, o.kind, o.name, o.licence or ""))
