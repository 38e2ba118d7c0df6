"""Evaluation metrics as plain functions; `docs/reference/metrics.md` has the formulas.

Inputs are token ids, log-probabilities and texts; outputs are shares between 0 and 1, or None if
a metric is undefined. Printed tables show percent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from clm_data import languages
from clm_data.eval.intervals import Bootstrap, Interval, percentile_interval, resampled_means
from clm_data.records import LANGUAGES, Language

PARTS = ("reliability", "generality", "locality")
"""The parts of a language's score, in the paper's order."""
PAPER_MEASURES = (
    *(f"{lang}_score" for lang in LANGUAGES),
    *(f"{lang}_{part}" for lang in LANGUAGES for part in PARTS),
    "trans",
)
"""The measures in the paper's tables, in its order; larger is better for all of them."""
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


_NUMBER_GOES_ON = re.compile(
    r"[.,:^/⁄·][0-9]"  # 10.5, 1,0, 10:30, 10², 1/2
    r"|\s?[-–—~～×x*+±至到]\s?[0-9]"  # a range, a power or a sum
    r"|\s[0-9]+\s?[/⁄][0-9]"  # 10 1/2
    r"|\s[0-9]{3}(?![0-9])(?<![0-9]{4}\s[0-9]{3})"  # 10 000
    r"|\s?(?:%|‰|percent\b|per\s?cent\b)"
    r"|[十百千万亿]+(?![瓦米克卡赫伏帕焦字])|[多余几]|来(?!自)|[点分]之?[0-9]|分之|成(?![为立])|半"
    r"|[\s-]?(?:hundred|thousand|million|billion|trillion|dozen)s?\b"
    r"|\s(?:point|to|or)\s[0-9]"
    r"|[\s-](?:and\s)?(?:half|halves|thirds?|quarters?|fifths?|[a-z]+(?:ix|even|igh|in|en)ths?)\b"
)
"""What follows the digits of a number if the number does not end there, in normalized text."""
_YEAR = re.compile(r"[0-9]年$")


def token_accuracy(predicted: Sequence[int], expected: Sequence[int]) -> float:
    """Share of an answer's tokens that the model predicts, under teacher forcing.

    Args:
        predicted: The most likely token in the place of each token of the answer.
        expected: The tokens of the answer.

    Raises:
        ValueError: The lengths differ, or the answer is empty.
    """
    if len(predicted) != len(expected) or not expected:
        raise ValueError(f"{len(predicted)} predictions for {len(expected)} answer tokens")
    return sum(p == e for p, e in zip(predicted, expected, strict=True)) / len(expected)


def agreement(before: Sequence[int], after: Sequence[int]) -> float:
    """Locality of a probe: share of its answer's positions where the edit keeps the prediction."""
    return token_accuracy(after, before)


def score(parts: Sequence[float]) -> float:
    """Score of a language: the mean of its reliability, generality and locality."""
    return sum(parts) / len(parts)


def trans(zh_reliability: float, en_reliability: float) -> float | None:
    """The smaller of the two reliabilities divided by the larger, as in the paper.

    1 if both languages have the same reliability; None if both are 0.
    """
    larger = max(zh_reliability, en_reliability)
    return min(zh_reliability, en_reliability) / larger if larger > 0 else None


def exact_match(generated: str, answer: str, lang: Language) -> bool:
    """Whether a generated continuation begins with the answer.

    Both texts are normalized by :func:`clm_data.languages.normalize_answer`. The answer must not
    end inside a word or number of the continuation: "10" is not the answer in "10.5 metres",
    "10 million", "10%" or "10–12". A unit after a number does not matter.
    """
    wanted = languages.normalize_answer(answer, lang)
    if not wanted:
        return False
    first = re.split(r"[\n。！？；]|[.!?;](?=\s|$)", generated.strip(), maxsplit=1)[0]
    for text in (first, generated):
        continuation = languages.normalize_answer(text, lang)
        if continuation.startswith(wanted) and not _splits_word(continuation, len(wanted)):
            return True
    return False


def _splits_word(text: str, at: int) -> bool:
    if at >= len(text):
        return False
    last, following = text[at - 1], text[at]
    if "0" <= last <= "9" and _NUMBER_GOES_ON.match(text, at):
        return True
    if _YEAR.search(text, 0, at) and text.startswith("代", at):  # 1990年代 is not 1990年
        return True
    if languages.has_han(last) or languages.has_han(following):
        return False
    return bool(_LETTER_OR_DIGIT.match(last) and _LETTER_OR_DIGIT.match(following))


def answer_probability(log_probabilities: Sequence[float]) -> float:
    """Geometric mean of the probabilities of an answer's tokens.

    The mean per token makes answers of different length comparable.
    """
    return math.exp(sum(log_probabilities) / len(log_probabilities))


def prefers_new(new: Sequence[float], old: Sequence[float]) -> bool:
    """Whether the new answer has the higher mean log-probability per token."""
    return sum(new) / len(new) > sum(old) / len(old)


def trans_interval(pairs: Sequence[tuple[float, float]], bootstrap: Bootstrap) -> Interval | None:
    """:func:`trans` of the mean reliabilities, with an interval; None if it is undefined.

    Args:
        pairs: (zh, en) reliability by fact; the two are resampled together.
        bootstrap: Settings of the interval.
    """
    if not pairs:
        return None
    data = np.asarray(pairs, dtype=np.float64)
    zh, en = data.mean(axis=0)
    value = trans(float(zh), float(en))
    if value is None:
        return None
    means = resampled_means(data, bootstrap)
    larger = means.max(axis=1)
    ratios = means.min(axis=1)[larger > 0] / larger[larger > 0]
    return percentile_interval(value, ratios, len(data), bootstrap)


def derived(parts: Mapping[str, float | None]) -> dict[str, float | None]:
    """Scores and `trans` of a table row, computed from its parts.

    Args:
        parts: `zh_reliability`, ..., `en_locality`, in any unit; parts may be missing or None.

    Returns:
        `zh_score` and `en_score` in the unit of the parts, and `trans` as a share; None if a part
        it needs is missing.
    """
    out: dict[str, float | None] = {}
    for lang in LANGUAGES:
        three = [parts.get(f"{lang}_{part}") for part in PARTS]
        known = [value for value in three if value is not None]
        out[f"{lang}_score"] = score(known) if len(known) == len(PARTS) else None
    zh, en = parts.get("zh_reliability"), parts.get("en_reliability")
    out["trans"] = None if zh is None or en is None else trans(zh, en)
    return out
