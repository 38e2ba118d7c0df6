"""How far, and along which direction, a model's states tell Chinese from English, by layer.

Numpy alone; formulas are in ``docs/reference/language-vectors.md``. The language vector v
of a layer is the mean Chinese state minus the mean English state of the same facts, made unit.
What is said of single facts uses the vector of all other facts («held out»): a fact that took part
in making the direction lies along it even where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clm_data.eval.analysis.geometry.measures import GeometryError
from clm_data.eval.analysis.language.states import States
from clm_data.eval.errors import EditError
from clm_data.eval.intervals import (
    Bootstrap,
    Interval,
    mean_interval,
    percentile_interval,
    resampled_means,
)

Array = NDArray[np.float64]
Row = dict[str, Any]
Tables = dict[str, list[Row]]
"""Rows of CSV tables by name."""
_NOTHING = 1e-12
"""A sum's squared length below this share of what it could be is zero."""
_SAME = 1e-4
"""Sides this close, by their norm, are one state that was computed twice."""


COLUMNS: dict[str, tuple[str, ...]] = {
    "language_layers": ("model", "part", "layer", "measure", "value", "low", "high", "count"),
    "language_points": ("model", "layer", "method", "id", "lang", "x", "y", "note"),
    "language_refused": ("model", "id", "reason"),
}
"""Columns of each table, for tables without rows."""


@dataclass(frozen=True)
class Options:
    """How the measures are taken.

    Attributes:
        bootstrap: Of intervals over facts; its seed is that of everything drawn.
        shuffles: How often the sides of facts are swapped at random, for what chance gives.
        point_layers: Layers whose MLP outputs are drawn in the plane; None: first, middle, last.
        point_facts: Facts drawn there, at most, the first ones.
        probe_facts: Facts the probe learns from and is tested on, at most, the first ones.
        probe_folds: Parts the facts are divided in; each is tested once.
        probe_shuffles: Probes on permuted labels.
    """

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    shuffles: int = 200
    point_layers: tuple[int, ...] | None = None
    point_facts: int = 500
    probe_facts: int = 250
    probe_folds: int = 5
    probe_shuffles: int = 3


@dataclass(frozen=True)
class Layer:
    """One layer's states of n >= 2 parallel facts, and their language vector.

    Attributes:
        zh: Chinese states, (n, d).
        en: English states, (n, d).
        vector: The language vector, (d,), of length 1.
        held_out: Along the vector of the other facts: places of zh and en, (n, 2).
        gram: Inner products of the facts' zh - en differences, (n, n).
    """

    zh: Array
    en: Array
    vector: Array
    held_out: Array
    gram: Array

    @property
    def bias(self) -> Array:
        """Language bias of each fact: its two sides' distance along the others' vector, (n,)."""
        return np.asarray(self.held_out[:, 0] - self.held_out[:, 1])


def language_vector(zh: ArrayLike, en: ArrayLike) -> Array:
    """Mean zh minus mean en, of length 1: (d,).

    Args:
        zh: (n, d).
        en: The same facts, (n, d).

    Raises:
        EditError: Both means are the same: there is no direction.
    """
    means = [np.asarray(side, dtype=np.float64).mean(0) for side in (zh, en)]
    difference = means[0] - means[1]
    length = float(np.linalg.norm(difference))
    if length == 0:
        raise EditError("the states of both languages have one mean: there is no language vector")
    return np.asarray(difference / length)


def layer_of(zh: ArrayLike, en: ArrayLike) -> Layer:
    """Prepare one layer.

    Args:
        zh: (n, d), n >= 2.
        en: The same facts in the same order.

    Raises:
        EditError: Fewer than two facts, other shapes, or no difference between the languages.
    """
    one, two = np.asarray(zh, dtype=np.float64), np.asarray(en, dtype=np.float64)
    if one.shape != two.shape or one.ndim != 2 or len(one) < 2:
        raise EditError(
            f"states of shapes {one.shape} and {two.shape}: at least two facts are needed, each "
            "in both languages"
        )
    difference = one - two
    gram = difference @ difference.T
    places = [_along_others(side @ difference.T, gram) for side in (one, two)]
    return Layer(one, two, language_vector(one, two), np.stack(places, axis=1), gram)


def _along_others(products: Array, gram: Array) -> Array:
    """Row i of some states along the vector of all facts but i, from inner products (n, n)."""
    sums = gram.sum(1)
    own = np.diagonal(gram)
    lengths = _lengths(sums.sum() - 2 * sums + own, gram)
    inner = products.sum(1) - np.diagonal(products)
    out = np.zeros(len(inner))
    np.divide(inner, lengths, out=out, where=lengths > 0)
    return out


