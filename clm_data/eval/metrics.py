"""What is measured, as plain functions on numbers; formulas: ``docs/reference/metrics.md``.

Nothing here knows of models or files: token ids, log-probabilities and texts come in, shares
between 0 and 1 (or None, where nothing can be said) go out. Printed tables show percent.
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
"""The three parts of a language's score, in the paper's order."""
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")


def token_accuracy(predicted: Sequence[int], expected: Sequence[int]) -> float:
    """Share of answer tokens that the model puts first, each given the answer before it.

    Args:
        predicted: The likeliest token at each answer position.
        expected: The answer's tokens; as many, at least one.
    """
    if len(predicted) != len(expected) or not expected:
        raise ValueError(f"{len(predicted)} predictions for {len(expected)} answer tokens")
    return sum(p == e for p, e in zip(predicted, expected, strict=True)) / len(expected)


def agreement(before: Sequence[int], after: Sequence[int]) -> float:
    """Locality of one probe: share of answer positions whose likeliest token the edit kept."""
    return token_accuracy(after, before)


def score(parts: Sequence[float]) -> float:
    """``zh_score`` or ``en_score``: the mean of a language's reliability, generality, locality."""
    return sum(parts) / len(parts)


def trans(zh_reliability: float, en_reliability: float) -> float | None:
    """How much of an edit reaches both languages: the smaller reliability over the larger.

    1 where both languages answer alike; None where both reliabilities are 0.
    """
    larger = max(zh_reliability, en_reliability)
    return min(zh_reliability, en_reliability) / larger if larger > 0 else None


def exact_match(generated: str, answer: str, lang: Language) -> bool:
    """Whether a freely generated continuation begins with the answer.

    Both are compared in the form of :func:`clm_data.languages.normalize_answer`; the answer must
    not end inside a word or a number of the continuation.
    """
    wanted = languages.normalize_answer(answer, lang)
    if not wanted:
        return False
    first = re.split(r"[\n。！？；]|[.!?;](?=\s|$)", generated.strip(), maxsplit=1)[0]
    for text in (first, generated):
        said = languages.normalize_answer(text, lang)
        if said.startswith(wanted) and not _splits_word(said, len(wanted)):
            return True
    return False


def _splits_word(text: str, at: int) -> bool:
    if at >= len(text):
        return False
    last, following = text[at - 1], text[at]
    if languages.has_han(last) or languages.has_han(following):
        return False
    return bool(_LETTER_OR_DIGIT.match(last) and _LETTER_OR_DIGIT.match(following))


def answer_probability(log_probabilities: Sequence[float]) -> float:
    """Probability of an answer per token: the geometric mean of its tokens' probabilities.

    Per token, so that answers of different length can be compared.
    """
    return math.exp(sum(log_probabilities) / len(log_probabilities))


def prefers_new(new: Sequence[float], old: Sequence[float]) -> bool:
    """Whether the new answer is likelier per token than the old one; from log-probabilities."""
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
    """Scores and ``trans`` from a table row's parts, in the parts' own unit (``trans`` a share).

    Args:
        parts: ``zh_reliability`` ... ``en_locality``; a missing or None part leaves what needs it
            None.
    """
    out: dict[str, float | None] = {}
    for lang in LANGUAGES:
        three = [parts.get(f"{lang}_{part}") for part in PARTS]
        known = [value for value in three if value is not None]
        out[f"{lang}_score"] = score(known) if len(known) == len(PARTS) else None
    zh, en = parts.get("zh_reliability"), parts.get("en_reliability")
    out["trans"] = None if zh is None or en is None else trans(zh, en)
    return out
