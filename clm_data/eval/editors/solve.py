"""The closed-form updates, in float64 linear algebra on plain matrices.

Notation: K (m, N) keys, C (m, m) second moment, R (d, N) residuals. A weight changes by R A^T, and
the solvers return A (m, N).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clm_data.eval.errors import EditError

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(value: Tensor, what: str) -> Tensor:
    """Return the value.

    Raises:
        EditError: It contains NaN or infinity.
    """
    import torch

    if not bool(torch.isfinite(value).all()):
        raise EditError(f"{what} contains NaN or infinity")
    return value


def solve_least_squares(keys: Tensor, factor: Tensor, weight: float) -> Tensor:
    """A = (weight C + K K^T)^-1 K.

    The update of MEMIT (Meng et al., 2023, equation 14) and PMET (Li et al., 2024, equation 11).
    By the Woodbury identity, only an N x N system is solved.

    Args:
        keys: K, (m, N).
        factor: Lower Cholesky factor of C, (m, m), float64.
        weight: Weight of C, lambda in the paper.

    Returns:
        A, (m, N), float64.

    Raises:
        EditError: The result contains NaN or infinity.
    """
    import torch

    keys = keys.to(factor)
    inner = torch.cholesky_solve(keys, factor) / weight
    system = keys.T @ inner
    system.diagonal().add_(1.0)
    return check_finite(torch.linalg.solve(system, inner.T).T, "the least-squares update")


def solve_equality(keys: Tensor, factor: Tensor) -> Tensor:
    """A = C^-1 K (K^T C^-1 K)^-1, with which the change R A^T adds exactly R at the keys.

    The update of EMMET (Gupta et al., A Unified Framework for Model Editing, 2024): of all changes
    that meet every target, the one that changes least what C is the second moment of. MEMIT's with
    a weight that goes to 0.

    Args:
        keys: K, (m, N).
        factor: Lower Cholesky factor of C, (m, m), float64.

    Returns:
        A, (m, N), float64.

    Raises:
        EditError: The keys depend on each other, or the result contains NaN or infinity.
    """
    import torch

    keys = keys.to(factor)
    inner = torch.cholesky_solve(keys, factor)
    system, failed = torch.linalg.cholesky_ex(keys.T @ inner)
    if int(failed):
        raise EditError(
            "the keys of the facts depend on each other (the same subject twice, or more facts "
            "than dimensions), so not every target can be met; edit fewer facts at once, or "
            "without emmet"
        )
    return check_finite(torch.cholesky_solve(inner.T, system).T, "the equality-constrained update")


def solve_null_space(keys: Tensor, past_keys: Tensor, basis: Tensor, ridge: float) -> Tensor:
    """A = (P (K K^T + Kp Kp^T) + ridge I)^-1 P K, with the projection P = I - U U^T.

    The update of AlphaEdit (Fang et al., 2025, equation 14). A lies in the range of P, so only a
    system with one row per key is solved: with G = [K Kp], A is the first N columns of
    P G (G^T P G + ridge I)^-1.

    Args:
        keys: K, (m, N).
        past_keys: Kp, (m, Np), keys of earlier edits.
        basis: U, (m, r), orthonormal; the directions that must not change. float64.
        ridge: Weight of the L2 penalty on the update.

    Returns:
        A, (m, N), float64.

    Raises:
        EditError: The result contains NaN or infinity.
    """
    import torch

    count = keys.shape[1]
    both = torch.cat([keys.to(basis), past_keys.to(basis)], dim=1)
    projected = both - basis @ (basis.T @ both)
    system = projected.T @ projected
    system.diagonal().add_(ridge)
    columns = torch.eye(len(system), count, dtype=system.dtype, device=system.device)
    return check_finite(projected @ torch.linalg.solve(system, columns), "the null-space update")


def solve_ridge(keys: Tensor, ridge: float = 1.0) -> Tensor:
    """A = (K K^T + ridge I)^-1 K = K (K^T K + ridge I)^-1.

    The update of UltraEdit (Gu et al., 2025), and of MALMEN before it. The smaller of the two
    systems is solved, m x m or N x N.

    Args:
        keys: K, (m, N).
        ridge: Weight of the L2 penalty on the update.

    Returns:
        A, (m, N), float64.

    Raises:
        EditError: The result contains NaN or infinity.
    """
    import torch

    keys = keys.double()
    size, count = keys.shape
    gram = keys.T @ keys if count <= size else keys @ keys.T
    gram.diagonal().add_(ridge)
    factor = torch.linalg.cholesky(check_finite(gram, "the keys"))
    if count <= size:
        return check_finite(torch.cholesky_solve(keys.T, factor).T, "the ridge update")
    return check_finite(torch.cholesky_solve(keys, factor), "the ridge update")


def cholesky(moment: Tensor) -> tuple[Tensor, float]:
    """Cholesky factor of a second moment, with a ridge if it needs one.

    A moment of few tokens, or one rounded to float32, may not be positive definite. Then the
    smallest of 1e-10, 1e-9 ... 1e-3 times its mean diagonal that makes it so is added to the
    diagonal.

    Args:
        moment: C, (m, m).

    Returns:
        The lower factor, (m, m), float64, and the ridge that was added.

    Raises:
        EditError: The moment contains NaN, or no such ridge suffices.
    """
    import torch

    moment = check_finite(moment, "a second moment").to(torch.float64)
    mean = float(moment.diagonal().mean())
    for ridge in (0.0, *(mean * 10.0**power for power in range(-10, -2))):
        system = moment.clone()
        system.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(system)
        if not int(failed):
            return factor, ridge
    raise EditError("a second moment is not positive definite; compute it from more text")


def top_eigenvectors(moment: Tensor, threshold: float) -> Tensor:
    """Eigenvectors of a second moment (m, m) whose eigenvalue is at least `threshold`.

    Returns:
        (m, r), orthonormal columns, float64.

    Raises:
        EditError: The moment contains NaN or infinity.
    """
    import torch

    values, vectors = torch.linalg.eigh(check_finite(moment, "a second moment").to(torch.float64))
    return vectors[:, values >= threshold]
