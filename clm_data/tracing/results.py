"""The result of :func:`clm_data.tracing.trace`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from clm_data.llm.base import Completion, Message
from clm_data.records import Candidate, Decision, Problem, ReviewStatus, Stage
from clm_data.tabular import Tabular

Effect = Literal["in effect", "contrary", "replaced", "not applied"]
Outcome = Literal["in the dataset", "left out", "repeats another row", "not in the store"]


@dataclass(frozen=True)
class TracedDecision:
    """A reviewer's decision on an entry.

    Attributes:
        decision: The decision.
        decided_at: When it was stored, in UTC.
        effect: `contrary` if it is in effect and others in effect differ; `replaced` by a later
            one; `not applied` if it was made on a text that the entry does not have, or changes
            nothing.
    """

    decision: Decision
    decided_at: str
    effect: Effect

    def as_json(self) -> dict[str, Any]:
        """The decision as JSON values."""
        return {
            "decided_at": self.decided_at,
            "effect": self.effect,
            **self.decision.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class TracedEntry:
    """One object of an answer, or one imported row, and what became of it.

    Attributes:
        id: Id of the entry; the place of what could not be read as one.
        place: `DOMAIN/DIALOGUE/TURN#N` for the n-th object of an answer, or `FILE#ROW`.
        outcome: Whether it is in the dataset now.
        asked: Whether it is what the caller asked for, or a part of that.
        stage: The stage that left it out; None if none did.
        problems: Why, the main reason first.
        warnings: Warnings on an entry in the dataset.
        probe_problems: Why the locality probe of its source is not used; empty if it is.
        duplicate_of: Id of the entry that it repeats or resembles.
        candidate: The entry as read; None if it could not be read as one.
        current: The entry with the reviewers' fixes; None if there are none.
        content: What could not be read as an entry: text of an answer, or a row.
        status: The review's result; None if it has none.
        decisions: All decisions on it, oldest first.
        copies: (id, place) of later entries with exactly this content.
    """

    id: str
    place: str
    outcome: Outcome
    asked: bool = False
    stage: Stage | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    probe_problems: tuple[Problem, ...] = ()
    duplicate_of: str | None = None
    candidate: Candidate | None = None
    current: Candidate | None = None
    content: Any = None
    status: ReviewStatus | None = None
    decisions: tuple[TracedDecision, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON values."""
        return {
            "id": self.id,
            "place": self.place,
            "asked": self.asked,
            "outcome": self.outcome,
            "stage": self.stage,
            "problems": _problems(self.problems),
            "warnings": _problems(self.warnings),
            "probe_problems": _problems(self.probe_problems),
            "duplicate_of": self.duplicate_of,
            "candidate": self.candidate and self.candidate.model_dump(mode="json"),
            "current": self.current and self.current.model_dump(mode="json"),
            "content": self.content,
            "status": self.status,
            "decisions": [each.as_json() for each in self.decisions],
            "copies": [{"id": id_, "place": place} for id_, place in self.copies],
        }


@dataclass(frozen=True)
class TracedAnswer:
    """A request to a model, and its answer if there is one.

    Attributes:
        dialogue: `DOMAIN/DIALOGUE`.
        turn: Turn in the dialogue, from 0.
        provider: Provider that was asked.
        model: Model that was asked; :attr:`completion` has the name that the endpoint gave.
        sent_at: When the request was first sent, in UTC.
        answered_at: When its outcome was stored; None if it has none.
        messages: The conversation that was sent.
        completion: The answer.
        error: Why there is no answer.
        damage: What cannot be read of the stored request, and is missing here.
        ended: Why the dialogue ended; None if it has not.
        entries: Each object that was found in the answer, kept or rejected.
    """

    dialogue: str
    turn: int
    provider: str
    model: str
    sent_at: str
    answered_at: str | None
    messages: tuple[Message, ...]
    completion: Completion | None
    error: str | None
    damage: str | None
    ended: str | None
    entries: tuple[TracedEntry, ...] = ()

    @property
    def name(self) -> str:
        """`DOMAIN/DIALOGUE/TURN`."""
        return f"{self.dialogue}/{self.turn}"

    def as_json(self) -> dict[str, Any]:
        """The request and its answer as JSON values; entries are named by their places."""
        values = {name: value for name, value in vars(self).items() if name != "completion"}
        return {
            **values,
            "messages": list(self.messages),
            "answer": self.completion and self.completion.model_dump(mode="json"),
            "entries": [entry.place for entry in self.entries],
        }


@dataclass(frozen=True)
class TracedRow:
    """A row of an imported file.

    Attributes:
        file: Name of the file.
        number: The row, counted from 1.
        format: A name in :data:`clm_data.sources.FORMATS`.
        licence: License of the content, if known.
        sha256: Of the file.
        imported_at: When the file was imported, in UTC.
        content: The row as a JSON value, unchanged.
        is_used: False if another file has what the row says.
    """

    file: str
    number: int
    format: str
    licence: str | None
    sha256: str
    imported_at: str
    content: Any
    is_used: bool


@dataclass(frozen=True)
class Trace(Tabular):
    """What happened to an entry, an answer, a dialogue or an imported row.

    Attributes:
        what: What was asked for.
        entries: The entries asked for, and the others of the same answers.
        answers: The requests, by turn and time.
        rows: The imported rows.
        damaged: Damaged rows of the store; what is damaged in them is left out of the rest.
    """

    what: str
    entries: tuple[TracedEntry, ...] = ()
    answers: tuple[TracedAnswer, ...] = ()
    rows: tuple[TracedRow, ...] = ()
    damaged: tuple[str, ...] = field(default=())

    @property
    def asked(self) -> tuple[TracedEntry, ...]:
        """The entries asked for."""
        return tuple(entry for entry in self.entries if entry.asked)

    def as_json(self) -> dict[str, Any]:
        """The JSON value that `clm-data show --json` prints."""
        return {
            "what": self.what,
            "entries": [entry.as_json() for entry in self.entries],
            "answers": [answer.as_json() for answer in self.answers],
            "rows": [dict(vars(row)) for row in self.rows],
            "damaged": list(self.damaged),
        }

    def table_title(self) -> str:
        """What was asked for."""
        return self.what

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each entry, with the first problem of one that was left out."""
        return [
            {
                "id": entry.id,
                "place": entry.place,
                "outcome": entry.outcome,
                "stage": entry.stage,
                "code": entry.problems[0].code if entry.problems else None,
                "message": entry.problems[0].message if entry.problems else None,
                "decisions": len(entry.decisions),
            }
            for entry in self.entries
        ]


def _problems(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    return [{"severity": each.severity, **each.model_dump(exclude_none=True)} for each in problems]
