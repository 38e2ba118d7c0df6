"""Whether the residuals or the keys of edits differ between the languages (``factors.csv``).

A weight change is a sum over facts of a residual (column of ``left``, length d), which the edit
writes into the hidden state, times a preconditioned key (row of ``right``, length m), which
selects the inputs that it is written for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.measures import cosine
from clm_data.eval.analysis.geometry.resample import Estimate, over_batches, point_estimate
from clm_data.eval.analysis.geometry.saved_edits import EditGroup, SavedEdit
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.intervals import FloatArray, mean_interval

COLUMNS = ("layer", "part", "pairing", "value", "low", "high", "interval", "facts")
"""Columns of ``factors.csv`` after those of the group."""
CosineMatrices = tuple[FloatArray, FloatArray, FloatArray]
"""Cosines (facts, facts): first with second language, first with first, second with second."""


@dataclass(frozen=True)
class PairedEdits:
    """Edits of the same facts in two languages.

    Attributes:
        facts: The facts that both changes contain.
        first: Their terms in one language, in the order of ``facts``.
        second: Their terms in the other language, in the same order.
    """

    facts: tuple[str, ...]
    first: LowRankMatrix
    second: LowRankMatrix


def paired_edits(first: LowRankMatrix, second: LowRankMatrix) -> PairedEdits | None:
    """Pair the terms of two changes by fact; None if not by fact, or no fact is shared."""
    if not (first.by_fact and second.by_fact):
        return None
    shared = set(first.facts) & set(second.facts)
    facts = tuple(fact for fact in first.facts if fact in shared)
    return PairedEdits(facts, _ordered(first, facts), _ordered(second, facts)) if facts else None


def _ordered(change: LowRankMatrix, facts: Sequence[str]) -> LowRankMatrix:
    index = {fact: i for i, fact in enumerate(change.facts)}
    return change.select([index[fact] for fact in facts])


def cosines(first: FloatArray, second: FloatArray) -> FloatArray:
    """Cosines (n1, n2) between the rows of two matrices, -1 to 1; 0 with a zero row."""
    return np.clip(_unit_rows(first) @ _unit_rows(second).T, -1.0, 1.0)


def _unit_rows(vectors: FloatArray) -> FloatArray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0))


def part_cosines(edits: PairedEdits) -> dict[str, CosineMatrices]:
    """Cosines between facts of their ``residuals``, preconditioned ``keys`` and ``contributions``.

    A contribution is the rank-one product of residual and key, so its cosine is the product of the
    other two.
    """
    residuals = _cosine_matrices(edits.first.left.T, edits.second.left.T)
    keys = _cosine_matrices(_keys(edits.first), _keys(edits.second))
    contributions = (residuals[0] * keys[0], residuals[1] * keys[1], residuals[2] * keys[2])
    return {"residuals": residuals, "keys": keys, "contributions": contributions}


def _cosine_matrices(first: FloatArray, second: FloatArray) -> CosineMatrices:
    return cosines(first, second), cosines(first, first), cosines(second, second)


def _keys(change: LowRankMatrix) -> FloatArray:
    if change.right is None:
        raise ValueError("the change is not available by fact")
    return change.right


def by_pairing(matrices: CosineMatrices) -> dict[str, list[float]]:
    """For each fact, its cosine across languages and its mean cosines with other facts.

    Args:
        matrices: Cosines with Chinese as the first language and English as the second.

    Returns:
        ``same-fact``, and with two or more facts ``other-fact`` (across languages),
        ``other-fact-zh`` and ``other-fact-en`` (within one).
    """
    across, zh, en = matrices
    out = {"same-fact": [float(value) for value in np.diag(across)]}
    count = len(across)
    if count > 1:
        for name, matrix in (("other-fact", across), ("other-fact-zh", zh), ("other-fact-en", en)):
            others = (matrix.sum(axis=1) - np.diag(matrix)) / (count - 1)
            out[name] = [float(value) for value in others]
    return out


def exchanged_cosines(edits: PairedEdits) -> dict[str, float | None]:
    """Cosines of whole changes that differ between the languages in one part only.

    Returns:
        ``residuals``: each language's residuals, with the same keys for both; ``keys``: each
        language's keys, with the same residuals; either is the mean over the two choices of the
        common part. ``contributions``: the changes as they are.
    """
    zh, en = edits.first, edits.second
    zh_on_en = LowRankMatrix(zh.left, en.right)
    en_on_zh = LowRankMatrix(en.left, zh.right)
    return {
        "residuals": _mean(cosine(zh, en_on_zh), cosine(zh_on_en, en)),
        "keys": _mean(cosine(zh, zh_on_en), cosine(en_on_zh, en)),
        "contributions": cosine(zh, en),
    }


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def factor_rows(group: EditGroup, layer: int, options: GeometryOptions) -> list[ResultRow]:
    """Rows of ``factors.csv`` for one layer over all batches; none for changes without factors."""
    by_fact: dict[tuple[str, str], list[float]] = {}
    whole: dict[str, list[float]] = {}
    count = 0
    for zh_edit, en_edit in zip(group.batches["zh"], group.batches["en"], strict=True):
        edits = paired_edits(zh_edit.change(layer), en_edit.change(layer))
        if edits is None:
            continue
        count += len(edits.facts)
        parts = part_cosines(edits)
        raw = _raw_keys(zh_edit, en_edit, layer, edits.facts)
        if raw is not None:
            parts["raw-keys"] = raw
        for part, matrices in parts.items():
            for pairing, values in by_pairing(matrices).items():
                by_fact.setdefault((part, pairing), []).extend(values)
        for part, value in exchanged_cosines(edits).items():
            if value is not None:
                whole.setdefault(part, []).append(value)
    rows = [
        _row(group, layer, part, pairing, _over_facts(values, options), len(values))
        for (part, pairing), values in by_fact.items()
    ]
    return rows + [
        _row(group, layer, part, "whole", over_batches(values, options), count)
        for part, values in whole.items()
    ]


def _raw_keys(
    zh: SavedEdit, en: SavedEdit, layer: int, facts: Sequence[str]
) -> CosineMatrices | None:
    """Cosines of the keys before the solve; None if they were not saved."""
    picked = []
    for edit in (zh, en):
        keys = edit.keys(layer)
        if keys is None or len(keys) != len(edit.facts):
            return None
        index = {fact: i for i, fact in enumerate(edit.facts)}
        picked.append(keys[[index[fact] for fact in facts]])
    return _cosine_matrices(*picked)


def _over_facts(values: Sequence[float], options: GeometryOptions) -> Estimate:
    interval = mean_interval(values, options.bootstrap)
    if interval is None or len(values) < 2:
        return point_estimate(None if interval is None else interval.mean)
    return Estimate(interval, "facts")


def _row(
    group: EditGroup, layer: int, part: str, pairing: str, estimate: Estimate, facts: int
) -> ResultRow:
    return {
        **group.columns,
        "layer": layer,
        "part": part,
        "pairing": pairing,
        **estimate.columns(),
        "facts": facts,
    }
