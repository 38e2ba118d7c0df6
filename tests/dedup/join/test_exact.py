"""The arithmetic of thresholds and the plain join."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz

from clm_data.dedup.join.exact import Limit, distance, plain_pairs


def common(left: str, right: str) -> int:
    """Length of the longest common subsequence, by the textbook."""
    row = [0] * (len(right) + 1)
    for one in left:
        before = row
        row = [0]
        for at, two in enumerate(right):
            row.append(before[at] + 1 if one == two else max(row[at], before[at + 1]))
    return row[-1]


@given(st.text(alphabet="abc🙂的", max_size=12), st.text(alphabet="abc🙂的", max_size=12))
def test_distance_is_that_of_the_longest_common_subsequence(left: str, right: str) -> None:
    assert distance(left, right) == len(left) + len(right) - 2 * common(left, right)


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("threshold", [0.7, 0.85, 0.9, 0.95, 0.999, 1.0, Fraction(2, 3), 0.0])
def test_allowed_is_the_largest_distance_of_a_pair(
    threshold: float | Fraction, inclusive: bool
) -> None:
    limit = Limit.of(threshold, inclusive=inclusive)
    table = limit.table(300)
    for size in range(1, 301):
        within = [
            d
            for d in range(size + 1)
            if Fraction(size - d, size) > limit.threshold
            or (inclusive and Fraction(size - d, size) == limit.threshold)
        ]
        assert limit.allowed(size) == max(within, default=-1) == table[size]


def test_two_empty_texts_are_equal() -> None:
    assert Limit.of(0.9).allowed(0) == 0
    assert Limit.of(1.0).allowed(0) == -1
    assert Limit.of(1.0, inclusive=True).allowed(0) == 0


def test_table_of_a_threshold_beyond_64_bits_is_exact() -> None:
    limit = Limit.of(Fraction(9 * 10**30 + 1, 10**31))
    assert limit.table(40).tolist() == [limit.allowed(size) for size in range(41)]
    assert limit.allowed(20) == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.01, float("inf")])
def test_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Limit.of(threshold)


def test_exactly_the_threshold_is_no_pair_unless_inclusive() -> None:
    texts = ["abcdefghij", "abcdefghiX"]
    assert fuzz.ratio(*texts) == 90
    assert not list(plain_pairs(texts, Limit.of(0.9)))
    (block,) = plain_pairs(texts, Limit.of(0.9, inclusive=True))
    assert (block.left.tolist(), block.right.tolist(), block.distance.tolist()) == ([0], [1], [2])


def test_plain_join_of_nothing_is_nothing() -> None:
    assert not list(plain_pairs([], Limit.of(0.9)))
    assert not list(plain_pairs(["alone"], Limit.of(0.9)))
