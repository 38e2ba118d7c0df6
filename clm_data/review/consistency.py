"""Finds rows of a sheet that contradict each other, or whose texts belong to other rows."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from clm_data.records import Verdict, digest
from clm_data.review.cells import new_text
from clm_data.review.decisions import History
from clm_data.review.queue import texts_of
from clm_data.review.returned import SheetRow
from clm_data.review.sheet import TEXT_COLUMNS

_VERDICTS: dict[str, Verdict] = {
    "accept": "accept", "accepted": "accept", "通过": "accept", "通過": "accept",
    "reject": "reject", "rejected": "reject", "拒绝": "reject", "拒絕": "reject",
    "fix": "fix", "fixed": "fix", "修改": "fix",
}  # fmt: skip


def verdict_of(row: SheetRow) -> Verdict | None:
    """The verdict of a row; None if it is empty or not a verdict."""
    text = unicodedata.normalize("NFKC", row.cell("verdict")).casefold()
    return _VERDICTS.get("".join(text.split()))


def contradictions(rows: Iterable[SheetRow]) -> dict[int, str]:
    """Reason by row number for rows with different decisions on the same id."""
    decisions: defaultdict[str, set[str]] = defaultdict(set)
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        verdict, id_ = verdict_of(row), row.cell("id")
        if verdict is not None and id_:
            texts = [row.cells.get(column, "") for column in TEXT_COLUMNS]
            decisions[id_].add(digest([verdict, texts if verdict == "fix" else None]))
            numbers[id_].append(row.number)
    return {
        number: f"rows {', '.join(map(str, numbers[id_]))} have different decisions; keep one"
        for id_, different in decisions.items()
        if len(different) > 1
        for number in numbers[id_]
    }


def moved_texts(rows: Sequence[SheetRow], entries: Mapping[str, History]) -> dict[int, str]:
    """Reason by row number for rows with the text of another row, as after sorting some columns.

    At least two rows of a column must have the text of a row that has another one now: an entry may
    be fixed to have the same target as another one.
    """
    reasons: dict[int, str] = {}
    for column, name in TEXT_COLUMNS.items():
        changed: dict[str, tuple[SheetRow, str]] = {}
        owners: dict[str, str] = {}
        for row in rows:
            id_ = row.cell("id")
            if id_ not in entries or column not in row.cells:
                continue
            content = entries[id_].versions.get(row.cell("content_hash").lower())
            exported = texts_of(content)[name] if content is not None else ""
            text = new_text(exported, row.cells[column])
            if exported and text != exported:
                changed[id_] = (row, text)
                owners[exported] = id_
        moved = [(row, owners[text]) for row, text in changed.values() if text in owners]
        for row, owner in moved if len(moved) > 1 else ():
            reasons.setdefault(
                row.number,
                f"{column} has the exported text of {owner} (row {changed[owner][0].number}): "
                "were some columns sorted without the others? Export the entries again, or make "
                "such an exchange in two imports",
            )
    return reasons
