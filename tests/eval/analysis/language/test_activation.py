"""What an edit does to states, on changes whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from clm_data.eval.analysis.language.activation import (
    Changes,
    cumulative,
    histograms,
    relative_change,
    selectivity,
    venn,
)
from clm_data.eval.intervals import Bootstrap

HOW = Bootstrap(resamples=50)


def _measures(changes: Changes) -> dict[str, float]:
    return {name: one.mean for name, one in changes.measures(HOW) if one is not None}


def test_a_change_as_expected_has_no_error() -> None:
    rng = np.random.default_rng(0)
    before, change = rng.normal(size=(2, 6, 5))
    changes = Changes()
    changes.add(before, before + change, change)
    found = _measures(changes)
    assert found["relative_error"] == pytest.approx(0, abs=1e-12)
    assert found["cosine"] == pytest.approx(1)
    assert found["neuron_correlation"] == pytest.approx(1)
    assert changes.mean("actual") == pytest.approx(change.mean(0))
    assert changes.size("expected") == pytest.approx(np.abs(change).mean(0))


def test_a_change_twice_and_against_what_was_expected() -> None:
    before = np.array([[3.0, 4.0], [0.0, 5.0]])
    change = np.array([[1.0, 0.0], [0.0, 1.0]])
    twice, against = Changes(), Changes()
    twice.add(before, before + 2 * change, change)
    against.add(before, before - change, change)
    assert _measures(twice)["relative_error"] == pytest.approx(1)
    assert _measures(twice)["cosine"] == pytest.approx(1)
    assert _measures(twice)["actual_change"] == pytest.approx(2 / 5)
    assert _measures(twice)["expected_change"] == pytest.approx(1 / 5)
    assert _measures(against)["relative_error"] == pytest.approx(2)
    assert _measures(against)["cosine"] == pytest.approx(-1)


def test_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(1)
    before, after, expected = rng.normal(size=(3, 7, 4))
    whole, parts = Changes(), Changes()
    whole.add(before, after, expected)
    for rows in (slice(0, 2), slice(2, 7)):
        parts.add(before[rows], after[rows], expected[rows])
    assert _measures(parts) == pytest.approx(_measures(whole))
    assert parts.size("actual") == pytest.approx(whole.size("actual"))


def test_a_fact_that_changes_nothing_has_no_error_and_no_cosine() -> None:
    changes = Changes()
    changes.add(np.ones((2, 3)), np.ones((2, 3)), np.zeros((2, 3)))
    found = _measures(changes)
    assert "relative_error" not in found
    assert "cosine" not in found
    assert found["actual_change"] == 0


def test_selectivity_is_one_zero_or_minus_one() -> None:
    found = selectivity([2.0, 1.0, 0.0, 3.0, 0.0], [0.0, 1.0, 4.0, 1.0, 0.0])
    assert found[:4] == pytest.approx([1, 0, -1, 0.5])
    assert np.isnan(found[4])


def test_relative_change_is_in_units_of_the_state() -> None:
    before = np.array([[3.0, 4.0], [6.0, 8.0]])
    after = before + np.array([[0.0, 5.0], [5.0, 0.0]])
    assert relative_change(before, after) == pytest.approx([1, 0.5])


def test_a_cumulative_distribution_rises_from_least_to_most() -> None:
    values = np.random.default_rng(0).permutation(101)
    shares, found = zip(*cumulative(values), strict=True)
    assert shares == pytest.approx([i / 50 for i in range(51)])
    assert found == pytest.approx([2.0 * i for i in range(51)])


def test_histograms_share_their_bins_and_count_everything() -> None:
    rows = list(histograms({"a": [-2.0, 0.0, 1.0], "b": [0.0, 0.0]}, bins=3))
    assert [row[1:3] for row in rows[:3]] == [row[1:3] for row in rows[3:]]
    assert [row[3] for row in rows] == [1, 1, 1, 0, 2, 0]
    positive = list(histograms({"a": [0.0, 4.0]}, bins=4))
    assert [(low, count) for _, low, _, count in positive] == [(0, 1), (1, 0), (2, 0), (3, 1)]
    assert sum(row[3] for row in histograms({"a": [0.0, 0.0]})) == 2


def test_a_venn_diagram_counts_each_neuron_once() -> None:
    sets = {"zh": {1, 2, 3, 4}, "en": {3, 4, 5}, "mix": {4, 5, 6, 2}}
    found = {region: count for region, count, _ in venn(sets, 20)}
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


def test_equal_sets_overlap_wholly_and_chance_knows_better() -> None:
    same = {name: set(range(10)) for name in ("zh", "en", "mix")}
    regions = {region: (count, chance) for region, count, chance in venn(same, 100)}
    assert regions["zh+en+mix"] == (10, pytest.approx(0.1))
    assert regions["zh"] == (0, pytest.approx(8.1))
    outside = 100 * 0.9**3
    assert sum(chance for _, chance in regions.values()) + outside == pytest.approx(100)
