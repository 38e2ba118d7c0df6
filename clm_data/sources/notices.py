"""What a reader of files should know: rows that cannot be used, and fields that are not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from clm_data.records import Candidate, StageResult
from clm_data.sources.candidates import candidates_of, case_ids, units_of
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
    pairing: tuple[str, ...] = ()
    """From :func:`pairing_notes`."""

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
        lines = list(self.pairing)
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


def pairing_notes(files: Sequence[SourceFile]) -> Iterator[str]:
    """Chinese and English files that were paired without ids, or not paired."""
    units = units_of(files)
    for unit in units:
        if unit.english is not None and set(case_ids(unit.first.rows)) == {"null"}:
            yield (
                f"{unit.first.name} and {unit.english.name} have no case_id: their rows were "
                "paired in order; check that both files have the same order"
            )
    single = [unit.first for unit in units if unit.english is None]
    chinese = [file for file in single if file.format == "clm-bench-zh"]
    english = [file for file in single if file.format == "clm-bench-en"]
    for zh, en in zip(chinese, english, strict=False):
        yield (
            f"{zh.name} and {en.name} were not paired: {_difference(zh, en)}; both need the same "
            "case_id in the same order"
        )


def _difference(zh: SourceFile, en: SourceFile) -> str:
    """The first difference of the ids of two files."""
    ids = zip(case_ids(zh.rows), case_ids(en.rows), strict=False)
    for number, (left, right) in enumerate(ids, 1):
        if left != right:
            return f"row {number} has case_id {left} in one and {right} in the other"
    return f"one has {_rows(len(zh.rows))}, the other {_rows(len(en.rows))}"


def reading_of(
    files: Sequence[SourceFile], together: StageResult[Candidate] | None = None
) -> Reading:
    """How much of some files was understood, each read by itself, and how they were paired.

    Args:
        files: The files.
        together: What :func:`clm_data.sources.candidates_of` gave for these files, so that a single
            one is not read again.
    """
    alone = together if len(files) == 1 else None
    candidates, with_accepted = 0, 0
    unusable: list[str] = []
    unread: Counter[str] = Counter()
    for file in files:
        found = alone or candidates_of([file])
        candidates += len(found.kept)
        with_accepted += sum(bool(candidate.accepted) for candidate in found.kept)
        unusable += [rejection.problems[0].message for rejection in found.rejected]
        unread.update(unread_fields(file.rows, file.format))
    pairing = tuple(pairing_notes(files))
    return Reading(candidates, tuple(unusable), dict(unread), with_accepted, pairing)


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
