"""Intervals: over facts by reweighting, over batches, over draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clm_data.eval.analysis.geometry.measures import ANGLES, NEURONS, Change, compare, total
from clm_data.eval.analysis.geometry.resample import (
    FEWEST_FACTS,
    Settings,
    of_draws,
    over_batches,
    over_facts,
)

PLAIN = Settings(k=2, resamples=300, heavy_resamples=60)


def edits(count: int, seed: int = 0, d: int = 40, m: int = 60) -> Change:
    rng = np.random.default_rng(seed)
    names = tuple(f"f{i}" for i in range(count))
    return Change(rng.standard_normal((d, count)), rng.standard_normal((count, m)), names, 2)


def intervals(first: Change, second: Change, settings: Settings = PLAIN) -> dict[str, bool]:
    found = over_facts(first, second, compare(first, second), settings)
    return {name: one.low is not None for name, one in found.items()}


def test_every_measure_but_the_counts_has_an_interval_around_its_value() -> None:
    first, second = edits(12), edits(12, 1)
    values = compare(first, second)
    found = over_facts(first, second, values, PLAIN)
    assert {name: one.value for name, one in found.items()} == values
    for name in ("cosine", "relative_error", "norm_ratio", *ANGLES, *NEURONS):
        one = found[name]
        assert one.low is not None
        assert one.high is not None
        assert one.value is not None
        assert one.low <= one.value <= one.high
        assert one.interval == "facts"
    assert found["angle_dimensions"].low is None
    assert found["gap"].low is None


def test_cosines_of_weighted_factors_are_those_of_weighted_changes() -> None:
    first, second = edits(12), edits(12, 1)
    heavy = replace(PLAIN, resamples=60, heavy_resamples=60)
    found = over_facts(first, second, compare(first, second), heavy)["cosine"]
    rng = heavy.rng("facts", 12)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=60)
    order = np.array([sorted(first.facts).index(fact) for fact in first.facts])
    drawn = [
        compare(
            replace(first, left=first.left * w[order]), replace(second, left=second.left * w[order])
        )["cosine"]
        for w in weights
    ]
    low, high = np.quantile(np.array(drawn, dtype=float), [0.025, 0.975])
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(high - low)


def test_the_interval_is_0_wide_where_all_facts_say_the_same() -> None:
    first = edits(10)
    twice = Change(2 * first.left, first.right, first.facts, 2)
    found = over_facts(first, twice, compare(first, twice), PLAIN)
    assert (found["cosine"].low, found["cosine"].high) == pytest.approx((1, 1))
    assert (found["relative_error"].low, found["relative_error"].high) == pytest.approx((0.5, 0.5))


def test_more_facts_make_narrower_intervals() -> None:
    widths = []
    for count in (8, 200):
        rng = np.random.default_rng(5)
        shift = rng.standard_normal((300, count))
        first = edits(count, 0, 300, 300)
        second = replace(first, left=first.left + shift)
        found = over_facts(first, second, compare(first, second), replace(PLAIN, heavy_resamples=0))
        one = found["cosine"]
        assert one.low is not None
        assert one.high is not None
        widths.append(one.high - one.low)
    assert widths[1] < widths[0] / 2


def test_a_fact_is_drawn_with_both_its_languages() -> None:
    zh, en = edits(10), edits(10, 1)
    mix = total(zh, en)
    found = over_facts(total(zh, en), mix, compare(mix, mix), PLAIN)
    assert (found["cosine"].low, found["cosine"].high) == pytest.approx((1, 1))
    assert found["relative_error"].high == pytest.approx(0, abs=1e-6)


def test_where_there_are_too_few_facts_or_none_are_known_there_is_no_interval() -> None:
    few = edits(FEWEST_FACTS - 1)
    assert not any(intervals(few, few).values())
    whole = Change(edits(10).dense())
    assert not any(intervals(whole, edits(10)).values())


def test_angles_need_twice_as_many_facts_as_dimensions() -> None:
    known = intervals(replace(edits(10), k=6), replace(edits(10, 1), k=6))
    assert known["jaccard_rows"]
    assert not known["angle_left_mean"]


def test_intervals_that_cost_too_much_are_left_out() -> None:
    known = intervals(edits(10), edits(10, 1), replace(PLAIN, work=1.0))
    assert known["cosine"]
    assert not known["jaccard_rows"]
    assert not known["angle_left_mean"]


def test_draws_have_their_mean_and_range() -> None:
    drawn = [{"a": float(v), "b": None} for v in range(101)]
    found = of_draws(drawn, Settings())
    assert (found["a"].value, found["a"].low, found["a"].high) == pytest.approx((50, 2.5, 97.5))
    assert found["b"].value is None
    assert of_draws([], Settings()) == {}


def test_batches_are_drawn_with_replacement() -> None:
    found = over_batches([0.0, 1.0] * 20, Settings())
    assert found.value == 0.5
    assert found.low == pytest.approx(0.35, abs=0.06)
    assert found.high == pytest.approx(0.65, abs=0.06)
    assert over_batches([0.3], Settings()).low is None
