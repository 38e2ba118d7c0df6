"""Problems between candidates of a set, which no candidate shows by itself."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from clm_data.dedup import similar_pairs
from clm_data.languages import normalize_answer, normalize_text
from clm_data.records import LANGUAGES, Candidate, Entry, Language, Problem
from clm_data.text import is_blank, quote
from clm_data.validate.compare import same, same_question

Finding = tuple[str, Problem]
"""(candidate id, problem)."""


def set_problems(candidates: Sequence[Candidate]) -> list[Finding]:
    """Find duplicate ids and conflicting true answers, which are warnings."""
    return [*duplicate_ids(candidates), *conflicting_truths(candidates)]


def duplicate_ids(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Find ids that a source uses twice, or whose type differs from most others of the source.

    ``1`` and ``"1"`` are the same id. All entries with a duplicate id are reported, not only the
    later ones.
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
            others = [other for other in by_id[str(candidate.case_id)] if other is not candidate]
            if others:
                message = f"id {candidate.case_id!r} is used again as {others[0].case_id!r}"
            elif mixed and isinstance(candidate.case_id, odd_type):
                message = f"id {candidate.case_id!r} differs in type from most ids"
            else:
                continue
            twin = others[0].id if others else None
            yield (
                candidate.id,
                Problem(code="duplicate-id", message=message, field="id", twin=twin),
            )


def conflicting_truths(candidates: Sequence[Candidate]) -> Iterator[Finding]:
    """Find later entries that give another answer to an earlier entry's question.

    Two entries ask the same question if their subjects are equal and a prompt or rephrasing of one
    matches a prompt or rephrasing of the other (:func:`compare.same_question`).
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
    """Find later entries whose probe asks the same question as an earlier entry's probe."""
    used: dict[tuple[Language, str], str] = {}
    for candidate in candidates:
        for problem in repeated_probe(candidate, used):
            yield candidate.id, problem
        for key in probe_keys(candidate):
            used.setdefault(key, candidate.id)


def repeated_probe(
    candidate: Candidate, used: Mapping[tuple[Language, str], str]
) -> Iterator[Problem]:
    """Find the probes of a candidate that another entry uses.

    Args:
        candidate: The candidate to check.
        used: Entry id by probe key (:func:`probe_keys`).
    """
    for lang, key in probe_keys(candidate):
        first = used.get((lang, key))
        if first is not None:
            probe = candidate.probe(lang)
            message = f"{quote((probe and probe.loc) or '')} is already the probe of {first}"
            yield Problem(
                code="repeated-probe", message=message, lang=lang, field="loc", twin=first
            )


def probe_keys(candidate: Candidate) -> Iterator[tuple[Language, str]]:
    """Yield (language, normalized question) of the probes of a candidate."""
    for lang in LANGUAGES:
        probe = candidate.probe(lang)
        if probe is not None and probe.loc is not None and not is_blank(probe.loc):
            yield lang, normalize_text(probe.loc).casefold()


def duplicate_facts(
    candidates: Iterable[Candidate], kept: Container[str] = ()
) -> Iterator[Finding]:
    """Find later entries with the prompt and subject of an earlier entry, after normalization.

    Args:
        candidates: The candidates.
        kept: Ids of those that stay in the dataset nevertheless, because the earlier entry does
            not: they are ``similar-prompt``, a warning.
    """
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
                message = f"{first} has the same subject and prompt {quote(prompt)}"
                code = "similar-prompt" if candidate.id in kept else "duplicate-fact"
                problem = Problem(code=code, message=message, lang=lang, field="prompt", twin=first)
                yield candidate.id, problem


def near_duplicates(
    candidates: Sequence[Candidate],
    threshold: float,
    *,
    field: str = "zh.prompt",
    kept: Container[str] = (),
) -> Iterator[Finding]:
    """Find later entries with a text more similar to an earlier one than the threshold.

    Args:
        candidates: The candidates.
        threshold: Similarity threshold; the comparison is strict.
        field: The compared field, such as ``zh.prompt``.
        kept: Ids of those that stay in the dataset nevertheless, because the earlier entry does
            not, or people or the policy keep both: they are ``similar-prompt``, a warning.
    """
    for later, problem in _similar(candidates, threshold, field):
        code = "similar-prompt" if later in kept else "near-duplicate"
        yield later, problem.model_copy(update={"code": code})


def similar_prompts(
    candidates: Sequence[Candidate] | Sequence[Entry], threshold: float, *, field: str
) -> Iterator[Finding]:
    """Find later entries with a prompt similar to an earlier one in a field that is not ``field``.

    They are warnings: only similarity in ``field`` keeps an entry out of a dataset.
    """
    for name in ("zh.prompt", "en.prompt"):
        if name != field:
            yield from _similar(candidates, threshold, name)


def _similar(
    candidates: Sequence[Candidate] | Sequence[Entry], threshold: float, name: str
) -> Iterator[Finding]:
    lang: Language = "zh" if name.startswith("zh.") else "en"
    field = name.removeprefix(f"{lang}.")
    members = [
        (candidate.id, normalize_text(text))
        for candidate in candidates
        if (fact := candidate.fact(lang)) is not None
        and (text := getattr(fact, field)) is not None
        and not is_blank(text)
    ]
    for left, right, ratio in similar_pairs([text for _, text in members], threshold):
        (first, text), (later, other) = members[left], members[right]
        problem = Problem(
            code="similar-prompt",
            message=f"{quote(other)} is {ratio:.1%} similar to {quote(text)} of {first}",
            lang=lang,
            field=field,
            twin=first,
            ratio=ratio,
        )
        yield later, problem


def _conflict(one: Candidate, other: Candidate, lang: Language) -> float | None:
    """Similarity of the questions of two conflicting candidates; None if they do not conflict."""
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
        message=f"{quote(question)}: {quote(mine)} here, but {quote(theirs)} in {other.id}",
        lang=lang,
        field="ground_truth",
        twin=other.id,
        ratio=ratio,
    )
