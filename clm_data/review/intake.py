"""From a sheet that came back to decisions: what applies, what does not, and why.

A row applies when its verdict is clear, its entry still has the text that was exported, and the
texts in the row agree with the verdict. Everything else is listed and nothing of it is stored.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clm_data.errors import UserError
from clm_data.records import Candidate, Decision, Problem, Verdict, digest
from clm_data.review.cells import damage, new_text
from clm_data.review.decisions import current_contents, with_fixes
from clm_data.review.queue import texts_of
from clm_data.review.sheet import TEXT_COLUMNS, SheetRow, read_sheet
from clm_data.store import Store

Check = Callable[[Candidate], Iterable[Problem]]
"""Finds the problems of a content."""

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_VERDICTS: dict[str, Verdict] = {
    "accept": "accept", "accepted": "accept", "通过": "accept", "通過": "accept",
    "reject": "reject", "rejected": "reject", "拒绝": "reject", "拒絕": "reject",
    "fix": "fix", "fixed": "fix", "修改": "fix",
}  # fmt: skip


@dataclass(frozen=True)
class RowNote:
    """Something to tell about one row."""

    row: int
    """As a spreadsheet counts: the header is row 1."""
    id: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What came of a sheet: every row with content is counted exactly once before ``warnings``."""

    rows: int
    applied: dict[str, int]
    """New decisions by verdict."""
    repeated: int
    """Rows whose decision is already in the store."""
    undecided: int
    """Rows without a verdict."""
    unknown: tuple[RowNote, ...]
    """Rows whose id no entry has."""
    conflicts: tuple[RowNote, ...]
    """Rows that could not be applied, with the way to mend them."""
    warnings: tuple[RowNote, ...]
    """Rows to look at again; they are counted above as well."""

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Intake:
    """The decisions of a sheet and the report on it; nothing is stored yet."""

    decisions: tuple[Decision, ...]
    digests: tuple[str, ...]
    """One a decision: identifies the act of deciding, for :meth:`Store.add_decisions`."""
    report: ImportReport


