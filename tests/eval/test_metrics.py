"""The formulas of docs/reference/metrics.md, checked against values computed by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from clm_data.eval import metrics
from clm_data.eval.intervals import Bootstrap
from clm_data.records import Language


def test_token_accuracy_is_the_share_of_predicted_answer_tokens() -> None:
    assert metrics.token_accuracy([7, 8, 1], [7, 8, 9]) == pytest.approx(2 / 3)
    assert metrics.token_accuracy([5], [5]) == 1.0


@pytest.mark.parametrize(("predicted", "expected"), [([1], [1, 2]), ([], [])])
def test_token_accuracy_needs_one_prediction_per_answer_token(
    predicted: list[int], expected: list[int]
) -> None:
    with pytest.raises(ValueError, match="answer tokens"):
        metrics.token_accuracy(predicted, expected)


def test_locality_is_agreement_with_the_predictions_before_the_edit() -> None:
    assert metrics.agreement(before=[4, 4, 9, 2], after=[4, 5, 9, 2]) == 0.75


def test_the_score_is_the_mean_of_the_three_parts() -> None:
    assert metrics.score([0.63, 0.57, 0.66]) == pytest.approx(0.62)


def test_trans_is_the_smaller_reliability_over_the_larger() -> None:
    assert metrics.trans(0.6321, 0.1955) == pytest.approx(0.1955 / 0.6321)
    assert metrics.trans(0.1955, 0.6321) == metrics.trans(0.6321, 0.1955)
    assert metrics.trans(0.4, 0.4) == 1.0
    assert metrics.trans(0.0, 0.4) == 0.0
    assert metrics.trans(0.0, 0.0) is None


@pytest.mark.parametrize(
    ("generated", "answer", "lang", "matches"),
    [
        (" Paris, the capital", "Paris", "en", True),
        (" the Louvre.", "Louvre", "en", True),
        (" paris", "Paris", "en", True),
        (" Parisian cafés", "Paris", "en", False),
        (" 1600 years", "16", "en", False),
        (" 16 feathers", "16", "en", True),
        (" in Paris", "Paris", "en", False),
        ("周树人。他生于绍兴", "周树人", "zh", True),
        ("《红楼梦》。", "红楼梦", "zh", True),
        ("周樹人", "周树人", "zh", True),
        ("周作人", "周树人", "zh", False),
        ("", "周树人", "zh", False),
        ("anything", "", "en", False),
    ],
)
def test_exact_match_requires_the_complete_answer_at_the_beginning(
    generated: str, answer: str, lang: Language, matches: bool
) -> None:
    assert metrics.exact_match(generated, answer, lang) is matches


def test_the_probability_of_an_answer_is_the_geometric_mean_over_its_tokens() -> None:
    assert metrics.answer_probability([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)


def test_preference_compares_means_per_token_so_length_does_not_matter() -> None:
    long, short = [math.log(0.5)] * 4, [math.log(0.4)]
    assert sum(long) < sum(short)
    assert metrics.prefers_new(long, short)
    assert not metrics.prefers_new(short, long)
    assert not metrics.prefers_new(short, short)


def test_trans_over_facts_is_the_ratio_of_the_mean_reliabilities() -> None:
    found = metrics.trans_interval([(1.0, 0.5), (0.0, 0.25)], Bootstrap())
    assert found is not None
    assert found.mean == pytest.approx(0.375 / 0.5)
    assert metrics.trans_interval([(0.0, 0.0)], Bootstrap()) is None
    assert metrics.trans_interval([], Bootstrap()) is None


def test_trans_resamples_both_languages_of_a_fact_together() -> None:
    found = metrics.trans_interval([(1.0, 0.5), (0.5, 0.25)], Bootstrap())
    assert found is not None
    # The ratio of each fact is one half, so the ratio of each resample is one half too.
    assert (found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5))


def test_a_row_with_a_missing_part_has_no_score() -> None:
    parts: dict[str, Any] = {"zh_reliability": 60.0, "zh_generality": 50.0, "zh_locality": 40.0}
    assert metrics.derived(parts) == {"zh_score": 50.0, "en_score": None, "trans": None}
    parts["en_reliability"] = 30.0
    assert metrics.derived(parts)["trans"] == 0.5
