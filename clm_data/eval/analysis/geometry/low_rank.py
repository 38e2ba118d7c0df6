"""Weight changes as low-rank matrices: inner products, spectra and changes by neuron.

The change W of an MLP output projection has shape (d, m): its rows are dimensions of the hidden
state, its columns inner neurons of the MLP. That of another weight has its outputs as rows and its
inputs as columns; several weights of a layer are stacked (:func:`stacked`). An edit of N facts
gives W = left @ right with factors of shapes (d, N) and (N, m), from which everything here is
computed in float64 without forming W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from clm_data.eval.analysis.checks import AnalysisError
from clm_data.eval.intervals import FloatArray

BLOCK_BYTES = 32 * 2**20
"""Maximum size of the part of a matrix in factors that is multiplied out at once."""
_CANCELED = 1e-15
"""A squared norm below this share of the bound from its factors counts as zero."""
_RANK = 1e-10
"""A singular value below this share of the largest counts as zero."""


@dataclass(frozen=True)
class NeuronChanges:
    """How much each neuron changes; rows are hidden dimensions, columns inner neurons of the MLP.

    Attributes:
        rows: Largest absolute change of a weight in each row, shape (d,).
        columns: Largest absolute change of a weight in each column, shape (m,).
        row_norms: Euclidean norm of each row, shape (d,).
        column_norms: Euclidean norm of each column, shape (m,).
    """

    rows: FloatArray
    columns: FloatArray
    row_norms: FloatArray
    column_norms: FloatArray


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a matrix with its leading singular vectors.

    Attributes:
        values: Nonzero singular values in descending order, shape (rank,).
        left: Leading left singular vectors, shape (d, min(k, rank)).
        right: Leading right singular vectors, shape (m, min(k, rank)).
    """

    values: FloatArray
    left: FloatArray
    right: FloatArray

    def gap(self, k: int) -> float:
        """Ratio of singular value k + 1 to singular value k; near 1 the top k are ill-defined."""
        return float(self.values[k] / self.values[k - 1]) if len(self.values) > k else 0.0


