"""Each measure on matrices whose answer is known, and factors against whole matrices."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clm_data.eval.analysis.geometry import measures
from clm_data.eval.analysis.geometry.measures import (
    Change,
    FloatArray,
    GeometryError,
    compare,
    total,
)
from clm_data.eval.paper_ranges import REPORTED_RANGES, reported_range

NEAR = 1e-6


def orthonormal(n: int, k: int, seed: int) -> FloatArray:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, k)))
    return np.asarray(basis)


def factors(d: int = 30, m: int = 40, rank: int = 4, seed: int = 0) -> Change:
    rng = np.random.default_rng(seed)
    return Change(rng.standard_normal((d, rank)), rng.standard_normal((rank, m)))


def whole(change: Change) -> Change:
    return Change(change.dense(), k=change.k)


@pytest.fixture(params=["factors", "whole"])
def form(request: pytest.FixtureRequest) -> object:
    return (lambda change: change) if request.param == "factors" else whole


def test_equal_changes(form) -> None:  # type: ignore[no-untyped-def]
    found = compare(form(factors()), form(factors()))
    assert found["cosine"] == pytest.approx(1, abs=NEAR)
    assert found["relative_error"] == pytest.approx(0, abs=NEAR)
    for name in measures.ANGLES:
        assert found[name] == pytest.approx(0, abs=NEAR)
    for name in measures.NEURONS:
        assert found[name] == 1.0
    assert found["angle_dimensions"] == 4
    assert found["norm_ratio"] == pytest.approx(1)


def test_orthogonal_changes(form) -> None:  # type: ignore[no-untyped-def]
    left, right = orthonormal(30, 8, 1), orthonormal(40, 8, 2)
    first, second = Change(left[:, :4], right[:, :4].T), Change(left[:, 4:], right[:, 4:].T)
    found = compare(form(first), form(second))
    assert found["cosine"] == pytest.approx(0, abs=NEAR)
    assert found["relative_error"] == pytest.approx(math.sqrt(2))
    for name in measures.ANGLES:
        assert found[name] == pytest.approx(90, abs=NEAR)


@pytest.mark.parametrize("angle", [1e-7, 0.01, 30.0, 45.0, 60.0, 89.99, 90.0])
def test_left_vectors_rotated_by_an_angle(form, angle: float) -> None:  # type: ignore[no-untyped-def]
    left, right = orthonormal(30, 6, 3), orthonormal(40, 3, 4)
    values = np.array([3.0, 2.0, 1.0])
    turn = math.radians(angle)
    turned = math.cos(turn) * left[:, :3] + math.sin(turn) * left[:, 3:]
    first, second = Change(left[:, :3] * values, right.T), Change(turned * values, right.T)
    found = compare(form(first), form(second))
    assert found["angle_left_mean"] == pytest.approx(angle, abs=NEAR)
    assert found["angle_left_max"] == pytest.approx(angle, abs=NEAR)
    assert found["angle_right_max"] == pytest.approx(0, abs=NEAR)
    assert found["cosine"] == pytest.approx(math.cos(turn), abs=NEAR)


def test_one_angle_of_two_gives_mean_and_largest() -> None:
    left = np.eye(5)
    turned = np.stack([left[0], (left[1] + left[2]) / math.sqrt(2)], axis=1)
    values = np.array([2.0, 1.0])
    right = np.eye(7)[:2]
    found = compare(Change(left[:, :2] * values, right), Change(turned * values, right))
    assert found["angle_left_mean"] == pytest.approx(22.5)
    assert found["angle_left_max"] == pytest.approx(45)


def test_only_the_first_k_directions_count() -> None:
    left, right = orthonormal(30, 12, 5), orthonormal(40, 12, 6)
    values = 0.5 ** np.arange(12)
    first = Change(left * values, right.T, k=3)
    second = Change(left[:, [0, 1, 2, *range(11, 2, -1)]] * values, right.T, k=3)
    found = compare(first, second)
    assert found["angle_dimensions"] == 3
    assert found["angle_left_max"] == pytest.approx(0, abs=NEAR)
    assert found["gap"] == pytest.approx(0.5)


def test_sums(form) -> None:  # type: ignore[no-untyped-def]
    left, right = orthonormal(30, 8, 1), orthonormal(40, 8, 2)
    zh = form(Change(left[:, :4], right[:, :4].T))
    en = form(Change(left[:, 4:], right[:, 4:].T))
    both = total(zh, en)
    np.testing.assert_allclose(both.dense(), zh.dense() + en.dense(), atol=1e-12)
    assert compare(both, total(en, zh))["relative_error"] == pytest.approx(0, abs=NEAR)
    assert measures.cosine(both, zh) == pytest.approx(1 / math.sqrt(2))
    assert measures.relative_error(both, zh) == pytest.approx(1)


def test_sums_keep_the_facts_of_their_columns() -> None:
    one = Change(np.ones((3, 2)), np.ones((2, 4)), ("a", "b"))
    two = Change(np.ones((3, 1)), np.ones((1, 4)), ("c",))
    assert total(one, two).facts == ("a", "b", "c")
    assert total(one, two).by_fact
    assert not total(one, factors(3, 4, 1)).by_fact
    assert total(one, whole(two)).right is None


@pytest.mark.parametrize("scale", [0.01, 3.0, -2.0])
def test_scaled_changes(form, scale: float) -> None:  # type: ignore[no-untyped-def]
    plain = factors()
    found = compare(form(Change(scale * plain.left, plain.right)), form(plain))
    assert found["cosine"] == pytest.approx(math.copysign(1, scale))
    assert found["relative_error"] == pytest.approx(abs(scale - 1))
    assert found["norm_ratio"] == pytest.approx(abs(scale))
    assert found["angle_left_max"] == pytest.approx(0, abs=NEAR)
    assert found["jaccard_rows"] == 1.0


def test_low_rank_is_seen_through_more_factors_than_it_needs() -> None:
    plain = factors(rank=2)
    assert plain.right is not None
    padded = Change(np.hstack([plain.left, plain.left]), np.vstack([plain.right, plain.right]) / 2)
    assert len(padded.spectrum.values) == 2
    found = compare(padded, plain)
    assert found["angle_dimensions"] == 2
    assert found["cosine"] == pytest.approx(1)
    assert found["angle_left_max"] == pytest.approx(0, abs=NEAR)


def test_a_zero_change_has_no_direction(form) -> None:  # type: ignore[no-untyped-def]
    plain = factors()
    zero = form(Change(np.zeros((30, 4)), np.zeros((4, 40))))
    found = compare(form(plain), zero)
    assert (found["cosine"], found["relative_error"], found["angle_left_mean"]) == (None,) * 3
    assert found["jaccard_rows"] == 0.0
    other = compare(zero, form(plain))
    assert other["relative_error"] == pytest.approx(1)
    assert other["cosine"] is None
    assert compare(zero, zero)["jaccard_columns"] is None


def test_a_sum_that_cancels_is_zero() -> None:
    plain = factors()
    gone = total(plain, Change(-plain.left, plain.right))
    assert gone.norm == 0.0
    assert measures.cosine(gone, plain) is None


@settings(max_examples=60)
@given(
    sizes=st.tuples(st.integers(2, 24), st.integers(2, 24)),
    ranks=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-4, 1e4),
)
def test_factors_and_whole_matrices_measure_alike(
    sizes: tuple[int, int], ranks: tuple[int, int], seed: int, scale: float
) -> None:
    first = factors(*sizes, ranks[0], seed)
    second = factors(*sizes, ranks[1], seed + 1)
    second = Change(scale * second.left + 0.1 * scale * first.left[:, :1], second.right)
    expected = compare(whole(first), whole(second), 0.2)
    for pair in ((first, second), (first, whole(second)), (whole(first), second)):
        found = compare(*pair, 0.2)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=NEAR, abs=NEAR), name


def test_neurons_are_found_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    change = factors(d=31, m=17, rank=3)
    expected = np.abs(change.dense())
    monkeypatch.setattr(measures, "BLOCK_BYTES", 17 * 8 * 4)
    found = change.neurons
    np.testing.assert_allclose(found.rows, expected.max(axis=1))
    np.testing.assert_allclose(found.columns, expected.max(axis=0))
    np.testing.assert_allclose(found.row_norms, np.linalg.norm(expected, axis=1))
    np.testing.assert_allclose(found.column_norms, np.linalg.norm(expected, axis=0))


def test_factors_never_become_a_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "BLOCK_BYTES", 2**20)
    first, second = factors(2000, 3000, 4, 0), factors(2000, 3000, 4, 1)
    tracemalloc.start()
    compare(total(first, second), second)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2000 * 3000 * 8 / 8


def test_the_neurons_that_changed_most() -> None:
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
    found = compare(Change(left, right), Change(other, right))
    assert (found["jaccard_rows"], found["jaccard_columns"]) == (0.0, 1.0)
    assert (found["angle_left_max"], found["angle_right_max"]) == pytest.approx((90, 0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_an_error_and_no_measure(form, bad: float) -> None:  # type: ignore[no-untyped-def]
    broken = factors()
    broken.left[0, 0] = bad
    with pytest.raises(GeometryError):
        compare(form(broken), form(factors()))
    with pytest.raises(GeometryError):
        compare(form(factors()), form(broken))


def test_a_value_beyond_its_range_is_an_error_and_rounding_is_not() -> None:
    assert measures.within(1 + 1e-9, -1, 1, "a cosine") == 1.0
    with pytest.raises(GeometryError, match=r"a cosine is 1\.01, which is not from -1 to 1"):
        measures.within(1.01, -1, 1, "a cosine")
    with pytest.raises(GeometryError):
        measures.error_from(1.0, 1.0, 5.0)
    with pytest.raises(GeometryError):
        measures.principal_angles(np.eye(3)[:, :2] * 1.1, np.eye(3)[:, :2])


def test_changes_of_other_sizes_are_not_compared() -> None:
    with pytest.raises(GeometryError, match="different models"):
        compare(factors(30, 40), factors(40, 30))
    with pytest.raises(GeometryError, match="different models"):
        total(factors(30, 40), factors(31, 40))


def test_the_paper_states_five_ranges() -> None:
    line = reported_range("zh-en", "cosine")
    assert line is not None
    assert (line.low, line.high, line.text) == (0.027, 0.042, "0.027-0.042")
    jaccard = reported_range("sum-mix", "jaccard_columns")
    assert jaccard is not None
    assert jaccard.text == "over 0.75"
    assert reported_range("zh-en", "relative_error") is None
    names = {*measures.NEURONS, *measures.ANGLES, "cosine", "relative_error"}
    assert all(set(line.measures) <= names for line in REPORTED_RANGES)
