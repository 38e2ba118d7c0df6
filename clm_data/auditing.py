"""Audit a set of candidates: problems counted by code, language and field."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.codes import CODES, Severity
from clm_data.dedup import Policy, deduplicate_entries
from clm_data.records import (
    FACT_FIELDS,
    LANGUAGES,
    PROBE_FIELDS,
    Candidate,
    Frozen,
    Language,
    Problem,
    Rejection,
    unique_ids,
)
from clm_data.text import visible
from clm_data.validate import entry_of, problems_of, set_problems
from clm_data.validate.sets import (
    Finding,
    duplicate_facts,
    near_duplicates,
    repeated_probes,
    similar_prompts,
)

EXAMPLES = 3
"""Number of examples per kind of problem."""

Id = int | str


class Example(Frozen):
    """An example of a problem."""

    id: Id
    message: str


class ProblemSummary(Frozen):
    """All problems of one code in one language and field."""

    code: str
    severity: Severity
    lang: Language | None
    field: str | None
    count: int
    """Number of entries, or of pairs for ``near-duplicate`` and ``similar-prompt``."""
    ids: tuple[Id, ...]
    """``case_id``, or else the id, of each affected entry, in order."""
    examples: tuple[Example, ...]


class AuditReport(Frozen):
    """Result of an audit."""

    entries: int
    problems: tuple[ProblemSummary, ...]
    """Sorted by code (in the order of :data:`~clm_data.codes.CODES`), language and field."""

    @property
    def errors(self) -> int:
        """Number of problems that exclude an entry, or its probe, from a dataset."""
        return sum(found.count for found in self.problems if found.severity == "error")

    def as_json(self) -> dict[str, Any]:
        """``entries`` and ``problems`` as a JSON value, without the examples."""
        rows = [found.model_dump(mode="json", exclude={"examples"}) for found in self.problems]
        return {"entries": self.entries, "problems": rows}

    def as_html(self, title: str = "Audit", notes: Sequence[str] = ()) -> str:
        """A self-contained HTML page with examples and ids for each kind of problem.

        Args:
            title: Title of the page.
            notes: Lines about the files, such as which of their fields are not read.
        """
        from jinja2 import Environment, StrictUndefined

        source = Path(__file__).with_name("auditing.html.j2").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        return environment.from_string(source).render(
            title=title, report=self, notes=notes, codes=CODES, visible=visible
        )


def audit(
    candidates: Iterable[Candidate],
    threshold: float = 0.9,
    unreadable: Iterable[Rejection] = (),
    *,
    field: str = "zh.prompt",
    policy: Policy = "keep-first",
    reviewed: Container[str] = (),
) -> AuditReport:
    """Find all problems in single candidates and between candidates.

    Unlike :func:`clm_data.validate.validate`, it does not report a language that no candidate has,
    so that the Chinese or English half of a dataset can be audited alone. Otherwise an entry has
    an error exactly if :func:`clm_data.building.build` leaves it out or replaces its probe.

    Args:
        candidates: The candidates. Of repeated ones, the later ones are reported.
        threshold: Prompts *more* similar than this are near-duplicates.
        unreadable: Items that could not be parsed as candidates, or were rejected by reviewers.
            They count as entries.
        field: The field in which near-duplicates are left out; elsewhere they are warnings.
        policy: As for :func:`clm_data.dedup.deduplicate_entries`.
        reviewed: Ids of the candidates that people accepted or fixed.
    """
    items, broken = unique_ids(candidates), list(unreadable)
    names: dict[str, Id] = {c.id: c.id if c.case_id is None else c.case_id for c in items} | {
        rejection.id: rejection.id for rejection in broken
    }
    order = {id_: index for index, id_ in enumerate(names)}
    groups: dict[tuple[str, Language | None, str | None], list[Finding]] = {}
    rule = DuplicateRule(threshold, field, policy, reviewed)
    for id_, problem in findings(items, broken, rule):
        groups.setdefault((problem.code, problem.lang, problem.field), []).append((id_, problem))
    return AuditReport(
        entries=len(items) + len(broken),
        problems=tuple(_summary(groups[key], names, order) for key in sorted(groups, key=_rank)),
    )


@dataclass(frozen=True)
class DuplicateRule:
    """The arguments of :func:`clm_data.dedup.deduplicate_entries`."""

    threshold: float
    field: str
    policy: Policy
    reviewed: Container[str]

    def kept(self, candidates: Iterable[Candidate]) -> set[str]:
        """Ids of the candidates without errors that are left after deduplication."""
        unique = deduplicate_entries(
            [entry_of(each) for each in candidates if each.zh is not None and each.en is not None],
            threshold=self.threshold,
            field=self.field,
            policy=self.policy,
            reviewed=self.reviewed,
        )
        return {entry.id for entry in unique.kept}


def findings(
    items: Sequence[Candidate], broken: Iterable[Rejection], rule: DuplicateRule
) -> Iterator[Finding]:
    """All problems, those between two entries on the later one."""
    for rejection in broken:
        yield from ((rejection.id, problem) for problem in rejection.problems)
    without_facts = {lang for lang in LANGUAGES if all(i.fact(lang) is None for i in items)}
    without_probes = {lang for lang in LANGUAGES if all(i.probe(lang) is None for i in items)}
    valid = []
    for item in items:
        problems = problems_of(item)
        if not any(p.severity == "error" and p.field not in PROBE_FIELDS for p in problems):
            valid.append(item)
        for problem in problems:
            expected = without_probes if problem.field in PROBE_FIELDS else without_facts
            if problem.code != "empty-field" or problem.lang not in expected:
                yield item.id, problem
    yield from set_problems(items)
    yield from repeated_probes(items)
    kept = rule.kept(valid)
    yield from duplicate_facts(items, kept)
    yield from near_duplicates(items, rule.threshold, field=rule.field, kept=kept)
    yield from similar_prompts(items, rule.threshold, field=rule.field)


def _rank(key: tuple[str, Language | None, str | None]) -> tuple[int, int, int]:
    code, lang, field = key
    fields = (None, "id", *FACT_FIELDS, *PROBE_FIELDS)
    return list(CODES).index(code), (*LANGUAGES, None).index(lang), fields.index(field)


def _summary(
    found: Sequence[Finding], names: dict[str, Id], order: dict[str, int]
) -> ProblemSummary:
    first = found[0][1]
    pairs = first.code in ("near-duplicate", "similar-prompt")
    affected = {id_ for id_, _ in found}
    if pairs:
        affected |= {problem.twin for _, problem in found if problem.twin is not None}
    return ProblemSummary(
        code=first.code,
        severity=first.severity,
        lang=first.lang,
        field=first.field,
        count=len(found) if pairs else len(affected),
        ids=tuple(names[id_] for id_ in sorted(affected, key=order.__getitem__)),
        examples=tuple(
            Example(id=names[id_], message=_message(problem, names))
            for id_, problem in found[:EXAMPLES]
        ),
    )


def _message(problem: Problem, names: dict[str, Id]) -> str:
    """The message, with the other entry named by its ``case_id`` if it has one."""
    if problem.twin is None or problem.twin not in names:
        return problem.message
    return problem.message.replace(problem.twin, str(names[problem.twin]))
