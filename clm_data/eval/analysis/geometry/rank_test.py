"""Comparing a feature of facts between two groups with a stratified permutation test of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.intervals import FloatArray, percentile_interval

MIN_GROUP = 3
"""Fewest facts in each group for a p-value and an interval."""
_AT_ONCE = 1000
"""Permutations drawn at once, which bounds memory."""
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GroupComparison:
    """Comparison of a feature between facts that transferred and facts that did not.

    Attributes:
        transferred: Number of facts in the first group.
        stayed: Number of facts in the second group.
        means: Mean of the feature in each group; None if only the facts were counted.
        low: Lower end of the bootstrap interval of the difference between the means.
        high: Upper end.
        auc: Share of pairs across the groups in which the transferred fact has the larger value,
            counting ties as half (Mann and Whitney's U divided by the number of pairs).
        p: Two-sided p-value of the permutation test; None if a group is too small.
    """

    transferred: int
    stayed: int
    means: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None
    auc: float | None = None
    p: float | None = None


def compare_groups(
    values: FloatArray, in_first: BoolArray, strata: IntArray, options: GeometryOptions
) -> GroupComparison:
    """Compare the values of two groups by their ranks.

    The statistic is the rank sum of the first group. Its null distribution comes from permuting the
    ranks within each stratum. The observed assignment counts as one permutation, so p is never 0
    (Phipson and Smyth, Permutation p-values should never be zero, 2010).

    Args:
        values: The feature of each fact, shape (n,).
        in_first: Whether each fact is in the first group; both groups must have facts.
        strata: Stratum of each fact, within which ranks are exchangeable.
        options: Numbers of permutations and resamples, and the seed.
    """
    ranks = average_ranks(values)
    n1, n2 = int(in_first.sum()), int((~in_first).sum())
    auc = (float(ranks[in_first].sum()) - n1 * (n1 + 1) / 2) / (n1 * n2)
    means = float(values[in_first].mean()), float(values[~in_first].mean())
    p, low, high = None, None, None
    if min(n1, n2) >= MIN_GROUP:
        p = _permutation_p_value(ranks, in_first, strata, options)
        low, high = _difference_interval(values, in_first, options)
    return GroupComparison(n1, n2, means, low, high, float(in_range(auc, 0, 1, "AUC")), p)


def average_ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1, shape (n,); equal values share their average rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def _permutation_p_value(
    ranks: FloatArray, in_first: BoolArray, strata: IntArray, options: GeometryOptions
) -> float:
    rng = options.rng("permutations", len(ranks))
    sums = np.zeros(options.permutations)
    expected = 0.0
    for stratum in np.unique(strata):
        here = strata == stratum
        of_stratum, count = ranks[here], int(in_first[here].sum())
        expected += count * float(of_stratum.mean())
        for start in range(0, options.permutations, _AT_ONCE):
            part = sums[start : start + _AT_ONCE]
            permuted = rng.permuted(np.tile(of_stratum, (len(part), 1)), axis=1)
            part += permuted[:, :count].sum(axis=1)
    observed = abs(float(ranks[in_first].sum()) - expected)
    as_extreme = int((np.abs(sums - expected) >= observed - 1e-9).sum())
    return (1 + as_extreme) / (1 + options.permutations)


def _difference_interval(
    values: FloatArray, in_first: BoolArray, options: GeometryOptions
) -> tuple[float, float]:
    """Bootstrap interval of the first group's mean minus the second's."""
    rng = options.rng("difference", len(values))
    resamples = options.bootstrap.resamples
    differences = np.zeros(resamples)
    for group, sign in ((values[in_first], 1.0), (values[~in_first], -1.0)):
        picks = rng.integers(0, len(group), (resamples, len(group)))
        differences += sign * group[picks].mean(axis=1)
    difference = float(values[in_first].mean() - values[~in_first].mean())
    interval = percentile_interval(difference, differences, len(values), options.bootstrap)
    return interval.low, interval.high


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted for multiple testing (Holm, 1979); None stays None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    out: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        out[i] = largest
    return out
