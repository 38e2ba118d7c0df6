"""What is said next in a dialogue: a pure function of what was said, so that it can be resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.codes import CODES
from clm_data.config import GenerationSettings
from clm_data.llm.base import Message
from clm_data.prompts import Prompts
from clm_data.records import Candidate, Entry, Language, Rejection

DONE = "all entries there"
NOTHING_MORE = "the model had nothing more"
TURNS_USED = "all turns used"


@dataclass(frozen=True)
class Say:
    """The next message to the model."""

    text: str


@dataclass(frozen=True)
class End:
    """The dialogue is over."""

    reason: str


def next_step(
    standing: DialogueState,
    wanted: int,
    settings: GenerationSettings,
    prompts: Prompts,
    taken: Sequence[str] = (),
) -> Say | End:
    """Go on, correct, or end.

    Args:
        standing: After the last answer.
        wanted: New entries the dialogue should bring.
        settings: ``turns`` and ``entries_per_turn``.
        prompts: Renders the messages.
        taken: Subjects to name if the last answer brought duplicates.
    """
    if standing.good >= wanted:
        return End(DONE)
    last = standing.last
    if not last.read and not last.cut_off:
        return End(NOTHING_MORE)
    if standing.turns >= settings.turns:
        return End(TURNS_USED)
    count = min(settings.entries_per_turn, wanted - standing.good)
    # What a cut-off answer broke off in is no mistake of the model's: it just goes on.
    wrong = [each for each in last.rejected if not (last.cut_off and each.stage == "parse")]
    problems = list(in_words([*wrong, *standing.duplicates], prompts.lang))
    if not problems:
        return Say(prompts.more(count).text)
    return Say(prompts.correct(problems, count, taken if standing.duplicates else ()).text)


def in_words(rejections: Sequence[Rejection], lang: Language) -> Iterator[str]:
    """One line for each problem that keeps an entry out, naming the entry by its subject."""
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


def extended(messages: Sequence[Message], answer: str, reply: str) -> list[Message]:
    """A conversation with the model's answer and our reply; reasoning is no part of it.

    An answer of reasoning alone stands as an empty list: endpoints refuse empty messages, and two
    of ours in a row.
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


@dataclass(frozen=True)
class DialogueState:
    """Where a dialogue stands.

    Attributes:
        turns: Answers so far, at least one.
        good: New entries in them: valid, and neither in earlier waves nor said twice.
        last: The last answer.
        duplicates: Entries of the last answer that are valid but not new.
    """

    turns: int
    good: int
    last: ParsedAnswer
    duplicates: tuple[Rejection, ...]


@dataclass(frozen=True)
class ParsedAnswer:
    """What one answer says.

    Attributes:
        candidates: Complete entries, good or not.
        entries: Those that pass every rule.
        rejected: The others, and what could not be read.
        cut_off: Whether it ended at the token limit.
    """

    candidates: tuple[Candidate, ...]
    entries: tuple[Entry, ...]
    rejected: tuple[Rejection, ...]
    cut_off: bool

    @property
    def read(self) -> int:
        """Entries and attempts at entries."""
        return len(self.entries) + len(self.rejected)
