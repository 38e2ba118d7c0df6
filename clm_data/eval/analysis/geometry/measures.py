"""Measures between two weight changes, from their factors or from whole matrices.

A change W (d x m) maps the MLP's inner neurons (m, columns) to the hidden state (d, rows). It is
held as ``left`` (d, N) and ``right`` (N, m) with W = left right, or whole as ``left`` alone.
Everything is float64. Formulas and memory are in ``docs/reference/geometry.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clm_data.eval.errors import EditError

FloatArray = NDArray[np.float64]
BLOCK_BYTES = 32 * 2**20
"""Of a change held as factors, no more than this is ever whole at once."""
_SLACK = 1e-6
"""How far rounding may take a measure beyond its range (as a share of an end over 1); it is then
put on the end."""
_CANCELLED = 1e-15
"""A squared norm below this share of what it is summed from is zero."""
_RANK = 1e-10
"""A singular value below this share of the largest is zero."""


class GeometryError(EditError):
    """A measure came out where it cannot be: NaN, or beyond its mathematical range."""


def within(value: float, low: float, high: float, what: str) -> float:
    """The value, put on the end of its range where rounding took it beyond.

    Raises:
        GeometryError: It is NaN or infinite, or further out than rounding takes it.
    """
    below, above = (
        end - _SLACK * max(1.0, abs(end)) * sign for end, sign in ((low, 1), (high, -1))
    )
    if not math.isfinite(value) or not below <= value <= above:
        raise GeometryError(f"{what} is {value:.6g}, which is not from {low:g} to {high:g}")
    return min(max(float(value), low), high)


@dataclass(frozen=True)
class Neurons:
    """How much each neuron changed; rows are hidden dimensions, columns the MLP's inner neurons.

    Attributes:
        rows: (d,) largest absolute change of any weight of the row.
        columns: (m,) the same of the column.
        row_norms: (d,) Euclidean length of the row.
        column_norms: (m,) the same of the column.
    """

    rows: FloatArray
    columns: FloatArray
    row_norms: FloatArray
    column_norms: FloatArray


@dataclass(frozen=True)
class Spectrum:
    """A change's singular values, and its first singular vectors.

    Attributes:
        values: Those that are not zero, largest first.
        left: (d, k) first left singular vectors; fewer than k where the rank is lower.
        right: (m, k) first right singular vectors.
    """

    values: FloatArray
    left: FloatArray
    right: FloatArray

    def gap(self, k: int) -> float:
        """The (k + 1)-th singular value over the k-th; near 1 the first k are hardly a choice."""
        return float(self.values[k] / self.values[k - 1]) if len(self.values) > k else 0.0


@dataclass(frozen=True, eq=False)
class Change:
    """The change of one weight; what is computed from it alone is computed once.

    Attributes:
        left: (d, N), or (d, m) where ``right`` is None.
        right: (N, m).
        facts: The fact each column of ``left`` belongs to; empty where that is not known.
        k: How many singular vectors are kept.
    """

    left: FloatArray
    right: FloatArray | None = None
    facts: tuple[str, ...] = field(default=())
    k: int = 10

    @property
    def shape(self) -> tuple[int, int]:
        """(d, m)."""
        return len(self.left), (self.left if self.right is None else self.right).shape[1]

    @property
    def by_fact(self) -> bool:
        """Whether the change is a sum of one known rank-one matrix a fact."""
        return self.right is not None and len(self.facts) == self.left.shape[1] > 0

    def dense(self) -> FloatArray:
        """The whole matrix."""
        return self.left if self.right is None else self.left @ self.right

    def only(self, facts: Sequence[str]) -> Change:
        """What some of the facts contribute."""
        if self.right is None or not self.by_fact:
            raise ValueError("the change is not known by fact")
        wanted = set(facts)
        picked = [i for i, fact in enumerate(self.facts) if fact in wanted]
        names = tuple(self.facts[i] for i in picked)
        return Change(self.left[:, picked], self.right[picked], names, self.k)

    @cached_property
    def norm(self) -> float:
        """Frobenius norm.

        Raises:
            GeometryError: It is NaN or infinite.
        """
        square = inner(self, self)
        if not math.isfinite(square):
            raise GeometryError("a change holds NaN or infinite weights")
        bound = 0.0 if self.right is None else float((self.left**2).sum() * (self.right**2).sum())
        return math.sqrt(square) if square > _CANCELLED * bound else 0.0

    @cached_property
    def spectrum(self) -> Spectrum:
        """Singular values, and the first k vectors of either side."""
        if self.norm == 0.0:
            none = np.zeros((0,))
            return Spectrum(none, none.reshape(0, 0), none.reshape(0, 0))
        try:
            if self.right is None:
                return _kept(*np.linalg.svd(self.left, full_matrices=False), self.k)
            basis, upper = np.linalg.qr(self.left)
            other, lower = np.linalg.qr(self.right.T)
            u, values, vt = np.linalg.svd(upper @ lower.T, full_matrices=False)
        except np.linalg.LinAlgError as error:
            raise GeometryError(f"singular values of a change: {error}") from error
        small = _kept(u, values, vt, self.k)
        return Spectrum(small.values, basis @ small.left, other @ small.right)

    @cached_property
    def neurons(self) -> Neurons:
        """How much each row and column changed, by blocks of rows."""
        d, m = self.shape
        rows, columns = np.zeros(d), np.zeros(m)
        row_squares, column_squares = np.zeros(d), np.zeros(m)
        size = max(1, BLOCK_BYTES // (8 * m))
        for start in range(0, d, size):
            here = slice(start, start + size)
            block = self.left[here] if self.right is None else self.left[here] @ self.right
            block = np.abs(block)
            rows[here] = block.max(axis=1)
            np.maximum(columns, block.max(axis=0), out=columns)
            np.square(block, out=block)
            row_squares[here] = block.sum(axis=1)
            column_squares += block.sum(axis=0)
        return Neurons(rows, columns, np.sqrt(row_squares), np.sqrt(column_squares))


def _kept(u: FloatArray, values: FloatArray, vt: FloatArray, k: int) -> Spectrum:
    rank = int((values > _RANK * values[0]).sum())
    most = min(k, rank)
    return Spectrum(values[:rank], u[:, :most].copy(), vt[:most].T.copy())


def total(first: Change, second: Change) -> Change:
    """The sum of two changes; as factors where both are.

    Raises:
        GeometryError: They are of different size.
    """
    _same_size(first, second)
    k = max(first.k, second.k)
    if first.right is None or second.right is None:
        return Change(first.dense() + second.dense(), k=k)
    both = first.by_fact and second.by_fact
    return Change(
        np.concatenate([first.left, second.left], axis=1),
        np.concatenate([first.right, second.right]),
        first.facts + second.facts if both else (),
        k,
    )


def products(first: Change, second: Change) -> FloatArray:
    """Inner products (N1, N2) of the rank-one matrices that two changes in factors sum."""
    if first.right is None or second.right is None:
        raise ValueError("a whole matrix has no factors")
    return np.asarray((first.left.T @ second.left) * (first.right @ second.right.T))


def inner(first: Change, second: Change) -> float:
    """Sum of the products of corresponding weights.

    Raises:
        GeometryError: They are of different size.
    """
    _same_size(first, second)
    if first.right is not None and second.right is not None:
        return float(products(first, second).sum())
    if first.right is None and second.right is None:
        return float(np.vdot(first.left, second.left))
    if first.right is None and second.right is not None:
        return float(np.vdot(first.left @ second.right.T, second.left))
    return inner(second, first)


def _same_size(first: Change, second: Change) -> None:
    if first.shape != second.shape:
        raise GeometryError(
            f"changes of {first.shape[0]} x {first.shape[1]} and {second.shape[0]} x "
            f"{second.shape[1]} weights cannot be compared; they are of different models"
        )


def cosine(first: Change, second: Change) -> float | None:
    """Cosine of the flattened matrices, -1 to 1; None where one is zero."""
    if first.norm == 0.0 or second.norm == 0.0:
        return None
    return within(inner(first, second) / (first.norm * second.norm), -1.0, 1.0, "a cosine")


def relative_error(first: Change, second: Change) -> float | None:
    """Norm of the difference over the norm of ``second``, 0 or more; None where that is zero."""
    if second.norm == 0.0:
        return None
    return error_from(first.norm, second.norm, inner(first, second))


def error_from(first: float, second: float, product: float) -> float:
    """:func:`relative_error` from two norms and the inner product."""
    square = (first**2 + second**2 - 2 * product) / second**2
    low, high = (((first + sign * second) / second) ** 2 for sign in (-1, 1))
    return math.sqrt(within(square, low, high, "a relative error's square"))


def principal_angles(first: FloatArray, second: FloatArray) -> FloatArray:
    """Angles in degrees between two subspaces, smallest first, 0 to 90.

    Small angles come from their sines, large ones from their cosines, so that all are exact
    (Björck and Golub, Numerical methods for computing angles between linear subspaces, 1973).

    Args:
        first: (n, k) orthonormal columns.
        second: (n, k) orthonormal columns.

    Raises:
        GeometryError: The columns are not orthonormal.
    """
    across = first.T @ second
    cosines = np.linalg.svd(across, compute_uv=False)
    sines = np.linalg.svd(second - first @ across, compute_uv=False)[::-1]
    cosines, sines = (
        np.array([within(float(v), 0.0, 1.0, "cosine or sine of an angle") for v in values])
        for values in (cosines, sines)
    )
    angles = np.where(cosines**2 > 0.5, np.arcsin(sines), np.arccos(cosines))
    return np.asarray(np.degrees(np.sort(angles)))


def top_count(neurons: int, share: float) -> int:
    """How many neurons count as changed most: at least one."""
    return max(1, round(share * neurons))


def top_neurons(changes: FloatArray, share: float) -> set[int]:
    """The neurons that changed most: ``share`` of all, at least one, none that did not change.

    Of neurons that changed alike (to a billionth of the largest) the earlier one goes first.
    """
    largest = float(changes.max(initial=0.0))
    if largest == 0.0:
        return set()
    steps = np.rint(changes / largest * 1e9)
    order = np.argsort(-steps, kind="stable")[: top_count(len(changes), share)]
    return {int(i) for i in order if steps[i] > 0}


def jaccard(first: set[int], second: set[int]) -> float | None:
    """Size of the intersection over that of the union, 0 to 1; None where both are empty."""
    either = first | second
    return len(first & second) / len(either) if either else None


NEURONS = {
    "jaccard_rows": "rows",
    "jaccard_columns": "columns",
    "jaccard_rows_norm": "row_norms",
    "jaccard_columns_norm": "column_norms",
}
"""Measures of overlap, and the change of a neuron that they rank by."""
SIDES = ("left", "right")
ANGLES = tuple(f"angle_{side}_{which}" for side in SIDES for which in ("mean", "max"))


def compare(first: Change, second: Change, share: float = 0.05) -> dict[str, float | None]:
    """Every measure between two changes, by name.

    ``angle_dimensions`` is the number of dimensions that angles are taken between: k, or the lower
    rank; ``gap`` the larger :meth:`Spectrum.gap` of the two.

    Args:
        first: A change.
        second: Another; relative errors are relative to it.
        share: Of neurons that count as changed most.

    Raises:
        GeometryError: A measure is outside its range.
    """
    out: dict[str, float | None] = {
        "cosine": cosine(first, second),
        "relative_error": relative_error(first, second),
        "norm_ratio": first.norm / second.norm if second.norm else None,
    }
    one, other = first.spectrum, second.spectrum
    k = shared_dimensions(first, second)
    return out | {
        **subspace_angles(first, second),
        "angle_dimensions": float(k),
        "gap": max(one.gap(k), other.gap(k)) if k else None,
        **neuron_overlaps(first, second, share),
    }


def shared_dimensions(first: Change, second: Change) -> int:
    """How many dimensions angles are taken between: k, or the lower rank."""
    ranks = (len(change.spectrum.values) for change in (first, second))
    return min(first.k, second.k, *ranks)


def subspace_angles(first: Change, second: Change) -> dict[str, float | None]:
    """Mean and largest principal angle of either side, by name; None where a change is zero."""
    k = shared_dimensions(first, second)
    out: dict[str, float | None] = dict.fromkeys(ANGLES)
    for side in SIDES if k else ():
        bases = (getattr(change.spectrum, side)[:, :k] for change in (first, second))
        angles = principal_angles(*bases)
        out[f"angle_{side}_mean"] = float(angles.mean())
        out[f"angle_{side}_max"] = float(angles.max())
    return out


def neuron_overlaps(first: Change, second: Change, share: float) -> dict[str, float | None]:
    """The Jaccard index of the neurons that changed most, by each of :data:`NEURONS`."""
    out = {}
    for name, kind in NEURONS.items():
        tops = (top_neurons(getattr(c.neurons, kind), share) for c in (first, second))
        out[name] = jaccard(*tops)
    return out
