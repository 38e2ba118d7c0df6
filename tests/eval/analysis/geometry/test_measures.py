"""Each measure on matrices with a known answer, and factored against dense matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_data.eval.analysis.checks import AnalysisError
from clm_data.eval.analysis.geometry import measures
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.measures import compare
from clm_data.eval.intervals import FloatArray

TOLERANCE = 1e-6


def orthonormal(n: int, k: int, seed: int) -> FloatArray:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, k)))
    return np.asarray(basis)


def random_change(d: int = 30, m: int = 40, rank: int = 4, seed: int = 0) -> LowRankMatrix:
    rng = np.random.default_rng(seed)
    return LowRankMatrix(rng.standard_normal((d, rank)), rng.standard_normal((rank, m)))


def dense(change: LowRankMatrix) -> LowRankMatrix:
    return LowRankMatrix(change.dense(), k=change.k)


Form = Callable[[LowRankMatrix], LowRankMatrix]


@pytest.fixture(params=["factored", "dense"])
def form(request: pytest.FixtureRequest) -> Form:
    """Leaves a change in factors, or multiplies it out."""
    return (lambda change: change) if request.param == "factored" else dense


def test_equal_changes_have_cosine_1_error_0_and_angles_0(form: Form) -> None:
    found = compare(form(random_change()), form(random_change()))
    assert found["cosine"] == pytest.approx(1, abs=TOLERANCE)
    assert found["relative_error"] == pytest.approx(0, abs=TOLERANCE)
    for name in measures.ANGLES:
        assert found[name] == pytest.approx(0, abs=TOLERANCE)
    for name in measures.OVERLAPS:
        assert found[name] == 1.0
    assert found["angle_dimensions"] == 4
    assert found["norm_ratio"] == pytest.approx(1)


def test_orthogonal_changes_have_cosine_0_and_angles_of_90_degrees(form: Form) -> None:
    left, right = orthonormal(30, 8, 1), orthonormal(40, 8, 2)
    first, second = (
        LowRankMatrix(left[:, :4], right[:, :4].T),
        LowRankMatrix(left[:, 4:], right[:, 4:].T),
    )
    found = compare(form(first), form(second))
    assert found["cosine"] == pytest.approx(0, abs=TOLERANCE)
    assert found["relative_error"] == pytest.approx(math.sqrt(2))
    for name in measures.ANGLES:
        assert found[name] == pytest.approx(90, abs=TOLERANCE)


@pytest.mark.parametrize("angle", [1e-7, 0.01, 30.0, 45.0, 60.0, 89.99, 90.0])
def test_rotated_left_vectors_have_that_principal_angle(form: Form, angle: float) -> None:
    left, right = orthonormal(30, 6, 3), orthonormal(40, 3, 4)
    values = np.array([3.0, 2.0, 1.0])
    turn = math.radians(angle)
    turned = math.cos(turn) * left[:, :3] + math.sin(turn) * left[:, 3:]
    first, second = (
        LowRankMatrix(left[:, :3] * values, right.T),
        LowRankMatrix(turned * values, right.T),
    )
    found = compare(form(first), form(second))
    assert found["angle_left_mean"] == pytest.approx(angle, abs=TOLERANCE)
    assert found["angle_left_max"] == pytest.approx(angle, abs=TOLERANCE)
    assert found["angle_right_max"] == pytest.approx(0, abs=TOLERANCE)
    assert found["cosine"] == pytest.approx(math.cos(turn), abs=TOLERANCE)


def test_mean_and_largest_angle_of_two() -> None:
    left = np.eye(5)
    turned = np.stack([left[0], (left[1] + left[2]) / math.sqrt(2)], axis=1)
    values = np.array([2.0, 1.0])
    right = np.eye(7)[:2]
    found = compare(
        LowRankMatrix(left[:, :2] * values, right), LowRankMatrix(turned * values, right)
    )
    assert found["angle_left_mean"] == pytest.approx(22.5)
    assert found["angle_left_max"] == pytest.approx(45)


def test_only_the_leading_k_directions_are_compared() -> None:
    left, right = orthonormal(30, 12, 5), orthonormal(40, 12, 6)
    values = 0.5 ** np.arange(12)
    first = LowRankMatrix(left * values, right.T, k=3)
    second = LowRankMatrix(left[:, [0, 1, 2, *range(11, 2, -1)]] * values, right.T, k=3)
    found = compare(first, second)
    assert found["angle_dimensions"] == 3
    assert found["angle_left_max"] == pytest.approx(0, abs=TOLERANCE)
    assert found["gap"] == pytest.approx(0.5)


def test_sums_of_changes(form: Form) -> None:
    left, right = orthonormal(30, 8, 1), orthonormal(40, 8, 2)
    zh = form(LowRankMatrix(left[:, :4], right[:, :4].T))
    en = form(LowRankMatrix(left[:, 4:], right[:, 4:].T))
    both = zh + en
    np.testing.assert_allclose(both.dense(), zh.dense() + en.dense(), atol=1e-12)
    assert compare(both, en + zh)["relative_error"] == pytest.approx(0, abs=TOLERANCE)
    assert measures.cosine(both, zh) == pytest.approx(1 / math.sqrt(2))
    assert measures.relative_error(both, zh) == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.01, 3.0, -2.0])
def test_scaled_changes_have_cosine_1_or_minus_1(form: Form, scale: float) -> None:
    plain = random_change()
    found = compare(form(LowRankMatrix(scale * plain.left, plain.right)), form(plain))
    assert found["cosine"] == pytest.approx(math.copysign(1, scale))
    assert found["relative_error"] == pytest.approx(abs(scale - 1))
    assert found["norm_ratio"] == pytest.approx(abs(scale))
    assert found["angle_left_max"] == pytest.approx(0, abs=TOLERANCE)
    assert found["jaccard_rows"] == 1.0


def test_the_rank_may_be_lower_than_the_number_of_terms() -> None:
    plain = random_change(rank=2)
    assert plain.right is not None
    padded = LowRankMatrix(
        np.hstack([plain.left, plain.left]), np.vstack([plain.right, plain.right]) / 2
    )
    assert len(padded.spectrum.values) == 2
    found = compare(padded, plain)
    assert found["angle_dimensions"] == 2
    assert found["cosine"] == pytest.approx(1)
    assert found["angle_left_max"] == pytest.approx(0, abs=TOLERANCE)


def test_direction_measures_of_a_zero_change_are_undefined(form: Form) -> None:
    plain = random_change()
    zero = form(LowRankMatrix(np.zeros((30, 4)), np.zeros((4, 40))))
    found = compare(form(plain), zero)
    assert (found["cosine"], found["relative_error"], found["angle_left_mean"]) == (None,) * 3
    assert found["jaccard_rows"] == 0.0
    other = compare(zero, form(plain))
    assert other["relative_error"] == pytest.approx(1)
    assert other["cosine"] is None
    assert compare(zero, zero)["jaccard_columns"] is None


@settings(max_examples=60)
@given(
    sizes=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    ranks=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-4, 1e4),
)
def test_factored_and_dense_changes_have_the_same_measures(
    sizes: tuple[int, int], ranks: tuple[int, int], seed: int, scale: float
) -> None:
    first = random_change(*sizes, ranks[0], seed)
    second = random_change(*sizes, ranks[1], seed + 1)
    second = LowRankMatrix(scale * second.left + 0.1 * scale * first.left[:, :1], second.right)
    expected = compare(dense(first), dense(second), 0.2)
    for pair in ((first, second), (first, dense(second)), (dense(first), second)):
        found = compare(*pair, 0.2)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), name


def test_the_most_changed_neurons_of_ties_and_zeros() -> None:
    changes = np.zeros(40)
    changes[[3, 7, 9]] = [0.5, 2.0, 1.0]
    assert measures.top_neurons(changes, 0.05) == {7, 9}
    assert measures.top_neurons(changes, 0.5) == {3, 7, 9}
    assert measures.top_neurons(changes, 0.001) == {7}
    assert measures.top_neurons(np.ones(20), 0.1) == {0, 1}
    assert measures.top_neurons(np.zeros(20), 0.1) == set()


def test_jaccard_is_the_intersection_over_the_union() -> None:
    assert measures.jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert measures.jaccard({1}, {2}) == 0.0
    assert measures.jaccard(set(), {2}) == 0.0
    assert measures.jaccard(set(), set()) is None


def test_rows_are_hidden_dimensions_and_columns_inner_neurons() -> None:
    left, right = np.zeros((20, 1)), np.zeros((1, 60))
    left[4], right[0, [7, 8, 9]] = 1.0, 1.0
    other = np.zeros((20, 1))
    other[5] = 1.0
    found = compare(LowRankMatrix(left, right), LowRankMatrix(other, right))
    assert (found["jaccard_rows"], found["jaccard_columns"]) == (0.0, 1.0)
    assert (found["angle_left_max"], found["angle_right_max"]) == pytest.approx((90, 0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_in_a_change_are_errors(form: Form, bad: float) -> None:
    broken = random_change()
    broken.left[0, 0] = bad
    with pytest.raises(AnalysisError):
        compare(form(broken), form(random_change()))
    with pytest.raises(AnalysisError):
        compare(form(random_change()), form(broken))


def test_inconsistent_arguments_are_errors() -> None:
    with pytest.raises(AnalysisError):
        measures.relative_error_from(1.0, 1.0, 5.0)
    with pytest.raises(AnalysisError):
        measures.principal_angles(np.eye(3)[:, :2] * 1.1, np.eye(3)[:, :2])


def test_changes_of_different_shapes_cannot_be_compared_or_added() -> None:
    with pytest.raises(AnalysisError, match="different models"):
        compare(random_change(30, 40), random_change(40, 30))
    with pytest.raises(AnalysisError, match="different models"):
        random_change(30, 40) + random_change(31, 40)
