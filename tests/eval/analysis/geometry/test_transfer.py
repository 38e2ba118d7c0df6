"""Which facts transferred to the other language, and the features of their edits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from clm_data.eval.analysis.geometry import transfer
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix


def test_only_successful_edits_of_facts_not_known_before_are_counted() -> None:
    yes, no = {"reliability": 1.0, "prefers_new": 1.0}, {"reliability": 0.5, "prefers_new": 0.0}
    half = {"reliability": 0.5, "prefers_new": 1.0}
    after: dict[str, Any] = {
        "reached": (yes, yes),
        "stayed": (yes, no),
        "half": (yes, half),
        "failed": (no, yes),
        "known": (yes, yes),
        "unplaced": (yes, {"reliability": None}),
        "unmeasured": (yes, yes),
    }
    before: dict[str, Any] = {name: no for name in after if name != "unmeasured"}
    before["known"] = yes
    found = transfer.transferred_facts("exact", before, after)
    assert found == {"reached": True, "stayed": False, "half": False}
    found = transfer.transferred_facts("prefers", before, after)
    assert found == {"reached": True, "stayed": False, "half": True}


def test_features_of_facts_in_known_subspaces() -> None:
    left, right = np.eye(6)[:, :3], np.eye(8)[:3]
    names = ("a", "b", "c")
    own = LowRankMatrix(left * [1.0, 2.0, 3.0], right, names, 2)
    other_left = np.stack([left[:, 0], np.eye(6)[:, 4], np.eye(6)[:, 5]], axis=1)
    other = LowRankMatrix(other_left * [5.0, 4.0, 0.1], right, names, 2)
    found = transfer.fact_features(own, other)
    assert list(found) == ["a", "b", "c"]
    assert list(found["a"]) == list(transfer.FEATURES)
    assert found["a"] == pytest.approx(
        {
            "contribution_cosine": 1,
            "residual_cosine": 1,
            "key_cosine": 1,
            "size": 1,
            "overlap_left": 1,
            "overlap_right": 1,
        }
    )
    assert found["b"]["residual_cosine"] == pytest.approx(0)
    assert found["b"]["key_cosine"] == pytest.approx(1)
    assert found["b"]["size"] == pytest.approx(2)
    assert found["b"]["overlap_left"] == pytest.approx(0)
    assert found["c"]["overlap_right"] == pytest.approx(0)
    assert transfer.fact_features(own, LowRankMatrix(other.dense())) == {}
