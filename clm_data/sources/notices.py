"""What a reader of files should know: rows that cannot be used, and fields that are not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from clm_data.sources.candidates import candidates_of
from clm_data.sources.files import SourceFile
from clm_data.sources.formats import unread_fields

_EXAMPLES = 3
"""Number of unusable rows that a line of text names."""


@dataclass(frozen=True)
class Reading:
    """How much of a file, or of several, was understood."""

    candidates: int = 0
    unusable: tuple[str, ...] = ()
    """For each row that gives no candidate: its number and the reason."""
    unread: dict[str, int] = field(default_factory=dict)
    """Fields that are not read: number of rows with a value, by name. A name such as
    ``rephrase after the first`` stands for the other items of a list."""
    with_accepted: int = 0
    """Rows with accepted answers besides the first."""

    def as_json(self) -> dict[str, Any]:
        """The reading as JSON values."""
        return {
            "candidates": self.candidates,
            "unusable": list(self.unusable),
            "unread": self.unread,
            "accepted_answers": self.with_accepted,
        }

    def notices(self) -> list[str]:
        """What to tell the user, as lines; empty if everything was read."""
        return [
            *([self._unusable()] if self.unusable else []),
            *self.notes(),
        ]

    def notes(self) -> list[str]:
        """The lines of :meth:`notices` on rows that can be used."""
        lines = []
        if self.unread:
            names = ", ".join(f"{name} ({_rows(n)})" for name, n in self.unread.items())
            count = len(self.unread)
            lines.append(f"{count} {'field is' if count == 1 else 'fields are'} not read: {names}")
        if self.with_accepted:
            have = "has" if self.with_accepted == 1 else "have"
            lines.append(
                f"{_rows(self.with_accepted)} {have} several accepted answers: the target is "
                "compared with all of them, and the first becomes ground_truth"
            )
        return lines

    def _unusable(self) -> str:
        count = len(self.unusable)
        more = f"; and {count - _EXAMPLES} more" if count > _EXAMPLES else ""
        shown = "; ".join(self.unusable[:_EXAMPLES])
        candidates = f"{self.candidates} candidate{'' if self.candidates == 1 else 's'}"
        return f"{candidates}: {_rows(count)} cannot be used: {shown}{more}"


def reading_of(files: Iterable[SourceFile]) -> Reading:
    """How much of some files was understood, each read by itself."""
    candidates, with_accepted = 0, 0
    unusable: list[str] = []
    unread: Counter[str] = Counter()
    for file in files:
        found = candidates_of([file])
        candidates += len(found.kept)
        with_accepted += sum(bool(candidate.accepted) for candidate in found.kept)
        unusable += [rejection.problems[0].message for rejection in found.rejected]
        unread.update(unread_fields(file.rows, file.format))
    return Reading(candidates, tuple(unusable), dict(unread), with_accepted)


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
