"""Estimates of measures with intervals over facts, batches or random draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix, term_products
from clm_data.eval.analysis.geometry.measures import (
    ANGLES,
    OVERLAPS,
    neuron_overlaps,
    relative_error_from,
    subspace_angles,
)
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.intervals import Bootstrap, FloatArray, Interval, percentile_interval

Values = Mapping[str, float | None]
"""Values by measure; None if undefined."""
MIN_FACTS = 5
"""Fewest facts for which an interval over facts is given."""
RANGES: Mapping[str, tuple[float, float]] = {
    "cosine": (-1.0, 1.0),
    "relative_error": (0.0, float("inf")),
    "norm_ratio": (0.0, float("inf")),
    **dict.fromkeys(ANGLES, (0.0, 90.0)),
    **dict.fromkeys(OVERLAPS, (0.0, 1.0)),
}
"""Ranges of the measures that have intervals."""


@dataclass(frozen=True)
class Estimate:
    """A measure and, if it was resampled, its interval.

    Attributes:
        interval: The value as ``mean`` with its interval; None if the measure is undefined.
        resampled: What was resampled: ``facts``, ``batches`` or ``draws``; empty if nothing was,
            in which case both ends of the interval are the value.
    """

    interval: Interval | None
    resampled: str = ""

    @property
    def value(self) -> float | None:
        """The value; None if undefined."""
        return None if self.interval is None else self.interval.mean

    @property
    def low(self) -> float | None:
        """Lower end of the interval; None without one."""
        return self.interval.low if self.interval is not None and self.resampled else None

    @property
    def high(self) -> float | None:
        """Upper end of the interval; None without one."""
        return self.interval.high if self.interval is not None and self.resampled else None

    def columns(self) -> ResultRow:
        """The columns ``value``, ``low``, ``high`` and ``interval`` of a table."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "interval": self.resampled,
        }


def point_estimate(value: float | None) -> Estimate:
    """A value without an interval."""
    return Estimate(None if value is None else Interval(value, value, value, 1))


