"""Language vectors: how far and in which direction a layer separates Chinese from English.

The language vector v of a layer is the mean Chinese state minus the mean English state of the same
facts, scaled to length 1. Measures of single facts use the vector of all other facts ("held out"),
because a fact that contributes to the vector is aligned with it even if there is no common
direction. Formulas are in ``docs/reference/language-vectors.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.language.estimates import (
    correlation,
    exact,
    mean_of_known,
    range_of_draws,
    variance,
)
from clm_data.eval.analysis.options import StateOptions
from clm_data.eval.errors import EditError
from clm_data.eval.intervals import (
    Bootstrap,
    FloatArray,
    Interval,
    percentile_interval,
    resampled_means,
)

_CANCELED = 1e-12
"""The squared norm of a sum counts as zero below this share of its largest possible value."""
_SAME = 1e-4
"""Two states whose distance is below this share of their norm come from the same tokens."""
_CONSTANT = 1e-12
"""A variance below this share of the mean square counts as zero."""


@dataclass(frozen=True)
class ParallelLayer:
    """States of n >= 2 parallel facts at one layer, and their language vector.

    Attributes:
        zh: Chinese states, shape (n, d).
        en: English states, shape (n, d).
        vector: The language vector, length 1, shape (d,).
        held_out: Projections of the Chinese and the English state of each fact on the language
            vector of all other facts, shape (n, 2).
        gram: Inner products between the differences zh - en of the facts, shape (n, n).
    """

    zh: FloatArray
    en: FloatArray
    vector: FloatArray
    held_out: FloatArray
    gram: FloatArray

    @property
    def bias(self) -> FloatArray:
        """Language bias: the held-out projection of each fact's difference zh - en, shape (n,)."""
        return np.asarray(self.held_out[:, 0] - self.held_out[:, 1])

    @property
    def same(self) -> NDArray[np.bool_]:
        """Facts whose two states are equal up to rounding, shape (n,)."""
        norms = np.linalg.norm(self.zh, axis=1)
        return np.asarray(np.sqrt(np.diagonal(self.gram)) <= _SAME * norms)


def parallel_layer(zh: ArrayLike, en: ArrayLike) -> ParallelLayer:
    """Compute the language vector of one layer and the held-out projections.

    Args:
        zh: Chinese states, shape (n, d) with n >= 2.
        en: English states of the same facts in the same order, shape (n, d).

    Raises:
        EditError: There are fewer than two facts, the shapes differ, or both languages have the
            same mean.
    """
    zh_states, en_states = np.asarray(zh, dtype=np.float64), np.asarray(en, dtype=np.float64)
    if zh_states.shape != en_states.shape or zh_states.ndim != 2 or len(zh_states) < 2:
        raise EditError(
            f"states of shapes {zh_states.shape} and {en_states.shape}: at least two facts are "
            "needed, each in both languages"
        )
    difference = zh_states - en_states
    gram = difference @ difference.T
    projections = [_on_others(side @ difference.T, gram) for side in (zh_states, en_states)]
    vector = language_vector(zh_states, en_states)
    return ParallelLayer(zh_states, en_states, vector, np.stack(projections, axis=1), gram)


def language_vector(zh: ArrayLike, en: ArrayLike) -> FloatArray:
    """Mean Chinese minus mean English state, scaled to length 1, shape (d,).

    Args:
        zh: Chinese states, shape (n, d).
        en: English states of the same facts, shape (n, d).

    Raises:
        EditError: Both means are equal, so there is no direction.
    """
    means = [np.asarray(side, dtype=np.float64).mean(0) for side in (zh, en)]
    difference = means[0] - means[1]
    length = float(np.linalg.norm(difference))
    if length == 0:
        raise EditError("the mean states of both languages are equal: there is no language vector")
    return np.asarray(difference / length)


def _on_others(products: FloatArray, gram: FloatArray) -> FloatArray:
    """Projection of state i on the language vector of all facts but i, shape (n,).

    Args:
        products: Inner products of the states with the facts' differences, shape (n, n).
        gram: Inner products between the differences, shape (n, n).
    """
    sums = gram.sum(1)
    own = np.diagonal(gram)
    lengths = _lengths(sums.sum() - 2 * sums + own, gram)
    inner = products.sum(1) - np.diagonal(products)
    out = np.zeros(len(inner))
    np.divide(inner, lengths, out=out, where=lengths > 0)
    return out


def _lengths(squares: FloatArray, gram: FloatArray) -> FloatArray:
    """Lengths of sums of differences from their squares; 0 if only rounding is left."""
    largest = float(np.sqrt(np.diagonal(gram)).sum()) ** 2
    return np.sqrt(np.where(squares > _CANCELED * largest, squares, 0))


def delta_cosines(layer: ParallelLayer, *, held_out: bool = True) -> FloatArray:
    """Cosine between each fact's difference zh - en and the language vector, shape (n,).

    NaN for facts with the same state in both languages, whose tokens up to the subject are equal.

    Args:
        layer: The states.
        held_out: Use the vector of all other facts instead of the vector of all facts.
    """
    lengths = np.sqrt(np.diagonal(layer.gram))
    along = layer.bias if held_out else (layer.zh - layer.en) @ layer.vector
    out = np.full(len(lengths), np.nan)
    np.divide(along, lengths, out=out, where=~layer.same)
    return in_range(out, -1, 1, "delta cosine", allow_nan=True)