def _lengths(squares: Array, gram: Array) -> Array:
    """Lengths of sums of differences from their squares; 0 where only rounding is left of them."""
    most = float(np.sqrt(np.diagonal(gram)).sum()) ** 2
    return np.sqrt(np.where(squares > _NOTHING * most, squares, 0))


def delta_cosines(layer: Layer, *, held_out: bool = True) -> Array:
    """Cosine of each fact's zh - en difference with the language vector, (n,).

    NaN where a fact has one state in both languages: where its tokens up to the subject are the
    same.

    Args:
        layer: The states.
        held_out: With the vector of the other facts, rather than of all.
    """
    lengths = np.sqrt(np.diagonal(layer.gram))
    along = layer.bias if held_out else (layer.zh - layer.en) @ layer.vector
    out = np.full(len(lengths), np.nan)
    np.divide(along, lengths, out=out, where=~same_sides(layer))
    return in_range(out, -1, 1, "delta cosine")


def same_sides(layer: Layer) -> NDArray[np.bool_]:
    """Facts whose two states are equal up to rounding, (n,)."""
    norms = np.linalg.norm(layer.zh, axis=1)
    return np.asarray(np.sqrt(np.diagonal(layer.gram)) <= _SAME * norms)


def shuffled(layer: Layer, how: Options) -> dict[str, Array]:
    """What three measures are where there is no language: each fact's sides swapped or not by lot.

    Each with the vectors that the swapped facts make.

    Returns:
        By measure: one value a drawing, (shuffles,).
    """
    rng = np.random.default_rng(how.bootstrap.seed)
    gram, own = layer.gram, np.diagonal(layer.gram)
    signs = rng.choice((-1.0, 1.0), (how.shuffles, len(gram)))
    inner = signs * (signs @ gram)
    squares = inner.sum(1, keepdims=True)
    lengths = _lengths(squares, gram)
    others = _lengths(squares - 2 * inner + own, gram)
    known = ~same_sides(layer)
    sizes = np.sqrt(own)
    return {
        "projection_difference": lengths[:, 0] / len(gram),
        "delta_cosine": _mean_cosine(inner, lengths * sizes, known),
        "delta_cosine_held_out": _mean_cosine(inner - own, others * sizes, known),
    }


def _mean_cosine(inner: Array, scale: Array, known: NDArray[np.bool_]) -> Array:
    """Mean over known facts of inner products (k, n) over lengths; a vector of no length: 0."""
    cosines = np.zeros(inner.shape)
    np.divide(inner, scale, out=cosines, where=(scale > 0) & known)
    return in_range(cosines.sum(1) / max(1, int(known.sum())), -1, 1, "delta cosine")


def correlation(one: ArrayLike, two: ArrayLike, how: Bootstrap) -> Interval | None:
    """Pearson's correlation over facts with its bootstrap interval; None where it is undefined.

    Args:
        one: (n,).
        two: Of the same facts.
        how: Facts are drawn with both values.
    """
    data = np.stack([np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)])
    spread = data.std(axis=1)
    centre = data.mean(axis=1)
    if data.shape[1] < 3 or bool((spread <= 1e-12 * (np.abs(centre) + spread)).any()):
        return None
    x, y = (data - centre[:, None]) / spread[:, None]
    moments = np.stack([x, y, x * x, y * y, x * y], axis=1)
    value = float(in_range(np.array((x * y).mean()), -1, 1, "correlation"))
    drawn = resampled_means(moments, how)
    scale = _variance(drawn[:, 0], drawn[:, 2]) * _variance(drawn[:, 1], drawn[:, 3])
    known = scale > 1e-12
    ratios = (drawn[:, 4] - drawn[:, 0] * drawn[:, 1])[known] / np.sqrt(scale[known])
    return percentile_interval(value, in_range(ratios, -1, 1, "correlation"), data.shape[1], how)


def separation(layer: Layer, how: Bootstrap) -> Interval | None:
    """Distance of the languages along the held-out vectors in pooled standard deviations (d')."""
    places = layer.held_out - layer.held_out.mean()
    moments = np.concatenate([places, places**2], axis=1)
    value = _separation(moments.mean(0, keepdims=True))
    drawn = _separation(resampled_means(moments, how))
    return percentile_interval(float(value[0]), drawn, len(places), how) if len(value) else None


def _separation(moments: Array) -> Array:
    """From means (k, 4) of two places and their squares; without those that do not vary."""
    pooled = (_variance(moments[:, 0], moments[:, 2]) + _variance(moments[:, 1], moments[:, 3])) / 2
    known = pooled > 1e-12 * moments[:, 2:].mean(axis=1)
    return np.asarray((moments[:, 0] - moments[:, 1])[known] / np.sqrt(pooled[known]))


def _variance(mean: Array, square: Array) -> Array:
    return np.asarray(np.maximum(square - mean**2, 0))


