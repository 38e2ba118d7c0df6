"""Bootstrap confidence intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_data.eval.intervals import Bootstrap, Interval, mean_interval

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def test_an_interval_contains_the_mean_and_is_reproducible() -> None:
    values = [0.0] * 30 + [1.0] * 70
    first = mean_interval(values)
    assert first is not None
    assert first == mean_interval(values)
    assert (first.mean, first.count) == (pytest.approx(0.7), 100)
    # Normal approximation: 0.7 +- 1.96 * sqrt(0.7 * 0.3 / 100).
    assert first.low == pytest.approx(0.61, abs=0.03)
    assert first.high == pytest.approx(0.79, abs=0.03)


def test_another_seed_gives_another_interval() -> None:
    values = [i / 50 for i in range(50)]
    assert mean_interval(values, Bootstrap(seed=1)) != mean_interval(values, Bootstrap(seed=2))


def test_resampling_in_chunks_covers_all_resamples() -> None:
    values = [float(i % 2) for i in range(30_000)]
    found = mean_interval(values, Bootstrap(resamples=150))
    assert found is not None
    assert 0.49 < found.low < 0.5 < found.high < 0.51


@given(SHARES)
def test_an_interval_lies_within_the_range_of_the_values(values: list[float]) -> None:
    found = mean_interval(values, Bootstrap(resamples=50))
    assert found is not None
    slack = 1e-9
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


def test_no_values_give_no_mean_and_no_resamples_give_no_width() -> None:
    assert mean_interval([]) is None
    assert mean_interval([0, 1], Bootstrap(resamples=0)) == Interval(0.5, 0.5, 0.5, 2)
