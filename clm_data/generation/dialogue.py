"""Decides the next message of a dialogue: a pure function of its answers, so it can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.codes import CODES
from clm_data.config import GenerationSettings
from clm_data.llm.base import Message
from clm_data.prompts import Prompts
from clm_data.records import Candidate, Entry, Language, Rejection

DONE = "all entries received"
NOTHING_MORE = "the model has no more entries"
TURNS_USED = "all turns used"


@dataclass(frozen=True)
class ParsedAnswer:
    """One answer after parsing and validation.

    Attributes:
        candidates: Complete entries, valid or not.
        entries: Valid entries.
        rejected: Invalid entries, and objects that cannot be parsed.
        cut_off: Whether the answer ended at the token limit.
    """

    candidates: tuple[Candidate, ...]
    entries: tuple[Entry, ...]
    rejected: tuple[Rejection, ...]
    cut_off: bool

    @property
    def count(self) -> int:
        """Number of entries in the answer, including invalid and incomplete ones."""
        return len(self.entries) + len(self.rejected)


@dataclass(frozen=True)
class DialogueState:
    """A dialogue after an answer.

    Attributes:
        turns: Answers so far, at least one.
        new_entries: Valid entries so far that neither earlier batches nor this dialogue had.
        last: The last answer.
        duplicates: Valid entries of the last answer that are not new.
    """

    turns: int
    new_entries: int
    last: ParsedAnswer
    duplicates: tuple[Rejection, ...]


@dataclass(frozen=True)
class Reply:
    """The next message to the model."""

    text: str


@dataclass(frozen=True)
class End:
    """The dialogue has ended."""

    reason: str


def next_step(
    state: DialogueState,
    wanted: int,
    settings: GenerationSettings,
    prompts: Prompts,
    subjects: Sequence[str] = (),
) -> Reply | End:
    """Ask for more entries, ask for corrections, or end the dialogue.

    Args:
        state: The dialogue after its last answer.
        wanted: New entries that the dialogue should produce.
        settings: ``turns`` and ``entries_per_turn`` are used.
        prompts: Templates of the messages.
        subjects: Used subjects to name if the last answer contains duplicates.
    """
    if state.new_entries >= wanted:
        return End(DONE)
    last = state.last
    if not last.count and not last.cut_off:
        return End(NOTHING_MORE)
    if state.turns >= settings.turns:
        return End(TURNS_USED)
    count = min(settings.entries_per_turn, wanted - state.new_entries)
    # The incomplete end of an answer at the token limit is not a mistake to correct.
    mistakes = [each for each in last.rejected if not (last.cut_off and each.stage == "parse")]
    problems = list(describe_problems([*mistakes, *state.duplicates], prompts.lang))
    if not problems:
        return Reply(prompts.more(count).text)
    return Reply(prompts.correct(problems, count, subjects if state.duplicates else ()).text)


def describe_problems(rejections: Sequence[Rejection], lang: Language) -> Iterator[str]:
    """Yield one line per error, which names the entry by its subject."""
    for rejection in rejections:
        for problem in rejection.problems:
            if problem.severity == "error":
                place = [_subject(rejection.content, lang), problem.lang, problem.field]
                name = " ".join(part for part in place if part)
                code = CODES[problem.code]
                if lang == "zh":
                    yield f"{name}{'：' if name else ''}{code.zh}（{problem.message}）"
                else:
                    yield f"{name}{': ' if name else ''}{code.en} ({problem.message})"


def with_reply(messages: Sequence[Message], answer: str, reply: str) -> list[Message]:
    """Append an answer, without its reasoning, and the reply to it.

    An empty answer is sent as an empty list: endpoints accept neither empty messages nor two user
    messages in a row.
    """
    return [
        *messages,
        {"role": "assistant", "content": answer if answer.strip() else "[]"},
        {"role": "user", "content": reply},
    ]


def _subject(content: Any, lang: Language) -> str | None:
    fact = content.get(lang) if isinstance(content, dict) else None
    subject = fact.get("subject") if isinstance(fact, dict) else None
    return " ".join(subject.split()) if isinstance(subject, str) else None
