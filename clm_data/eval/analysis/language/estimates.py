"""Means, correlations and ranges over facts with intervals, and their rows in tables."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.intervals import (
    Bootstrap,
    FloatArray,
    Interval,
    mean_interval,
    percentile_interval,
    resampled_means,
)

MEASURE_COLUMNS = ("measure", "value", "low", "high", "count")
"""Columns of :func:`measure_rows` after the common ones."""
_CONSTANT = 1e-12
"""A variance or standard deviation below this share of its scale counts as zero."""


def exact(value: float, count: int) -> Interval:
    """A value without uncertainty: both ends of the interval are the value."""
    return Interval(value, value, value, count)


def mean_of_known(values: FloatArray, bootstrap: Bootstrap) -> Interval | None:
    """Mean of the values that are not NaN with its bootstrap interval; None if there are none."""
    return mean_interval(values[~np.isnan(values)].tolist(), bootstrap)


def range_of_draws(drawn: FloatArray, bootstrap: Bootstrap) -> Interval | None:
    """Mean of random draws, with the range of the middle ``level``; None without draws."""
    if not len(drawn):
        return None
    return percentile_interval(float(drawn.mean()), drawn, len(drawn), bootstrap)


def correlation(first: ArrayLike, second: ArrayLike, bootstrap: Bootstrap) -> Interval | None:
    """Pearson's correlation over facts with its bootstrap interval.

    Args:
        first: Shape (n,).
        second: Values of the same facts, shape (n,); facts are resampled with both values.
        bootstrap: Resampling of facts.

    Returns:
        None if there are fewer than three facts, or one side is constant.
    """
    data = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    deviation = data.std(axis=1)
    center = data.mean(axis=1)
    constant = deviation <= _CONSTANT * (np.abs(center) + deviation)
    if data.shape[1] < 3 or bool(constant.any()):
        return None
    x, y = (data - center[:, None]) / deviation[:, None]
    value = float(in_range((x * y).mean(), -1, 1, "correlation"))
    moments = resampled_means(np.stack([x, y, x * x, y * y, x * y], axis=1), bootstrap)
    variances = variance(moments[:, 0], moments[:, 2]) * variance(moments[:, 1], moments[:, 3])
    known = variances > _CONSTANT
    covariances = moments[:, 4] - moments[:, 0] * moments[:, 1]
    resampled = in_range(covariances[known] / np.sqrt(variances[known]), -1, 1, "correlation")
    return percentile_interval(value, resampled, data.shape[1], bootstrap)


def variance(mean: FloatArray, mean_square: FloatArray) -> FloatArray:
    """Variances from means and means of squares; never negative."""
    return np.asarray(np.maximum(mean_square - mean**2, 0))


def measure_rows(
    measures: Iterable[tuple[str, Interval | None]], common: ResultRow
) -> list[ResultRow]:
    """Rows with the columns of :data:`MEASURE_COLUMNS`; measures without a value are left out.

    Args:
        measures: (name, value) pairs.
        common: Columns that all rows share.
    """
    return [
        {
            **common,
            "measure": name,
            "value": one.mean,
            "low": one.low,
            "high": one.high,
            "count": one.count,
        }
        for name, one in measures
        if one is not None
    ]
