"""How two texts of one language compare."""

from __future__ import annotations

import re

from clm_data import dedup
from clm_data.languages import LANGUAGE_INFO, mentions, normalize_answer, normalize_text
from clm_data.records import Language

NEAR = 0.9
"""Texts more similar than this hardly differ."""
_SAME_WORDS = 0.8


def similarity(one: str, other: str) -> float:
    """Normalised Indel similarity, 0 to 1: what the near-duplicate filter measures."""
    return dedup.similarity(normalize_text(one), normalize_text(other))


def same(one: str, other: str, lang: Language) -> bool:
    """Whether two texts are equal but for spelling (:func:`languages.normalize_answer`)."""
    return one == other or normalize_answer(one, lang) == normalize_answer(other, lang) != ""


def same_question(one: str, other: str, subject: str, lang: Language) -> float | None:
    """How similar two questions about one subject are; None where they are not the same.

    Measured by characters. Where words are set apart, as in English, also by the words around the
    subject: a long subject makes «the nature of S was» and «the cause of S was» look alike.
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
    """How a target hardly differs from the truth, in words; None where it does differ.

    A negation on one side (对称, 不对称) or another number makes a contrast; a single character is
    too short to judge.
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
    return "is hardly different from" if similarity(one, other) > NEAR else None


def gives_away(text: str, answer: str, subject: str, lang: Language) -> bool:
    """Whether a text names an answer.

    English by whole words, whatever the case; the subject counts too («night» in «night-blooming
    jasmine»). A single Han character counts only outside the subject, a bare number of one or two
    digits and a single letter not at all: they stand in dates and words by chance.
    """
    bare = answer.strip()
    if (len(bare) == 1 and bare.isascii()) or re.fullmatch(r"[0-9]{1,2}", bare):
        return False
    if len(bare) == 1 and subject:
        text = text.replace(subject, " ")
    return mentions(text, answer, lang)


def _differing(one: str, other: str) -> tuple[str, str]:
    """The two texts without the words they begin and end with in common.

    «Northern Song dynasty» and «Southern Song dynasty» are alike but for what matters.
    """
    left, right = one.split(), other.split()
    while left and right and left[0] == right[0]:
        left, right = left[1:], right[1:]
    while left and right and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return " ".join(left), " ".join(right)
