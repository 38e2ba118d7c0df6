"""Results as tables: pandas and notebooks."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from clm_data.records import Problem, Rejection, StageResult
from clm_data.tabular import Listing, html_table


@dataclass(frozen=True)
class Point:
    x: int
    y: str


def rejection(id_: str, code: str) -> Rejection:
    problem = Problem(code=code, message=f"<{code}> & more")
    return Rejection(stage="validate", id=id_, domain=None, problems=(problem,), content={})


def test_a_listing_is_a_sequence_and_a_table() -> None:
    points = Listing([Point(1, "a"), Point(2, "b")], "two points")
    assert len(points) == 2
    assert points[1].y == "b"
    assert [point.x for point in points] == [1, 2]
    assert list(points.to_pandas()["y"]) == ["a", "b"]
    assert repr(points) == "<two points: 2>"


def test_a_stage_result_counts_rejections_by_code_most_frequent_first() -> None:
    codes = ["empty-field", "near-duplicate", "near-duplicate"]
    rejected = tuple(rejection(str(i), code) for i, code in enumerate(codes))
    result = StageResult(("kept",), rejected)
    assert list(result.by_code.items()) == [("near-duplicate", 2), ("empty-field", 1)]
    assert list(result.to_pandas()["id"]) == ["0", "1", "2"]
    assert "1 kept, 3 rejected" in result._repr_html_()


def test_html_is_escaped() -> None:
    page = StageResult((), (rejection("x", "empty-field"),))._repr_html_()
    assert "&lt;empty-field&gt; &amp; more" in page
    assert "<empty-field>" not in page


@pytest.mark.parametrize(("rows", "more"), [(20, False), (23, True)])
def test_a_long_table_shows_its_first_rows_and_says_how_many_are_left(
    rows: int, more: bool
) -> None:
    page = html_table("numbers", [{"n": number} for number in range(rows)])
    assert page.count("<tr>") == 21
    assert ("and 3 more rows" in page) is more


def test_a_table_without_rows_still_has_its_title() -> None:
    assert "nothing here" in html_table("nothing here", [])
