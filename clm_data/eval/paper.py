"""The paper's figures, and results beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.eval.metrics import derived
from clm_data.eval.tables import NUMBERS, Row, number
from clm_data.resources import read_text

MISPRINTED = (("table1", "Qwen2-7B", "AlphaEdit", "en", "zh_score"),)
"""Printed values that their own row's parts contradict: (table, model, method, language, column).
The row's parts give 38.20 where 38.53 is printed."""
_ALIASES = {
    "llama38b": "llama3",
    "metallama38b": "llama3",
    "llama38binstruct": "llama3",
    "metallama38binstruct": "llama3",
    "llama": "llama3",
    "llama3": "llama3",
    "qwen27b": "qwen2",
    "qwen27binstruct": "qwen2",
    "mistral7b": "mistral",
    "mistral7bv01": "mistral",
    "llama2chinese7b": "llama2chinese",
    "llama2chinese7bchat": "llama2chinese",
}
"""Names of one model, without marks and in small letters; Table 3 says «Llama»."""


@dataclass(frozen=True)
class Compared:
    """One of our rows beside a row of the paper.

    Attributes:
        table: ``table1``, ``table2`` or ``table3``.
        ours: Our row.
        paper: The paper's, values as printed.
    """

    table: str
    ours: Row
    paper: Row

    def difference(self, column: str) -> float | None:
        """Ours less the paper's, in points."""
        ours, theirs = self.ours.values.get(column), self.paper.values.get(column)
        return None if ours is None or theirs is None else ours - theirs


def paper_rows() -> dict[str, list[Row]]:
    """The paper's rows by table, as printed."""
    value = json.loads(read_text("eval", "reference", "paper_tables.json"))
    return {name: [_row(row) for row in rows] for name, rows in value["tables"].items()}


def paper_source() -> str:
    """Where the figures come from."""
    return str(json.loads(read_text("eval", "reference", "paper_tables.json"))["source"])


def _row(row: Mapping[str, Any]) -> Row:
    values = {name: float(row[name]) for name in NUMBERS}
    return Row(row["model"], row["method"], row["edit_language"], int(row["batch_size"]), values)


def recomputed(row: Row) -> dict[str, float | None]:
    """Scores and ``trans`` in percent from a printed row's parts."""
    out = derived(row.values)
    trans = out["trans"]
    return out | {"trans": None if trans is None else 100 * trans}


def rounding_slack(row: Row, column: str) -> float:
    """How far a printed value may lie from what its parts, rounded to 0.01, give."""
    half = 0.005
    if column != "trans":
        return 2 * half
    values = [row.values["zh_reliability"], row.values["en_reliability"]]
    small, large = sorted(value for value in values if value is not None)
    return 2 * half + 100 * half * (large + small) / (large * (large - half))


def compare(rows: Sequence[Row], tables: Sequence[str] = ()) -> list[Compared]:
    """Our rows beside those of the paper with the same model, method, language and batch size.

    Args:
        rows: Ours.
        tables: Only these of the paper's; none: all.
    """
    out = []
    for table, theirs in paper_rows().items():
        if tables and table not in tables:
            continue
        for paper in theirs:
            out += [Compared(table, row, paper) for row in rows if _same(row, paper)]
    return out


def _same(ours: Row, paper: Row) -> bool:
    return (
        _model(ours.model) == _model(paper.model)
        and ours.method == paper.method
        and ours.language == paper.language
        and ours.batch_size == paper.batch_size
        and not ours.note.startswith("failed")
    )


def _model(name: str) -> str:
    plain = "".join(c for c in name.lower() if c.isalnum())
    return _ALIASES.get(plain, plain)


def comparison(pairs: Sequence[Compared]) -> str:
    """A Markdown table: ours, the paper's and the difference, row by row."""
    heads = ["table", "model", "method", "edit", "batch", "whose", *NUMBERS]
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("| " + " | ".join(["---"] * 6 + ["---:"] * len(NUMBERS)) + " |")
    for pair in pairs:
        row = pair.ours
        note = f" ({row.note})" if row.note else ""
        lead = [pair.table, row.model, row.method, row.language, str(row.batch_size)]
        blank = [""] * len(lead)
        ours = [number(row.values.get(name)) for name in NUMBERS]
        theirs = [number(pair.paper.values.get(name)) for name in NUMBERS]
        apart = [_signed(pair.difference(name)) for name in NUMBERS]
        for cells in (
            [*lead, "ours" + note, *ours],
            [*blank, "paper", *theirs],
            [*blank, "difference", *apart],
        ):
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
