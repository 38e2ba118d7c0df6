"""Why entries and requests were lost: counted events, with one example of each kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clm_data.codes import CODES
from clm_data.errors import (
    ChatError,
    ModeratedError,
    PermanentError,
    RateLimitError,
    TransientError,
)
from clm_data.generation.dialogue import ParsedAnswer
from clm_data.records import Entry, Problem, Rejection
from clm_data.text import visible

_NUMBERED = re.compile(r"\b\S*\d\S*")
"""Request ids, times and the like, which differ between failures of one kind."""
_FAILURES: tuple[tuple[type[ChatError], str, str], ...] = (
    (RateLimitError, "rate-limit", "the endpoint limits the number of requests or tokens"),
    (TransientError, "temporary", "the endpoint could not answer now"),
    (ModeratedError, "moderated", "a content filter or the model refused the prompt"),
    (PermanentError, "refused", "the endpoint refused the request"),
)


@dataclass(frozen=True)
class Reason:
    """A kind of loss.

    Attributes:
        code: A code of :data:`clm_data.codes.CODES` for entries; `rate-limit`, `temporary`,
            `moderated`, `refused` or `fix-first` for requests.
        meaning: The code in words.
        count: Number of entries or requests.
        example: One of them: where it is, and what was found.
    """

    code: str
    meaning: str
    count: int
    example: str


@dataclass(frozen=True)
class Failure:
    """A request that failed once; it may have been repeated since.

    Attributes:
        domain: Domain id.
        place: The dialogue and turn: `DOMAIN/DIALOGUE/TURN`.
        error: What the client reported.
    """

    domain: str
    place: str
    error: Exception


def reasons_for_rejection(rejections: Iterable[Rejection]) -> tuple[Reason, ...]:
    """Rejections by the code of their first problem, the most frequent first."""
    return _grouped(
        (each.code, each.code, CODES[each.code].en, f"{each.id}: {_found(each.problems[0])}")
        for each in rejections
    )


def reasons_for_failure(failures: Iterable[Failure]) -> tuple[Reason, ...]:
    """Failed requests by kind and message (ignoring numbers), the most frequent first."""
    events = []
    for each in failures:
        code, meaning = next(
            ((code, words) for kind, code, words in _FAILURES if isinstance(each.error, kind)),
            ("fix-first", "the endpoint answers nothing until something is fixed"),
        )
        message = visible(str(each.error))
        key = f"{code} {_NUMBERED.sub('#', message)}"
        events.append((key, code, meaning, f"{each.place}: {message}"))
    return _grouped(events)


def added_reasons(parts: Iterable[Sequence[Reason]]) -> tuple[Reason, ...]:
    """The reasons of several domains as those of one."""
    counts: Counter[str] = Counter()
    first: dict[str, Reason] = {}
    for part in parts:
        for reason in part:
            counts[reason.code] += reason.count
            first.setdefault(reason.code, reason)
    return tuple(
        Reason(code, first[code].meaning, count, first[code].example)
        for code, count in counts.most_common()
    )


def what_became_of(
    answers: Sequence[ParsedAnswer], new_ids: frozenset[str], duplicates: Sequence[Rejection]
) -> tuple[int, tuple[Rejection, ...]]:
    """Follow each entry of some answers; each is either new in the dataset or rejected.

    Args:
        answers: The answers.
        new_ids: Ids of entries that are in the dataset now and were not before the run.
        duplicates: Rejections of generated entries by the deduplication.

    Returns:
        The number of new entries, and a rejection for each of the others.
    """
    by_id = {each.id: each for each in duplicates}
    new: set[str] = set()
    rejected: list[Rejection] = []
    for answer in answers:
        rejected += answer.rejected
        for entry in answer.entries:
            if entry.id in new_ids and entry.id not in new:
                new.add(entry.id)
            else:
                again = entry.id in new or entry.id not in by_id
                rejected.append(_repeated(entry) if again else by_id[entry.id])
    return len(new), tuple(rejected)


def why_nothing_new(answers: Sequence[ParsedAnswer]) -> str:
    """What some answers contained, none of which added an entry: counts in words."""
    kinds: Counter[str] = Counter()
    for answer in answers:
        if answer.cut_off:
            kinds["cut off at the token limit (finish_reason length)"] += 1
        elif not answer.count:
            kinds["an empty list"] += 1
        elif not answer.entries:
            kinds[CODES[answer.rejected[0].code].en] += 1
        else:
            kinds["only entries that the dataset has, or that a reviewer rejected"] += 1
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{len(answers)} {'answer' if len(answers) == 1 else 'answers'}: {parts}"


def _grouped(events: Iterable[tuple[str, str, str, str]]) -> tuple[Reason, ...]:
    """Count (key, code, meaning, example) events by key."""
    counts: Counter[str] = Counter()
    first: dict[str, tuple[str, str, str]] = {}
    for key, *rest in events:
        counts[key] += 1
        first.setdefault(key, (rest[0], rest[1], rest[2]))
    found = []
    for key, count in counts.most_common():
        code, meaning, example = first[key]
        found.append(Reason(code, meaning, count, example))
    return tuple(found)


def _found(problem: Problem) -> str:
    place = ".".join(part for part in (problem.lang, problem.field) if part)
    return visible(f"{place}: {problem.message}" if place else problem.message)


def _repeated(entry: Entry) -> Rejection:
    return Rejection(
        stage="deduplicate",
        id=entry.id,
        domain=entry.domain,
        problems=(
            Problem(
                code="duplicate-fact",
                message=f"an answer repeats '{entry.zh.subject}', or a reviewer rejected it",
            ),
        ),
        content=entry.model_dump(mode="json"),
    )
