"""Validation: candidates that pass the rules become entries, the others become rejections."""

from __future__ import annotations

from collections.abc import Iterable

from clm_data.records import (
    PROBE_FIELDS,
    Candidate,
    Entry,
    Fact,
    Language,
    LooseFact,
    ProbePair,
    Problem,
    Rejection,
    StageResult,
)
from clm_data.validate.rules import RULES, problems_of
from clm_data.validate.sets import probe_keys, repeated_probe, set_problems

__all__ = ["RULES", "entry_of", "problems_of", "set_problems", "validate"]


def validate(candidates: Iterable[Candidate]) -> StageResult[Entry]:
    """Apply the rules to candidates.

    A candidate with an error is rejected, with all its problems, errors first. Otherwise it is kept
    as an entry, and its warnings are returned separately. Each candidate is either kept or rejected
    at stage ``validate``.

    A bad probe does not reject its entry. If the probe of a kept candidate has an error, or an
    earlier kept entry uses the same probe, the entry is kept without it, and ``rejected``
    *additionally* contains the probe, with stage ``locality`` and id ``<candidate id>/probe``.
    """
    items = list(candidates)
    between: dict[str, list[Problem]] = {}
    for id_, problem in set_problems(items):
        between.setdefault(id_, []).append(problem)
    kept: list[Entry] = []
    rejected: list[Rejection] = []
    warnings: list[tuple[str, Problem]] = []
    used: dict[tuple[Language, str], str] = {}
    for candidate in items:
        problems = [*problems_of(candidate), *between.get(candidate.id, ())]
        fact_problems = [problem for problem in problems if problem.field not in PROBE_FIELDS]
        if any(problem.severity == "error" for problem in fact_problems):
            rejected.append(_rejection(candidate, fact_problems))
            continue
        probe_problems = [problem for problem in problems if problem.field in PROBE_FIELDS]
        probe_problems += repeated_probe(candidate, used)
        pair = None
        if any(problem.severity == "error" for problem in probe_problems):
            rejected.append(_probe_rejection(candidate, probe_problems))
        elif candidate.zh_probe is not None:
            pair = _pair(candidate)
            used |= dict.fromkeys(probe_keys(candidate), candidate.id)
            warnings += [(candidate.id, problem) for problem in probe_problems]
        kept.append(entry_of(candidate, pair))
        warnings += [(candidate.id, problem) for problem in fact_problems]
    return StageResult(tuple(kept), tuple(rejected), tuple(warnings))


def entry_of(candidate: Candidate, probe: ProbePair | None = None) -> Entry:
    """The entry made of a candidate without errors."""
    return Entry(
        id=candidate.id,
        domain=candidate.domain,
        origin=candidate.origin,
        zh=_fact(candidate.zh),
        en=_fact(candidate.en),
        probe=probe,
        case_id=candidate.case_id,
    )


def _fact(fact: LooseFact | None) -> Fact:
    return Fact.model_validate(fact.model_dump() if fact else {})


def _pair(candidate: Candidate) -> ProbePair:
    sides = {"zh": candidate.zh_probe, "en": candidate.en_probe}
    return ProbePair.model_validate(
        {lang: side.model_dump() if side else {} for lang, side in sides.items()}
    )


def _rejection(candidate: Candidate, problems: list[Problem]) -> Rejection:
    return Rejection(
        stage="validate",
        id=candidate.id,
        domain=candidate.domain,
        problems=_errors_first(problems),
        content=candidate.model_dump(),
    )


def _probe_rejection(candidate: Candidate, problems: list[Problem]) -> Rejection:
    sides = {"zh": candidate.zh_probe, "en": candidate.en_probe}
    return Rejection(
        stage="locality",
        id=f"{candidate.id}/probe",
        domain=candidate.domain,
        problems=_errors_first(problems),
        content={lang: side.model_dump() if side else None for lang, side in sides.items()},
    )


def _errors_first(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.severity != "error"))