def of_draws(drawn: Sequence[Values], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Mean of each measure over random draws, with the range of the middle draws.

    Args:
        drawn: The measures of each draw, all with the same names.
        bootstrap: Share of the draws that the range contains, as ``level``.
    """
    out = {}
    for name in drawn[0] if drawn else ():
        known = np.array([value for values in drawn if (value := values[name]) is not None])
        out[name] = point_estimate(None)
        if len(known):
            mean = float(np.mean(known))
            out[name] = Estimate(percentile_interval(mean, known, len(known), bootstrap), "draws")
    return out


def over_batches(values: Sequence[float], options: GeometryOptions) -> Estimate:
    """Mean over batches, with a bootstrap interval if there are two or more."""
    data = np.asarray(values)
    if len(data) < 2:
        return point_estimate(float(data[0]))
    rng = options.rng("batches", len(data))
    shape = (options.bootstrap.resamples, len(data))
    means = data[rng.integers(0, len(data), shape)].mean(axis=1)
    mean = float(data.mean())
    return Estimate(percentile_interval(mean, means, len(data), options.bootstrap), "batches")


def over_facts(
    first: LowRankMatrix, second: LowRankMatrix, values: Values, options: GeometryOptions
) -> dict[str, Estimate]:
    """Add bootstrap intervals over facts to the measures of two changes.

    A resample weights each fact's rank-one term in both changes by the number of times the fact is
    drawn. It does not edit again. Because a fact that is drawn twice resembles itself, the measures
    of resamples are shifted; each interval is therefore moved so that its center is the measure's
    value, and only its width comes from the resamples.

    Args:
        first: A weight change.
        second: Another one.
        values: Their measures, from :func:`compare`.
        options: Numbers of resamples and limits.

    Returns:
        By measure, without an interval if the facts are unknown, there are fewer than
        :data:`MIN_FACTS`, or resampling exceeds ``options.max_operations``.
    """
    out = {name: point_estimate(value) for name, value in values.items()}
    if not (first.by_fact and second.by_fact):
        return out
    facts = sorted({*first.facts, *second.facts})
    if len(facts) < MIN_FACTS:
        return out
    for name, resampled in _resampled(first, second, facts, values, options).items():
        known = np.array([number for number in resampled if number is not None])
        value = values[name]
        if len(known) and value is not None:
            centered = _centered(value, known, RANGES[name], options.bootstrap)
            out[name] = Estimate(centered, "facts")
    return out


def _resampled(
    first: LowRankMatrix,
    second: LowRankMatrix,
    facts: Sequence[str],
    values: Values,
    options: GeometryOptions,
) -> dict[str, Sequence[float | None]]:
    """Measures of changes whose facts are drawn with replacement, by name."""
    count = len(facts)
    rng = options.rng("facts", count)
    uniform = np.full(count, 1 / count)
    weights = rng.multinomial(count, uniform, size=options.bootstrap.resamples).astype(np.float64)
    index = {fact: i for i, fact in enumerate(facts)}
    of_first, of_second = (np.array([index[fact] for fact in c.facts]) for c in (first, second))
    out = _product_measures(first, second, weights[:, of_first], weights[:, of_second])
    few = weights[: options.costly_resamples]
    changes = (first, second)

    def weighted(weight: FloatArray) -> tuple[LowRankMatrix, LowRankMatrix]:
        return _scaled(first, weight[of_first]), _scaled(second, weight[of_second])

    if len(few) * sum(map(_operations_of_neurons, changes)) <= options.max_operations:
        out |= _by_name([neuron_overlaps(*weighted(w), options.top_share) for w in few])
    enough = count >= 2 * (values.get("angle_dimensions") or 0.0)
    if enough and len(few) * sum(map(_operations_of_angles, changes)) <= options.max_operations:
        out |= _by_name([subspace_angles(*weighted(w)) for w in few])
    return out


def _product_measures(
    first: LowRankMatrix,
    second: LowRankMatrix,
    first_weights: FloatArray,
    second_weights: FloatArray,
) -> dict[str, Sequence[float | None]]:
    """Measures that are functions of inner products, for weights (resamples, N) of the terms."""
    products = ((first_weights @ term_products(first, second)) * second_weights).sum(axis=1)
    norms = [
        np.sqrt(np.maximum(((w @ term_products(c, c)) * w).sum(axis=1), 0.0))
        for c, w in ((first, first_weights), (second, second_weights))
    ]
    cosines: list[float | None] = []
    errors: list[float | None] = []
    ratios: list[float | None] = []
    for a, b, product in zip(*norms, products, strict=True):
        both = a > 0 and b > 0
        cosines.append(float(in_range(product / (a * b), -1, 1, "cosine")) if both else None)
        errors.append(relative_error_from(a, b, product) if b > 0 else None)
        ratios.append(a / b if b > 0 else None)
    return {"cosine": cosines, "relative_error": errors, "norm_ratio": ratios}


def _scaled(change: LowRankMatrix, weights: FloatArray) -> LowRankMatrix:
    return replace(change, left=change.left * weights)


def _by_name(drawn: Sequence[Values]) -> dict[str, Sequence[float | None]]:
    return {name: [values[name] for values in drawn] for name in (drawn[0] if drawn else ())}


def _operations_of_neurons(change: LowRankMatrix) -> float:
    """Approximate floating-point operations of multiplying out every weight."""
    d, m = change.shape
    return float(2 * d * m * change.left.shape[1])


def _operations_of_angles(change: LowRankMatrix) -> float:
    """Approximate floating-point operations of a singular value decomposition."""
    (d, m), count = change.shape, change.left.shape[1]
    return float(4 * (d + m) * count**2 + 22 * min(count, d) ** 3)


def _centered(
    value: float, resampled: FloatArray, limits: tuple[float, float], bootstrap: Bootstrap
) -> Interval:
    """The interval of the resampled values, moved from their mean to the value."""
    interval = percentile_interval(value, resampled, len(resampled), bootstrap)
    low, high = (end - float(resampled.mean()) + value for end in (interval.low, interval.high))
    return replace(
        interval, low=max(min(low, value), limits[0]), high=min(max(high, value), limits[1])
    )
