"""Imports returned sheets: turns their rows into decisions, and reports the rows that cannot be.

A row is applied if its verdict is valid, its entry still has the exported text, and the texts in
the row are consistent with the verdict. All other rows are reported, and nothing of them is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clm_data.decoding import garbled
from clm_data.errors import UserError
from clm_data.records import Candidate, Decision, Problem, Verdict, digest
from clm_data.review.cells import damage, new_text
from clm_data.review.consistency import contradictions, moved_texts, verdict_of
from clm_data.review.decisions import History, histories, with_fixes
from clm_data.review.queue import texts_of
from clm_data.review.returned import SheetRow, read_returned
from clm_data.review.sheet import TEXT_COLUMNS
from clm_data.store import Store

Check = Callable[[Candidate], Iterable[Problem]]
"""Finds the problems of a candidate."""

_CELL_END = re.compile(r'[,;\t\r\n"]')
_SAMPLED_ENTRIES = 50
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class RowIssue:
    """A conflict, unknown id or warning in one row."""

    row: int
    """Row number as in a spreadsheet, where the header is row 1."""
    id: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """The result of importing one sheet; each row is counted once, apart from ``warnings``."""

    rows: int
    applied: dict[str, int]
    """Number of new decisions by verdict."""
    repeated: int
    """Rows whose decision is already in the store."""
    undecided: int
    """Rows without a verdict."""
    unknown: tuple[RowIssue, ...]
    """Rows whose id belongs to no entry."""
    conflicts: tuple[RowIssue, ...]
    """Rows that cannot be applied, with the reason and how to fix them."""
    warnings: tuple[RowIssue, ...]
    """Rows to check again; they are counted above as well."""
    contrary: tuple[RowIssue, ...] = ()
    """Applied rows that contradict a decision that their reviewer did not know. The entries stay
    out of the dataset until someone settles them."""
    unread: tuple[str, ...] = ()
    """Verdicts on other sheets of the workbook, and columns of others, with the remedy."""

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class SheetDecisions:
    """The decisions in a sheet, before they are stored, and the report."""

    decisions: tuple[Decision, ...]
    digests: tuple[str, ...]
    """One per decision, for :meth:`Store.add_decisions`: equal for a row that is imported again."""
    report: ImportReport


def import_sheet(
    store: Store,
    candidates: Iterable[Candidate],
    path: Path,
    *,
    reviewer: str | None = None,
    check: Check | None = None,
    dry_run: bool = False,
    encoding: str | None = None,
) -> ImportReport:
    """Read a sheet and store its decisions, all of them or none.

    Args:
        store: Store of the decisions.
        candidates: All candidates in the store, before decisions.
        path: The sheet.
        reviewer: Name for rows without a reviewer.
        check: Finds problems, to warn about accepted or fixed texts that still have errors.
        dry_run: Report without storing.
        encoding: Encoding of CSV; default: the one that is certain.

    Raises:
        UserError: The sheet cannot be read, or a verdict has no reviewer. Nothing is stored.
    """
    known = histories(candidates, store.decisions())
    recognizer = _recognizer({id_: each.content for id_, each in known.items()})
    returned = read_returned(path, encoding=encoding, known=recognizer)
    try:
        found = read_decisions(
            returned.rows, known, reviewer=reviewer, known=store.decision_digests(), check=check
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if not dry_run:
        store.add_decisions(found.decisions, found.digests)
    return replace(found.report, unread=returned.unread)


def _recognizer(contents: Mapping[str, Candidate]) -> Callable[[str], float]:
    """Measures which share of the exported texts a decoded sheet contains, from a sample."""

    def share(text: str) -> float:
        ids = sorted(contents.keys() & set(_CELL_END.split(text)))[:_SAMPLED_ENTRIES]
        texts = [each for id_ in ids for each in texts_of(contents[id_]).values()]
        expected = [each for each in texts if not each.isascii() and not _CELL_END.search(each)]
        return sum(each in text for each in expected) / max(1, len(expected))

    return share


def read_decisions(
    rows: Sequence[SheetRow],
    entries: Mapping[str, History],
    *,
    reviewer: str | None = None,
    known: AbstractSet[str] = frozenset(),
    check: Check | None = None,
) -> SheetDecisions:
    """Compare the rows of a sheet with the current texts.

    Args:
        rows: Rows from :func:`clm_data.review.returned.read_sheet`.
        entries: The history of every candidate by id; the new decisions are added to it.
        reviewer: Name for rows without a reviewer.
        known: Digests of decisions that are already stored.
        check: Finds the problems of a candidate.

    Raises:
        UserError: A row has a verdict but no reviewer.
    """
    tally = _Tally(known=set(known))
    refused = contradictions(rows) | moved_texts(rows, entries)
    for sheet_row in rows:
        history = entries.get(sheet_row.cell("id"))
        row = _Row(sheet_row, history, (reviewer or "").strip(), check)
        if sheet_row.number in refused:
            tally.conflicts.append(row.issue(refused[sheet_row.number]))
        else:
            row.classify(tally)
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
        contrary=tuple(tally.contrary),
    )
    return SheetDecisions(tuple(tally.decisions), tuple(tally.digests), report)


@dataclass
class _Tally:
    known: set[str]
    decisions: list[Decision] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    repeated: int = 0
    undecided: int = 0
    unknown: list[RowIssue] = field(default_factory=list)
    conflicts: list[RowIssue] = field(default_factory=list)
    warnings: list[RowIssue] = field(default_factory=list)
    contrary: list[RowIssue] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """One row and the history of its entry."""

    row: SheetRow
    history: History | None
    default_reviewer: str
    check: Check | None

    def issue(self, reason: str) -> RowIssue:
        return RowIssue(self.row.number, self.row.cell("id"), reason)

    def classify(self, tally: _Tally) -> None:
        """Add the row to the tally."""
        tally.warnings += [self.issue(hint) for hint in self.row.hints]
        invalid = "; ".join(self.row.issues.values()) or self._invalid()
        if invalid:
            tally.conflicts.append(self.issue(invalid))
            return
        tally.warnings += [self.issue(text) for text in self._not_read()]
        verdict = verdict_of(self.row)
        key = self._digest(verdict) if verdict else ""
        if key in tally.known:
            tally.repeated += 1
        elif self.history is None:
            tally.unknown.append(
                self.issue("no entry has this id; was the sheet exported from another workspace?")
            )
        elif verdict is None:
            self._undecided(self.history.content, tally)
        else:
            self._decide(self.history, verdict, key, tally)

    def _invalid(self) -> str | None:
        if not self.row.cell("id"):
            return "the id is empty; copy it from the exported sheet"
        verdict = self.row.cell("verdict")
        if verdict and verdict_of(self.row) is None:
            return f"verdict '{verdict}' is not one of accept, reject, fix (通过, 拒绝, 修改)"
        return _half_character({name: self.row.cell(name) for name in ("note", "reviewer")})

    def _not_read(self) -> Iterator[str]:
        """What a reviewer entered that no decision holds."""
        if self.row.cell("note") and not self.row.cell("verdict"):
            yield "the note is not stored, as there is no verdict; enter one"
        if self.history is None or not self._is_current(self.history.content):
            return
        domain = (self.history.content.domain or "").strip()
        if self.row.cells.get("domain", domain).strip() != domain:
            yield f"domain: edited, not read; the entry stays in '{domain}'"
        if self._known_decisions() > self.history.count:
            yield f"decisions: edited, not read; there were at most {self.history.count}"

    def _undecided(self, content: Candidate, tally: _Tally) -> None:
        changes = self._changes(content) if self._is_current(content) else {}
        damaged = self._damaged(content, changes)
        if set(changes) - set(damaged):
            names = ", ".join(changes)
            tally.conflicts.append(
                self.issue(f"{names}: edited, but there is no verdict; set it to fix")
            )
            return
        tally.undecided += 1
        tally.warnings += [self.issue(f"{name}: {why}") for name, why in damaged.items()]

    def _decide(self, history: History, verdict: Verdict, key: str, tally: _Tally) -> None:
        content_hash = self.row.cell("content_hash").lower()
        seen = self._known_decisions()
        seen = seen if seen <= history.count else 0
        content = history.seen_by(content_hash, self._reviewer(), seen) or history.content
        reason, fixed = self._reason_against(content, verdict)
        if reason is not None:
            tally.conflicts.append(self.issue(reason))
            return
        decision = Decision(
            entry_id=content.id,
            content_hash=content.content_hash,
            verdict=verdict,
            reviewer=self._reviewer(),
            note=self.row.cell("note"),
            fixed=fixed or None,
            seen=seen,
        )
        history.add(decision)
        if history.in_dispute:
            others = "; ".join(each.describe() for each in history.opinions[:-1])
            tally.contrary.append(self.issue(f"{verdict} is contrary to {others}"))
        tally.known.add(key)
        tally.decisions.append(decision)
        tally.digests.append(key)
        tally.warnings += [self.issue(text) for text in self._warnings(content, decision)]

    def _reason_against(
        self, content: Candidate, verdict: Verdict
    ) -> tuple[str | None, dict[str, str]]:
        """Why the verdict cannot be applied, or None, with the fixed texts by name."""
        if not self._is_current(content):
            return "the entry has changed since the export; export it again", {}
        changes = self._changes(content)
        for column, why in self._damaged(content, changes).items():
            fix = "restore the exported text, or edit the .xlsx sheet instead"
            return f"{column}: {why} ('{changes[column]}'); {fix}", {}
        if verdict != "fix" and changes:
            names = ", ".join(changes)
            return f"{names}: edited, but the verdict is {verdict}; set it to fix", {}
        if verdict == "fix" and not changes:
            return (
                "the verdict is fix, but no text was edited; edit one, or use another verdict",
                {},
            )
        broken = _half_character(changes) or _garbled(changes)
        if broken is not None:
            return broken, {}
        deleted = [column for column, text in changes.items() if not text.strip()]
        if deleted:
            return f"{deleted[0]}: the text was deleted; enter a text, or reject the entry", {}
        return None, {TEXT_COLUMNS[column]: text for column, text in changes.items()}

    def _is_current(self, content: Candidate) -> bool:
        return self.row.cell("content_hash").lower() == content.content_hash

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

    def _damaged(self, content: Candidate, changes: Mapping[str, str]) -> dict[str, str]:
        """Reason by column for edits that a spreadsheet program seems to have made."""
        exported = texts_of(content)
        reasons = {
            column: damage(exported[TEXT_COLUMNS[column]], text)
            for column, text in changes.items()
            if column in self.row.retyped
        }
        reasons |= {column: self.row.doubts[column] for column in changes.keys() & self.row.doubts}
        return {column: why for column, why in reasons.items() if why is not None}

    def _warnings(self, content: Candidate, decision: Decision) -> list[str]:
        if decision.verdict == "reject":
            return (
                [] if decision.note else ["rejected without a reason; enter it in the note column"]
            )
        after = with_fixes(content, decision.fixed or {})
        problems = self.check(after) if self.check is not None else ()
        codes = sorted({problem.code for problem in problems if problem.severity == "error"})
        if not codes:
            return []
        word = "accepted" if decision.verdict == "accept" else "fixed"
        return [f"{word}, but not in the dataset until {', '.join(codes)} is fixed"]

    def _reviewer(self) -> str:
        name = self.row.cell("reviewer") or self.default_reviewer
        if not name:
            raise UserError(
                f"row {self.row.number} has a verdict but no reviewer; fill in the column "
                "'reviewer' or use --reviewer NAME"
            )
        return name

    def _known_decisions(self) -> int:
        """The number of decisions that the sheet knew; 0 if it does not say."""
        text = self.row.cell("decisions")
        return int(text) if text.isdecimal() and len(text) < 10 else 0

    def _digest(self, verdict: Verdict) -> str:
        """Identify the decision on this export of the entry, independently of the file format."""
        texts = [self.row.cells.get(column, "") for column in TEXT_COLUMNS]
        return digest(
            {
                "id": self.row.cell("id"),
                "content_hash": self.row.cell("content_hash").lower(),
                "decisions": self.row.cell("decisions"),
                "verdict": verdict,
                "note": self.row.cell("note"),
                "reviewer": self._reviewer(),
                "texts": texts if verdict == "fix" else None,
            }
        )


def _garbled(cells: Mapping[str, str]) -> str | None:
    for column, text in cells.items():
        part = "U+FFFD" if "\ufffd" in text else garbled(text)
        if part is not None:
            return f"{column}: garbled text ({part}); type it again, and save as .xlsx"
    return None


def _half_character(cells: Mapping[str, str]) -> str | None:
    for column, text in cells.items():
        if _HALF_CHARACTER.search(text):
            return f"{column}: contains an invalid character (a lone surrogate); type it again"
    return None
