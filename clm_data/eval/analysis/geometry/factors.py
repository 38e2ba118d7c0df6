"""Is it the residuals or the keys of edits that differ between the languages?

A change is the sum over facts of residual (a column of ``left``, d) times turned key (a row of
``right``, m). Residuals say what the edit writes into the hidden state, keys where it is read from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clm_data.eval.analysis.geometry.measures import Change, FloatArray, cosine
from clm_data.eval.analysis.geometry.resample import Estimate, Settings, over_batches
from clm_data.eval.analysis.geometry.saved_edits import Group, SavedEdit
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.intervals import Bootstrap, mean_interval

Row = ResultRow
COLUMNS = ("layer", "part", "pairing", "value", "low", "high", "interval", "facts")
"""Of ``factors.csv``, after those of the group."""


@dataclass(frozen=True)
class Sides:
    """The same facts of one batch, edited in either language.

    Attributes:
        facts: Those that both changes hold, in one order.
        first: What they contribute in one language, a column a fact.
        second: The same in the other.
    """

    facts: tuple[str, ...]
    first: Change
    second: Change


def sides_of(first: Change, second: Change) -> Sides | None:
    """The facts of two changes side by side; None where they are not known by fact."""
    if not (first.by_fact and second.by_fact):
        return None
    shared = set(first.facts) & set(second.facts)
    facts = tuple(fact for fact in first.facts if fact in shared)
    return Sides(facts, _ordered(first, facts), _ordered(second, facts)) if facts else None


def _ordered(change: Change, facts: Sequence[str]) -> Change:
    at = {fact: i for i, fact in enumerate(change.facts)}
    picked = [at[fact] for fact in facts]
    right = change.right if change.right is None else change.right[picked]
    return Change(change.left[:, picked], right, tuple(facts), change.k)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Rows (n, c) at length one; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosines (n1, n2) between rows, -1 to 1; 0 with a zero row."""
    return np.clip(unit_rows(first) @ unit_rows(second).T, -1.0, 1.0)


def part_cosines(sides: Sides) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """By part, cosines (facts, facts): first with second, first with first, second with second.

    ``contributions`` are the whole rank-one matrices: the product of the other two.
    """
    out = {
        "residuals": _three(sides.first.left.T, sides.second.left.T),
        "keys": _three(_right(sides.first), _right(sides.second)),
    }
    residuals, keys = out["residuals"], out["keys"]
    out["contributions"] = (
        residuals[0] * keys[0],
        residuals[1] * keys[1],
        residuals[2] * keys[2],
    )
    return out


def _three(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    return cosines(first, second), cosines(first, first), cosines(second, second)


def _right(change: Change) -> FloatArray:
    if change.right is None:
        raise ValueError("the change is not known by fact")
    return change.right


def by_pairing(
    three: tuple[FloatArray, FloatArray, FloatArray],
) -> dict[str, list[float]]:
    """Cosines by fact: with itself in the other language, and the mean with other facts.

    Args:
        three: Cosines (facts, facts) of Chinese with English, Chinese and English by themselves.
    """
    across, zh, en = three
    out = {"same-fact": [float(v) for v in np.diag(across)]}
    count = len(across)
    if count > 1:
        for name, matrix in (("other-fact", across), ("other-fact-zh", zh), ("other-fact-en", en)):
            others = (matrix.sum(axis=1) - np.diag(matrix)) / (count - 1)
            out[name] = [float(v) for v in others]
    return out


def swapped(sides: Sides) -> dict[str, float | None]:
    """Cosines of whole changes of which only one part differs in language.

    ``residuals``: both languages' residuals on one language's keys; ``keys``: both languages' keys
    under one language's residuals; each the mean over either language for the part in common.
    ``contributions``: both differ, as in the edits themselves.
    """
    zh, en = sides.first, sides.second
    zh_on_en = Change(zh.left, en.right)
    en_on_zh = Change(en.left, zh.right)
    return {
        "residuals": _mean(cosine(zh, en_on_zh), cosine(zh_on_en, en)),
        "keys": _mean(cosine(zh, zh_on_en), cosine(en_on_zh, en)),
        "contributions": cosine(zh, en),
    }


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def factor_rows(group: Group, layer: int, settings: Settings) -> list[Row]:
    """Rows of ``factors.csv`` for one layer, over all batches; none where changes are whole."""
    facts: dict[tuple[str, str], list[float]] = {}
    whole: dict[str, list[float]] = {}
    count = 0
    for zh_edit, en_edit in zip(group.batches["zh"], group.batches["en"], strict=True):
        sides = sides_of(zh_edit.change(layer), en_edit.change(layer))
        if sides is None:
            continue
        count += len(sides.facts)
        parts = part_cosines(sides)
        raw = _raw_keys(zh_edit, en_edit, layer, sides.facts)
        if raw is not None:
            parts["raw-keys"] = raw
        for part, three in parts.items():
            for pairing, values in by_pairing(three).items():
                facts.setdefault((part, pairing), []).extend(values)
        for part, value in swapped(sides).items():
            if value is not None:
                whole.setdefault(part, []).append(value)
    rows = [
        _row(group, layer, part, pairing, _over_facts(values, settings), len(values))
        for (part, pairing), values in facts.items()
    ]
    return rows + [
        _row(group, layer, part, "whole", over_batches(values, settings), count)
        for part, values in whole.items()
    ]


def _raw_keys(
    zh: SavedEdit, en: SavedEdit, layer: int, facts: Sequence[str]
) -> tuple[FloatArray, FloatArray, FloatArray] | None:
    """Cosines of the keys themselves, before a solve turns them; None where they were not saved."""
    picked = []
    for edit in (zh, en):
        keys = edit.keys(layer)
        if keys is None or len(keys) != len(edit.facts):
            return None
        at = {fact: i for i, fact in enumerate(edit.facts)}
        picked.append(keys[[at[fact] for fact in facts]])
    return _three(*picked)


def _over_facts(values: Sequence[float], settings: Settings) -> Estimate:
    how = Bootstrap(settings.resamples, settings.level, settings.seed)
    mean = mean_interval(values, how)
    if mean is None or len(values) < 2:
        return Estimate(None if mean is None else mean.mean)
    return Estimate(mean.mean, mean.low, mean.high, "facts")


def _row(group: Group, layer: int, part: str, pairing: str, found: Estimate, facts: int) -> Row:
    return {
        **group.about,
        "layer": layer,
        "part": part,
        "pairing": pairing,
        **vars(found),
        "facts": facts,
    }
