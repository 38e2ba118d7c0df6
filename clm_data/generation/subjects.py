"""Which subjects a model is told are taken: those it gave again first, then the newest.

A prompt has room for some of them only. What a model was not told of it may give again; then the
next turn names it, so what matters most is said sooner or later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clm_data.generation.progress import State
from clm_data.records import Entry, Language, Rejection

ROOM_AT_FIRST = 3_000
"""Characters of the list in the message that opens a dialogue: some 400 Chinese subjects."""
ROOM_LATER = 600
"""Characters of the list in a message that sends problems back."""
_PER_LINE = len("- \n")


def taken(states: Iterable[State], lang: Language) -> list[str]:
    """Subjects in use, each once and on one line, the ones to name first in front.

    Args:
        states: Of one domain, seen by itself or in the whole dataset.
        lang: Whose subjects: that in which the model is spoken to.
    """
    seen = list(states)
    again = [entry for state in seen for entry in state.again]
    newest = [entry for state in seen for entry in reversed(state.entries)]
    return list(dict.fromkeys(_subject(entry, lang) for entry in (*again, *newest)))


def fitting(subjects: Iterable[str], room: int) -> list[str]:
    """The first subjects whose lines have no more characters than there is room for."""
    chosen = []
    for subject in subjects:
        room -= len(subject) + _PER_LINE
        if room < 0:
            break
        chosen.append(subject)
    return chosen


class Reminder:
    """What to name in one dialogue when an answer brings duplicates.

    The subjects of what they duplicate come first, then those that the opening had no room for,
    each of these once in a dialogue.

    Args:
        earlier: Where the domain stood when the dialogue was planned.
        lang: As for :func:`taken`.
    """

    def __init__(self, earlier: State, lang: Language) -> None:
        self._lang = lang
        self._known = {entry.id: entry for entry in earlier.entries}
        subjects = taken([earlier], lang)
        self._unnamed = subjects[len(fitting(subjects, ROOM_AT_FIRST)) :]

    def after(self, entries: Iterable[Entry], duplicates: Sequence[Rejection]) -> list[str]:
        """What to name after an answer; to be asked after each.

        Args:
            entries: Valid ones in the answer.
            duplicates: Those of them that are not new.
        """
        self._known |= {entry.id: entry for entry in entries}
        if not duplicates:
            return []
        twins = [
            _subject(self._known[problem.twin], self._lang)
            for rejection in duplicates
            for problem in rejection.problems
            if problem.twin in self._known
        ]
        named = fitting(dict.fromkeys([*twins, *self._unnamed]), ROOM_LATER)
        self._unnamed = [subject for subject in self._unnamed if subject not in named]
        return named


def _subject(entry: Entry, lang: Language) -> str:
    return " ".join(entry.fact(lang).subject.split())
