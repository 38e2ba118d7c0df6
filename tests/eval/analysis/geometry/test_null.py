"""Null distributions agree with theory and with random matrices that are drawn in full."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.measures import compare
from clm_data.eval.analysis.geometry.null import MIN_DRAWS, frame_products, null_estimates
from clm_data.eval.analysis.geometry.resample import of_draws
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.intervals import Bootstrap, FloatArray

MANY_DRAWS = GeometryOptions(null_draws=2000)


def random_change(d: int, m: int, rank: int, seed: int = 0) -> LowRankMatrix:
    rng = np.random.default_rng(seed)
    return LowRankMatrix(rng.standard_normal((d, rank)), rng.standard_normal((rank, m)))


def random_frame(n: int, k: int, rng: np.random.Generator) -> FloatArray:
    basis, upper = np.linalg.qr(rng.standard_normal((n, k)))
    return np.asarray(basis * np.sign(np.diag(upper)))


@pytest.mark.parametrize(("n", "first", "second"), [(20, 3, 4), (8, 6, 5), (5, 5, 5), (4, 1, 4)])
def test_drawn_products_have_the_moments_of_products_of_random_frames(
    n: int, first: int, second: int
) -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([frame_products(n, first, second, rng) for _ in range(4000)])
    assert drawn.shape[1:] == (first, second)
    sigma = 1 / math.sqrt(n)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=5 * sigma / math.sqrt(4000))
    np.testing.assert_allclose((drawn**2).mean(axis=0), 1 / n, rtol=0.12)
    expected = [(random_frame(n, first, rng).T @ random_frame(n, second, rng)) for _ in range(4000)]
    largest = [np.mean([np.linalg.norm(one, 2) for one in draws]) for draws in (drawn, expected)]
    assert largest[0] == pytest.approx(largest[1], rel=0.02)
    if first == n:
        np.testing.assert_allclose(drawn[0].T @ drawn[0], np.eye(second), atol=1e-12)


def test_the_null_cosine_has_the_deviation_of_random_directions() -> None:
    one, two = random_change(20, 30, 3), random_change(20, 30, 5, 1)
    found = null_estimates(one, two, MANY_DRAWS)["cosine"]
    sigma = 1 / math.sqrt(20 * 30)
    assert found.value == pytest.approx(0, abs=4 * sigma / math.sqrt(2000))
    assert found.low == pytest.approx(-1.96 * sigma, rel=0.1)
    assert found.high == pytest.approx(1.96 * sigma, rel=0.1)
    assert found.resampled == "draws"


def test_the_null_agrees_with_random_matrices_drawn_in_full() -> None:
    rng = np.random.default_rng(2)
    one, two = random_change(24, 36, 4), random_change(24, 36, 6, 1)
    drawn = []
    for _ in range(600):
        first, second = [
            LowRankMatrix(
                random_frame(24, len(c.spectrum.values), rng) * c.spectrum.values,
                random_frame(36, len(c.spectrum.values), rng).T,
            )
            for c in (one, two)
        ]
        drawn.append(compare(first, second, 0.1))
    expected = of_draws(drawn, MANY_DRAWS.bootstrap)
    for name, found in null_estimates(
        one, two, GeometryOptions(null_draws=2000, top_share=0.1)
    ).items():
        assert found.value == pytest.approx(expected[name].value, rel=0.06, abs=0.01), name
        assert found.high == pytest.approx(expected[name].high, rel=0.1, abs=0.03), name


def test_the_null_overlap_of_neurons_is_that_of_random_subsets() -> None:
    found = null_estimates(random_change(100, 400, 3), random_change(100, 400, 3, 1), MANY_DRAWS)
    rng = np.random.default_rng(3)
    for name, n in (("jaccard_rows", 100), ("jaccard_columns", 400)):
        count = n // 20
        sets = [
            [set(rng.choice(n, count, replace=False).tolist()) for _ in range(2)]
            for _ in range(4000)
        ]
        expected = np.mean([len(a & b) / len(a | b) for a, b in sets])
        assert found[name].value == pytest.approx(expected, rel=0.15)


def test_subspaces_that_fill_the_space_have_angle_0() -> None:
    found = null_estimates(
        random_change(4, 50, 4), random_change(4, 50, 4, 1), GeometryOptions(null_draws=20)
    )
    assert found["angle_left_max"].value == pytest.approx(0, abs=1e-5)
    assert found["angle_right_mean"].value is not None
    assert found["angle_right_mean"].value > 60


def test_one_dimension_has_the_mean_angle_between_random_lines() -> None:
    found = null_estimates(random_change(3, 60, 1), random_change(3, 60, 1, 1), MANY_DRAWS)[
        "angle_left_mean"
    ]
    assert found.value == pytest.approx(math.degrees(1), abs=1.5)  # one radian in three dimensions


def test_the_null_is_reproducible_and_draws_less_if_it_costs_too_much() -> None:
    one, two = random_change(20, 30, 3), random_change(20, 30, 3, 1)
    options = GeometryOptions(null_draws=50)
    assert null_estimates(one, two, options) == null_estimates(one, two, options)
    assert null_estimates(one, two, options) != null_estimates(
        one, two, GeometryOptions(Bootstrap(seed=1), null_draws=50)
    )
    few = null_estimates(one, two, GeometryOptions(null_draws=50, max_operations=1))
    assert few == null_estimates(one, two, GeometryOptions(null_draws=MIN_DRAWS))


def test_a_zero_change_has_no_null_distribution() -> None:
    zero = LowRankMatrix(np.zeros((20, 2)), np.zeros((2, 30)))
    assert null_estimates(zero, random_change(20, 30, 3), MANY_DRAWS) == {}
