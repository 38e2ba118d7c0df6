"""Reads numbers in Chinese and English texts: digits, words, dates, centuries, scales.

Complements :mod:`clm_data.languages`. Reading is deliberately lenient (九一八 may be 9, 18 or 918):
two texts disagree only if a number in one of them matches no reading of the other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

from clm_data.records import Language

_ZH_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {
    "〇": 0,
    "两": 2,
    "兩": 2,
}
_ZH_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
_ZH_SINGLE = {"廿": 20, "卅": 30, "首": 1, "元": 1, "正": 1, "双": 2, "腊": 12, "头": 1}
_ZH_RUN = re.compile(r"[零〇一二两兩三四五六七八九十百千万萬亿億]+")
_ZH_COUNTED = re.compile(r"[个次位种条章卷人岁天月日年倍层届名座颗回集部代世纪级度米里斤]")
_ZH_TITLE = re.compile(r"《[^》]*》|〈[^〉]*〉")
_ZH_HALF_BOOK = re.compile(r"([上前下后後])[册卷集部篇书]")
_ZH_CENTURY = re.compile(
    r"([0-9]+|[一二三四五六七八九十]+)世纪(?:([0-9]0|[一二三四五六七八九]十)年代)?"
)

_UNITS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen",
)
_TENS = re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety")
_EN_SMALL = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * value for value, word in enumerate(_TENS, 2)
}
_EN_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9} | {
    "trillion": 10**12
}
_EN_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12,
} | {f"{word}th": _EN_SMALL[word] for word in _UNITS if word not in
     {"zero", "one", "two", "three", "five", "eight", "nine", "twelve"}} | {
    f"{word[:-1]}ieth": _EN_SMALL[word] for word in _TENS
} | {"hundredth": 100, "thousandth": 1000}  # fmt: skip
_EN_HINTS = {
    "a": (1,), "an": (1,), "single": (1,), "sole": (1,), "only": (1,), "once": (1,), "half": (2,),
    "twice": (2,), "double": (2,), "pair": (2,), "both": (2,), "couple": (2,), "twin": (2,),
    "thrice": (3,), "triple": (3,), "trio": (3,), "quarter": (4, 15, 25), "dozen": (12,),
    "fortnight": (14,), "decade": (10,), "century": (100,), "millennium": (1000,),
    "hundreds": (100,), "thousands": (1000,), "sexagenary": (60,),
}  # fmt: skip
_ROMAN = {"II": 2, "III": 3, "IV": 4, "VI": 6, "VII": 7, "VIII": 8, "IX": 9, "XI": 11, "XII": 12}
_ROMAN |= {"V": 5, "X": 10, "XIII": 13, "XIV": 14, "XV": 15, "XVI": 16, "XVIII": 18}
_MONTHS = {
    name: number
    for number, names in enumerate(
        re.findall(
            r"\S+",
            "january,jan february,feb march,mar april,apr may june,jun july,jul august,aug "
            "september,sept,sep october,oct november,nov december,dec",
        ),
        1,
    )
    for name in names.split(",")
}

# Superscripts and vulgar fractions would turn into digits under NFKC.
_RAISED = re.compile(r"[⁰¹²³⁴-⁹₀-₉¼-¾⅐-⅞]")
_DIGITS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?")
_ZH_SCALE_AFTER = re.compile(r"\s*([十百千万萬亿億]+)(?![瓦米克卡赫伏帕焦字])")
_EN_SCALE_AFTER = re.compile(r"[\s-]*(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_YEAR_RANGE = re.compile(r"(?<![0-9])([0-9]{2})([0-9]{2})\s*[-–—~]\s*([0-9]{2})(?![0-9])")
_CLOCK = re.compile(r"(?<![0-9])([0-9]{1,2}):([0-9]{2})(?![0-9])")
_EN_WORD = re.compile(r"[A-Za-z]+")
_EN_DATE_LEFT = re.compile(r"([A-Za-z]{3,9})\.?\s+[0-9]")
_EN_DATE_RIGHT = re.compile(r"[0-9](?:st|nd|rd|th)?(?:\s+of)?\s+([A-Za-z]{3,9})\b")


@dataclass(frozen=True)
class Numbers:
    """The numbers in a text."""

    digits: set[Decimal] = field(default_factory=set)
    """Numbers in Arabic digits with scales applied: "1.4亿" equals "140 million"."""
    words: set[Decimal] = field(default_factory=set)
    """Words that are clearly numbers: 三百, twenty-one, 五个."""
    maybe: set[Decimal] = field(default_factory=set)
    """Other possible readings: parts of names and idioms, ordinals, "once", "dozen"."""

    @property
    def all(self) -> set[Decimal]:
        """All readings."""
        return self.digits | self.words | self.maybe


def read(text: str, lang: Language) -> Numbers:
    """Find the numbers in a text."""
    plain = unicodedata.normalize("NFKC", _RAISED.sub(" ", text))
    found = Numbers()
    rest = _read_ranges(plain, found)
    if lang == "zh":
        _read_zh(rest, found)
    else:
        _read_en(rest, found)
    return found


def disagreement(zh: str, en: str) -> tuple[list[str], list[str]] | None:
    """The numbers of each text that match no reading of the other; None if the texts agree.

    A number in Arabic digits needs a counterpart. Numbers in words disagree only if both texts have
    some that the other lacks, because they are frequent in names and idioms.
    """
    left, right = read(zh, "zh"), read(en, "en")
    lost = left.digits - right.all, right.digits - left.all
    if not any(lost):
        words = left.words - right.all, right.words - left.all
        if not all(words):
            return None
        lost = words
    else:
        lost = lost[0] | (left.words - right.all), lost[1] | (right.words - left.all)
    return [_format(n) for n in sorted(lost[0])], [_format(n) for n in sorted(lost[1])]


def to_digits(text: str, lang: Language) -> str:
    """Convert numbers in words to Arabic digits, so that 二十一年 becomes 21年."""
    if lang == "zh":
        return _ZH_RUN.sub(lambda match: _zh_digits(match[0]), text)
    for start, end, value, _tokens in reversed(list(_en_phrases(text))):
        text = f"{text[:start]}{value}{text[end:]}"
    return text


def _format(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _read_ranges(text: str, found: Numbers) -> str:
    """Read year ranges (2009-10) and clock times (9:00) and remove them from the text."""
    for match in _YEAR_RANGE.finditer(text):
        century, start, end = match.groups()
        if int(end) > int(start):
            found.digits.update({Decimal(century + start), Decimal(century + end)})
            found.maybe.add(Decimal(end))
            text = text.replace(match[0], " " * len(match[0]))
    for match in _CLOCK.finditer(text):
        hour, minute = Decimal(match[1]), Decimal(match[2])
        found.digits.update({hour, minute} - {Decimal(0)})
        found.maybe.update({hour + 12, hour - 12})
        text = text.replace(match[0], " " * len(match[0]))
    return text


def _digit_numbers(text: str) -> Iterator[tuple[re.Match[str], Decimal, bool]]:
    """Yields (match, value, whether it is part of a code such as B12)."""
    for match in _DIGITS.finditer(text):
        before = text[match.start() - 1 : match.start()]
        code = bool(before) and before.isascii() and before.isalpha()
        yield match, Decimal(match[0].replace(",", "")), code


def _read_zh(text: str, found: Numbers) -> None:
    text = _ZH_TITLE.sub(lambda match: _read_title(match[0], found), text)
    text = _ZH_CENTURY.sub(lambda match: _read_century(match, found), text)
    for match, value, code in _digit_numbers(text):
        scale = _ZH_SCALE_AFTER.match(text, match.end())
        number = value * _product(scale[1]) if scale else value
        (found.maybe if code else found.digits).add(number)
        found.maybe.update(_zh_year_readings(number, text[match.end() :]))
        if scale:
            found.maybe.add(value)
    for match in _ZH_RUN.finditer(text):
        if match.start() and text[match.start() - 1].isdigit():
            continue
        _read_zh_run(match[0], text[match.end() :], found)
    for half in _ZH_HALF_BOOK.finditer(text):
        found.maybe.add(Decimal(1 if half[1] in "上前" else 2))
    found.maybe.update(Decimal(value) for char, value in _ZH_SINGLE.items() if char in text)
    if "半" in text:
        found.maybe.update(map(Decimal, ("0.5", "2", "6", "30", "50")))


def _read_title(title: str, found: Numbers) -> str:
    inner = read(title[1:-1], "zh")
    found.maybe.update(inner.all)
    return " " * len(title)


def _read_century(match: re.Match[str], found: Numbers) -> str:
    century = _zh_value(match[1]) or 0
    found.maybe.update({Decimal(century), Decimal((century - 1) * 100)})
    if match[2]:
        decade = _zh_value(match[2]) or 0
        clear, number = match[2].isdigit(), (century - 1) * 100 + decade
        found.maybe.add(Decimal(decade))
    else:
        clear, number = match[1].isdigit(), century
    (found.digits if clear else found.words).add(Decimal(number))
    return " " * len(match[0])


def _zh_year_readings(number: Decimal, rest: str) -> set[Decimal]:
    """Years that "80年代" or "98年" may mean, and hours that "3点" may mean."""
    if number < 100 and rest.startswith("年"):
        return {number + 1900, number + 1800, number + 2000}
    if rest.startswith(("点", "时")) and number < 12:
        return {number + 12}
    return {number * 10} if rest.startswith("成") else set()


def _read_zh_run(run: str, rest: str, found: Numbers) -> None:
    for char in run:
        found.maybe.add(Decimal(_ZH_DIGITS.get(char, _ZH_SCALES.get(char, 0))))
    digits = [_ZH_DIGITS[char] for char in run if char in _ZH_DIGITS]
    positional = len(digits) == len(run)
    if positional and len(run) > 1:
        text = "".join(map(str, digits))
        found.maybe.update(
            Decimal(text[start:end])
            for start in range(len(text))
            for end in range(start + 1, len(text) + 1)
        )
    value = _zh_value(run)
    if value is None:
        if not digits:
            found.maybe.add(Decimal(_product(run)))
        return
    number = Decimal(value)
    found.maybe.update(_zh_year_readings(number, rest))
    counted = _ZH_COUNTED.match(rest) is not None
    year = positional and len(run) == 4 and rest.startswith("年")
    structured = not positional and len(run) > 1 and digits and value >= 10
    plain = counted and value > 1 and (len(run) == 1 or not positional)
    (found.words if year or structured or plain else found.maybe).add(number)


def _product(scales: str) -> int:
    result = 1
    for char in scales:
        result *= _ZH_SCALES[char]
    return result


def _zh_value(run: str) -> int | None:
    """Value of a Chinese numeral; None if it is not well-formed (两三百, 万一)."""
    if run.isdigit() and run.isascii():
        return int(run)
    if all(char in _ZH_DIGITS for char in run):
        return int("".join(str(_ZH_DIGITS[char]) for char in run))
    total, section, digit = 0, 0, None
    last = largest = 10**9
    for char in run:
        if char in _ZH_DIGITS:
            if digit not in (None, 0):
                return None
            digit = _ZH_DIGITS[char]
            continue
        scale = _ZH_SCALES[char]
        if scale >= 10**4:
            if not section and digit is None:
                return None
            group = section + (digit or 0)
            total = total + group * scale if scale < largest else (total + group) * scale
            section, digit, last, largest = 0, None, 10**9, scale
            continue
        if scale >= last or (digit is None and (scale != 10 or section)):
            return None
        section += (1 if digit is None else digit) * scale
        digit, last = None, scale
    return total + section + (digit or 0)


def _zh_digits(run: str) -> str:
    value = _zh_value(run)
    return run if value is None else str(value)


def _read_en(text: str, found: Numbers) -> None:
    for match, value, code in _digit_numbers(text):
        scale = _EN_SCALE_AFTER.match(text, match.end())
        number = value * _EN_SCALES[scale[1].lower()] if scale else value
        (found.maybe if code else found.digits).add(number)
        if scale:
            found.maybe.add(value)
        if 1000 <= number < 2100 and number == number.to_integral_value():
            found.maybe.update({number % 100, number // 100 + 1})
        if re.match(r"\s*p\.?m\b", text[match.end() :], re.IGNORECASE):
            found.maybe.add(number + 12)
    phrases = list(_en_phrases(text))
    for (_, end, tens, _), (start, _, rest, _) in pairwise(phrases):
        if start - end == 1 and 10 <= tens <= 20 and rest < 100:  # nineteen forty-nine
            found.maybe.add(Decimal(tens * 100 + rest))
    for _, _, phrase, _ in phrases:
        (found.words if phrase > 1 else found.maybe).add(Decimal(phrase))
        found.maybe.update({Decimal(phrase % 100), Decimal(phrase // 100 * 100)})
    for word in _EN_WORD.findall(text):
        lower = word.lower().removesuffix("s")
        for name in {word.lower(), lower}:
            if name in _EN_ORDINALS:
                found.maybe.add(Decimal(_EN_ORDINALS[name]))
            found.maybe.update(map(Decimal, _EN_HINTS.get(name, ())))
            if name in _EN_SCALES:
                found.maybe.add(Decimal(_EN_SCALES[name]))
            if name in _MONTHS:
                found.maybe.add(Decimal(_MONTHS[name]))
        if word in _ROMAN:
            found.maybe.add(Decimal(_ROMAN[word]))
    for pattern in (_EN_DATE_LEFT, _EN_DATE_RIGHT):
        for month in pattern.findall(text):
            if month.lower() in _MONTHS and month[0].isupper():
                found.digits.add(Decimal(_MONTHS[month.lower()]))


def _en_phrases(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Numbers in words; yields (start, end, value, number of words)."""
    words = [(m.start(), m.end(), m[0].lower()) for m in _EN_WORD.finditer(text)]
    index = 0
    while index < len(words):
        end, value, tokens = _en_phrase(words, index, text)
        if tokens:
            yield words[index][0], words[end - 1][1], value, tokens
        index = max(end, index + 1)


def _en_phrase(words: list[tuple[int, int, str]], start: int, text: str) -> tuple[int, int, int]:
    """(index after the phrase, value, number of words); 0 words if no phrase starts here."""
    total, section, tokens, index, end = 0, 0, 0, start, start
    last = 0
    while index < len(words):
        word = words[index][2]
        if tokens and not re.fullmatch(r"[\s-]+", text[words[index - 1][1] : words[index][0]]):
            break
        small = _EN_SMALL.get(word, _EN_ORDINALS.get(word) if tokens and last >= 20 else None)
        if small is not None:
            if last and not (last % 10 == 0 and last >= 20 and small < last and last != small):
                break
            section, last = section + small, small
        elif word in _EN_SCALES and tokens:
            if word == "hundred":
                section, last = section * 100, 100
            else:
                total, section, last = total + section * _EN_SCALES[word], 0, 1000
        elif word == "and" and last >= 100:
            index += 1
            continue
        else:
            break
        tokens, index = tokens + 1, index + 1
        end = index
    return end, total + section, tokens
