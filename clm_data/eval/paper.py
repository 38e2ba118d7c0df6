"""The values reported in the paper's tables, and comparing results with them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.eval.metrics import PAPER_MEASURES, derived
from clm_data.eval.tables import TableRow, format_difference, format_value
from clm_data.resources import read_text

MISPRINTED = (("table1", "Qwen2-7B", "AlphaEdit", "en", "zh_score"),)
"""Reported values that do not follow from the rest of their row, as (table, model, method,
language, column): 38.53 is printed, but the mean of the row's parts is 38.20."""
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
"""Model names in lower case without punctuation, and the model they stand for. Table 3 abbreviates
Llama3-8B to "Llama"."""


@dataclass(frozen=True)
class ComparedRow:
    """A row of our results and the corresponding row of the paper.

    Attributes:
        table: `table1`, `table2` or `table3`.
        ours: Our row.
        paper: The paper's row, with the values as printed.
    """

    table: str
    ours: TableRow
    paper: TableRow

    def difference(self, column: str) -> float | None:
        """Our value minus the reported value, in percentage points; None if either is missing."""
        ours, theirs = self.ours.values.get(column), self.paper.values.get(column)
        return None if ours is None or theirs is None else ours - theirs


def paper_rows() -> dict[str, list[TableRow]]:
    """The rows of the paper's tables, by table, with the values as printed."""
    value = json.loads(read_text("eval", "reference", "paper_tables.json"))
    return {name: [_row(row) for row in rows] for name, rows in value["tables"].items()}


def paper_source() -> str:
    """Citation of the paper."""
    return str(json.loads(read_text("eval", "reference", "paper_tables.json"))["source"])


def _row(row: Mapping[str, Any]) -> TableRow:
    values = {name: float(row[name]) for name in PAPER_MEASURES}
    return TableRow(
        row["model"], row["method"], row["edit_language"], int(row["batch_size"]), values
    )


def recomputed(row: TableRow) -> dict[str, float | None]:
    """Scores and `trans` in percent, computed from the other values of a row."""
    out = derived(row.values)
    trans = out["trans"]
    return out | {"trans": None if trans is None else 100 * trans}


def compare(rows: Sequence[TableRow], tables: Sequence[str] = ()) -> list[ComparedRow]:
    """Pair our rows with the paper's rows of the same model, method, language and batch size.

    Args:
        rows: Our rows.
        tables: Names of the tables to compare with; empty compares with all.
    """
    out = []
    for table, theirs in paper_rows().items():
        if tables and table not in tables:
            continue
        for paper in theirs:
            out += [ComparedRow(table, row, paper) for row in rows if _same(row, paper)]
    return out


def _same(ours: TableRow, paper: TableRow) -> bool:
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


def comparison(pairs: Sequence[ComparedRow]) -> str:
    """A Markdown table with three lines per pair: our values, the reported ones, the difference."""
    heads = ["table", "model", "method", "edit", "batch", "source", *PAPER_MEASURES]
    lines = ["| " + " | ".join(heads) + " |"]
    lines.append("| " + " | ".join(["---"] * 6 + ["---:"] * len(PAPER_MEASURES)) + " |")
    for pair in pairs:
        row = pair.ours
        note = f" ({row.note})" if row.note else ""
        lead = [pair.table, row.model, row.method, row.language, str(row.batch_size)]
        no_lead = [""] * len(lead)
        ours = [format_value(row.values.get(name)) for name in PAPER_MEASURES]
        theirs = [format_value(pair.paper.values.get(name)) for name in PAPER_MEASURES]
        difference = [format_difference(pair.difference(name)) for name in PAPER_MEASURES]
        for cells in (
            [*lead, "ours" + note, *ours],
            [*no_lead, "paper", *theirs],
            [*no_lead, "difference", *difference],
        ):
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
