"""Summaries of the geometry of edits in the report."""

from __future__ import annotations

import pytest

from clm_data.eval.report.chapters.geometry import geometry_parts
from clm_data.eval.report.parts import Table

VARIANT = {"model": "tiny", "method": "memit", "protocol": "native", "mode": "batch", "layers": ""}


def row(layer: int, comparison: str, value: float, low: float, high: float) -> dict[str, str]:
    """A row of ``geometry.csv``."""
    place = {"batch_size": "10", "batch": "all", "layer": str(layer)}
    what = {"comparison": comparison, "measure": "cosine"}
    numbers = {"value": str(value), "low": str(low), "high": str(high)}
    return VARIANT | place | what | numbers


def summary_of(rows: list[dict[str, str]]) -> dict[str, str]:
    """The only row of the summary, by key of the column."""
    table = geometry_parts({"geometry.csv": rows})[0]
    assert isinstance(table, Table)
    (cells,) = table.rows
    return dict(zip([column.key for column in table.columns], cells, strict=True))


@pytest.mark.parametrize(
    ("values", "compared_with_null", "agrees_with_paper"),
    [
        ((0.03, 0.04), "above null", "yes"),
        ((0.03, 0.005), "differs by layer", "differs by layer"),
        ((0.0, 0.001), "within null", "no"),
        ((-0.5, -0.4), "below null", "no"),
    ],
)
def test_measures_are_compared_with_the_null_and_the_paper_in_every_layer(
    values: tuple[float, float], compared_with_null: str, agrees_with_paper: str
) -> None:
    rows = [row(layer, "zh-en", value, value, value) for layer, value in enumerate(values)]
    rows += [row(layer, "null-zh-en", 0.0, -0.01, 0.01) for layer in range(2)]
    summary = summary_of(rows)
    assert summary["verdict_en"] == compared_with_null
    assert summary["like_paper_en"] == agrees_with_paper
    assert (summary["lowest"], summary["highest"]) == (f"{min(values):.3f}", f"{max(values):.3f}")
    assert (summary["null_low"], summary["null_high"]) == ("-0.010", "0.010")
    assert summary["paper"] == "0.027–0.042"


@pytest.mark.parametrize(
    ("kind", "name"), [("disjoint", "another batch"), ("split", "halves of a batch")]
)
def test_controls_are_means_and_say_how_they_were_chosen(kind: str, name: str) -> None:
    values = {"zh-en": 0.5, f"{kind}-zh": 0.125, f"{kind}-en": 0.375, f"{kind}-zh-en": 0.0625}
    rows = [row(1, comparison, value, value, value) for comparison, value in values.items()]
    summary = summary_of(rows)
    assert float(summary["lowest"]) == 0.5
    assert float(summary["control"]) == 0.25
    assert float(summary["control_other"]) == pytest.approx(0.0625, abs=1e-3)
    assert summary["control_of_en"] == name


def test_tables_that_do_not_exist_are_left_out() -> None:
    assert geometry_parts({}) == []
