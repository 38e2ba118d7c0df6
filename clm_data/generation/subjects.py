"""Selects the used subjects that a prompt names: repeated ones first, then the newest.

A prompt has room for only some of them. If the model repeats a subject that was not named, the next
message names it, so the subjects that matter most are named eventually.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clm_data.generation.domain_progress import DomainState
from clm_data.records import Entry, Language, Rejection

FIRST_LIST_CHARS = 3_000
"""Maximum characters of the list in the first message of a dialogue: about 400 Chinese subjects."""
LATER_LIST_CHARS = 600
"""Maximum characters of the list in a message that asks for corrections."""
_EXTRA_CHARS = len("- \n")


def used_subjects(states: Iterable[DomainState], lang: Language) -> list[str]:
    """Used subjects without repetitions, each on one line, the most important first.

    Args:
        states: States of one domain, by itself or within the dataset.
        lang: Language of the prompts.
    """
    seen = list(states)
    repeated = [entry for state in seen for entry in state.repeated]
    newest = [entry for state in seen for entry in reversed(state.entries)]
    return list(dict.fromkeys(_subject(entry, lang) for entry in (*repeated, *newest)))


def fit_subjects(subjects: Iterable[str], max_chars: int) -> list[str]:
    """The first subjects whose list has at most ``max_chars`` characters."""
    chosen = []
    for subject in subjects:
        max_chars -= len(subject) + _EXTRA_CHARS
        if max_chars < 0:
            break
        chosen.append(subject)
    return chosen


class Reminder:
    """Selects the subjects to name in one dialogue when an answer contains duplicates.

    The subjects of the duplicated entries come first, followed by those that did not fit into the
    first message. Each of the latter is named once per dialogue.

    Args:
        earlier: State of the domain when the dialogue was planned.
        lang: Language of the prompts.
    """

    def __init__(self, earlier: DomainState, lang: Language) -> None:
        self._lang = lang
        self._entries = {entry.id: entry for entry in earlier.entries}
        subjects = used_subjects([earlier], lang)
        self._unnamed = subjects[len(fit_subjects(subjects, FIRST_LIST_CHARS)) :]

    def after(self, entries: Iterable[Entry], duplicates: Sequence[Rejection]) -> list[str]:
        """The subjects to name after an answer; call it for every answer, in order.

        Args:
            entries: Valid entries of the answer.
            duplicates: Rejections of those entries that are not new.
        """
        self._entries |= {entry.id: entry for entry in entries}
        if not duplicates:
            return []
        duplicated = [
            _subject(self._entries[problem.twin], self._lang)
            for rejection in duplicates
            for problem in rejection.problems
            if problem.twin in self._entries
        ]
        named = fit_subjects(dict.fromkeys([*duplicated, *self._unnamed]), LATER_LIST_CHARS)
        self._unnamed = [subject for subject in self._unnamed if subject not in named]
        return named


def _subject(entry: Entry, lang: Language) -> str:
    return " ".join(entry.fact(lang).subject.split())
