"""Findings on a whole set of candidates: what one entry alone does not show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from clm_data.languages import normalize_answer, normalize_text
from clm_data.records import LANGUAGES, Candidate, Language, Problem
from clm_data.text import is_blank, quote
from clm_data.validate.compare import same, same_question

Finding = tuple[str, Problem]
"""(id of the candidate, what was found)."""


def set_problems(candidates: Sequence[Candidate]) -> list[Finding]:
    """Clashing ids and conflicting truths, which entries may have and yet be kept."""
    return [*duplicate_ids(candidates), *conflicting_truths(candidates)]


def duplicate_ids(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Ids that a source uses twice (``1`` and ``"1"`` are one), or of another type than its others.

    Every entry concerned is found, not only the later one.
    """
    by_source: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.case_id is not None:
            by_source.setdefault(candidate.origin.name, []).append(candidate)
    for members in by_source.values():
        by_id: dict[str, list[Candidate]] = {}
        for candidate in members:
            by_id.setdefault(str(candidate.case_id), []).append(candidate)
        strings = [candidate for candidate in members if isinstance(candidate.case_id, str)]
        odd_type = str if 2 * len(strings) <= len(members) else int
        mixed = 0 < len(strings) < len(members)
        for candidate in members:
            twins = [other for other in by_id[str(candidate.case_id)] if other is not candidate]
            if twins:
                message = f"id {candidate.case_id!r} also stands as {twins[0].case_id!r}"
            elif mixed and isinstance(candidate.case_id, odd_type):
                message = f"id {candidate.case_id!r} is of another type than most"
            else:
                continue
            twin = twins[0].id if twins else None
            yield (
                candidate.id,
                Problem(code="duplicate-id", message=message, field="id", twin=twin),
            )


def conflicting_truths(candidates: Sequence[Candidate]) -> Iterator[Finding]:
    """Later entries that answer an earlier entry's question otherwise.

    The same question: equal subjects, and prompts or rephrasings as alike as
    :func:`compare.same_question` wants.
    """
    for lang in LANGUAGES:
        by_subject: dict[str, list[Candidate]] = {}
        for candidate in candidates:
            fact = candidate.fact(lang)
            if fact is None or is_blank(fact.subject) or is_blank(fact.ground_truth):
                continue
            earlier = by_subject.setdefault(normalize_answer(fact.subject or "", lang), [])
            for other in earlier:
                ratio = _conflict(candidate, other, lang)
                if ratio is not None:
                    yield candidate.id, _conflict_problem(candidate, other, ratio, lang)
                    break
            earlier.append(candidate)


def repeated_probes(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Later entries whose probe asks what an earlier entry's probe asks."""
    used: dict[tuple[Language, str], str] = {}
    for candidate in candidates:
        for problem in repeated_probe(candidate, used):
            yield candidate.id, problem
        for key in probe_keys(candidate):
            used.setdefault(key, candidate.id)


def repeated_probe(
    candidate: Candidate, used: Mapping[tuple[Language, str], str]
) -> Iterator[Problem]:
    """Where a candidate's probe is in use; ``used`` says by whom, by :func:`probe_keys`."""
    for lang, key in probe_keys(candidate):
        first = used.get((lang, key))
        if first is not None:
            probe = candidate.probe(lang)
            message = f"{quote((probe and probe.loc) or '')} is the probe of {first} too"
            yield Problem(
                code="repeated-probe", message=message, lang=lang, field="loc", twin=first
            )


def probe_keys(candidate: Candidate) -> Iterator[tuple[Language, str]]:
    """(language, question normalised) of the probes that came with a candidate."""
    for lang in LANGUAGES:
        probe = candidate.probe(lang)
        if probe is not None and probe.loc is not None and not is_blank(probe.loc):
            yield lang, normalize_text(probe.loc).casefold()


def duplicate_facts(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Later entries with an earlier entry's prompt and subject, normalised, in one language."""
    seen: dict[tuple[Language, str, str], str] = {}
    for candidate in candidates:
        for lang in LANGUAGES:
            fact = candidate.fact(lang)
            if fact is None or is_blank(fact.prompt) or is_blank(fact.subject):
                continue
            prompt, subject = fact.prompt or "", fact.subject or ""
            key = (lang, normalize_text(prompt), normalize_text(subject))
            first = seen.setdefault(key, candidate.id)
            if first != candidate.id:
                message = f"prompt {quote(prompt)} and subject are those of {first}"
                problem = Problem(
                    code="duplicate-fact", message=message, lang=lang, field="prompt", twin=first
                )
                yield candidate.id, problem


def near_duplicates(candidates: Sequence[Candidate], threshold: float) -> Iterator[Finding]:
    """Pairs of prompts more similar than the threshold, per language; told of the later one."""
    from clm_data.dedup import similar_pairs

    for lang in LANGUAGES:
        members = [
            (candidate, normalize_text(fact.prompt))
            for candidate in candidates
            if (fact := candidate.fact(lang)) is not None
            and fact.prompt is not None
            and not is_blank(fact.prompt)
        ]
        for left, right, ratio in similar_pairs([text for _, text in members], threshold):
            (first, text), (later, other) = members[left], members[right]
            message = f"{quote(other)} is {ratio:.1%} {quote(text)} of {first.id}"
            problem = Problem(
                code="near-duplicate",
                message=message,
                lang=lang,
                field="prompt",
                twin=first.id,
                ratio=ratio,
            )
            yield later.id, problem


def _conflict(one: Candidate, other: Candidate, lang: Language) -> float | None:
    """How similar the questions are where two candidates of one subject conflict."""
    a, b = one.fact(lang), other.fact(lang)
    if a is None or b is None or same(a.ground_truth or "", b.ground_truth or "", lang):
        return None
    questions = [
        [q for q in (f.prompt, f.rephrase_prompt) if q and not is_blank(q)] for f in (a, b)
    ]
    ratios = (
        same_question(x, y, a.subject or "", lang) for x in questions[0] for y in questions[1]
    )
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _conflict_problem(one: Candidate, other: Candidate, ratio: float, lang: Language) -> Problem:
    a, b = one.fact(lang), other.fact(lang)
    mine, theirs = (a and a.ground_truth) or "", (b and b.ground_truth) or ""
    question = (a and a.prompt) or ""
    return Problem(
        code="conflicting-truth",
        message=f"{quote(question)} has {quote(mine)}, but {quote(theirs)} in {other.id}",
        lang=lang,
        field="ground_truth",
        twin=other.id,
        ratio=ratio,
    )
