"""The linear probe, and points in the plane."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra eval is not installed")

from helpers.planted_states import HOW, planted, states_of, swapped

from clm_data.eval.analysis.language.linear_classifiers import accuracies
from clm_data.eval.analysis.language.projection import draw_points, principal
from clm_data.eval.analysis.language.vectors import Options


def test_a_direction_is_found_and_chance_is_not() -> None:
    zh, en, _ = planted(6.0)
    assert accuracies(zh, en, HOW).mean() > 0.99
    assert abs(accuracies(*swapped(zh, en), HOW).mean() - 0.5) < 0.15


def test_a_fact_is_never_in_training_and_test_at_once() -> None:
    # Both sides carry the fact's own mark; the label follows the fact, so that a probe which
    # had seen one side would know the other.
    count = 30
    marks = np.eye(count) * 10
    rng = np.random.default_rng(0)
    zh = marks + rng.normal(size=marks.shape) * 0.01
    labels = rng.integers(0, 2, count)
    sides = np.where(labels[:, None] == 1, 1.0, -1.0) * marks
    assert accuracies(zh + sides, zh - sides, HOW).mean() < 0.75


def test_permuted_labels_are_learnt_as_given() -> None:
    zh, en, _ = planted(6.0)
    assert accuracies(zh, en, HOW, np.zeros(len(zh), dtype=np.int64)).mean() > 0.99


def test_the_first_axis_is_the_planted_one_and_points_to_chinese() -> None:
    zh, en, _ = planted(12.0)
    axes, share = principal(np.concatenate([zh, en]), 5)
    half = len(zh)
    assert axes[:half, 0].min() > axes[half:, 0].max()
    assert share[0] > 0.4
    assert list(share) == sorted(share, reverse=True)
    other, _ = principal(np.concatenate([en, zh]), 5)
    assert other[:half, 0].min() > other[half:, 0].max()


def test_two_points_have_two_axes() -> None:
    axes, share = principal(np.array([[1.0, 0, 0], [3.0, 0, 0]]), 50)
    assert axes.shape == (2, 2)
    assert share == pytest.approx([1, 0])


def test_points_of_each_method_are_labelled_and_repeatable() -> None:
    zh, en, _ = planted(20.0)
    states = states_of((zh, en), (zh, en))
    how = Options(HOW.bootstrap, point_layers=(1,), point_facts=40)
    rows, shares = draw_points(states, how)
    assert rows == draw_points(states, how)[0]
    assert {row["layer"] for row in rows} == {1}
    assert [row["measure"] for row in shares] == ["pca_share_1", "pca_share_2"]
    tsne = [row for row in rows if row["method"] == "tsne"]
    assert len(tsne) == 80
    places = {
        lang: np.array([[r["x"], r["y"]] for r in tsne if r["lang"] == lang])
        for lang in ("zh", "en")
    }
    gap = np.linalg.norm(places["zh"].mean(0) - places["en"].mean(0))
    assert gap > max(places["zh"].std(), places["en"].std())


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_a_row_says_that_umap_is_not_there() -> None:
    rows, _ = draw_points(states_of(planted(3.0)[:2]), HOW)
    umap = [row for row in rows if row["method"] == "umap"]
    assert len(umap) == 1
    assert umap[0]["x"] is None
    assert "pip install umap-learn" in umap[0]["note"]