@dataclass(frozen=True, eq=False)
class LowRankMatrix:
    """A matrix ``left @ right``, or ``left`` itself; derived quantities are computed once.

    Attributes:
        left: Shape (d, N), or (d, m) if ``right`` is None.
        right: Shape (N, m), or None for a matrix that is not factored.
        facts: The fact behind each of the N rank-one terms; empty if unknown.
        k: Number of singular vectors in :attr:`spectrum`.
    """

    left: FloatArray
    right: FloatArray | None = None
    facts: tuple[str, ...] = ()
    k: int = 10

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (d, m) of the matrix."""
        return len(self.left), (self.left if self.right is None else self.right).shape[1]

    @property
    def by_fact(self) -> bool:
        """Whether the matrix is a sum of one rank-one term per fact."""
        return self.right is not None and len(self.facts) == self.left.shape[1] > 0

    def dense(self) -> FloatArray:
        """The matrix itself, shape (d, m)."""
        return self.left if self.right is None else self.left @ self.right

    def apply(self, vectors: FloatArray) -> FloatArray:
        """Multiply row vectors (n, m) by the transposed matrix, giving shape (n, d)."""
        if self.right is None:
            return np.asarray(vectors @ self.left.T)
        return np.asarray((vectors @ self.right.T) @ self.left.T)

    def select(self, terms: Sequence[int]) -> LowRankMatrix:
        """The sum of some rank-one terms, by their indices, in the given order.

        Raises:
            ValueError: The terms are not available by fact.
        """
        if self.right is None or not self.by_fact:
            raise ValueError("the terms of the matrix are not available by fact")
        facts = tuple(self.facts[i] for i in terms)
        return LowRankMatrix(self.left[:, terms], self.right[terms], facts, self.k)

    def of_facts(self, facts: Sequence[str]) -> LowRankMatrix:
        """The sum of the terms of some facts.

        Raises:
            ValueError: The terms are not available by fact.
        """
        wanted = set(facts)
        return self.select([i for i, fact in enumerate(self.facts) if fact in wanted])

    def __add__(self, other: LowRankMatrix) -> LowRankMatrix:
        """The sum, in factors if both matrices are.

        Raises:
            AnalysisError: The matrices have different shapes.
        """
        _check_shapes(self, other)
        k = max(self.k, other.k)
        if self.right is None or other.right is None:
            return LowRankMatrix(self.dense() + other.dense(), k=k)
        both = self.by_fact and other.by_fact
        return LowRankMatrix(
            np.concatenate([self.left, other.left], axis=1),
            np.concatenate([self.right, other.right]),
            self.facts + other.facts if both else (),
            k,
        )

    @cached_property
    def norm(self) -> float:
        """Frobenius norm.

        Raises:
            AnalysisError: It is NaN or infinite.
        """
        square = inner_product(self, self)
        if not math.isfinite(square):
            raise AnalysisError("a weight change contains NaN or infinity")
        bound = 0.0 if self.right is None else float((self.left**2).sum() * (self.right**2).sum())
        return math.sqrt(square) if square > _CANCELED * bound else 0.0

    @cached_property
    def spectrum(self) -> Spectrum:
        """Singular values, and the first k singular vectors of each side.

        In factors: QR decompositions of both factors and an SVD of an N x N matrix.

        Raises:
            AnalysisError: The decomposition does not converge.
        """
        if self.norm == 0.0:
            none = np.zeros((0,))
            return Spectrum(none, none.reshape(0, 0), none.reshape(0, 0))
        try:
            if self.right is None:
                return _truncated(*np.linalg.svd(self.left, full_matrices=False), self.k)
            left_basis, left_upper = np.linalg.qr(self.left)
            right_basis, right_upper = np.linalg.qr(self.right.T)
            u, values, vt = np.linalg.svd(left_upper @ right_upper.T, full_matrices=False)
        except np.linalg.LinAlgError as error:
            raise AnalysisError(f"singular values of a weight change: {error}") from error
        core = _truncated(u, values, vt, self.k)
        return Spectrum(core.values, left_basis @ core.left, right_basis @ core.right)

    @cached_property
    def neurons(self) -> NeuronChanges:
        """The change of each row and column, multiplied out one block of rows at a time."""
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
        return NeuronChanges(rows, columns, np.sqrt(row_squares), np.sqrt(column_squares))


def _truncated(u: FloatArray, values: FloatArray, vt: FloatArray, k: int) -> Spectrum:
    rank = int((values > _RANK * values[0]).sum())
    count = min(k, rank)
    return Spectrum(values[:rank], u[:, :count].copy(), vt[:count].T.copy())


def term_products(first: LowRankMatrix, second: LowRankMatrix) -> FloatArray:
    """Inner products (N1, N2) between the rank-one terms of two matrices in factors.

    Raises:
        ValueError: A matrix is not in factors.
    """
    if first.right is None or second.right is None:
        raise ValueError("a matrix that is not factored has no rank-one terms")
    return np.asarray((first.left.T @ second.left) * (first.right @ second.right.T))


def inner_product(first: LowRankMatrix, second: LowRankMatrix) -> float:
    """Frobenius inner product: the sum of the products of corresponding entries.

    Raises:
        AnalysisError: The matrices have different shapes.
    """
    _check_shapes(first, second)
    if first.right is not None and second.right is not None:
        return float(term_products(first, second).sum())
    if first.right is None and second.right is None:
        return float(np.vdot(first.left, second.left))
    if first.right is None and second.right is not None:
        return float(np.vdot(first.left @ second.right.T, second.left))
    return inner_product(second, first)


def stacked(parts: Sequence[LowRankMatrix]) -> LowRankMatrix:
    """Changes of weights that read the same input as one matrix, with their outputs as its rows.

    Its inner products and singular values are those of all the weights together. Factors with
    equal ``right`` keep their terms by fact.

    Raises:
        ValueError: The matrices have different numbers of columns.
    """
    first, *others = parts
    if not others:
        return first
    if len({part.shape[1] for part in parts}) > 1:
        raise ValueError("changes of weights with different inputs cannot be stacked")
    rights = [part.right for part in parts if part.right is not None]
    if len(rights) < len(parts):
        return LowRankMatrix(np.concatenate([part.dense() for part in parts]), k=first.k)
    if all(np.array_equal(rights[0], right) for right in rights):
        return replace(first, left=np.concatenate([part.left for part in parts]))
    blocks = np.zeros((sum(len(part.left) for part in parts), sum(map(len, rights))))
    row = column = 0
    for part in parts:
        d, terms = part.left.shape
        blocks[row : row + d, column : column + terms] = part.left
        row, column = row + d, column + terms
    return LowRankMatrix(blocks, np.concatenate(rights), k=first.k)


def _check_shapes(first: LowRankMatrix, second: LowRankMatrix) -> None:
    if first.shape != second.shape:
        raise AnalysisError(
            f"weight changes of shapes {first.shape} and {second.shape} cannot be compared; they "
            "belong to different models"
        )
