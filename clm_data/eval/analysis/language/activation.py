"""What an edit does to states: neuron by neuron, actual against expected, language by language.

Numpy alone; the formulas are in ``docs/reference/language-vectors.md``.
Changes come in fact by fact or in
parts, sums and one number a fact stay, so that any number of facts can be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from clm_data.eval.analysis.language.vectors import Array, correlation, in_range, mean_of
from clm_data.eval.intervals import Bootstrap, Interval

Name = TypeVar("Name")


@dataclass
class Changes:
    """Changes of one layer's MLP outputs under an edit, seen from one language.

    Attributes:
        actual: Sum of the measured changes over facts, (d,).
        expected: Sum of the changes that the weight change alone makes, (d,).
        actual_size: Sum of the measured changes' absolute values, (d,).
        expected_size: The same of the expected ones, (d,).
        facts: One row a fact: relative error, cosine, relative size actual and expected; NaN where
            undefined.
    """

    actual: Array = field(default_factory=lambda: np.zeros(()))
    expected: Array = field(default_factory=lambda: np.zeros(()))
    actual_size: Array = field(default_factory=lambda: np.zeros(()))
    expected_size: Array = field(default_factory=lambda: np.zeros(()))
    facts: list[Array] = field(default_factory=list)

    def add(self, before: ArrayLike, after: ArrayLike, expected: ArrayLike) -> None:
        """Take in some facts.

        Args:
            before: MLP outputs of the unedited model, (n, d).
            after: Of the edited one.
            expected: Weight change times the unedited model's keys, (n, d).
        """
        old = np.asarray(before, dtype=np.float64)
        actual = np.asarray(after, dtype=np.float64) - old
        wanted = np.asarray(expected, dtype=np.float64)
        self.actual = self.actual + actual.sum(0)
        self.expected = self.expected + wanted.sum(0)
        self.actual_size = self.actual_size + np.abs(actual).sum(0)
        self.expected_size = self.expected_size + np.abs(wanted).sum(0)
        sizes = [np.linalg.norm(one, axis=1) for one in (actual, wanted, old)]
        columns = [
            _ratio(np.linalg.norm(actual - wanted, axis=1), sizes[1]),
            in_range(_ratio((actual * wanted).sum(1), sizes[0] * sizes[1]), -1, 1, "cosine"),
            _ratio(sizes[0], sizes[2]),
            _ratio(sizes[1], sizes[2]),
        ]
        self.facts.extend(np.stack(columns, axis=1))

    def mean(self, kind: str) -> Array:
        """Mean change by neuron, with its sign: ``actual`` or ``expected``, (d,)."""
        return np.asarray((self.actual if kind == "actual" else self.expected) / len(self.facts))

    def size(self, kind: str) -> Array:
        """Mean absolute change by neuron: ``actual`` or ``expected``, (d,)."""
        sums = self.actual_size if kind == "actual" else self.expected_size
        return np.asarray(sums / len(self.facts))

    def measures(self, how: Bootstrap) -> Iterator[tuple[str, Interval | None]]:
        """What is said of facts, with intervals over them, and of neurons."""
        table = np.stack(self.facts)
        for column, name in enumerate(_OF_FACTS):
            yield name, mean_of(table[:, column], how)
        across = correlation(self.mean("actual"), self.mean("expected"), Bootstrap(resamples=0))
        yield "neuron_correlation", across


_OF_FACTS = ("relative_error", "cosine", "actual_change", "expected_change")


def _ratio(above: Array, below: Array) -> Array:
    out = np.full(len(above), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def selectivity(own: ArrayLike, other: ArrayLike) -> Array:
    """How much more an edit changes its own language's states: (own - other) / (own + other).

    1: only its own; 0: both alike; -1: only the other's; NaN where neither changes.

    Args:
        own: Relative change of each fact's state in the edited language, (n,).
        other: In the other language.
    """
    one, two = np.asarray(own, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return in_range(_ratio(one - two, one + two), -1, 1, "selectivity")


def relative_change(before: ArrayLike, after: ArrayLike) -> Array:
    """Length of each state's change over the state's own: (n,) from (n, d) and (n, d)."""
    old = np.asarray(before, dtype=np.float64)
    changed = np.linalg.norm(np.asarray(after, dtype=np.float64) - old, axis=1)
    return _ratio(changed, np.linalg.norm(old, axis=1))


def cumulative(values: ArrayLike, steps: int = 50) -> list[tuple[float, float]]:
    """The empirical distribution: for 0, 1/steps ... 1, the value that this share stays under."""
    shares = np.linspace(0, 1, steps + 1)
    found = np.quantile(np.asarray(values, dtype=np.float64), shares)
    return list(zip(shares.tolist(), found.tolist(), strict=True))


def histograms(
    values: Mapping[Name, ArrayLike], bins: int = 61
) -> Iterator[tuple[Name, float, float, int]]:
    """Counts of several sets in common bins, as (name, low, high, count).

    The bins reach as far as the largest absolute value of any set, on both sides of 0 (with an odd
    number of them 0 is in a bin's middle), or from 0 where no value is negative.
    """
    sets = {name: np.asarray(one, dtype=np.float64) for name, one in values.items()}
    reach = max(float(np.abs(one).max()) for one in sets.values()) or 1.0
    lowest = -reach if any(bool((one < 0).any()) for one in sets.values()) else 0.0
    edges = np.linspace(lowest, reach, bins + 1)
    for name, one in sets.items():
        counts, _ = np.histogram(one, edges)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            yield name, float(low), float(high), int(count)


def venn(sets: Mapping[str, set[int]], total: int) -> Iterator[tuple[str, int, float]]:
    """Counts of every region of a Venn diagram, as (region, count, count by chance).

    A region holds what is in all the sets it names («zh+mix») and in no other. By chance: sets of
    the same sizes, drawn independently.

    Args:
        sets: By name; regions name them in this order.
        total: How many there are to draw from.
    """
    for size in range(1, len(sets) + 1):
        for inside in combinations(sets, size):
            outside = [sets[name] for name in sets if name not in inside]
            common = set.intersection(*(sets[name] for name in inside))
            chance = float(total)
            for name, one in sets.items():
                share = len(one) / total
                chance *= share if name in inside else 1 - share
            yield "+".join(inside), len(common.difference(*outside)), chance
