"""The permutation test of ranks, against exact enumeration and known distributions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from clm_data.eval.analysis.geometry.rank_test import (
    BoolArray,
    average_ranks,
    compare_groups,
    holm,
)
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.intervals import Bootstrap

OPTIONS = GeometryOptions(Bootstrap(resamples=500), permutations=4999)


def flags(*in_first: int) -> BoolArray:
    return np.array(in_first, dtype=bool)


def test_equal_values_share_their_average_rank() -> None:
    assert average_ranks(np.array([3.0, 1.0, 3.0, 7.0])).tolist() == [2.5, 1, 2.5, 4]


def test_the_p_value_is_that_of_all_permutations() -> None:
    values = np.array([1.0, 2, 3, 9, 10, 11, 12])
    in_first = flags(0, 0, 1, 0, 1, 1, 1)
    found = compare_groups(values, in_first, np.zeros(7, dtype=np.int64), OPTIONS)
    ranks = average_ranks(values)
    sums = [sum(ranks[list(chosen)]) for chosen in combinations(range(7), 4)]
    observed = abs(ranks[in_first].sum() - np.mean(sums))
    exact = np.mean(np.abs(np.array(sums) - np.mean(sums)) >= observed - 1e-9)
    assert found.p == pytest.approx(exact, abs=0.02)
    assert found.auc == pytest.approx(11 / 12)
    assert found.means == pytest.approx((9, 4))
    assert (found.transferred, found.stayed) == (4, 3)


def test_a_clear_difference_is_significant() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(2, 1, 30), rng.normal(0, 1, 40)])
    in_first = np.arange(70) < 30
    found = compare_groups(values, in_first, np.zeros(70, dtype=np.int64), OPTIONS)
    assert found.p == pytest.approx(1 / 5000)
    assert found.low is not None
    assert found.high is not None
    assert found.low > 1
    assert found.high < 3
    assert found.auc is not None
    assert found.auc > 0.8


def test_without_a_difference_5_percent_of_the_tests_reject() -> None:
    options = GeometryOptions(Bootstrap(resamples=10), permutations=199)
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(200):
        in_first = rng.permutation(flags(*[1] * 8, *[0] * 12))
        strata = np.arange(20) // 10
        p_values.append(compare_groups(rng.standard_normal(20), in_first, strata, options).p)
    assert 0.01 <= np.mean([p is not None and p <= 0.05 for p in p_values]) <= 0.10


def test_a_difference_between_strata_is_not_one_between_groups() -> None:
    rng = np.random.default_rng(2)
    strata = np.repeat([0, 1], 20)
    values = 10.0 * strata + rng.standard_normal(40)
    in_first = np.concatenate([np.arange(20) < 2, np.arange(20) < 18])
    unstratified = compare_groups(values, in_first, np.zeros(40, dtype=np.int64), OPTIONS)
    stratified = compare_groups(values, in_first, strata, OPTIONS)
    assert unstratified.p is not None
    assert unstratified.p < 0.01
    assert stratified.p is not None
    assert stratified.p > 0.05


def test_a_group_of_two_has_neither_p_value_nor_interval() -> None:
    found = compare_groups(
        np.arange(6.0), flags(1, 1, 0, 0, 0, 0), np.zeros(6, dtype=np.int64), OPTIONS
    )
    assert (found.p, found.low) == (None, None)
    assert found.auc == 0.0


def test_equal_values_have_p_1_and_auc_one_half() -> None:
    found = compare_groups(
        np.ones(10), flags(*[1] * 5, *[0] * 5), np.zeros(10, dtype=np.int64), OPTIONS
    )
    assert (found.p, found.auc) == (1.0, 0.5)


def test_holm_adjusts_for_the_number_of_tests() -> None:
    assert holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), 0.06]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
