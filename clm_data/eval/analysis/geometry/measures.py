"""Measures between two weight changes; formulas are in ``docs/reference/geometry.md``."""

from __future__ import annotations

import math

import numpy as np

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix, inner_product
from clm_data.eval.intervals import FloatArray

SIDES = ("left", "right")
ANGLES = tuple(f"angle_{side}_{which}" for side in SIDES for which in ("mean", "max"))
"""Names of the measures that are principal angles, in degrees."""
OVERLAPS = {
    "jaccard_rows": "rows",
    "jaccard_columns": "columns",
    "jaccard_rows_norm": "row_norms",
    "jaccard_columns_norm": "column_norms",
}
"""Names of the measures of neuron overlap, with the attribute of ``NeuronChanges`` they rank by."""


def compare(
    first: LowRankMatrix, second: LowRankMatrix, top_share: float = 0.05
) -> dict[str, float | None]:
    """Compute every measure between two weight changes.

    Besides the measures of this module there are ``norm_ratio``, ``angle_dimensions`` (the
    dimension of the subspaces that angles are taken between) and ``gap`` (the larger
    :meth:`Spectrum.gap` of the two changes at that dimension).

    Args:
        first: A weight change.
        second: Another one, which relative errors and norm ratios are relative to.
        top_share: Share of neurons that count as most changed.

    Returns:
        Values by measure; None if a measure is undefined because a change is zero.

    Raises:
        AnalysisError: The changes have different shapes, or a measure is out of its range.
    """
    k = shared_dimensions(first, second)
    return {
        "cosine": cosine(first, second),
        "relative_error": relative_error(first, second),
        "norm_ratio": first.norm / second.norm if second.norm else None,
        **subspace_angles(first, second),
        "angle_dimensions": float(k),
        "gap": max(first.spectrum.gap(k), second.spectrum.gap(k)) if k else None,
        **neuron_overlaps(first, second, top_share),
    }


def cosine(first: LowRankMatrix, second: LowRankMatrix) -> float | None:
    """Cosine of the flattened matrices, -1 to 1; None if one is zero."""
    if first.norm == 0.0 or second.norm == 0.0:
        return None
    value = inner_product(first, second) / (first.norm * second.norm)
    return float(in_range(value, -1, 1, "cosine"))


def relative_error(first: LowRankMatrix, second: LowRankMatrix) -> float | None:
    """Frobenius norm of ``first - second`` over that of ``second``; None if ``second`` is zero."""
    if second.norm == 0.0:
        return None
    return relative_error_from(first.norm, second.norm, inner_product(first, second))


def relative_error_from(first_norm: float, second_norm: float, product: float) -> float:
    """:func:`relative_error` from the two norms and the inner product."""
    square = (first_norm**2 + second_norm**2 - 2 * product) / second_norm**2
    low, high = (((first_norm + sign * second_norm) / second_norm) ** 2 for sign in (-1, 1))
    return math.sqrt(float(in_range(square, low, high, "squared relative error")))


def principal_angles(first: FloatArray, second: FloatArray) -> FloatArray:
    """Principal angles between two subspaces, in degrees, ascending, 0 to 90.

    Angles under 45 degrees are computed from their sines and the others from their cosines, so
    that all are accurate (Björck and Golub, Numerical methods for computing angles between linear
    subspaces, 1973).

    Args:
        first: Orthonormal columns, shape (n, k).
        second: Orthonormal columns, shape (n, k).

    Raises:
        AnalysisError: The columns are not orthonormal.
    """
    products = first.T @ second
    cosines = np.linalg.svd(products, compute_uv=False)
    sines = np.linalg.svd(second - first @ products, compute_uv=False)[::-1]
    cosines = in_range(cosines, 0, 1, "cosine of a principal angle")
    sines = in_range(sines, 0, 1, "sine of a principal angle")
    angles = np.where(cosines**2 > 0.5, np.arcsin(sines), np.arccos(cosines))
    return np.asarray(np.degrees(np.sort(angles)))


def shared_dimensions(first: LowRankMatrix, second: LowRankMatrix) -> int:
    """Dimension of the compared subspaces: k, or the lower rank if that is less."""
    ranks = (len(change.spectrum.values) for change in (first, second))
    return min(first.k, second.k, *ranks)


def subspace_angles(first: LowRankMatrix, second: LowRankMatrix) -> dict[str, float | None]:
    """Mean and largest principal angle between the leading left and right singular vectors.

    Returns:
        By name, as in :data:`ANGLES`; None if a change is zero.
    """
    k = shared_dimensions(first, second)
    out: dict[str, float | None] = dict.fromkeys(ANGLES)
    for side in SIDES if k else ():
        bases = (getattr(change.spectrum, side)[:, :k] for change in (first, second))
        angles = principal_angles(*bases)
        out[f"angle_{side}_mean"] = float(angles.mean())
        out[f"angle_{side}_max"] = float(angles.max())
    return out


def top_count(neurons: int, share: float) -> int:
    """Number of neurons that count as most changed: at least one."""
    return max(1, round(share * neurons))


def top_neurons(changes: FloatArray, share: float) -> set[int]:
    """Indices of the most changed neurons, without those that do not change.

    Changes that are equal to a billionth of the largest are ties; the lower index wins.

    Args:
        changes: Change of each neuron, nonnegative, shape (n,).
        share: Share of neurons to take; at least one is taken.
    """
    largest = float(changes.max(initial=0.0))
    if largest == 0.0:
        return set()
    steps = np.rint(changes / largest * 1e9)
    order = np.argsort(-steps, kind="stable")[: top_count(len(changes), share)]
    return {int(i) for i in order if steps[i] > 0}


def jaccard(first: set[int], second: set[int]) -> float | None:
    """Intersection over union, 0 to 1; None if both sets are empty."""
    union = first | second
    return len(first & second) / len(union) if union else None


def neuron_overlaps(
    first: LowRankMatrix, second: LowRankMatrix, top_share: float
) -> dict[str, float | None]:
    """Jaccard index of the most changed neurons, for each of :data:`OVERLAPS`."""
    out = {}
    for name, attribute in OVERLAPS.items():
        tops = (top_neurons(getattr(c.neurons, attribute), top_share) for c in (first, second))
        out[name] = jaccard(*tops)
    return out
