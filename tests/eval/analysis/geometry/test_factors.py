"""Whether residuals or keys differ, on edits made so that the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clm_data.eval.analysis.geometry import factors
from clm_data.eval.analysis.geometry.measures import Change, FloatArray, cosine

NAMES = ("a", "b", "c", "d")


def vectors(seed: int, n: int = 200, count: int = 4) -> FloatArray:
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, count)))
    return np.asarray(basis)


def sides(residuals: FloatArray, keys: FloatArray) -> factors.Sides:
    """Chinese edits with orthonormal parts, and English ones with the parts given."""
    zh = Change(vectors(0), vectors(1).T, NAMES)
    found = factors.sides_of(zh, Change(residuals, keys.T, NAMES))
    assert found is not None
    return found


def test_the_same_residuals_under_other_keys() -> None:
    both = sides(vectors(0), np.linalg.qr(np.hstack([vectors(1), vectors(2)]))[0][:, 4:])
    whole = factors.swapped(both)
    assert whole["residuals"] == pytest.approx(1)
    assert whole["keys"] == pytest.approx(0, abs=1e-12)
    assert whole["contributions"] == pytest.approx(0, abs=1e-12)
    parts = factors.part_cosines(both)
    assert factors.by_pairing(parts["residuals"])["same-fact"] == pytest.approx([1] * 4)
    assert factors.by_pairing(parts["keys"])["same-fact"] == pytest.approx([0] * 4, abs=1e-12)
    assert factors.by_pairing(parts["contributions"])["same-fact"] == pytest.approx(
        [0] * 4, abs=1e-12
    )


def test_parts_at_known_angles_multiply_to_the_whole() -> None:
    left, right = np.hstack([vectors(0), vectors(3)]), np.hstack([vectors(1), vectors(4)])
    left, right = (
        np.linalg.qr(both)[0] * np.sign(np.diag(np.linalg.qr(both)[1])) for both in (left, right)
    )
    residuals = 0.6 * left[:, :4] + 0.8 * left[:, 4:]
    keys = 0.28 * right[:, :4] + 0.96 * right[:, 4:]
    whole = factors.swapped(sides(residuals, keys))
    assert whole == pytest.approx({"residuals": 0.6, "keys": 0.28, "contributions": 0.6 * 0.28})


def test_other_facts_are_compared_without_the_fact_itself() -> None:
    matrix = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4], [0.0, 0.6, 0.7]])
    found = factors.by_pairing((matrix, np.eye(3), np.eye(3)))
    assert found["same-fact"] == pytest.approx([0.9, 0.8, 0.7])
    assert found["other-fact"] == pytest.approx([0.2, 0.3, 0.3])
    assert found["other-fact-zh"] == pytest.approx([0, 0, 0])
    assert list(factors.by_pairing((np.eye(1),) * 3)) == ["same-fact"]


def test_only_facts_edited_in_both_languages_are_paired_whatever_their_order() -> None:
    zh = Change(vectors(0), vectors(1).T, NAMES)
    order = [2, 0, 3]
    en = Change(vectors(0)[:, order], vectors(1).T[order], ("c", "a", "x"))
    found = factors.sides_of(zh, en)
    assert found is not None
    assert found.facts == ("a", "c")
    assert cosine(found.first, found.second) == pytest.approx(1)
    assert factors.sides_of(zh, Change(en.left, en.right, ("x", "y", "z"))) is None
    assert factors.sides_of(zh, Change(zh.dense())) is None


def test_a_zero_vector_has_cosine_0_and_no_cosine_exceeds_1() -> None:
    rows = np.array([[0.0, 0.0], [3.0, 4.0], [1e-150, 0.0]])
    found = factors.cosines(rows, rows)
    assert found[0].tolist() == [0, 0, 0]
    assert np.diag(found)[1:] == pytest.approx([1, 1])
    assert np.abs(found).max() <= 1
    assert found[1, 2] == pytest.approx(math.cos(math.atan2(4, 3)))
