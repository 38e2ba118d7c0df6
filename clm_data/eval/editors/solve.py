"""The closed forms. Everything here is float64 linear algebra on plain matrices.

Notation: K (m, N) keys, C (m, m) second moment, R (d, N) residuals; the change of the weight is
R A^T, and a solver gives A (m, N).
"""

from __future__ import annotations

from typing import Any

from clm_data.eval.errors import EditError


def finite(value: Any, what: str) -> Any:
    """The value itself.

    Raises:
        EditError: It holds NaN or infinity.
    """
    import torch

    if not bool(torch.isfinite(value).all()):
        raise EditError(f"{what} came out as NaN or infinite")
    return value


def least_squares(keys: Any, factor: Any, weight: float) -> Any:
    """A = (weight C + K K^T)^-1 K, by Woodbury's identity: only an N x N system is solved.

    MEMIT, equation 14, and PMET, equation 11, whose changes are both R A^T.

    Args:
        keys: K, (m, N).
        factor: Lower Cholesky factor of C, (m, m).
        weight: The weight of C.
    """
    import torch

    keys = keys.to(factor)
    inner = torch.cholesky_solve(keys, factor) / weight
    system = keys.T @ inner
    system.diagonal().add_(1.0)
    return finite(torch.linalg.solve(system, inner.T).T, "the solve")


def null_space_update(keys: Any, protected: Any, kept: Any, ridge: float) -> Any:
    """A = (P (K K^T + Kp Kp^T) + ridge I)^-1 P K with the projection P = I - U U^T.

    AlphaEdit (Fang et al., 2025), equation 14. Since A lies in P's range, only a system of the size
    of all keys is solved: A = P G (G^T P G + ridge I)^-1, its first N columns, with G = [K Kp].

    Args:
        keys: K, (m, N).
        protected: Kp, (m, Np), keys of earlier edits.
        kept: U, (m, r), orthonormal directions that must not change.
        ridge: Weight of the update's size.
    """
    import torch

    count = keys.shape[1]
    both = torch.cat([keys.to(kept), protected.to(kept)], dim=1)
    inside = both - kept @ (kept.T @ both)
    system = inside.T @ inside
    system.diagonal().add_(ridge)
    picked = torch.eye(len(system), count, dtype=system.dtype, device=system.device)
    return finite(inside @ torch.linalg.solve(system, picked), "the solve")


def cholesky(moment: Any) -> tuple[Any, float]:
    """Lower Cholesky factor of a second moment, float64, and the ridge it needed.

    A moment from few tokens, or rounded to float32, may not be positive definite. Then the
    smallest of 1e-10, 1e-9 ... 1e-3 times its mean diagonal that makes it so is added.

    Raises:
        EditError: It holds NaN, or no such ridge helps.
    """
    import torch

    moment = finite(moment, "a second moment").to(torch.float64)
    mean = float(moment.diagonal().mean())
    for ridge in (0.0, *(mean * 10.0**power for power in range(-10, -2))):
        system = moment.clone()
        system.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(system)
        if not int(failed):
            return factor, ridge
    raise EditError("a second moment is not positive definite; compute it from more text")


def top_eigenvectors(moment: Any, threshold: float) -> Any:
    """Eigenvectors (m, r) of a second moment whose eigenvalue is at least ``threshold``."""
    import torch

    values, vectors = torch.linalg.eigh(finite(moment, "a second moment").to(torch.float64))
    return vectors[:, values >= threshold]
