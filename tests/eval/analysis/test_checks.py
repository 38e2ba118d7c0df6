"""Range checks of computed measures."""

from __future__ import annotations

import numpy as np
import pytest

from clm_data.eval.analysis.checks import AnalysisError, in_range


def test_rounding_is_clipped_to_the_range() -> None:
    assert float(in_range(1 + 1e-9, -1, 1, "cosine")) == 1.0
    assert in_range([-1 - 1e-9, 0.5], -1, 1, "cosine").tolist() == [-1.0, 0.5]


@pytest.mark.parametrize("value", [1.01, -2.0, float("inf")])
def test_a_value_out_of_its_range_is_an_error_that_shows_it(value: float) -> None:
    with pytest.raises(AnalysisError, match=rf"cosine is {value:.6g}, which is not between -1"):
        in_range([0.0, value], -1, 1, "cosine")


def test_the_tolerance_is_relative_to_large_bounds() -> None:
    assert float(in_range(1000.0005, 0, 1000, "size")) == 1000.0
    with pytest.raises(AnalysisError):
        in_range(1000.01, 0, 1000, "size")


def test_nan_is_an_error_unless_it_stands_for_an_undefined_value() -> None:
    values = np.array([0.5, np.nan])
    with pytest.raises(AnalysisError, match="cosine is nan"):
        in_range(values, -1, 1, "cosine")
    kept = in_range(values, -1, 1, "cosine", allow_nan=True)
    assert kept[0] == 0.5
    assert np.isnan(kept[1])
