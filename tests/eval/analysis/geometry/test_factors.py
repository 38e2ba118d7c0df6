"""Cosines of residuals and keys, on edits constructed so that the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clm_data.eval.analysis.geometry.factors import (
    PairedEdits,
    by_pairing,
    cosines,
    exchanged_cosines,
    paired_edits,
    part_cosines,
)
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.measures import cosine
from clm_data.eval.intervals import FloatArray

FACTS = ("a", "b", "c", "d")


def orthonormal_columns(seed: int, n: int = 200, count: int = 4) -> FloatArray:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, count)))
    return np.asarray(basis)


def edits_with(residuals: FloatArray, keys: FloatArray) -> PairedEdits:
    """Orthonormal residuals and keys in Chinese, the given ones (as columns) in English."""
    zh = LowRankMatrix(orthonormal_columns(0), orthonormal_columns(1).T, FACTS)
    edits = paired_edits(zh, LowRankMatrix(residuals, keys.T, FACTS))
    assert edits is not None
    return edits


def test_equal_residuals_with_orthogonal_keys() -> None:
    stacked = np.hstack([orthonormal_columns(1), orthonormal_columns(2)])
    edits = edits_with(orthonormal_columns(0), np.linalg.qr(stacked)[0][:, 4:])
    whole = exchanged_cosines(edits)
    assert whole["residuals"] == pytest.approx(1)
    assert whole["keys"] == pytest.approx(0, abs=1e-12)
    assert whole["contributions"] == pytest.approx(0, abs=1e-12)
    same_fact = {
        part: by_pairing(matrices)["same-fact"] for part, matrices in part_cosines(edits).items()
    }
    assert same_fact["residuals"] == pytest.approx([1] * 4)
    assert same_fact["keys"] == pytest.approx([0] * 4, abs=1e-12)
    assert same_fact["contributions"] == pytest.approx([0] * 4, abs=1e-12)


def test_the_cosine_of_changes_is_the_product_of_the_cosines_of_their_parts() -> None:
    left = np.hstack([orthonormal_columns(0), orthonormal_columns(3)])
    right = np.hstack([orthonormal_columns(1), orthonormal_columns(4)])
    left, right = (
        np.linalg.qr(both)[0] * np.sign(np.diag(np.linalg.qr(both)[1])) for both in (left, right)
    )
    residuals = 0.6 * left[:, :4] + 0.8 * left[:, 4:]
    keys = 0.28 * right[:, :4] + 0.96 * right[:, 4:]
    whole = exchanged_cosines(edits_with(residuals, keys))
    assert whole == pytest.approx({"residuals": 0.6, "keys": 0.28, "contributions": 0.6 * 0.28})


def test_the_mean_over_other_facts_leaves_out_the_fact_itself() -> None:
    across = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4], [0.0, 0.6, 0.7]])
    found = by_pairing((across, np.eye(3), np.eye(3)))
    assert found["same-fact"] == pytest.approx([0.9, 0.8, 0.7])
    assert found["other-fact"] == pytest.approx([0.2, 0.3, 0.3])
    assert found["other-fact-zh"] == pytest.approx([0, 0, 0])


def test_a_single_fact_has_no_other_facts() -> None:
    assert list(by_pairing((np.eye(1),) * 3)) == ["same-fact"]


def test_edits_are_paired_by_fact_whatever_their_order() -> None:
    zh = LowRankMatrix(orthonormal_columns(0), orthonormal_columns(1).T, FACTS)
    order = [2, 0, 3]
    en = LowRankMatrix(
        orthonormal_columns(0)[:, order], orthonormal_columns(1).T[order], ("c", "a", "x")
    )
    edits = paired_edits(zh, en)
    assert edits is not None
    assert edits.facts == ("a", "c")
    assert cosine(edits.first, edits.second) == pytest.approx(1)


def test_edits_without_common_or_known_facts_are_not_paired() -> None:
    zh = LowRankMatrix(orthonormal_columns(0), orthonormal_columns(1).T, FACTS)
    assert paired_edits(zh, LowRankMatrix(zh.left, zh.right, ("w", "x", "y", "z"))) is None
    assert paired_edits(zh, LowRankMatrix(zh.dense())) is None


def test_a_zero_vector_has_cosine_0_and_no_cosine_exceeds_1() -> None:
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [1e-150, 0.0]])
    found = cosines(rows, rows)
    assert found[0].tolist() == [0, 0, 0]
    assert np.diag(found)[1:] == pytest.approx([1, 1])
    assert np.abs(found).max() <= 1
    assert found[1, 2] == pytest.approx(math.cos(math.atan2(4, 3)))
