"""Every problem of a set of candidates, counted by code, language and field; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clm_data.codes import CODES, Severity
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
from clm_data.validate import problems_of, set_problems
from clm_data.validate.sets import Finding, duplicate_facts, near_duplicates, repeated_probes

EXAMPLES = 3
"""How many findings of a kind are quoted."""

Id = int | str


class Example(Frozen):
    """One finding, quoted."""

    id: Id
    message: str


class Audited(Frozen):
    """All findings of one code in one language and field."""

    code: str
    severity: Severity
    lang: Language | None
    field: str | None
    count: int
    """Entries concerned; pairs for ``near-duplicate``."""
    ids: tuple[Id, ...]
    """Each entry concerned, once, in order: its ``case_id`` as it stands, or else its own id."""
    examples: tuple[Example, ...]


class AuditReport(Frozen):
    """What an audit found."""

    entries: int
    problems: tuple[Audited, ...]
    """In the order of the codes, then zh before en, then by field."""

    @property
    def errors(self) -> int:
        """How many findings keep an entry, or its probe, out of a dataset."""
        return sum(found.count for found in self.problems if found.severity == "error")

    def as_json(self) -> dict[str, Any]:
        """``entries`` and ``problems``: code, severity, lang, field, count, ids; no examples."""
        rows = [found.model_dump(mode="json", exclude={"examples"}) for found in self.problems]
        return {"entries": self.entries, "problems": rows}

    def as_html(self, title: str = "Audit") -> str:
        """One self-contained page: every kind of problem with examples and all ids."""
        from jinja2 import Environment, StrictUndefined

        source = Path(__file__).with_name("auditing.html.j2").read_text(encoding="utf-8")
        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        return environment.from_string(source).render(
            title=title, report=self, codes=CODES, visible=visible
        )


def audit(
    candidates: Iterable[Candidate],
    threshold: float = 0.9,
    unreadable: Iterable[Rejection] = (),
) -> AuditReport:
    """Find every problem of a set, those of single entries and those between them.

    Unlike :func:`validate.validate` it does not ask for a language that no candidate has: half of
    a published dataset may be audited alone.

    Args:
        candidates: The set, in its order: of repetitions the later ones are found.
        threshold: Prompts *more* similar than this are near-duplicates.
        unreadable: What could not be read as a candidate at all; counted as entries too.
    """
    items, broken = unique_ids(candidates), list(unreadable)
    names: dict[str, Id] = {c.id: c.id if c.case_id is None else c.case_id for c in items} | {
        rejection.id: rejection.id for rejection in broken
    }
    order = {id_: index for index, id_ in enumerate(names)}
    groups: dict[tuple[str, Language | None, str | None], list[Finding]] = {}
    for id_, problem in _findings(items, broken, threshold):
        groups.setdefault((problem.code, problem.lang, problem.field), []).append((id_, problem))
    return AuditReport(
        entries=len(items) + len(broken),
        problems=tuple(_audited(groups[key], names, order) for key in sorted(groups, key=_rank)),
    )


def _findings(
    items: Sequence[Candidate], broken: Iterable[Rejection], threshold: float
) -> Iterator[Finding]:
    for rejection in broken:
        yield from ((rejection.id, problem) for problem in rejection.problems)
    absent = [lang for lang in LANGUAGES if all(item.fact(lang) is None for item in items)]
    probeless = [lang for lang in LANGUAGES if all(item.probe(lang) is None for item in items)]
    for item in items:
        for problem in problems_of(item):
            whole = probeless if problem.field in PROBE_FIELDS else absent
            if problem.code != "empty-field" or problem.lang not in whole:
                yield item.id, problem
    yield from set_problems(items)
    yield from repeated_probes(items)
    yield from duplicate_facts(items)
    yield from near_duplicates(items, threshold)


def _rank(key: tuple[str, Language | None, str | None]) -> tuple[int, int, int]:
    code, lang, field = key
    fields = (None, "id", *FACT_FIELDS, *PROBE_FIELDS)
    return list(CODES).index(code), (*LANGUAGES, None).index(lang), fields.index(field)


def _audited(found: Sequence[Finding], names: dict[str, Id], order: dict[str, int]) -> Audited:
    first = found[0][1]
    pairs = first.code == "near-duplicate"
    concerned = {id_ for id_, _ in found}
    if pairs:
        concerned |= {problem.twin for _, problem in found if problem.twin is not None}
    return Audited(
        code=first.code,
        severity=first.severity,
        lang=first.lang,
        field=first.field,
        count=len(found) if pairs else len(concerned),
        ids=tuple(names[id_] for id_ in sorted(concerned, key=order.__getitem__)),
        examples=tuple(
            Example(id=names[id_], message=_readable(problem, names))
            for id_, problem in found[:EXAMPLES]
        ),
    )


def _readable(problem: Problem, names: dict[str, Id]) -> str:
    """The message with the twin named as its source names it."""
    if problem.twin is None or problem.twin not in names:
        return problem.message
    return problem.message.replace(problem.twin, str(names[problem.twin]))
