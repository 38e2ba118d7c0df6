"""Bootstrap confidence intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_MAX_DRAWN_VALUES = 2_000_000
"""Values drawn at once, which bounds memory."""


@dataclass(frozen=True)
class Interval:
    """A statistic with its confidence interval.

    Attributes:
        mean: The statistic: usually a mean over facts, otherwise a ratio or correlation.
        low: Lower end of the interval.
        high: Upper end of the interval.
        count: Number of observations.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap.

    Attributes:
        resamples: Number of resamples; with 0 the interval is the statistic itself.
        level: Confidence level, between 0 and 1.
        seed: Random seed.
    """

    resamples: int = 1000
    level: float = 0.95
    seed: int = 0


def mean_interval(values: Sequence[float], bootstrap: Bootstrap = Bootstrap()) -> Interval | None:
    """Mean with a percentile interval (section 13.3); None if there are no values."""
    if not values:
        return None
    data = np.asarray(values, dtype=np.float64)
    resampled = resampled_means(data[:, None], bootstrap)[:, 0]
    return percentile_interval(float(data.mean()), resampled, len(data), bootstrap)


def resampled_means(data: FloatArray, bootstrap: Bootstrap) -> FloatArray:
    """Column means of resampled rows, for statistics that are functions of means.

    Args:
        data: Shape (observations, columns). Rows are drawn with replacement.
        bootstrap: Number of resamples and seed.

    Returns:
        Shape (resamples, columns).
    """
    rng = np.random.default_rng(bootstrap.seed)
    at_once = max(1, _MAX_DRAWN_VALUES // len(data))
    chunks = []
    for start in range(0, bootstrap.resamples, at_once):
        shape = (min(at_once, bootstrap.resamples - start), len(data))
        chunks.append(data[rng.integers(0, len(data), shape)].mean(axis=1))
    return np.concatenate(chunks) if chunks else np.empty((0, data.shape[1]))


def percentile_interval(
    statistic: float, resampled: FloatArray, count: int, bootstrap: Bootstrap
) -> Interval:
    """A statistic with the percentile interval of its resampled values.

    Args:
        statistic: Computed from the data.
        resampled: The same statistic of each resample, shape (resamples,). If empty, the interval
            is the statistic itself.
        count: Number of observations.
        bootstrap: Confidence level.
    """
    if not len(resampled):
        return Interval(statistic, statistic, statistic, count)
    tail = (1 - bootstrap.level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(statistic, float(low), float(high), count)
