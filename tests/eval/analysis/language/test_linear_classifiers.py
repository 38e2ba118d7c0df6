"""Linear classifiers of the language of a state."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the extra eval is not installed")

from helpers.planted_states import OPTIONS, planted_sides, swap_half

from clm_data.eval.analysis.language.linear_classifiers import held_out_accuracies


def test_accuracy_is_high_with_a_language_direction_and_half_without() -> None:
    zh, en, _ = planted_sides(6.0)
    assert held_out_accuracies(zh, en, OPTIONS).mean() > 0.99
    assert abs(held_out_accuracies(*swap_half(zh, en), OPTIONS).mean() - 0.5) < 0.15


def test_both_states_of_a_fact_are_in_the_same_fold() -> None:
    # Both states carry a mark of their fact and labels depend on the fact, so a classifier that
    # was trained on one state of a fact would know the label of the other.
    count = 30
    marks = np.eye(count) * 10
    rng = np.random.default_rng(0)
    zh = marks + rng.normal(size=marks.shape) * 0.01
    labels = rng.integers(0, 2, count)
    sides = np.where(labels[:, None] == 1, 1.0, -1.0) * marks
    assert held_out_accuracies(zh + sides, zh - sides, OPTIONS).mean() < 0.75


def test_classifiers_learn_the_labels_that_are_given() -> None:
    zh, en, _ = planted_sides(6.0)
    assert held_out_accuracies(zh, en, OPTIONS, np.zeros(len(zh), dtype=np.int64)).mean() > 0.99
