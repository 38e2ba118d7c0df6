"""Tables in the paper's layout."""

from __future__ import annotations

import csv
import io

import pytest

from clm_data.errors import UnknownNameError
from clm_data.eval import tables
from clm_data.eval.intervals import Interval
from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.results import CellResult, Results, Setting
from clm_data.eval.tables import TableRow


def row(model: str, method: str, value: float, **other: float | None) -> TableRow:
    values: dict[str, float | None] = dict.fromkeys(PAPER_MEASURES, value)
    return TableRow(model, method, "zh", 100, values | other)


def cell(method: str, share: float, *, error: str | None = None) -> CellResult:
    after = {name: Interval(mean=share, low=share, high=share, count=9) for name in PAPER_MEASURES}
    return CellResult(
        key=method,
        setting=Setting(model="m_1", method=method, language="zh", batch_size=9),
        status="failed" if error else "done",
        error=error,
        after={} if error else dict(after),
    )


RESULTS = Results(
    title="Title",
    dataset="set",
    dataset_key="0",
    records=9,
    seed=1,
    cells=(cell("memit", 0.9), cell("pmet", 0.25), cell("rome", 0, error="out | of memory")),
)


def test_shares_become_percentages_with_two_decimals() -> None:
    (memit, pmet, _) = tables.rows_of(RESULTS)
    assert memit.values["trans"] == pytest.approx(90)
    assert tables.format_value(pmet.values["zh_score"]) == "25.00"
    assert memit.method == "MEMIT"


def test_the_best_rows_of_each_model_are_found_and_ties_are_all_best() -> None:
    rows = [row("a", "x", 1), row("a", "y", 2, trans=1), row("b", "x", 9), row("b", "y", 9)]
    best = tables.best_of(rows)
    assert [best[i, "zh_score"] for i in range(4)] == [False, True, True, True]
    assert [best[i, "trans"] for i in range(2)] == [True, True]


def test_values_that_are_equal_as_printed_are_a_tie() -> None:
    best = tables.best_of([row("a", "x", 1.001), row("a", "y", 1.004)])
    assert best[0, "trans"]
    assert best[1, "trans"]


def test_a_single_value_is_not_the_best_and_neither_is_a_missing_one() -> None:
    assert not any(tables.best_of([row("a", "x", 1)]).values())
    rows = [row("a", "x", 1), row("a", "y", 0.5, trans=None)]
    assert not tables.best_of(rows)[1, "trans"]
    assert not tables.best_of(rows)[0, "trans"]


def test_markdown_rows_have_as_many_cells_as_the_heading() -> None:
    lines = tables.markdown(tables.rows_of(RESULTS)).splitlines()
    assert len(lines) == 2 + 3
    widths = {len(line.replace("\\|", "").split("|")) for line in lines}
    assert len(widths) == 1
    assert "**90.00**" in lines[2]
    assert "failed: out" in lines[4]


def test_csv_can_be_read_back() -> None:
    rows = list(csv.DictReader(io.StringIO(tables.csv_table(tables.rows_of(RESULTS)))))
    assert [r["zh_reliability"] for r in rows] == ["90.00", "25.00", ""]
    assert rows[0]["best"].split() == list(PAPER_MEASURES)
    assert rows[2]["note"] == "failed: out | of memory"


def test_latex_has_the_columns_of_the_paper_and_escapes_names() -> None:
    text = tables.latex(tables.rows_of(RESULTS))
    body = [line for line in text.splitlines() if "MEMIT" in line]
    assert body[0].startswith(r"\multirow{3}{*}{m\_1} & MEMIT & zh & 9 & \textbf{90.00}")
    data = [line for line in text.splitlines() if " & zh & " in line]
    assert {line.split(r" \\")[0].count("&") for line in data} == {3 + len(PAPER_MEASURES)}
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1


@pytest.mark.parametrize("missing", ["-", "--", "", "–"])
def test_only_a_missing_value_is_replaced(missing: str) -> None:
    assert tables.format_value(None, missing) == missing
    assert tables.format_value(-0.5, missing) == "-0.50"
    assert tables.format_difference(None, missing) == missing
    assert tables.format_difference(-13.2149, missing) == "-13.21"
    assert tables.format_difference(13.2149, missing) == "+13.21"


def test_latex_replaces_missing_values_but_not_minus_signs() -> None:
    line = next(
        line
        for line in tables.latex([row("m", "x", -1.5, trans=None)]).splitlines()
        if " & zh & " in line
    )
    assert line.endswith(r"& -1.50 & -- \\")


def test_the_page_lists_failed_cells_with_their_reason() -> None:
    page = tables.page(RESULTS)
    assert "## Failed cells" in page
    assert "- m_1 rome zh batch 9: out | of memory" in page


def test_an_unknown_format_suggests_a_known_one() -> None:
    with pytest.raises(UnknownNameError, match="markdown"):
        tables.as_text([], "markdwn")
