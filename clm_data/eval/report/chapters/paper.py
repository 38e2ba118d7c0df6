"""The chapter that compares the results with the paper's."""

from __future__ import annotations

from clm_data.eval import paper
from clm_data.eval.bilingual import BilingualText
from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.report.evaluation import CELL_COLUMNS, VALUE_COLUMNS
from clm_data.eval.report.parts import (
    NO_VALUE,
    Paragraph,
    Part,
    Section,
    Table,
    columns,
    decimals,
)
from clm_data.eval.results import Results
from clm_data.eval.tables import format_difference, rows_of

_NONE = BilingualText(
    "论文的表中没有与这些结果对应的行（模型、方法、编辑语言和批大小均须相同）。论文评测的模型："
    "{models}。",
    "No row of the paper’s tables matches one of these results in model, method, editing language "
    "and batch size. The paper evaluates {models}.",
)
SOURCE = BilingualText("论文数值的来源：{source}。", "Reported values: {source}.")
_WHOSE = {
    "ours": BilingualText("本次", "ours"),
    "paper": BilingualText("论文", "paper"),
    "difference": BilingualText("差值", "difference"),
}


def paper_section(results: Results) -> Section:
    """Each row that has a counterpart in the paper, next to it."""
    title = BilingualText("与论文对照", "Comparison with the paper")
    return Section("paper", title, tuple(_parts(results)))


def _parts(results: Results) -> list[Part]:
    pairs = paper.compare(rows_of(results))
    if not pairs:
        models = sorted({row.model for rows in paper.paper_rows().values() for row in rows})
        return [Paragraph(_NONE, {"models": ", ".join(models)}, "note")]
    rows: list[tuple[str, ...]] = []
    for pair in pairs:
        cell = (pair.table, pair.ours.model, pair.ours.method, pair.ours.language)
        values = {
            "ours": [decimals(pair.ours.values.get(name), 2) for name in PAPER_MEASURES],
            "paper": [decimals(pair.paper.values.get(name), 2) for name in PAPER_MEASURES],
            "difference": [
                format_difference(pair.difference(name), NO_VALUE) for name in PAPER_MEASURES
            ],
        }
        for whose, name in _WHOSE.items():
            rows.append((*cell, str(pair.ours.batch_size), name.zh, name.en, *values[whose]))
    table = Table(
        "paper_comparison",
        BilingualText("与论文的表对照（%）", "Comparison with the paper’s tables, in percent"),
        (
            *columns(("table", "论文的表", "table", False)),
            *CELL_COLUMNS[:-1],
            *columns(
                ("whose_zh", "来源", "values (Chinese)", False),
                ("whose_en", "来源（英文）", "values", False),
            ),
            *VALUE_COLUMNS,
        ),
        tuple(rows),
    )
    return [table, Paragraph(SOURCE, {"source": paper.paper_source()})]
