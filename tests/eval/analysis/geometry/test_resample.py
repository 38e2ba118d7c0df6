"""Intervals over facts (by reweighting), over batches and over random draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.measures import ANGLES, OVERLAPS, compare
from clm_data.eval.analysis.geometry.resample import (
    MIN_FACTS,
    of_draws,
    over_batches,
    over_facts,
)
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.intervals import Bootstrap

OPTIONS = GeometryOptions(Bootstrap(resamples=300), costly_resamples=60, k=2)


def random_edits(count: int, seed: int = 0, d: int = 40, m: int = 60) -> LowRankMatrix:
    rng = np.random.default_rng(seed)
    names = tuple(f"f{i}" for i in range(count))
    return LowRankMatrix(rng.standard_normal((d, count)), rng.standard_normal((count, m)), names, 2)


def intervals(
    first: LowRankMatrix, second: LowRankMatrix, options: GeometryOptions = OPTIONS
) -> dict[str, bool]:
    found = over_facts(first, second, compare(first, second), options)
    return {name: one.low is not None for name, one in found.items()}


def test_every_measure_with_a_range_has_an_interval_that_contains_its_value() -> None:
    first, second = random_edits(12), random_edits(12, 1)
    values = compare(first, second)
    found = over_facts(first, second, values, OPTIONS)
    assert {name: one.value for name, one in found.items()} == values
    for name in ("cosine", "relative_error", "norm_ratio", *ANGLES, *OVERLAPS):
        one = found[name]
        assert one.low is not None
        assert one.high is not None
        assert one.value is not None
        assert one.low <= one.value <= one.high
        assert one.resampled == "facts"
    assert found["angle_dimensions"].low is None
    assert found["gap"].low is None


def test_resampled_cosines_are_those_of_changes_with_weighted_facts() -> None:
    first, second = random_edits(12), random_edits(12, 1)
    options = replace(OPTIONS, bootstrap=Bootstrap(resamples=60))
    found = over_facts(first, second, compare(first, second), options)["cosine"]
    rng = options.rng("facts", 12)
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


def test_the_interval_has_width_0_if_all_facts_agree() -> None:
    first = random_edits(10)
    twice = LowRankMatrix(2 * first.left, first.right, first.facts, 2)
    found = over_facts(first, twice, compare(first, twice), OPTIONS)
    assert (found["cosine"].low, found["cosine"].high) == pytest.approx((1, 1))
    assert (found["relative_error"].low, found["relative_error"].high) == pytest.approx((0.5, 0.5))


def test_more_facts_make_narrower_intervals() -> None:
    widths = []
    for count in (8, 200):
        rng = np.random.default_rng(5)
        shift = rng.standard_normal((300, count))
        first = random_edits(count, 0, 300, 300)
        second = replace(first, left=first.left + shift)
        found = over_facts(
            first, second, compare(first, second), replace(OPTIONS, costly_resamples=0)
        )
        one = found["cosine"]
        assert one.low is not None
        assert one.high is not None
        widths.append(one.high - one.low)
    assert widths[1] < widths[0] / 2


def test_a_fact_is_resampled_in_both_languages_together() -> None:
    zh, en = random_edits(10), random_edits(10, 1)
    both, mix = zh + en, zh + en
    found = over_facts(both, mix, compare(both, mix), OPTIONS)
    assert (found["cosine"].low, found["cosine"].high) == pytest.approx((1, 1))
    assert found["relative_error"].high == pytest.approx(0, abs=1e-6)


def test_too_few_or_unknown_facts_give_no_interval() -> None:
    few = random_edits(MIN_FACTS - 1)
    assert not any(intervals(few, few).values())
    whole = LowRankMatrix(random_edits(10).dense())
    assert not any(intervals(whole, random_edits(10)).values())


def test_angles_have_intervals_only_with_twice_as_many_facts_as_dimensions() -> None:
    known = intervals(replace(random_edits(10), k=6), replace(random_edits(10, 1), k=6))
    assert known["jaccard_rows"]
    assert not known["angle_left_mean"]


def test_intervals_that_cost_too_much_are_omitted() -> None:
    known = intervals(random_edits(10), random_edits(10, 1), replace(OPTIONS, max_operations=1.0))
    assert known["cosine"]
    assert not known["jaccard_rows"]
    assert not known["angle_left_mean"]


def test_draws_are_summarized_by_their_mean_and_middle_range() -> None:
    drawn = [{"a": float(v), "b": None} for v in range(101)]
    found = of_draws(drawn, Bootstrap())
    assert (found["a"].value, found["a"].low, found["a"].high) == pytest.approx((50, 2.5, 97.5))
    assert found["b"].value is None
    assert of_draws([], Bootstrap()) == {}


def test_batches_are_resampled_and_one_batch_has_no_interval() -> None:
    found = over_batches([0.0, 1.0] * 20, GeometryOptions())
    assert found.value == 0.5
    assert found.low == pytest.approx(0.35, abs=0.06)
    assert found.high == pytest.approx(0.65, abs=0.06)
    assert over_batches([0.3], GeometryOptions()).low is None
