"""Random matrices give what theory says they give."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clm_data.eval.analysis.geometry.measures import Change, FloatArray, compare
from clm_data.eval.analysis.geometry.null import FEWEST_DRAWS, frame_products, null_values
from clm_data.eval.analysis.geometry.resample import Settings, of_draws

MANY = Settings(draws=2000)


def factors(d: int, m: int, rank: int, seed: int = 0) -> Change:
    rng = np.random.default_rng(seed)
    return Change(rng.standard_normal((d, rank)), rng.standard_normal((rank, m)))


def random_frame(n: int, k: int, rng: np.random.Generator) -> FloatArray:
    basis, upper = np.linalg.qr(rng.standard_normal((n, k)))
    return np.asarray(basis * np.sign(np.diag(upper)))


@pytest.mark.parametrize(("n", "first", "second"), [(20, 3, 4), (8, 6, 5), (5, 5, 5), (4, 1, 4)])
def test_products_of_frames_have_the_moments_of_random_frames(
    n: int, first: int, second: int
) -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([frame_products(n, first, second, rng) for _ in range(4000)])
    assert drawn.shape[1:] == (first, second)
    sigma = 1 / math.sqrt(n)
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=5 * sigma / math.sqrt(4000))
    np.testing.assert_allclose((drawn**2).mean(axis=0), 1 / n, rtol=0.12)
    expected = [(random_frame(n, first, rng).T @ random_frame(n, second, rng)) for _ in range(4000)]
    largest = [np.mean([np.linalg.norm(one, 2) for one in many]) for many in (drawn, expected)]
    assert largest[0] == pytest.approx(largest[1], rel=0.02)
    if first == n:
        np.testing.assert_allclose(drawn[0].T @ drawn[0], np.eye(second), atol=1e-12)


def test_the_null_cosine_is_0_with_a_spread_of_one_over_the_root_of_all_weights() -> None:
    one, two = factors(20, 30, 3), factors(20, 30, 5, 1)
    found = null_values(one, two, MANY)["cosine"]
    sigma = 1 / math.sqrt(20 * 30)
    assert found.value == pytest.approx(0, abs=4 * sigma / math.sqrt(2000))
    assert found.low == pytest.approx(-1.96 * sigma, rel=0.1)
    assert found.high == pytest.approx(1.96 * sigma, rel=0.1)
    assert found.interval == "draws"


def test_the_null_agrees_with_matrices_that_are_really_drawn() -> None:
    rng = np.random.default_rng(2)
    one, two = factors(24, 36, 4), factors(24, 36, 6, 1)
    drawn = []
    for _ in range(600):
        first, second = [
            Change(
                random_frame(24, len(c.spectrum.values), rng) * c.spectrum.values,
                random_frame(36, len(c.spectrum.values), rng).T,
            )
            for c in (one, two)
        ]
        drawn.append(compare(first, second, 0.1))
    expected = of_draws(drawn, MANY)
    for name, found in null_values(one, two, Settings(draws=2000, share=0.1)).items():
        assert found.value == pytest.approx(expected[name].value, rel=0.06, abs=0.01), name
        assert found.high == pytest.approx(expected[name].high, rel=0.1, abs=0.03), name


def test_the_null_overlap_of_neurons_is_that_of_random_choices() -> None:
    found = null_values(factors(100, 400, 3), factors(100, 400, 3, 1), MANY)
    rng = np.random.default_rng(3)
    for name, n in (("jaccard_rows", 100), ("jaccard_columns", 400)):
        count = n // 20
        sets = [
            [set(rng.choice(n, count, replace=False).tolist()) for _ in range(2)]
            for _ in range(4000)
        ]
        expected = np.mean([len(a & b) / len(a | b) for a, b in sets])
        assert found[name].value == pytest.approx(expected, rel=0.15)


def test_a_subspace_as_large_as_the_space_is_at_no_angle() -> None:
    found = null_values(factors(4, 50, 4), factors(4, 50, 4, 1), Settings(draws=20))
    assert found["angle_left_max"].value == pytest.approx(0, abs=1e-5)
    assert found["angle_right_mean"].value is not None
    assert found["angle_right_mean"].value > 60


def test_one_dimension_has_the_mean_angle_of_random_lines() -> None:
    found = null_values(factors(3, 60, 1), factors(3, 60, 1, 1), MANY)["angle_left_mean"]
    assert found.value == pytest.approx(math.degrees(1), abs=1.5)  # one radian in three dimensions


def test_the_null_is_seeded_and_costs_no_more_than_it_may() -> None:
    one, two = factors(20, 30, 3), factors(20, 30, 3, 1)
    plain = Settings(draws=50)
    assert null_values(one, two, plain) == null_values(one, two, plain)
    assert null_values(one, two, plain) != null_values(one, two, Settings(draws=50, seed=1))
    few = null_values(one, two, Settings(draws=50, work=1))
    assert few == null_values(one, two, Settings(draws=FEWEST_DRAWS))


def test_a_zero_change_has_no_null() -> None:
    zero = Change(np.zeros((20, 2)), np.zeros((2, 30)))
    assert null_values(zero, factors(20, 30, 3), MANY) == {}
