"""Distance limits in integer arithmetic, and the join by rapidfuzz."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from clm_data.dedup.join.pairs import DistanceLimit, indel_distance
from clm_data.dedup.join.with_rapidfuzz import rapidfuzz_pairs


def lcs_length(left: str, right: str) -> int:
    """Length of the longest common subsequence, by textbook dynamic programming."""
    row = [0] * (len(right) + 1)
    for one in left:
        before = row
        row = [0]
        for at, two in enumerate(right):
            row.append(before[at] + 1 if one == two else max(row[at], before[at + 1]))
    return row[-1]


@given(st.text(alphabet="abc🙂的", max_size=12), st.text(alphabet="abc🙂的", max_size=12))
def test_distance_follows_from_the_longest_common_subsequence(left: str, right: str) -> None:
    assert indel_distance(left, right) == len(left) + len(right) - 2 * lcs_length(left, right)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("threshold", [0.7, 0.85, 0.9, 0.95, 0.999, 1.0, Fraction(2, 3), 0.0])
def test_max_distance_is_the_largest_distance_of_a_pair(
    threshold: float | Fraction, inclusive: bool
) -> None:
    limit = DistanceLimit.at(threshold, inclusive=inclusive)
    table = limit.max_distances(300)
    for size in range(1, 301):
        within = [
            d
            for d in range(size + 1)
            if Fraction(size - d, size) > limit.threshold
            or (inclusive and Fraction(size - d, size) == limit.threshold)
        ]
        assert limit.max_distance(size) == max(within, default=-1) == table[size]


def test_two_empty_texts_are_a_pair_unless_nothing_is() -> None:
    assert DistanceLimit.at(0.9).max_distance(0) == 0
    assert DistanceLimit.at(1.0).max_distance(0) == -1
    assert DistanceLimit.at(1.0, inclusive=True).max_distance(0) == 0


def test_limits_are_exact_for_thresholds_beyond_64_bits() -> None:
    limit = DistanceLimit.at(Fraction(9 * 10**30 + 1, 10**31))
    assert limit.max_distances(40).tolist() == [limit.max_distance(size) for size in range(41)]
    assert limit.max_distance(20) == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.01, float("inf")])
def test_thresholds_outside_0_to_1_are_errors(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        DistanceLimit.at(threshold)


def test_pairs_at_exactly_the_threshold_are_found_only_if_inclusive() -> None:
    texts = ["abcdefghij", "abcdefghiX"]
    assert fuzz.ratio(*texts) == 90
    assert not list(rapidfuzz_pairs(texts, DistanceLimit.at(0.9)))
    (block,) = rapidfuzz_pairs(texts, DistanceLimit.at(0.9, inclusive=True))
    assert (block.left.tolist(), block.right.tolist(), block.distance.tolist()) == ([0], [1], [2])


def test_fewer_than_two_texts_have_no_pairs() -> None:
    assert not list(rapidfuzz_pairs([], DistanceLimit.at(0.9)))
    assert not list(rapidfuzz_pairs(["alone"], DistanceLimit.at(0.9)))
