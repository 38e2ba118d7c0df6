"""The paper's tables: what they say of themselves, and results beside them."""

from __future__ import annotations

import pytest

from clm_data.eval import paper
from clm_data.eval.tables import NUMBERS, Row


def test_all_52_rows_follow_from_their_parts_but_for_one_printed_value() -> None:
    rows = [(table, row) for table, rows in paper.paper_rows().items() for row in rows]
    assert len(rows) == 52
    wrong = [
        (table, row.model, row.method, row.language, column)
        for table, row in rows
        for column, value in paper.recomputed(row).items()
        if abs((value or 0) - (row.values[column] or 0)) > paper.rounding_slack(row, column)
    ]
    assert wrong == list(paper.MISPRINTED)


def test_the_misprinted_value_is_38_53_where_its_parts_give_38_20() -> None:
    ((table, model, method, language, column),) = paper.MISPRINTED
    (row,) = (
        row
        for row in paper.paper_rows()[table]
        if (row.model, row.method, row.language) == (model, method, language)
    )
    assert row.values[column] == 38.53
    assert paper.recomputed(row)[column] == pytest.approx(38.20, abs=0.005)


def test_the_slack_is_small_enough_to_find_a_wrong_digit() -> None:
    for rows in paper.paper_rows().values():
        for row in rows:
            assert paper.rounding_slack(row, "zh_score") <= 0.0101
            if min(row.values["zh_reliability"] or 0, row.values["en_reliability"] or 0) > 1:
                assert paper.rounding_slack(row, "trans") < 1


def test_the_figures_name_their_source() -> None:
    assert "Tables 1-3" in paper.paper_source()


def ours(model: str, *, batch_size: int = 1000, note: str = "") -> Row:
    values = dict.fromkeys(NUMBERS, 50.0)
    return Row(model, "MEMIT", "zh", batch_size, values, note)


@pytest.mark.parametrize(
    ("model", "tables"),
    [
        ("Llama3-8B", ["table1", "table2", "table3"]),
        ("Meta-Llama-3-8B", ["table1", "table2", "table3"]),
        ("Qwen2-7B", ["table1", "table3"]),
        ("tiny", []),
    ],
)
def test_our_rows_find_the_papers_by_model_method_language_and_batch(
    model: str, tables: list[str]
) -> None:
    assert [pair.table for pair in paper.compare([ours(model)])] == tables


def test_another_batch_size_or_a_failed_cell_has_no_counterpart() -> None:
    assert paper.compare([ours("Qwen2-7B", batch_size=7)]) == []
    assert paper.compare([ours("Qwen2-7B", note="failed: out of memory")]) == []


def test_only_the_tables_that_are_asked_for() -> None:
    assert [p.table for p in paper.compare([ours("Llama3-8B")], ["table2"])] == ["table2"]


def test_the_comparison_shows_ours_the_papers_and_the_difference() -> None:
    (pair,) = paper.compare([ours("Llama3-8B")], ["table1"])
    assert pair.difference("zh_reliability") == pytest.approx(50 - 63.21)
    text = paper.comparison([pair])
    assert "| 63.21 |" in text
    assert "| -13.21 |" in text
