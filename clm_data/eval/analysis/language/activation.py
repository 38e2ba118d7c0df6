"""What an edit changes in the states of a layer, as arrays; see docs/reference/language-vectors.md.

Facts are added in parts, and only sums and a few numbers per fact are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.language.estimates import correlation, mean_of_known
from clm_data.eval.intervals import Bootstrap, FloatArray, Interval

Name = TypeVar("Name")
_FACT_MEASURES = ("relative_error", "cosine", "actual_change", "expected_change")


@dataclass
class ActivationChanges:
    """Changes of one layer's MLP outputs for prompts in one language, summed over facts.

    The actual change is measured in the edited model; the expected change is the weight change
    times the unedited model's key.

    Attributes:
        actual: Sum of the actual changes, shape (d,).
        expected: Sum of the expected changes, shape (d,).
        absolute_actual: Sum of the absolute values of the actual changes, shape (d,).
        absolute_expected: Sum of the absolute values of the expected changes, shape (d,).
        facts: For each fact: relative error, cosine, relative size of the actual and of the
            expected change, shape (4,); NaN if undefined.
    """

    actual: FloatArray = field(default_factory=lambda: np.zeros(()))
    expected: FloatArray = field(default_factory=lambda: np.zeros(()))
    absolute_actual: FloatArray = field(default_factory=lambda: np.zeros(()))
    absolute_expected: FloatArray = field(default_factory=lambda: np.zeros(()))
    facts: list[FloatArray] = field(default_factory=list)

    def add(self, before: ArrayLike, after: ArrayLike, expected: ArrayLike) -> None:
        """Add some facts.

        Args:
            before: MLP outputs of the unedited model, shape (n, d).
            after: MLP outputs of the edited model, shape (n, d).
            expected: Expected changes, shape (n, d).
        """
        outputs = np.asarray(before, dtype=np.float64)
        actual = np.asarray(after, dtype=np.float64) - outputs
        wanted = np.asarray(expected, dtype=np.float64)
        self.actual = self.actual + actual.sum(0)
        self.expected = self.expected + wanted.sum(0)
        self.absolute_actual = self.absolute_actual + np.abs(actual).sum(0)
        self.absolute_expected = self.absolute_expected + np.abs(wanted).sum(0)
        norms = [np.linalg.norm(one, axis=1) for one in (actual, wanted, outputs)]
        cosines = _ratio((actual * wanted).sum(1), norms[0] * norms[1])
        columns = [
            _ratio(np.linalg.norm(actual - wanted, axis=1), norms[1]),
            in_range(cosines, -1, 1, "cosine of activation changes", allow_nan=True),
            _ratio(norms[0], norms[2]),
            _ratio(norms[1], norms[2]),
        ]
        self.facts.extend(np.stack(columns, axis=1))

    def mean(self, kind: str) -> FloatArray:
        """Mean change of each neuron, shape (d,); ``kind`` is ``actual`` or ``expected``."""
        return np.asarray((self.actual if kind == "actual" else self.expected) / len(self.facts))

    def mean_absolute(self, kind: str) -> FloatArray:
        """Mean absolute change of each neuron, shape (d,); ``kind`` as in :meth:`mean`."""
        sums = self.absolute_actual if kind == "actual" else self.absolute_expected
        return np.asarray(sums / len(self.facts))

    def measures(self, bootstrap: Bootstrap) -> Iterator[tuple[str, Interval | None]]:
        """Means over facts with intervals, and the correlation over neurons, as (name, value)."""
        table = np.stack(self.facts)
        for column, name in enumerate(_FACT_MEASURES):
            yield name, mean_of_known(table[:, column], bootstrap)
        without_interval = Bootstrap(resamples=0)
        over_neurons = correlation(self.mean("actual"), self.mean("expected"), without_interval)
        yield "neuron_correlation", over_neurons


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Elementwise ratio, shape (n,); NaN if the denominator is 0."""
    out = np.full(len(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def relative_change(before: ArrayLike, after: ArrayLike) -> FloatArray:
    """Norm of each state's change over the norm of the state, shape (n,), from states (n, d)."""
    states = np.asarray(before, dtype=np.float64)
    change = np.linalg.norm(np.asarray(after, dtype=np.float64) - states, axis=1)
    return _ratio(change, np.linalg.norm(states, axis=1))


def selectivity(own: ArrayLike, other: ArrayLike) -> FloatArray:
    """How much more an edit changes states in its own language: (own - other) / (own + other).

    1 if only the own language changes, 0 if both change equally, -1 if only the other language
    changes, and NaN if neither does.

    Args:
        own: Relative change of each fact's state in the editing language, shape (n,).
        other: Relative change in the other language, shape (n,).
    """
    first, second = np.asarray(own, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return in_range(_ratio(first - second, first + second), -1, 1, "selectivity", allow_nan=True)


def quantiles(values: ArrayLike, steps: int = 50) -> list[tuple[float, float]]:
    """The empirical cumulative distribution as (share, value) at 0, 1/steps, ..., 1.

    Args:
        values: Shape (n,).
        steps: Number of equal steps of the share.
    """
    shares = np.linspace(0, 1, steps + 1)
    found = np.quantile(np.asarray(values, dtype=np.float64), shares)
    return list(zip(shares.tolist(), found.tolist(), strict=True))


def histograms(
    values: Mapping[Name, ArrayLike], bins: int = 61
) -> Iterator[tuple[Name, float, float, int]]:
    """Counts of several sets of values in common bins, as (name, low, high, count).

    The bins are symmetric around 0 and reach to the largest absolute value of all sets; without
    negative values they start at 0. With an odd number of bins, 0 is in the middle of one.
    """
    sets = {name: np.asarray(one, dtype=np.float64) for name, one in values.items()}
    largest = max(float(np.abs(one).max()) for one in sets.values()) or 1.0
    lowest = -largest if any(bool((one < 0).any()) for one in sets.values()) else 0.0
    edges = np.linspace(lowest, largest, bins + 1)
    for name, one in sets.items():
        counts, _ = np.histogram(one, edges)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            yield name, float(low), float(high), int(count)


def venn_regions(sets: Mapping[str, set[int]], total: int) -> Iterator[tuple[str, int, float]]:
    """Counts in every region of a Venn diagram, as (region, count, expected count).

    A region such as ``zh+mix`` contains what is in all the sets it names and in no other. The
    expected count is that of independent random sets of the same sizes.

    Args:
        sets: Sets by name; regions name them in this order.
        total: Size of the population that the sets are drawn from.
    """
    for size in range(1, len(sets) + 1):
        for inside in combinations(sets, size):
            outside = [sets[name] for name in sets if name not in inside]
            common = set.intersection(*(sets[name] for name in inside))
            expected = float(total)
            for name, one in sets.items():
                share = len(one) / total
                expected *= share if name in inside else 1 - share
            yield "+".join(inside), len(common.difference(*outside)), expected
