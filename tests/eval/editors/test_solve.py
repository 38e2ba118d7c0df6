"""The closed-form updates, compared with dense float64 solves of the papers' equations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# ruff: noqa: E402 (the imports below need torch)
torch = pytest.importorskip("torch", reason="the extra eval is not installed")

from clm_data.eval.editors.rome import rank_one_update
from clm_data.eval.editors.solve import (
    check_finite,
    cholesky,
    solve_least_squares,
    solve_null_space,
    top_eigenvectors,
)
from clm_data.eval.errors import EditError

sizes = st.tuples(st.integers(2, 40), st.integers(1, 60), st.integers(0, 30), st.integers(0, 10**6))


def _moment(m: int, generator: torch.Generator, decay: float = 0.0) -> torch.Tensor:
    data = torch.randn(m, 4 * m, dtype=torch.float64, generator=generator)
    scale = torch.exp(-decay * torch.arange(m, dtype=torch.float64))
    data *= scale[:, None]
    return data @ data.T / (4 * m)


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((found - expected).norm() <= 1e-6 * expected.norm())


@given(sizes, st.sampled_from([1.0, 100.0, 15000.0]))
@settings(max_examples=60, deadline=None)
def test_the_least_squares_update_solves_the_systems_of_memit_and_pmet(
    size: tuple[int, int, int, int], weight: float
) -> None:
    m, n, _, seed = size
    generator = torch.Generator().manual_seed(seed)
    moment = _moment(m, generator)
    keys = torch.randn(m, n, dtype=torch.float64, generator=generator)
    found = solve_least_squares(keys, cholesky(moment)[0], weight)
    assert _close(found, torch.linalg.solve(weight * moment + keys @ keys.T, keys))
    residuals = torch.randn(5, n, dtype=torch.float64, generator=generator)
    pmet = residuals @ keys.T @ torch.linalg.inv(keys @ keys.T + weight * moment)
    assert _close(residuals @ found.T, pmet)


@given(sizes, st.sampled_from([1e-2, 1.0, 10.0]))
@settings(max_examples=60, deadline=None)
def test_the_null_space_update_solves_the_system_of_alphaedit(
    size: tuple[int, int, int, int], ridge: float
) -> None:
    m, n, past, seed = size
    generator = torch.Generator().manual_seed(seed)
    moment = _moment(m, generator, decay=0.3)
    threshold = float(moment.diagonal().median())
    keys = torch.randn(m, n, dtype=torch.float64, generator=generator)
    past_keys = torch.randn(m, past, dtype=torch.float64, generator=generator)
    left, values, _ = torch.linalg.svd(moment)
    null_space = left[:, values < threshold]
    projection = null_space @ null_space.T
    residuals = torch.randn(5, n, dtype=torch.float64, generator=generator)
    system = projection @ (keys @ keys.T + past_keys @ past_keys.T)
    system += ridge * torch.eye(m, dtype=torch.float64)
    expected = torch.linalg.solve(system, projection @ keys @ residuals.T).T
    basis = top_eigenvectors(moment, threshold)
    found = residuals @ solve_null_space(keys, past_keys, basis, ridge).T
    assert float((found - expected).norm()) <= 1e-6 * max(float(expected.norm()), 1e-6)
    assert float((found @ basis).norm()) <= 1e-9 * max(float(found.norm()), 1.0)


def test_the_rank_one_update_yields_the_target_value() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(6, 9, dtype=torch.float64, generator=generator)
    key, bare_input = (torch.randn(9, dtype=torch.float64, generator=generator) for _ in range(2))
    target = torch.randn(6, dtype=torch.float64, generator=generator)
    left, right = rank_one_update(key, bare_input, target, weight @ bare_input)
    assert torch.allclose((weight + torch.outer(left, right)) @ bare_input, target, atol=1e-12)


def test_a_singular_moment_gets_a_small_ridge() -> None:
    data = torch.randn(10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = data @ data.T
    factor, ridge = cholesky(moment)
    assert 0 < ridge <= 1e-3 * float(moment.diagonal().mean())
    assert torch.allclose(factor @ factor.T, moment + ridge * torch.eye(10), atol=1e-9)
    assert cholesky(torch.eye(4))[1] == 0.0


def test_nan_and_indefinite_moments_are_edit_errors() -> None:
    with pytest.raises(EditError, match="NaN"):
        cholesky(torch.full((3, 3), float("nan")))
    with pytest.raises(EditError, match="more text"):
        cholesky(-torch.eye(3))
    with pytest.raises(EditError, match="the key contains NaN"):
        check_finite(torch.tensor([float("inf")]), "the key")
    with pytest.raises(EditError, match="NaN"):
        solve_least_squares(
            torch.full((3, 1), float("nan")), torch.eye(3, dtype=torch.float64), 1.0
        )
