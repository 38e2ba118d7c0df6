"""Judges candidates by the rules: valid ones become entries, the rest rejections with reasons."""

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

__all__ = ["RULES", "problems_of", "set_problems", "validate"]


def validate(candidates: Iterable[Candidate]) -> StageResult[Entry]:
    """Sift candidates by the rules.

    An error rejects the candidate (stage ``validate``, all its problems, errors first); warnings on
    what is kept are set aside. Every candidate is kept or rejected, once. A probe that a kept
    candidate brought along and that has an error, or serves an earlier kept entry, does not sink
    the entry: the entry goes without it, and ``rejected`` holds the probe *in addition*, as stage
    ``locality`` with id ``<candidate id>/probe``.
    """
    items = list(candidates)
    about_set: dict[str, list[Problem]] = {}
    for id_, problem in set_problems(items):
        about_set.setdefault(id_, []).append(problem)
    kept: list[Entry] = []
    rejected: list[Rejection] = []
    warnings: list[tuple[str, Problem]] = []
    used: dict[tuple[Language, str], str] = {}
    for candidate in items:
        problems = [*problems_of(candidate), *about_set.get(candidate.id, ())]
        of_fact = [problem for problem in problems if problem.field not in PROBE_FIELDS]
        if any(problem.severity == "error" for problem in of_fact):
            rejected.append(_rejection(candidate, of_fact))
            continue
        of_probe = [problem for problem in problems if problem.field in PROBE_FIELDS]
        of_probe += repeated_probe(candidate, used)
        pair = None
        if any(problem.severity == "error" for problem in of_probe):
            rejected.append(_probe_rejection(candidate, of_probe))
        elif candidate.zh_probe is not None:
            pair = _pair(candidate)
            used |= dict.fromkeys(probe_keys(candidate), candidate.id)
            warnings += [(candidate.id, problem) for problem in of_probe]
        kept.append(_entry(candidate, pair))
        warnings += [(candidate.id, problem) for problem in of_fact]
    return StageResult(tuple(kept), tuple(rejected), tuple(warnings))


def _entry(candidate: Candidate, probe: ProbePair | None) -> Entry:
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
