from __future__ import annotations

import pytest

from clm_data.languages import detect, join, normalize_answer, normalize_text
from clm_data.records import Language


@pytest.mark.parametrize(
    ("left", "right", "lang"),
    [
        ("《红楼梦》", "红楼梦", "zh"),
        ("紅樓夢", "红楼梦", "zh"),
        ("１９２１年", "1921年", "zh"),
        ("路遥·平凡", "路遥 平凡", "zh"),
        ("The Great Wall", "great wall", "en"),
        ("Xi'an", "Xi’an", "en"),
        ("U.S.", "u s", "en"),
        ("“Border Town”", "Border Town", "en"),
    ],
)
def test_different_spellings_of_an_answer_are_equal(left: str, right: str, lang: Language) -> None:
    assert normalize_answer(left, lang) == normalize_answer(right, lang)


@pytest.mark.parametrize(
    ("left", "right", "lang"),
    [("周树人", "周作人", "zh"), ("theatre", "atre", "en"), ("another", "other", "en")],
)
def test_different_answers_stay_different(left: str, right: str, lang: Language) -> None:
    assert normalize_answer(left, lang) != normalize_answer(right, lang)


def test_normalized_text_keeps_case_and_collapses_whitespace() -> None:
    assert normalize_text("  Ａ\u3000 b\n") == "A b"


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("鲁迅的原名是", "zh"),
        ("京杭大运河的南端是", "zh"),
        ("中華民國的首任大總統是", "zh"),
        ("The original name of Lu Xun is", "en"),
        ("The capital of Tang was", "en"),
        ("12345 ...", None),
    ],
)
def test_the_language_of_a_prompt_is_detected(text: str, lang: Language | None) -> None:
    assert detect(text) == lang


def test_detection_does_not_depend_on_earlier_calls() -> None:
    texts = ["鲁迅的原名是", "The original name of Lu Xun is"] * 20
    assert [detect(text) for text in texts] == ["zh", "en"] * 20


def test_prompt_and_answer_are_joined_with_a_space_in_english_only() -> None:
    assert join("鲁迅的原名是", "周树人", "zh") == "鲁迅的原名是周树人"
    assert join("Lu Xun was born", "Zhou Shuren", "en") == "Lu Xun was born Zhou Shuren"
