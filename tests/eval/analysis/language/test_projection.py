"""Projections of states to two dimensions."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra eval is not installed")

from helpers.planted_states import OPTIONS, parallel_states, planted_sides

from clm_data.eval.analysis.language.projection import principal_components, project_states
from clm_data.eval.analysis.options import StateOptions


def test_the_first_axis_is_the_planted_direction_and_points_to_chinese() -> None:
    zh, en, _ = planted_sides(12.0)
    axes, share = principal_components(np.concatenate([zh, en]), 5)
    half = len(zh)
    assert axes[:half, 0].min() > axes[half:, 0].max()
    assert share[0] > 0.4
    assert list(share) == sorted(share, reverse=True)
    other, _ = principal_components(np.concatenate([en, zh]), 5)
    assert other[:half, 0].min() > other[half:, 0].max()


def test_points_on_a_line_have_a_second_axis_of_zeros() -> None:
    axes, share = principal_components(np.array([[1.0, 0, 0], [3.0, 0, 0]]), 50)
    assert axes.shape == (2, 2)
    assert share == pytest.approx([1, 0])


def test_projected_points_are_labeled_and_reproducible() -> None:
    zh, en, _ = planted_sides(20.0)
    states = parallel_states((zh, en), (zh, en))
    options = StateOptions(OPTIONS.bootstrap, point_layers=(1,), point_facts=40)
    rows, shares = project_states(states, options)
    assert rows == project_states(states, options)[0]
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
def test_a_row_says_that_umap_is_not_installed() -> None:
    rows, _ = project_states(parallel_states(planted_sides(3.0)[:2]), OPTIONS)
    umap = [row for row in rows if row["method"] == "umap"]
    assert len(umap) == 1
    assert umap[0]["x"] is None
    assert "pip install umap-learn" in umap[0]["note"]