def import_sheet(
    store: Store,
    candidates: Iterable[Candidate],
    path: Path,
    *,
    reviewer: str | None = None,
    check: Check | None = None,
    dry_run: bool = False,
) -> ImportReport:
    """Read a sheet and store its decisions in one transaction: all of them or none.

    Args:
        store: Where decisions are.
        candidates: Every candidate in the store, before decisions.
        path: The sheet.
        reviewer: Who decided, for rows that do not say.
        check: Finds the problems of a text, to warn of verdicts that leave errors standing.
        dry_run: Only report.

    Raises:
        UserError: The sheet cannot be read, or a verdict has no reviewer; nothing is stored.
    """
    rows = read_sheet(path)
    contents = current_contents(candidates, store.decisions())
    try:
        intake = read_decisions(
            rows, contents, reviewer=reviewer, known=store.decision_digests(), check=check
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not dry_run:
        store.add_decisions(intake.decisions, intake.digests)
    return intake.report


def read_decisions(
    rows: Sequence[SheetRow],
    contents: Mapping[str, Candidate],
    *,
    reviewer: str | None = None,
    known: AbstractSet[str] = frozenset(),
    check: Check | None = None,
) -> Intake:
    """Judge the rows of a sheet against the current texts.

    Args:
        rows: As :func:`read_sheet` gives them.
        contents: Current text of every candidate by id, rejected ones too.
        reviewer: Who decided, for rows that do not say.
        known: Digests of the acts that are already stored.
        check: Finds the problems of a text.

    Raises:
        UserError: A row has a verdict but nobody who gave it.
    """
    tally = _Tally(known=set(known))
    clashes = _clashes(rows)
    for row in rows:
        note = _Row(row, contents.get(_cell(row, "id")), (reviewer or "").strip(), check)
        if row.number in clashes:
            tally.conflicts.append(note.say(clashes[row.number]))
        else:
            note.judge(tally)
    report = ImportReport(
        rows=len(rows),
        applied={
            verdict: sum(decision.verdict == verdict for decision in tally.decisions)
            for verdict in ("accept", "reject", "fix")
        },
        repeated=tally.repeated,
        undecided=tally.undecided,
        unknown=tuple(tally.unknown),
        conflicts=tuple(tally.conflicts),
        warnings=tuple(tally.warnings),
    )
    return Intake(tuple(tally.decisions), tuple(tally.digests), report)


@dataclass
class _Tally:
    known: set[str]
    decisions: list[Decision] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    repeated: int = 0
    undecided: int = 0
    unknown: list[RowNote] = field(default_factory=list)
    conflicts: list[RowNote] = field(default_factory=list)
    warnings: list[RowNote] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """One row and the entry it is about."""

    row: SheetRow
    content: Candidate | None
    default_reviewer: str
    check: Check | None

    def say(self, reason: str) -> RowNote:
        return RowNote(self.row.number, _cell(self.row, "id"), reason)

    def judge(self, tally: _Tally) -> None:
        """Put the row where it belongs."""
        wrong = self._unreadable()
        if wrong is not None:
            tally.conflicts.append(self.say(wrong))
            return
        verdict = _verdict(self.row)
        act = self._act(verdict) if verdict else ""
        if act in tally.known:
            tally.repeated += 1
        elif self.content is None:
            tally.unknown.append(self.say("no entry has this id; is it another workspace's sheet?"))
        elif verdict is None:
            self._undecided(self.content, tally)
        else:
            self._decide(self.content, verdict, act, tally)

    def _unreadable(self) -> str | None:
        if not _cell(self.row, "id"):
            return "the id is empty; copy it from the exported sheet"
        said = _cell(self.row, "verdict")
        if said and _verdict(self.row) is None:
            return f"verdict '{said}' is none of accept, reject, fix (通过, 拒绝, 修改)"
        return _half_character({name: _cell(self.row, name) for name in ("note", "reviewer")})

    def _undecided(self, content: Candidate, tally: _Tally) -> None:
        changes = self._changes(content) if self._is_current(content) else {}
        ruined = self._ruined(content, changes)
        if set(changes) - set(ruined):
            names = ", ".join(changes)
            tally.conflicts.append(self.say(f"{names}: edited, but no verdict; set it to fix"))
            return
        tally.undecided += 1
        tally.warnings += [self.say(f"{name}: {why}") for name, why in ruined.items()]

    def _decide(self, content: Candidate, verdict: Verdict, act: str, tally: _Tally) -> None:
        reason, fixed = self._reason_against(content, verdict)
        if reason is not None:
            tally.conflicts.append(self.say(reason))
            return
        decision = Decision(
            entry_id=content.id,
            content_hash=content.content_hash,
            verdict=verdict,
            reviewer=self._reviewer(),
            note=_cell(self.row, "note"),
            fixed=fixed or None,
        )
        tally.known.add(act)
        tally.decisions.append(decision)
        tally.digests.append(act)
        tally.warnings += [self.say(text) for text in self._doubts(content, decision)]

    def _reason_against(
        self, content: Candidate, verdict: Verdict
    ) -> tuple[str | None, dict[str, str]]:
        """Why the verdict cannot be applied, or None and the fixed texts by name."""
        if not self._is_current(content):
            return "the entry has changed since the export; export it again", {}
        changes = self._changes(content)
        for column, why in self._ruined(content, changes).items():
            mend = "put the exported text back, or type the text in the .xlsx sheet"
            return f"{column}: {why} ('{changes[column]}'); {mend}", {}
        if verdict != "fix" and changes:
            names = ", ".join(changes)
            return f"{names}: edited, but the verdict is {verdict}; set it to fix", {}
        if verdict == "fix" and not changes:
            return (
                "the verdict is fix, but no text was edited; edit one, or use another verdict",
                {},
            )
        half = _half_character(changes)
        if half is not None:
            return half, {}
        emptied = [column for column, text in changes.items() if not text.strip()]
        if emptied:
            return f"{emptied[0]}: emptied; write the text, or reject the entry", {}
        return None, {TEXT_COLUMNS[column]: text for column, text in changes.items()}

    def _is_current(self, content: Candidate) -> bool:
        return _cell(self.row, "content_hash").lower() == content.content_hash

    def _changes(self, content: Candidate) -> dict[str, str]:
        """Edited texts by column."""
        exported = texts_of(content)
        changes = {}
        for column, name in TEXT_COLUMNS.items():
            if column in self.row.cells:
                text = new_text(exported[name], self.row.cells[column])
                if text != exported[name]:
                    changes[column] = text
        return changes

    def _ruined(self, content: Candidate, changes: Mapping[str, str]) -> dict[str, str]:
        """Why an edit looks like the spreadsheet's own, by column."""
        exported = texts_of(content)
        reasons = {
            column: damage(exported[TEXT_COLUMNS[column]], text)
            for column, text in changes.items()
            if column in self.row.retyped
        }
        return {column: why for column, why in reasons.items() if why is not None}

    def _doubts(self, content: Candidate, decision: Decision) -> list[str]:
        if decision.verdict == "reject":
            return [] if decision.note else ["rejected without a note; say why in the note column"]
        after = with_fixes(content, decision.fixed or {})
        problems = self.check(after) if self.check is not None else ()
        codes = sorted({problem.code for problem in problems if problem.severity == "error"})
        if not codes:
            return []
        word = "accepted" if decision.verdict == "accept" else "fixed"
        return [f"{word}, but kept out of the dataset until {', '.join(codes)} is mended"]

    def _reviewer(self) -> str:
        name = _cell(self.row, "reviewer") or self.default_reviewer
        if not name:
            raise UserError(
                f"row {self.row.number} has a verdict but no reviewer; fill in the column "
                "'reviewer' or give --reviewer NAME"
            )
        return name

    def _act(self, verdict: Verdict) -> str:
        """Identifies the decision as made on this export of this entry, however it was saved."""
        texts = [self.row.cells.get(column, "") for column in TEXT_COLUMNS]
        return digest(
            {
                "id": _cell(self.row, "id"),
                "content_hash": _cell(self.row, "content_hash").lower(),
                "decisions": _cell(self.row, "decisions"),
                "verdict": verdict,
                "note": _cell(self.row, "note"),
                "reviewer": self._reviewer(),
                "texts": texts if verdict == "fix" else None,
            }
        )


def _clashes(rows: Iterable[SheetRow]) -> dict[int, str]:
    """Reason by row number for rows that decide differently on one id."""
    said: defaultdict[str, Counter[str]] = defaultdict(Counter)
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        verdict = _verdict(row)
        if verdict is not None and _cell(row, "id"):
            texts = [row.cells.get(column, "") for column in TEXT_COLUMNS]
            said[_cell(row, "id")][digest([verdict, texts if verdict == "fix" else None])] += 1
            numbers[_cell(row, "id")].append(row.number)
    return {
        number: f"rows {', '.join(map(str, numbers[id_]))} decide differently; leave one of them"
        for id_, verdicts in said.items()
        if len(verdicts) > 1
        for number in numbers[id_]
    }


def _half_character(cells: Mapping[str, str]) -> str | None:
    for column, text in cells.items():
        if _HALF_CHARACTER.search(text):
            return f"{column}: holds half a character (a lone surrogate); type it again"
    return None


def _verdict(row: SheetRow) -> Verdict | None:
    said = unicodedata.normalize("NFKC", _cell(row, "verdict")).casefold()
    return _VERDICTS.get("".join(said.split()))


def _cell(row: SheetRow, column: str) -> str:
    return row.cells.get(column, "").strip()
