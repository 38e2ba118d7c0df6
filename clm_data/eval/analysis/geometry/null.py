"""What measures are when nothing is shared: random matrices of the same spectrum.

A random matrix of a spectrum is U diag(s) V^T with U and V drawn evenly from all orthonormal
frames. Measures between two such matrices need only the inner products of their frames, which are
drawn as they are, without the frames.
"""

from __future__ import annotations

import numpy as np

from clm_data.eval.analysis.geometry.measures import (
    NEURONS,
    SIDES,
    Change,
    FloatArray,
    Spectrum,
    error_from,
    top_count,
    within,
)
from clm_data.eval.analysis.geometry.resample import Estimate, Settings, of_draws

FEWEST_DRAWS = 20


def frame_products(n: int, first: int, second: int, rng: np.random.Generator) -> FloatArray:
    """Inner products (first, second) of two independent random orthonormal frames in n dimensions.

    Since any frame may be turned into the first axes, these are the first rows of one random
    frame: of a Gaussian matrix G (n, second) made orthonormal by the Cholesky factor of G^T G. What
    rows beyond ``first`` add to G^T G is drawn at once (Bartlett's decomposition).

    Args:
        n: Dimensions, at least as many as either frame has vectors.
        first: Vectors of the one frame.
        second: Vectors of the other.
        rng: Chance.
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


def null_values(first: Change, second: Change, settings: Settings) -> dict[str, Estimate]:
    """Every measure between random matrices with the spectra of two changes.

    Rows and columns of such a matrix are exchangeable, so those that change most are a random
    choice, whatever the spectrum: their overlap is hypergeometric.

    Args:
        first: Its spectrum and shape count.
        second: The same.
        settings: How often to draw.

    Returns:
        By measure: the mean over draws and the range that holds most of them. Empty where a change
        is zero.
    """
    one, other = first.spectrum, second.spectrum
    if not (len(one.values) and len(other.values)):
        return {}
    rng = settings.rng("null", *first.shape, len(one.values), len(other.values))
    k = min(first.k, second.k, len(one.values), len(other.values))
    drawn = [
        _draw(first.shape, one, other, k, settings.share, rng)
        for _ in range(_draws(len(one.values), len(other.values), settings))
    ]
    return of_draws(drawn, settings)


def _draws(first: int, second: int, settings: Settings) -> int:
    work = 2.0 * (2 * first * second**2 + second**3)
    return int(min(settings.draws, max(FEWEST_DRAWS, settings.work / work)))


def _draw(
    shape: tuple[int, int],
    one: Spectrum,
    other: Spectrum,
    k: int,
    share: float,
    rng: np.random.Generator,
) -> dict[str, float | None]:
    sizes = len(one.values), len(other.values)
    frames = [frame_products(n, *sizes, rng) for n in shape]
    norms = [float(np.linalg.norm(s.values)) for s in (one, other)]
    product = float(one.values @ (frames[0] * frames[1]) @ other.values)
    out: dict[str, float | None] = {
        "cosine": within(product / (norms[0] * norms[1]), -1.0, 1.0, "a cosine"),
        "relative_error": error_from(norms[0], norms[1], product),
    }
    for side, frame in zip(SIDES, frames, strict=True):
        cosines = np.linalg.svd(frame[:k, :k], compute_uv=False)
        angles = [np.degrees(np.arccos(within(float(c), 0.0, 1.0, "a cosine"))) for c in cosines]
        out[f"angle_{side}_mean"] = float(np.mean(angles))
        out[f"angle_{side}_max"] = float(np.max(angles))
    for name, kind in NEURONS.items():
        n = shape[0] if kind.startswith("row") else shape[1]
        count = top_count(n, share)
        shared = int(rng.hypergeometric(count, n - count, count))
        out[name] = shared / (2 * count - shared)
    return out
