from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clm_data.numerals import disagreement, read, to_digits

DIGITS = "零一二三四五六七八九"


def chinese(number: int) -> str:
    """A number below 100 million in Chinese words, built independently of the reader."""
    if number >= 10_000:
        rest = number % 10_000
        gap = "零" if 0 < rest < 1000 else ""
        return chinese(number // 10_000) + "万" + gap + (chinese(rest) if rest else "")
    text, gap = "", False
    for scale, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, scale)
        if digit:
            text += ("零" if gap and text else "") + DIGITS[digit] + name
        gap = not digit
    return text or "零"


@given(st.integers(1, 99_999_999))
def test_numbers_in_chinese_words_are_read_correctly(number: int) -> None:
    assert to_digits(chinese(number), "zh") == str(number)


@given(st.integers(3000, 10**9), st.integers(3000, 10**9))
def test_numbers_in_digits_agree_only_if_they_are_equal(one: int, other: int) -> None:
    assert disagreement(f"共{one}人", f"{one:,} people") is None
    assert (disagreement(f"共{one}人", f"{other:,} people") is None) == (one == other)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("twenty-one", "21"),
        ("one hundred and eight", "108"),
        ("two million", "2000000"),
        ("one hundred thousand", "100000"),
        ("five passes and six generals", "5 passes and 6 generals"),
        ("thirty-sixth", "36"),
        ("someone often", "someone often"),
    ],
)
def test_numbers_in_english_words_are_read_correctly(text: str, digits: str) -> None:
    assert to_digits(text, "en") == digits


@pytest.mark.parametrize(
    ("zh", "en"),
    [
        ("1949年10月1日", "October 1, 1949"),
        ("1949年10月1日", "1 October 1949"),
        ("7月4日", "the 4th of July"),
        ("1981年9月28日", "28 Sept. 1981"),
        ("百分之三十", "30%"),
        ("3万", "30,000"),
        ("1.4亿", "140 million"),
        ("363亿美元", "$36.30 billion"),
        ("一亿四千万", "140 million"),
        ("三百", "300"),
        ("二十一", "twenty-one"),
        ("20世纪", "the 20th century"),
        ("二十世纪", "the twentieth century"),
        ("20世纪20年代", "the 1920s"),
        ("上世纪八十年代", "the 1980s"),
        ("18世纪", "the 1700s"),
        ("2009-2010", "2009–10"),
        ("晚上9点", "9:00 pm"),
        ("下午3点", "15:00"),
        ("第十六届", "the 16th"),
        ("首届", "the 1st"),
        ("二战", "World War 2"),
        ("第二次世界大战", "World War II"),
        ("三国", "Three Kingdoms"),
        ("《一千零一夜》", "The Arabian Nights"),
        ("《一千零一夜》的译本出版于1704年", "The Arabian Nights was translated in 1704"),
        ("七夕", "Qixi"),
        ("五四运动", "May Fourth Movement"),
        ("九一八事变", "September 18 Incident"),
        ("一二九运动", "December 9 Movement"),
        ("统一六国的第一位皇帝", "the First Emperor"),
        ("五十步笑百步", "fifty paces laughing at a hundred"),
        ("十年", "a decade"),
        ("12个", "a dozen"),
        ("90里", "90 li"),
        ("6.5千米", "6.5 km"),
        ("三分之二", "2/3"),
        ("上册", "Volume 1"),
        ("维生素B12", "vitamin B2"),
        ("万里长城", "the Great Wall"),
        ("H₂O", "water"),
        ("1949年", "nineteen forty-nine"),
    ],
)
def test_the_same_numbers_agree(zh: str, en: str) -> None:
    assert disagreement(zh, en) is None


@pytest.mark.parametrize(
    ("zh", "en", "numbers"),
    [
        ("1949年", "1950", (["1949"], ["1950"])),
        ("1949年10月1日", "October 2, 1949", (["1"], ["2"])),
        ("1949年10月", "September 1949", (["10"], ["9"])),
        ("一九四九年", "1950", (["1949"], ["1950"])),
        ("3万", "3,000", (["30000"], ["3000"])),
        ("1.4亿", "14 million", (["140000000"], ["14000000"])),
        ("百分之三十", "40%", (["30"], ["40"])),
        ("20世纪", "the 19th century", (["20"], ["19"])),
        ("三次", "four times", (["3"], ["4"])),
        ("1921年", "in the year of its founding", (["1921"], [])),
        ("三十个", "thirty-one", (["30"], ["31"])),
    ],
)
def test_different_numbers_are_reported(
    zh: str, en: str, numbers: tuple[list[str], list[str]]
) -> None:
    assert disagreement(zh, en) == numbers


@given(st.text(alphabet=DIGITS + "两十百千万亿廿半年世纪点第首《》0123456789.,:-", max_size=30))
def test_reading_arbitrary_text_does_not_raise(text: str) -> None:
    for number in read(text, "zh").all | read(text, "en").all:
        assert isinstance(number, Decimal)
    to_digits(text, "zh")


@given(
    st.lists(
        st.sampled_from(re.findall(r"\w+", "and one ten twenty hundred million the")), max_size=9
    )
)
def test_reading_any_sequence_of_number_words_does_not_raise(words: list[str]) -> None:
    text = " ".join(words)
    read(text, "en")
    assert to_digits(to_digits(text, "en"), "en") == to_digits(text, "en")
