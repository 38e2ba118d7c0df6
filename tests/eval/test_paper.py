"""The paper's tables: their consistency, and comparing results with them."""

from __future__ import annotations

import pytest

from clm_data.eval import paper
from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.tables import TableRow


def rounding_error(row: TableRow, column: str) -> float:
    """Largest difference between a printed value and the one that follows from the row's parts.

    Every printed value is rounded to 0.01.
    """
    half = 0.005
    if column != "trans":
        return 2 * half
    parts = [row.values["zh_reliability"], row.values["en_reliability"]]
    small, large = sorted(value for value in parts if value is not None)
    return 2 * half + 100 * half * (large + small) / (large * (large - half))


def test_scores_and_trans_of_all_52_rows_follow_from_their_parts_except_one() -> None:
    rows = [(table, row) for table, rows in paper.paper_rows().items() for row in rows]
    assert len(rows) == 52
    wrong = [
        (table, row.model, row.method, row.language, column)
        for table, row in rows
        for column, value in paper.recomputed(row).items()
        if abs((value or 0) - (row.values[column] or 0)) > rounding_error(row, column)
    ]
    assert wrong == list(paper.MISPRINTED)


def test_the_misprinted_score_is_38_53_but_its_parts_give_38_20() -> None:
    ((table, model, method, language, column),) = paper.MISPRINTED
    (row,) = (
        row
        for row in paper.paper_rows()[table]
        if (row.model, row.method, row.language) == (model, method, language)
    )
    assert row.values[column] == 38.53
    assert paper.recomputed(row)[column] == pytest.approx(38.20, abs=0.005)


def test_the_rounding_error_is_small_enough_to_detect_a_wrong_digit() -> None:
    for rows in paper.paper_rows().values():
        for row in rows:
            assert rounding_error(row, "zh_score") <= 0.0101
            if min(row.values["zh_reliability"] or 0, row.values["en_reliability"] or 0) > 1:
                assert rounding_error(row, "trans") < 1


def test_the_citation_names_the_tables() -> None:
    assert "Tables 1-3" in paper.paper_source()


def ours(model: str, *, batch_size: int = 1000, note: str = "") -> TableRow:
    values = dict.fromkeys(PAPER_MEASURES, 50.0)
    return TableRow(model, "MEMIT", "zh", batch_size, values, note)


@pytest.mark.parametrize(
    ("model", "tables"),
    [
        ("Llama3-8B", ["table1", "table2", "table3"]),
        ("Meta-Llama-3-8B", ["table1", "table2", "table3"]),
        ("Qwen2-7B", ["table1", "table3"]),
        ("tiny", []),
    ],
)
def test_rows_are_paired_by_model_method_language_and_batch_size(
    model: str, tables: list[str]
) -> None:
    assert [pair.table for pair in paper.compare([ours(model)])] == tables


def test_another_batch_size_or_a_failed_cell_is_not_paired() -> None:
    assert paper.compare([ours("Qwen2-7B", batch_size=7)]) == []
    assert paper.compare([ours("Qwen2-7B", note="failed: out of memory")]) == []


def test_rows_are_paired_with_the_selected_tables_only() -> None:
    assert [p.table for p in paper.compare([ours("Llama3-8B")], ["table2"])] == ["table2"]


def test_the_comparison_shows_our_value_the_reported_one_and_the_difference() -> None:
    (pair,) = paper.compare([ours("Llama3-8B")], ["table1"])
    assert pair.difference("zh_reliability") == pytest.approx(50 - 63.21)
    text = paper.comparison([pair])
    assert "| 63.21 |" in text
    assert "| -13.21 |" in text