def shuffled(layer: ParallelLayer, options: StateOptions) -> dict[str, FloatArray]:
    """Null distribution of three measures: the languages of each fact are swapped at random.

    The language vector is computed again from the swapped facts.

    Returns:
        Values by measure, shape (shuffles,).
    """
    rng = np.random.default_rng(options.bootstrap.seed)
    gram, own = layer.gram, np.diagonal(layer.gram)
    signs = rng.choice((-1.0, 1.0), (options.shuffles, len(gram)))
    inner = signs * (signs @ gram)
    squares = inner.sum(1, keepdims=True)
    lengths = _lengths(squares, gram)
    lengths_of_others = _lengths(squares - 2 * inner + own, gram)
    sizes = np.sqrt(own)
    return {
        "projection_difference": lengths[:, 0] / len(gram),
        "delta_cosine": _mean_cosines(inner, lengths * sizes, ~layer.same),
        "delta_cosine_held_out": _mean_cosines(inner - own, lengths_of_others * sizes, ~layer.same),
    }


def _mean_cosines(inner: FloatArray, scale: FloatArray, known: NDArray[np.bool_]) -> FloatArray:
    """Mean cosine over the known facts, shape (k,), from inner products and norms (k, n)."""
    cosines = np.zeros(inner.shape)
    np.divide(inner, scale, out=cosines, where=(scale > 0) & known)
    return in_range(cosines.sum(1) / max(1, int(known.sum())), -1, 1, "delta cosine")


def separation(layer: ParallelLayer, bootstrap: Bootstrap) -> Interval | None:
    """Difference between the languages' mean held-out projections in pooled deviations (d')."""
    projections = layer.held_out - layer.held_out.mean()
    moments = np.concatenate([projections, projections**2], axis=1)
    value = _separations(moments.mean(0, keepdims=True))
    if not len(value):
        return None
    resampled = _separations(resampled_means(moments, bootstrap))
    return percentile_interval(float(value[0]), resampled, len(projections), bootstrap)


def _separations(moments: FloatArray) -> FloatArray:
    """From the means of two projections and of their squares (k, 4); constant ones are left out."""
    variances = [variance(moments[:, i], moments[:, i + 2]) for i in (0, 1)]
    pooled = (variances[0] + variances[1]) / 2
    known = pooled > _CONSTANT * moments[:, 2:].mean(axis=1)
    return np.asarray((moments[:, 0] - moments[:, 1])[known] / np.sqrt(pooled[known]))


def split_half_cosine(layer: ParallelLayer, options: StateOptions) -> FloatArray:
    """Cosine between the language vectors of two random halves of the facts, shape (shuffles,)."""
    rng = np.random.default_rng(options.bootstrap.seed)
    count = len(layer.gram)
    halves = np.zeros((options.shuffles, count))
    for row in halves:
        row[rng.permutation(count)[: count // 2]] = 1
    first, second = halves @ layer.gram, (1 - halves) @ layer.gram
    inner = (first * (1 - halves)).sum(1)
    squares = ((first * halves).sum(1), (second * (1 - halves)).sum(1))
    scale = _lengths(squares[0], layer.gram) * _lengths(squares[1], layer.gram)
    return in_range(inner[scale > 0] / scale[scale > 0], -1, 1, "split-half cosine")


def layer_measures(
    layer: ParallelLayer, options: StateOptions
) -> Iterator[tuple[str, Interval | None]]:
    """Every measure of one layer as (name, value); None if it is undefined."""
    bootstrap = options.bootstrap
    zh, en = layer.zh @ layer.vector, layer.en @ layer.vector
    norms = (np.linalg.norm(layer.zh, axis=1) + np.linalg.norm(layer.en, axis=1)) / 2
    yield "projection_zh", mean_of_known(zh, bootstrap)
    yield "projection_en", mean_of_known(en, bootstrap)
    yield "projection_difference", mean_of_known(zh - en, bootstrap)
    yield "projection_difference_relative", mean_of_known((zh - en) / norms.mean(), bootstrap)
    yield "projection_difference_held_out", mean_of_known(layer.bias, bootstrap)
    yield "separation", separation(layer, bootstrap)
    yield "delta_cosine", mean_of_known(delta_cosines(layer, held_out=False), bootstrap)
    yield "delta_cosine_held_out", mean_of_known(delta_cosines(layer), bootstrap)
    for name, drawn in shuffled(layer, options).items():
        yield f"{name}_shuffled", range_of_draws(drawn, bootstrap)
    yield "bias_correlation", correlation(layer.held_out[:, 0], layer.held_out[:, 1], bootstrap)
    yield "split_half_cosine", range_of_draws(split_half_cosine(layer, options), bootstrap)
    yield "same_in_both_languages", exact(float(layer.same.sum()), len(layer.zh))
