"""Facts whose edit transferred to the other language against those whose edit did not.

Each edited fact has a few geometric features (:data:`FEATURES`). They are compared between the two
groups with a permutation test that is stratified by batch, because the facts of a batch are solved
together (``transfer.csv``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.geometry.factors import paired_edits, part_cosines
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.rank_test import GroupComparison, compare_groups, holm
from clm_data.eval.analysis.geometry.saved_edits import EditGroup
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.baselines import read_baseline
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.intervals import FloatArray
from clm_data.eval.results import Measures
from clm_data.records import LANGUAGES, Language

FEATURES = (
    "contribution_cosine",
    "residual_cosine",
    "key_cosine",
    "size",
    "overlap_left",
    "overlap_right",
)
"""Features of a fact's edit at a layer, defined in ``docs/reference/geometry.md``."""
CRITERIA: Mapping[str, str] = {"exact": "reliability", "prefers": "prefers_new"}
"""Criteria for a transfer, with the measure that must be 1 after the edit and less before it."""
COLUMNS = (
    "language", "criterion", "layer", "measure", "transferred", "stayed", "mean_transferred",
    "mean_stayed", "difference", "low", "high", "auc", "p", "p_holm",
)  # fmt: skip
"""Columns of ``transfer.csv`` after those of the group."""
Features = Mapping[str, float]
StratifiedFeatures = Mapping[str, tuple[int, Features]]
"""By fact: its stratum for the permutation test, and its features."""


def transferred_facts(
    criterion: str,
    before: Mapping[str, Measures],
    after: Mapping[str, tuple[Measures, Measures]],
) -> dict[str, bool]:
    """Whether each fact transferred, among those whose edit succeeded in its own language.

    Facts that met the criterion in the other language before the edit are left out, and so are
    facts without a value.

    Args:
        criterion: A key of :data:`CRITERIA`.
        before: Measures in the other language before the edit, by fact.
        after: Measures after the edit in its own and in the other language, by fact.
    """
    name = CRITERIA[criterion]
    out = {}
    for fact, (own, other) in after.items():
        value, value_before = other.get(name), before.get(fact, {}).get(name)
        succeeded = own.get(name) == 1.0
        if succeeded and value is not None and value_before is not None and value_before < 1.0:
            out[fact] = value == 1.0
    return out


def fact_features(own: LowRankMatrix, other: LowRankMatrix) -> dict[str, Features]:
    """The :data:`FEATURES` of each fact; empty if the changes are not available by fact.

    Args:
        own: The change in the edited language.
        other: The change of the same facts in the other language.
    """
    edits = paired_edits(own, other)
    if edits is None or edits.first.right is None:
        return {}
    cosines = part_cosines(edits)
    left, right = edits.first.left, edits.first.right
    sizes = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=1)
    columns = {
        "contribution_cosine": np.diag(cosines["contributions"][0]),
        "residual_cosine": np.diag(cosines["residuals"][0]),
        "key_cosine": np.diag(cosines["keys"][0]),
        "size": sizes,
    }
    if len(other.spectrum.values):
        columns["overlap_left"] = _share_inside(left, other.spectrum.left)
        columns["overlap_right"] = _share_inside(right.T, other.spectrum.right)
    return {
        fact: {name: float(values[i]) for name, values in columns.items()}
        for i, fact in enumerate(edits.facts)
        if sizes[i] > 0
    }


def _share_inside(vectors: FloatArray, basis: FloatArray) -> FloatArray:
    """Share of each column's squared norm that lies in a subspace, 0 to 1.

    Args:
        vectors: Shape (n, facts).
        basis: Orthonormal basis of the subspace, shape (n, k).
    """
    squares = (vectors**2).sum(axis=0)
    shares = ((basis.T @ vectors) ** 2).sum(axis=0) / np.where(squares > 0, squares, 1.0)
    return in_range(shares, 0, 1, "share in a subspace")


def transfer_rows(folder: Path, group: EditGroup, options: GeometryOptions) -> list[ResultRow]:
    """Rows of ``transfer.csv`` for a group, by language, criterion, layer and feature.

    The first row of each language and criterion has the measure ``facts`` and only counts facts.
    P-values are adjusted over all layers and features of one language and criterion.

    Raises:
        InputFileError: The answers before the edit are missing or cannot be read.
    """
    rows: list[ResultRow] = []
    for lang in LANGUAGES:
        other: Language = "en" if lang == "zh" else "zh"
        before = read_baseline(folder, group.cells[lang])
        before_in_other = {fact: answers.measures(other) for fact, answers in before.items()}
        after = {
            item.id: (item.measures(lang), item.measures(other)) for item in group.cells[lang].items
        }
        features = _features_by_layer(group, lang, other)
        for criterion in CRITERIA:
            transferred = transferred_facts(criterion, before_in_other, after)
            place = {**group.columns, "language": lang, "criterion": criterion}
            rows += _comparison_rows(place, features, transferred, options)
    return rows


def _features_by_layer(
    group: EditGroup, lang: Language, other: Language
) -> dict[int, StratifiedFeatures]:
    """Features by layer; a stratum is a batch, or everything if facts are edited one by one."""
    out: dict[int, StratifiedFeatures] = {}
    one_stratum = group.setting.batch_size == 1 or group.setting.mode == "single"
    for layer in group.layers():
        here: dict[str, tuple[int, Features]] = {}
        pairs = zip(group.batches[lang], group.batches[other], strict=True)
        for batch, (own, others) in enumerate(pairs):
            stratum = 0 if one_stratum else batch
            features = fact_features(own.change(layer), others.change(layer))
            here |= {fact: (stratum, values) for fact, values in features.items()}
        out[layer] = here
    return out


def _comparison_rows(
    place: ResultRow,
    features: Mapping[int, StratifiedFeatures],
    transferred: Mapping[str, bool],
    options: GeometryOptions,
) -> list[ResultRow]:
    total = sum(transferred.values())
    counts = GroupComparison(total, len(transferred) - total)
    rows = [_row(place, None, "facts", counts)]
    p_values: list[float | None] = [None]
    for layer, by_fact in features.items():
        facts = [fact for fact in by_fact if fact in transferred]
        in_first = np.array([transferred[fact] for fact in facts], dtype=bool)
        if not in_first.any() or in_first.all():
            continue
        strata = np.array([by_fact[fact][0] for fact in facts])
        for feature in FEATURES:
            if any(feature not in by_fact[fact][1] for fact in facts):
                continue
            values = np.array([by_fact[fact][1][feature] for fact in facts])
            comparison = compare_groups(values, in_first, strata, options)
            rows.append(_row(place, layer, feature, comparison))
            p_values.append(comparison.p)
    return [row | {"p_holm": p} for row, p in zip(rows, holm(p_values), strict=True)]


def _row(
    place: ResultRow, layer: int | None, measure: str, comparison: GroupComparison
) -> ResultRow:
    transferred, stayed = comparison.means or (None, None)
    difference = None if transferred is None or stayed is None else transferred - stayed
    return {
        **place,
        "layer": layer,
        "measure": measure,
        "transferred": comparison.transferred,
        "stayed": comparison.stayed,
        "mean_transferred": transferred,
        "mean_stayed": stayed,
        "difference": difference,
        "low": comparison.low,
        "high": comparison.high,
        "auc": comparison.auc,
        "p": comparison.p,
    }
