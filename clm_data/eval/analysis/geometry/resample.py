"""How analyses draw, and what they make of draws: seeds, intervals, facts drawn anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clm_data.eval.analysis.geometry.measures import (
    ANGLES,
    NEURONS,
    Change,
    FloatArray,
    error_from,
    neuron_overlaps,
    products,
    subspace_angles,
    within,
)

Values = Mapping[str, float | None]
"""Measures by name; None where one is undefined."""
FEWEST_FACTS = 5
"""With fewer no interval over facts is given."""


@dataclass(frozen=True)
class Settings:
    """What an analysis of geometry can be told.

    Attributes:
        k: Singular vectors whose subspaces are compared.
        share: Of neurons that count as changed most.
        resamples: Draws of facts or batches for an interval.
        heavy_resamples: The same for angles and neurons, each of which costs a decomposition.
        draws: Random matrices of a null distribution, at most.
        splits: Random halvings of a batch.
        permutations: Of a test.
        batches: Of a cell that are analysed, from the first.
        work: Floating point operations that an interval or a null distribution may take; where
            more are needed, intervals of angles and neurons are left out, and draws become fewer.
        level: Share of draws that an interval holds.
        seed: Of all drawing.
    """

    k: int = 10
    share: float = 0.05
    resamples: int = 1000
    heavy_resamples: int = 100
    draws: int = 200
    splits: int = 5
    permutations: int = 9999
    batches: int = 20
    work: float = 7e10
    level: float = 0.95
    seed: int = 0

    def rng(self, *labels: object) -> np.random.Generator:
        """Chance for one purpose, the same whatever was computed before."""
        name = "\n".join(map(str, labels)).encode()
        number = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
        return np.random.default_rng([self.seed, number])


DEFAULT = Settings()


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: None where it is undefined.
        low: Lower end; None: no interval.
        high: Upper end.
        interval: What varies within the interval: ``facts``, ``batches`` or ``draws``.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    interval: str = ""


RANGES: Mapping[str, tuple[float, float]] = {
    "cosine": (-1.0, 1.0),
    "relative_error": (0.0, float("inf")),
    "norm_ratio": (0.0, float("inf")),
    **dict.fromkeys(ANGLES, (0.0, 90.0)),
    **dict.fromkeys(NEURONS, (0.0, 1.0)),
}
"""Between what a measure lies; only these have intervals."""


def of_draws(drawn: Sequence[Values], settings: Settings) -> dict[str, Estimate]:
    """Mean of each measure over draws, and the range that holds most of them."""
    out = {}
    for name in drawn[0] if drawn else ():
        known = [value for one in drawn if (value := one[name]) is not None]
        out[name] = Estimate(None)
        if known:
            low, high = _quantiles(np.array(known), settings)
            out[name] = Estimate(float(np.mean(known)), low, high, "draws")
    return out


def over_batches(values: Sequence[float], settings: Settings) -> Estimate:
    """Mean over batches, with an interval from drawing batches with replacement."""
    data = np.asarray(values)
    if len(data) < 2:
        return Estimate(float(data[0]))
    rng = settings.rng("batches", len(data))
    drawn = data[rng.integers(0, len(data), (settings.resamples, len(data)))].mean(axis=1)
    low, high = _quantiles(drawn, settings)
    return Estimate(float(data.mean()), low, high, "batches")


def over_facts(
    first: Change, second: Change, values: Values, settings: Settings
) -> dict[str, Estimate]:
    """Intervals from drawing facts anew, each fact with what it adds to both changes.

    A fact drawn twice counts twice. That is reweighting, not editing again, and it stretches the
    measures themselves (a fact drawn twice is alike with itself), so each interval is moved to the
    measure's value: its width is the draws', its place is not.

    Args:
        first: A change.
        second: Another.
        values: Their measures.
        settings: How to draw.
    """
    out = {name: Estimate(value) for name, value in values.items()}
    facts = sorted({*first.facts, *second.facts})
    if not (first.by_fact and second.by_fact) or len(facts) < FEWEST_FACTS:
        return out
    rng = settings.rng("facts", len(facts))
    even = np.full(len(facts), 1 / len(facts))
    weights = rng.multinomial(len(facts), even, size=settings.resamples).astype(np.float64)
    places = {fact: i for i, fact in enumerate(facts)}
    one, other = (np.array([places[fact] for fact in c.facts]) for c in (first, second))
    drawn = _light(first, second, one, other, weights)
    heavy = weights[: settings.heavy_resamples]
    changes = (first, second)

    def pair(w: FloatArray) -> tuple[Change, Change]:
        return _weighted(first, w[one]), _weighted(second, w[other])

    if len(heavy) * sum(map(_work_of_neurons, changes)) <= settings.work:
        drawn |= _by_name([neuron_overlaps(*pair(w), settings.share) for w in heavy])
    enough = len(facts) >= 2 * (values.get("angle_dimensions") or 0.0)
    if enough and len(heavy) * sum(map(_work_of_angles, changes)) <= settings.work:
        drawn |= _by_name([subspace_angles(*pair(w)) for w in heavy])
    for name, numbers in drawn.items():
        known = [number for number in numbers if number is not None]
        value = values[name]
        if known and value is not None:
            out[name] = _moved(value, np.array(known), RANGES[name], settings)
    return out


def _light(
    first: Change, second: Change, one: FloatArray, other: FloatArray, weights: FloatArray
) -> dict[str, Sequence[float | None]]:
    """Measures that are functions of inner products, for each row of weights (draws, facts)."""
    left, right = weights[:, one], weights[:, other]
    across = ((left @ products(first, second)) * right).sum(axis=1)
    norms = [
        np.sqrt(np.maximum(((w @ products(c, c)) * w).sum(axis=1), 0.0))
        for c, w in ((first, left), (second, right))
    ]
    cosines: list[float | None] = []
    errors: list[float | None] = []
    ratios: list[float | None] = []
    for a, b, product in zip(*norms, across, strict=True):
        both = a > 0 and b > 0
        cosines.append(within(product / (a * b), -1.0, 1.0, "a cosine") if both else None)
        errors.append(error_from(a, b, product) if b > 0 else None)
        ratios.append(a / b if b > 0 else None)
    return {"cosine": cosines, "relative_error": errors, "norm_ratio": ratios}


def _weighted(change: Change, weights: FloatArray) -> Change:
    return replace(change, left=change.left * weights)


def _by_name(drawn: Sequence[Values]) -> dict[str, Sequence[float | None]]:
    return {name: [one[name] for one in drawn] for name in (drawn[0] if drawn else ())}


def _work_of_neurons(change: Change) -> float:
    """Floating point operations of a look at each weight, roughly."""
    d, m = change.shape
    return float(2 * d * m * change.left.shape[1])


def _work_of_angles(change: Change) -> float:
    """Floating point operations of a decomposition, roughly."""
    (d, m), count = change.shape, change.left.shape[1]
    return float(4 * (d + m) * count**2 + 22 * min(count, d) ** 3)


def _moved(
    value: float, drawn: FloatArray, limits: tuple[float, float], settings: Settings
) -> Estimate:
    low, high = (end - float(drawn.mean()) + value for end in _quantiles(drawn, settings))
    return Estimate(
        value, max(min(low, value), limits[0]), min(max(high, value), limits[1]), "facts"
    )


def _quantiles(drawn: FloatArray, settings: Settings) -> tuple[float, float]:
    tail = (1 - settings.level) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
