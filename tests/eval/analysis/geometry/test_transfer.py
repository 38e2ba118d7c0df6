"""Facts that reached the other language against those that did not."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from clm_data.eval.analysis.geometry import transfer
from clm_data.eval.analysis.geometry.measures import Change
from clm_data.eval.analysis.geometry.resample import Settings
from clm_data.eval.analysis.geometry.transfer import compare_groups, holm, mid_ranks

PLAIN = Settings(permutations=4999, resamples=500)


def flags(*took: int) -> Any:
    return np.array(took, dtype=bool)


def test_ranks_of_equal_values_are_shared() -> None:
    assert mid_ranks(np.array([3.0, 1.0, 3.0, 7.0])).tolist() == [2.5, 1, 2.5, 4]


def test_the_p_value_is_that_of_all_deals() -> None:
    values = np.array([1.0, 2, 3, 9, 10, 11, 12])
    took = flags(0, 0, 1, 0, 1, 1, 1)
    found = compare_groups(values, took, np.zeros(7, dtype=np.int64), PLAIN)
    ranks = mid_ranks(values)
    sums = [sum(ranks[list(chosen)]) for chosen in combinations(range(7), 4)]
    far = abs(ranks[took].sum() - np.mean(sums))
    exact = np.mean(np.abs(np.array(sums) - np.mean(sums)) >= far - 1e-9)
    assert found.p == pytest.approx(exact, abs=0.02)
    assert found.auc == pytest.approx(11 / 12)
    assert found.means == pytest.approx((9, 4))
    assert (found.transferred, found.stayed) == (4, 3)


def test_groups_that_lie_apart_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(2, 1, 30), rng.normal(0, 1, 40)])
    took = np.arange(70) < 30
    found = compare_groups(values, took, np.zeros(70, dtype=np.int64), PLAIN)
    assert found.p == pytest.approx(1 / 5000)
    assert found.low is not None
    assert found.high is not None
    assert found.low > 1
    assert found.high < 3
    assert found.auc is not None
    assert found.auc > 0.8


def test_of_groups_without_a_difference_few_are_called_different() -> None:
    settings = Settings(permutations=199, resamples=10)
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(200):
        took = rng.permutation(flags(*[1] * 8, *[0] * 12))
        strata = np.arange(20) // 10
        p_values.append(compare_groups(rng.standard_normal(20), took, strata, settings).p)
    assert 0.01 <= np.mean([p is not None and p <= 0.05 for p in p_values]) <= 0.10


def test_a_difference_between_batches_is_none_between_groups() -> None:
    rng = np.random.default_rng(2)
    strata = np.repeat([0, 1], 20)
    values = 10.0 * strata + rng.standard_normal(40)
    took = np.concatenate([np.arange(20) < 2, np.arange(20) < 18])
    blind = compare_groups(values, took, np.zeros(40, dtype=np.int64), PLAIN)
    aware = compare_groups(values, took, strata, PLAIN)
    assert blind.p is not None
    assert blind.p < 0.01
    assert aware.p is not None
    assert aware.p > 0.05


def test_a_group_of_two_has_no_p_value() -> None:
    found = compare_groups(
        np.arange(6.0), flags(1, 1, 0, 0, 0, 0), np.zeros(6, dtype=np.int64), PLAIN
    )
    assert (found.p, found.low) == (None, None)
    assert found.auc == 0.0


def test_equal_values_are_no_difference() -> None:
    found = compare_groups(
        np.ones(10), flags(*[1] * 5, *[0] * 5), np.zeros(10, dtype=np.int64), PLAIN
    )
    assert (found.p, found.auc) == (1.0, 0.5)


def test_holm_corrects_for_the_number_of_tests() -> None:
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), 0.06]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_only_facts_that_took_and_were_not_there_before_count() -> None:
    yes, no = {"reliability": 1.0, "prefers_new": 1.0}, {"reliability": 0.5, "prefers_new": 0.0}
    half = {"reliability": 0.5, "prefers_new": 1.0}
    items: dict[str, Any] = {
        "reached": (yes, yes),
        "stayed": (yes, no),
        "half": (yes, half),
        "failed": (no, yes),
        "known": (yes, yes),
        "unplaced": (yes, {"reliability": None}),
        "unmeasured": (yes, yes),
    }
    before: dict[str, Any] = {name: no for name in items if name != "unmeasured"}
    before["known"] = yes
    found = transfer.outcomes("zh", "exact", before, items)
    assert found == {"reached": True, "stayed": False, "half": False}
    found = transfer.outcomes("zh", "prefers", before, items)
    assert found == {"reached": True, "stayed": False, "half": True}


def test_features_of_facts_at_known_places() -> None:
    left, right = np.eye(6)[:, :3], np.eye(8)[:3]
    names = ("a", "b", "c")
    own = Change(left * [1.0, 2.0, 3.0], right, names, 2)
    other_left = np.stack([left[:, 0], np.eye(6)[:, 4], np.eye(6)[:, 5]], axis=1)
    other = Change(other_left * [5.0, 4.0, 0.1], right, names, 2)
    found = transfer.features(own, other)
    assert list(found) == ["a", "b", "c"]
    assert list(found["a"]) == list(transfer.FEATURES)
    assert found["a"] == pytest.approx(
        {
            "contribution_cosine": 1,
            "residual_cosine": 1,
            "key_cosine": 1,
            "size": 1,
            "overlap_left": 1,
            "overlap_right": 1,
        }
    )
    assert found["b"]["residual_cosine"] == pytest.approx(0)
    assert found["b"]["key_cosine"] == pytest.approx(1)
    assert found["b"]["size"] == pytest.approx(2)
    assert found["b"]["overlap_left"] == pytest.approx(0)
    assert found["c"]["overlap_right"] == pytest.approx(0)
    assert transfer.features(own, Change(other.dense())) == {}
