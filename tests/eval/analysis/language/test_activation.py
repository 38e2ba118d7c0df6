"""Measures of what an edit changes in states, on changes with a known answer."""

from __future__ import annotations

import numpy as np
import pytest

from clm_data.eval.analysis.language.activation import (
    ActivationChanges,
    histograms,
    quantiles,
    relative_change,
    selectivity,
    venn_regions,
)
from clm_data.eval.intervals import Bootstrap

BOOTSTRAP = Bootstrap(resamples=50)


def _measures(changes: ActivationChanges) -> dict[str, float]:
    return {name: one.mean for name, one in changes.measures(BOOTSTRAP) if one is not None}


def test_an_expected_change_has_error_0_and_cosine_1() -> None:
    rng = np.random.default_rng(0)
    before, change = rng.normal(size=(2, 6, 5))
    changes = ActivationChanges()
    changes.add(before, before + change, change)
    found = _measures(changes)
    assert found["relative_error"] == pytest.approx(0, abs=1e-12)
    assert found["cosine"] == pytest.approx(1)
    assert found["neuron_correlation"] == pytest.approx(1)
    assert changes.mean("actual") == pytest.approx(change.mean(0))
    assert changes.mean_absolute("expected") == pytest.approx(np.abs(change).mean(0))


def test_a_doubled_and_an_opposite_change_have_known_errors() -> None:
    before = np.array([[3.0, 4.0], [0.0, 5.0]])
    change = np.array([[1.0, 0.0], [0.0, 1.0]])
    twice, against = ActivationChanges(), ActivationChanges()
    twice.add(before, before + 2 * change, change)
    against.add(before, before - change, change)
    assert _measures(twice)["relative_error"] == pytest.approx(1)
    assert _measures(twice)["cosine"] == pytest.approx(1)
    assert _measures(twice)["actual_change"] == pytest.approx(2 / 5)
    assert _measures(twice)["expected_change"] == pytest.approx(1 / 5)
    assert _measures(against)["relative_error"] == pytest.approx(2)
    assert _measures(against)["cosine"] == pytest.approx(-1)


def test_adding_facts_in_parts_gives_the_same_measures() -> None:
    rng = np.random.default_rng(1)
    before, after, expected = rng.normal(size=(3, 7, 4))
    whole, parts = ActivationChanges(), ActivationChanges()
    whole.add(before, after, expected)
    for rows in (slice(0, 2), slice(2, 7)):
        parts.add(before[rows], after[rows], expected[rows])
    assert _measures(parts) == pytest.approx(_measures(whole))
    assert parts.mean_absolute("actual") == pytest.approx(whole.mean_absolute("actual"))


def test_without_an_expected_change_error_and_cosine_are_undefined() -> None:
    changes = ActivationChanges()
    changes.add(np.ones((2, 3)), np.ones((2, 3)), np.zeros((2, 3)))
    found = _measures(changes)
    assert "relative_error" not in found
    assert "cosine" not in found
    assert found["actual_change"] == 0


def test_selectivity_ranges_from_own_language_only_to_other_language_only() -> None:
    found = selectivity([2.0, 1.0, 0.0, 3.0, 0.0], [0.0, 1.0, 4.0, 1.0, 0.0])
    assert found[:4] == pytest.approx([1, 0, -1, 0.5])
    assert np.isnan(found[4])


def test_relative_change_is_relative_to_the_norm_of_the_state() -> None:
    before = np.array([[3.0, 4.0], [6.0, 8.0]])
    after = before + np.array([[0.0, 5.0], [5.0, 0.0]])
    assert relative_change(before, after) == pytest.approx([1, 0.5])


def test_the_cumulative_distribution_of_equally_spaced_values_is_linear() -> None:
    values = np.random.default_rng(0).permutation(101)
    shares, found = zip(*quantiles(values), strict=True)
    assert shares == pytest.approx([i / 50 for i in range(51)])
    assert found == pytest.approx([2.0 * i for i in range(51)])


def test_histograms_share_bins_and_count_every_value() -> None:
    rows = list(histograms({"a": [-2.0, 0.0, 1.0], "b": [0.0, 0.0]}, bins=3))
    assert [row[1:3] for row in rows[:3]] == [row[1:3] for row in rows[3:]]
    assert [row[3] for row in rows] == [1, 1, 1, 0, 2, 0]
    positive = list(histograms({"a": [0.0, 4.0]}, bins=4))
    assert [(low, count) for _, low, _, count in positive] == [(0, 1), (1, 0), (2, 0), (3, 1)]
    assert sum(row[3] for row in histograms({"a": [0.0, 0.0]})) == 2


def test_each_neuron_is_counted_in_one_region() -> None:
    sets = {"zh": {1, 2, 3, 4}, "en": {3, 4, 5}, "mix": {4, 5, 6, 2}}
    found = {region: count for region, count, _ in venn_regions(sets, 20)}
    assert found == {
        "zh": 1,
        "en": 0,
        "mix": 1,
        "zh+en": 1,
        "zh+mix": 1,
        "en+mix": 1,
        "zh+en+mix": 1,
    }
    assert sum(found.values()) == len(set.union(*sets.values()))


def test_expected_counts_are_those_of_independent_sets() -> None:
    same = {name: set(range(10)) for name in ("zh", "en", "mix")}
    regions = {region: (count, chance) for region, count, chance in venn_regions(same, 100)}
    assert regions["zh+en+mix"] == (10, pytest.approx(0.1))
    assert regions["zh"] == (0, pytest.approx(8.1))
    outside = 100 * 0.9**3
    assert sum(chance for _, chance in regions.values()) + outside == pytest.approx(100)
