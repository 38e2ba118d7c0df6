"""Ranges that the paper reports."""

from __future__ import annotations

from clm_data.eval.analysis.geometry import measures
from clm_data.eval.paper_ranges import REPORTED_RANGES, reported_range


def test_reported_ranges_are_found_by_comparison_and_measure() -> None:
    found = reported_range("zh-en", "cosine")
    assert found is not None
    assert (found.low, found.high, found.text) == (0.027, 0.042, "0.027–0.042")
    jaccard = reported_range("sum-mix", "jaccard_columns")
    assert jaccard is not None
    assert jaccard.text == "> 0.75"
    assert reported_range("zh-en", "relative_error") is None
    names = {*measures.OVERLAPS, *measures.ANGLES, "cosine", "relative_error"}
    assert all(set(one.measures) <= names for one in REPORTED_RANGES)
