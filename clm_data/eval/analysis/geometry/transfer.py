"""Facts whose edit reached the other language against those whose edit did not.

Is what an edit writes for a fact placed otherwise where the other language took the fact over? Each
fact has a few numbers (:data:`FEATURES`); the two groups are compared by ranks, with a permutation
test that keeps to batches, as the facts of a batch were solved together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clm_data.eval.analysis.geometry.factors import Row, part_cosines, sides_of
from clm_data.eval.analysis.geometry.measures import Change, FloatArray, within
from clm_data.eval.analysis.geometry.resample import Settings
from clm_data.eval.analysis.geometry.saved_edits import Group
from clm_data.eval.results import Measures, read_baseline
from clm_data.records import LANGUAGES, Language

FEATURES = (
    "contribution_cosine",
    "residual_cosine",
    "key_cosine",
    "size",
    "overlap_left",
    "overlap_right",
)
"""Of a fact at a layer; see ``docs/reference/geometry.md``."""
CRITERIA: Mapping[str, str] = {"exact": "reliability", "prefers": "prefers_new"}
"""When a fact counts as taken over: every token of the new answer is put first, or the new answer
is likelier than the old one; after the edit and not before. By name: the measure that is then 1."""
FEWEST = 3
"""Facts that either group must have for a test."""
COLUMNS = (
    "language", "criterion", "layer", "measure", "transferred", "stayed", "mean_transferred",
    "mean_stayed", "difference", "low", "high", "auc", "p", "p_holm",
)  # fmt: skip
"""Of ``transfer.csv``, after those of the group."""
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Tested:
    """Two groups compared.

    Attributes:
        transferred: How many facts reached the other language.
        stayed: How many did not.
        means: Of either group.
        low: Lower end of the bootstrap interval of the means' difference.
        high: Upper end.
        auc: Share of pairs of one transferred and one other fact in which the transferred has the
            larger value, ties as halves (Mann and Whitney's U over the number of pairs).
        p: Two-sided, from permutations; None where a group is too small.
    """

    transferred: int
    stayed: int
    means: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None
    auc: float | None = None
    p: float | None = None


def outcomes(
    lang: Language,
    criterion: str,
    before: Mapping[str, Measures],
    items: Mapping[str, tuple[Measures, Measures]],
) -> dict[str, bool]:
    """Which facts reached the other language, of those whose edit took in its own.

    A fact that the other language had before, or that has no value, is left out.

    Args:
        lang: Edited.
        criterion: Of :data:`CRITERIA`.
        before: The other language's measures before the edit, by fact.
        items: (own language's, other language's) measures after it, by fact.
    """
    name = CRITERIA[criterion]
    out = {}
    for fact, (own, other) in items.items():
        had, has = before.get(fact, {}).get(name), other.get(name)
        if own.get(name) == 1.0 and has is not None and had is not None and had < 1.0:
            out[fact] = has == 1.0
    return out


def features(own: Change, other: Change) -> dict[str, dict[str, float]]:
    """Each fact's :data:`FEATURES`, by fact; empty where changes are not known by fact.

    Args:
        own: The change in the edited language.
        other: The change in the other language.
    """
    sides = sides_of(own, other)
    if sides is None or sides.first.right is None:
        return {}
    parts = part_cosines(sides)
    left, right = sides.first.left, sides.first.right
    sizes = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=1)
    spectrum = other.spectrum
    columns = {
        "contribution_cosine": np.diag(parts["contributions"][0]),
        "residual_cosine": np.diag(parts["residuals"][0]),
        "key_cosine": np.diag(parts["keys"][0]),
        "size": sizes,
    }
    if len(spectrum.values):
        columns["overlap_left"] = _inside(left, spectrum.left)
        columns["overlap_right"] = _inside(right.T, spectrum.right)
    return {
        fact: {name: float(values[i]) for name, values in columns.items()}
        for i, fact in enumerate(sides.facts)
        if sizes[i] > 0
    }


def _inside(vectors: FloatArray, basis: FloatArray) -> FloatArray:
    """Share of each column's squared length that lies in a subspace, 0 to 1."""
    squares = (vectors**2).sum(axis=0)
    shares = ((basis.T @ vectors) ** 2).sum(axis=0) / np.where(squares > 0, squares, 1.0)
    return np.array([within(float(share), 0.0, 1.0, "a share") for share in shares])


def compare_groups(
    values: FloatArray, took: NDArray[np.bool_], strata: Integers, settings: Settings
) -> Tested:
    """Compare the values of two groups by ranks.

    The statistic is the sum of one group's ranks; it is set against the same sum with the groups
    dealt out anew within each stratum. The p-value counts the observed deal as one of them, so it
    is never 0 (Phipson and Smyth, Permutation p-values should never be zero, 2010).

    Args:
        values: One a fact.
        took: Whether the fact is of the first group; both groups have at least one.
        strata: Within which facts may change places.
        settings: How often to deal, and the seed.
    """
    ranks = mid_ranks(values)
    n1, n2 = int(took.sum()), int((~took).sum())
    auc = (float(ranks[took].sum()) - n1 * (n1 + 1) / 2) / (n1 * n2)
    means = float(values[took].mean()), float(values[~took].mean())
    p, low, high = None, None, None
    if min(n1, n2) >= FEWEST:
        p = _permuted(ranks, took, strata, settings)
        low, high = _difference(values, took, settings)
    return Tested(n1, n2, means, low, high, within(auc, 0.0, 1.0, "an AUC"), p)


def mid_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def _permuted(
    ranks: FloatArray, took: NDArray[np.bool_], strata: Integers, settings: Settings
) -> float:
    rng = settings.rng("permutations", len(ranks))
    sums = np.zeros(settings.permutations)
    expected = 0.0
    for stratum in np.unique(strata):
        here = strata == stratum
        mine, count = ranks[here], int(took[here].sum())
        expected += count * float(mine.mean())
        for start in range(0, settings.permutations, 1000):
            part = sums[start : start + 1000]
            dealt = rng.permuted(np.tile(mine, (len(part), 1)), axis=1)
            part += dealt[:, :count].sum(axis=1)
    far = abs(float(ranks[took].sum()) - expected)
    beyond = int((np.abs(sums - expected) >= far - 1e-9).sum())
    return (1 + beyond) / (1 + settings.permutations)


def _difference(
    values: FloatArray, took: NDArray[np.bool_], settings: Settings
) -> tuple[float, float]:
    """Bootstrap interval of the first group's mean less the second's."""
    rng = settings.rng("difference", len(values))
    drawn = np.zeros(settings.resamples)
    for group, sign in ((values[took], 1.0), (values[~took], -1.0)):
        picks = rng.integers(0, len(group), (settings.resamples, len(group)))
        drawn += sign * group[picks].mean(axis=1)
    tail = (1 - settings.level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm, 1979); None stays None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        out[i] = largest
    return out


def transfer_rows(folder: Path, group: Group, settings: Settings) -> list[Row]:
    """Rows of ``transfer.csv`` for a group: each language, criterion, layer and feature.

    The first of a language and criterion has the measure ``facts`` and only counts them.
    P-values are corrected over the layers and features of one language and criterion.
    """
    before = read_baseline(folder, group.setting)
    rows: list[Row] = []
    for lang in LANGUAGES:
        other: Language = "en" if lang == "zh" else "zh"
        table = _features_by_layer(group, lang, other)
        for criterion in CRITERIA:
            items = {
                item.id: (item.measures(lang), item.measures(other))
                for item in group.cells[lang].items
            }
            known = {fact: answers.measures(other) for fact, answers in before.items()}
            reached = outcomes(lang, criterion, known, items)
            rows += _tests(group, lang, criterion, table, reached, settings)
    return rows


def _features_by_layer(
    group: Group, lang: Language, other: Language
) -> dict[int, dict[str, tuple[int, dict[str, float]]]]:
    """By layer and fact: the stratum and the features."""
    out: dict[int, dict[str, tuple[int, dict[str, float]]]] = {}
    alone = group.setting.batch_size == 1 or group.setting.mode == "single"
    for layer in group.layers():
        here = out.setdefault(layer, {})
        pairs = zip(group.batches[lang], group.batches[other], strict=True)
        for batch, (own, theirs) in enumerate(pairs):
            found = features(own.change(layer), theirs.change(layer))
            here |= {fact: (0 if alone else batch, values) for fact, values in found.items()}
    return out


def _tests(
    group: Group,
    lang: Language,
    criterion: str,
    table: Mapping[int, Mapping[str, tuple[int, dict[str, float]]]],
    reached: Mapping[str, bool],
    settings: Settings,
) -> list[Row]:
    counted = Tested(sum(reached.values()), len(reached) - sum(reached.values()))
    rows = [_row(group, lang, criterion, None, "facts", counted)]
    p_values: list[float | None] = [None]
    for layer, facts in table.items():
        names = [fact for fact in facts if fact in reached]
        took = np.array([reached[fact] for fact in names], dtype=bool)
        if not took.any() or took.all():
            continue
        strata = np.array([facts[fact][0] for fact in names])
        for feature in FEATURES:
            if any(feature not in facts[fact][1] for fact in names):
                continue
            values = np.array([facts[fact][1][feature] for fact in names])
            tested = compare_groups(values, took, strata, settings)
            rows.append(_row(group, lang, criterion, layer, feature, tested))
            p_values.append(tested.p)
    corrected = holm(p_values)
    return [row | {"p_holm": p} for row, p in zip(rows, corrected, strict=True)]


def _row(
    group: Group, lang: Language, criterion: str, layer: int | None, feature: str, tested: Tested
) -> Row:
    took, stayed = tested.means or (None, None)
    return {
        **group.about,
        "language": lang,
        "criterion": criterion,
        "layer": layer,
        "measure": feature,
        "transferred": tested.transferred,
        "stayed": tested.stayed,
        "mean_transferred": took,
        "mean_stayed": stayed,
        "difference": None if took is None or stayed is None else took - stayed,
        "low": tested.low,
        "high": tested.high,
        "auc": tested.auc,
        "p": tested.p,
    }
