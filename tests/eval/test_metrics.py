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


@pytest.mark.parametrize(
    ("generated", "answer", "lang"),
    [
        ("10.5 metres", "10", "en"),
        ("约1.5倍", "约1", "zh"),
        ("1/2 of it", "1", "en"),
        ("10² is", "102", "en"),
        ("10² is", "10", "en"),
        ("1,000 km", "1", "en"),
        ("10% of it", "10", "en"),
        ("10 percent", "10", "en"),
        ("10 million people", "10", "en"),
        ("10万人", "10", "zh"),
        ("10½ inches", "10", "en"),
        ("10 1/2 inches", "10", "en"),
        ("10 000 people", "10", "en"),
        ("3-4 days", "3", "en"),
        ("3–4 days", "3", "en"),
        ("3 to 4 days", "3", "en"),
        ("3至5年", "3", "zh"),
        ("十一个", "十", "zh"),
        ("１０．５米", "10", "zh"),
        ("三点五", "三", "zh"),
        ("三分之一", "三", "zh"),
        ("二十多年", "二十", "zh"),
        ("百分之十五", "百分之十", "zh"),
        ("1990年代", "1990年", "zh"),
        ("1st", "1", "en"),
        ("twenty-one", "twenty", "en"),
        ("five and a half", "five", "en"),
        ("ten point five", "ten", "en"),
        ("10:30", "10", "en"),
        ("Louis XIV", "Louis X", "en"),
        ("Annabel", "Ann", "en"),
    ],
)
def test_an_answer_may_not_end_inside_a_number(generated: str, answer: str, lang: Language) -> None:
    assert not metrics.exact_match(generated, answer, lang)


@pytest.mark.parametrize(
    ("generated", "answer", "lang"),
    [
        ("10. It was", "10", "en"),
        ("10, then", "10", "en"),
        ("10 months", "10", "en"),
        ("10-year", "10", "en"),
        ("1990 and later", "1990", "en"),
        ("1990 100 people", "1990", "en"),
        ("1.5", "1.5", "en"),
        ("10^2 is", "10²", "en"),
        ("H₂O is", "H2O", "en"),
        ("10千克", "10", "zh"),
        ("10来自中国", "10", "zh"),
        ("十个", "十", "zh"),
        ("第一次", "第一", "zh"),
        ("1990年建成", "1990年", "zh"),
    ],
)
def test_a_number_that_ends_matches_whatever_follows(
    generated: str, answer: str, lang: Language
) -> None:
    assert metrics.exact_match(generated, answer, lang)


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
