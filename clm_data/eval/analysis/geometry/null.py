"""Null distributions: measures between random matrices with given singular values.

A random matrix with singular values s is U diag(s) V^T with U and V uniform among orthonormal
frames. The measures between two such matrices depend only on the inner products between their
frames, which are drawn directly.
"""

from __future__ import annotations

import numpy as np

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix, Spectrum
from clm_data.eval.analysis.geometry.measures import (
    OVERLAPS,
    SIDES,
    relative_error_from,
    top_count,
)
from clm_data.eval.analysis.geometry.resample import Estimate, of_draws
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.intervals import FloatArray

MIN_DRAWS = 20
"""Random matrices that are drawn even if they exceed ``GeometryOptions.max_operations``."""


def frame_products(n: int, first: int, second: int, rng: np.random.Generator) -> FloatArray:
    """Draw the inner products between two independent, uniform orthonormal frames.

    By rotation invariance the first frame may be fixed to the leading axes. The products are then
    the leading rows of one random frame, which is a Gaussian matrix G of shape (n, second)
    orthonormalized by the Cholesky factor of G^T G. The remaining rows of G enter only through
    their Gram matrix, which is drawn with Bartlett's decomposition of the Wishart distribution.

    Args:
        n: Dimension of the space, at least ``first`` and ``second``.
        first: Number of vectors of the first frame.
        second: Number of vectors of the second frame.
        rng: Random generator.

    Returns:
        Shape (first, second).
    """
    rest = n - first
    top = rng.standard_normal((first, second))
    if rest < second:
        basis, upper = np.linalg.qr(np.vstack([top, rng.standard_normal((rest, second))]))
        return np.asarray(basis[:first] * np.sign(np.diag(upper)))
    below = np.tril(rng.standard_normal((second, second)), -1)
    below[np.diag_indices(second)] = np.sqrt(rng.chisquare(rest - np.arange(second)))
    lower = np.linalg.cholesky(top.T @ top + below @ below.T)
    return np.asarray(np.linalg.solve(lower, top.T).T)


def null_estimates(
    first: LowRankMatrix, second: LowRankMatrix, options: GeometryOptions
) -> dict[str, Estimate]:
    """Measures between random matrices with the singular values and shapes of two changes.

    Rows and columns of such matrices are exchangeable, so the most changed ones are a uniformly
    random subset and the size of their intersection is hypergeometric, whatever the spectrum.

    Args:
        first: A weight change; only its spectrum and shape are used.
        second: Another one of the same shape.
        options: Number of draws and limits.

    Returns:
        By measure: the mean over draws with the range of the middle draws. Empty if a change is
        zero.
    """
    spectra = first.spectrum, second.spectrum
    ranks = len(spectra[0].values), len(spectra[1].values)
    if not all(ranks):
        return {}
    rng = options.rng("null", *first.shape, *ranks)
    k = min(first.k, second.k, *ranks)
    drawn = [
        _draw(first.shape, spectra, k, options.top_share, rng)
        for _ in range(_number_of_draws(*ranks, options))
    ]
    return of_draws(drawn, options.bootstrap)


def _number_of_draws(first_rank: int, second_rank: int, options: GeometryOptions) -> int:
    operations = 2.0 * (2 * first_rank * second_rank**2 + second_rank**3)
    return int(min(options.null_draws, max(MIN_DRAWS, options.max_operations / operations)))


def _draw(
    shape: tuple[int, int],
    spectra: tuple[Spectrum, Spectrum],
    k: int,
    top_share: float,
    rng: np.random.Generator,
) -> dict[str, float | None]:
    """The measures between one pair of random matrices."""
    first, second = (spectrum.values for spectrum in spectra)
    frames = [frame_products(n, len(first), len(second), rng) for n in shape]
    norms = [float(np.linalg.norm(values)) for values in (first, second)]
    product = float(first @ (frames[0] * frames[1]) @ second)
    out: dict[str, float | None] = {
        "cosine": float(in_range(product / (norms[0] * norms[1]), -1, 1, "cosine")),
        "relative_error": relative_error_from(norms[0], norms[1], product),
    }
    for side, frame in zip(SIDES, frames, strict=True):
        cosines = np.linalg.svd(frame[:k, :k], compute_uv=False)
        angles = np.degrees(np.arccos(in_range(cosines, 0, 1, "cosine of a principal angle")))
        out[f"angle_{side}_mean"] = float(np.mean(angles))
        out[f"angle_{side}_max"] = float(np.max(angles))
    for name, attribute in OVERLAPS.items():
        n = shape[0] if attribute.startswith("row") else shape[1]
        count = top_count(n, top_share)
        shared = int(rng.hypergeometric(count, n - count, count))
        out[name] = shared / (2 * count - shared)
    return out