def split_half_cosine(layer: Layer, how: Options) -> Array:
    """Cosine of the language vectors of two random halves of the facts, by split: (shuffles,)."""
    rng = np.random.default_rng(how.bootstrap.seed)
    count = len(layer.gram)
    halves = np.zeros((how.shuffles, count))
    for row in halves:
        row[rng.permutation(count)[: count // 2]] = 1
    one, two = halves @ layer.gram, (1 - halves) @ layer.gram
    inner = (one * (1 - halves)).sum(1)
    sums = ((one * halves).sum(1), (two * (1 - halves)).sum(1))
    scale = _lengths(sums[0], layer.gram) * _lengths(sums[1], layer.gram)
    return in_range(inner[scale > 0] / scale[scale > 0], -1, 1, "split-half cosine")


def in_range(values: Array, low: float, high: float, what: str) -> Array:
    """The values, with rounding beyond the range cut off; NaN passes.

    Raises:
        GeometryError: A value is outside its mathematical range by more than rounding.
    """
    slack = 1e-6 * (high - low)
    if bool((values < low - slack).any() or (values > high + slack).any()):
        raise GeometryError(f"{what} is not from {low:g} to {high:g}: {values}")
    return np.asarray(np.clip(values, low, high))


def measures(layer: Layer, how: Options) -> Iterator[tuple[str, Interval | None]]:
    """Every measure of one layer, by name."""
    boot = how.bootstrap
    along = np.stack([layer.zh @ layer.vector, layer.en @ layer.vector], axis=1)
    difference = along[:, 0] - along[:, 1]
    sizes = (np.linalg.norm(layer.zh, axis=1) + np.linalg.norm(layer.en, axis=1)) / 2
    yield "projection_zh", mean_of(along[:, 0], boot)
    yield "projection_en", mean_of(along[:, 1], boot)
    yield "projection_difference", mean_of(difference, boot)
    yield "projection_difference_relative", mean_of(difference / sizes.mean(), boot)
    yield "projection_difference_held_out", mean_of(layer.bias, boot)
    yield "separation", separation(layer, boot)
    yield "delta_cosine", mean_of(delta_cosines(layer, held_out=False), boot)
    yield "delta_cosine_held_out", mean_of(delta_cosines(layer), boot)
    for name, drawn in shuffled(layer, how).items():
        yield f"{name}_shuffled", spread_of(drawn, boot)
    yield "bias_correlation", correlation(layer.held_out[:, 0], layer.held_out[:, 1], boot)
    yield "split_half_cosine", spread_of(split_half_cosine(layer, how), boot)
    same = float(same_sides(layer).sum())
    yield "same_in_both_languages", Interval(same, same, same, len(layer.zh))


def mean_of(values: Array, how: Bootstrap) -> Interval | None:
    """Mean of the values that are known, with its bootstrap interval."""
    return mean_interval(values[~np.isnan(values)].tolist(), how)


def spread_of(values: Array, how: Bootstrap) -> Interval | None:
    """Mean of drawn values, and the range that holds ``how.level`` of them."""
    return (
        percentile_interval(float(values.mean()), values, len(values), how) if len(values) else None
    )


def analyse(states: States, how: Options = Options()) -> Tables:
    """Everything that the unedited states say.

    Returns:
        The tables of ``COLUMNS``, as in ``docs/reference/language-vectors.md``.

    Raises:
        EditError: Fewer than two facts, or a layer without any difference.
        MissingExtraError: scikit-learn is not installed.
    """
    from clm_data.eval.analysis.language.linear_classifiers import probe_layers
    from clm_data.eval.analysis.language.projection import draw_points

    rows: list[Row] = []
    for part, by_layer in (("hidden", states.zh.hidden), ("mlp", states.zh.mlp)):
        before: Array | None = None
        for number in sorted(by_layer):
            layer = layer_of(by_layer[number], getattr(states.en, part)[number])
            found = list(measures(layer, how))
            if before is not None:
                cosine = float(in_range(np.array(before @ layer.vector), -1, 1, "vector cosine"))
                found.append(
                    ("vector_cosine_below", Interval(cosine, cosine, cosine, len(layer.zh)))
                )
            before = layer.vector
            rows += as_rows(found, {"model": states.model, "part": part, "layer": number})
    rows += probe_layers(states, how)
    points, shares = draw_points(states, how)
    refused = [{"model": states.model, **vars(one)} for one in states.refused]
    return {
        "language_layers": rows + shares,
        "language_points": points,
        "language_refused": refused,
    }


def as_rows(found: Sequence[tuple[str, Interval | None]], about: Row) -> list[Row]:
    """Rows of named values; those without a value are left out."""
    return [
        {**about, "measure": name, "value": m.mean, "low": m.low, "high": m.high, "count": m.count}
        for name, m in found
        if m is not None
    ]
