"""Comparisons of two texts in the same language."""

from __future__ import annotations

import re

from clm_data import dedup
from clm_data.languages import LANGUAGE_INFO, mentions, normalize_answer, normalize_text
from clm_data.records import Language

NEAR = 0.9
"""Similarity above which two texts count as nearly the same."""
_SAME_WORDS = 0.8
"""Minimum similarity of the words of two questions that count as the same."""


def similarity(one: str, other: str) -> float:
    """Normalized Indel similarity in [0, 1], the measure of the near-duplicate filter."""
    return dedup.similarity(normalize_text(one), normalize_text(other))


def same(one: str, other: str, lang: Language) -> bool:
    """Whether two texts are equal after :func:`languages.normalize_answer`."""
    return one == other or normalize_answer(one, lang) == normalize_answer(other, lang) != ""


def same_question(one: str, other: str, subject: str, lang: Language) -> float | None:
    """Similarity of two questions about one subject; None if they are different questions.

    Similarity is measured by characters. In languages with spaces between words, the words around
    the subject must be similar as well: with a long subject, "the nature of S was" and
    "the cause of S was" are similar by characters.
    """
    from rapidfuzz.distance import Indel

    ratio = similarity(one, other)
    if ratio < LANGUAGE_INFO[lang].same_question:
        return None
    if LANGUAGE_INFO[lang].joiner:
        left, right = (text.replace(subject, " ").casefold().split() for text in (one, other))
        if Indel.normalized_similarity(left, right) < _SAME_WORDS:
            return None
    return ratio


def nearness(truth: str, target: str, lang: Language) -> str | None:
    """Describe why a target is too close to the true answer; None if it is not.

    A negation on one side (对称, 不对称) or different numbers make the two clearly different.
    Single characters are too short to be compared.
    """
    one, other = normalize_answer(truth, lang), normalize_answer(target, lang)
    negated = [LANGUAGE_INFO[lang].negation.search(text) is not None for text in (one, other)]
    numbers = [re.findall(r"-?[0-9.]+", text) for text in (one, other)]
    if min(len(one), len(other)) < 2 or negated[0] != negated[1] or numbers[0] != numbers[1]:
        return None
    if mentions(other, one, lang):
        return "contains"
    if mentions(one, other, lang):
        return "is part of"
    one, other = _differing(one, other)
    return "differs only slightly from" if similarity(one, other) > NEAR else None


def gives_away(text: str, answer: str, subject: str, lang: Language) -> bool:
    """Whether a text contains an answer.

    English answers match whole words in any case, also inside the subject ("night" in
    "night-blooming jasmine"). A single Han character matches only outside the subject. A number of
    one or two digits and a single letter never match: they occur by chance in dates and words.
    """
    bare = answer.strip()
    if (len(bare) == 1 and bare.isascii()) or re.fullmatch(r"[0-9]{1,2}", bare):
        return False
    if len(bare) == 1 and subject:
        text = text.replace(subject, " ")
    return mentions(text, answer, lang)


def _differing(one: str, other: str) -> tuple[str, str]:
    """The two texts without the words that both begin or end with.

    "Northern Song dynasty" and "Southern Song dynasty" share all words but the ones that matter.
    """
    left, right = one.split(), other.split()
    while left and right and left[0] == right[0]:
        left, right = left[1:], right[1:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return " ".join(left), " ".join(right)
