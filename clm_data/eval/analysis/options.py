"""Settings of the analyses: sample sizes, seeds and limits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from clm_data.eval.intervals import Bootstrap


@dataclass(frozen=True)
class GeometryOptions:
    """Settings for comparing weight changes.

    Attributes:
        bootstrap: Resampling of facts or batches; its seed seeds everything random.
        costly_resamples: Resamples for principal angles and neuron overlaps, each of which needs
            a matrix decomposition or a pass over all weights.
        k: Number of leading singular vectors whose subspaces are compared.
        top_share: Share of neurons that count as most changed.
        null_draws: Maximum number of random matrices drawn for a null distribution.
        splits: Number of random splits of a batch into halves.
        permutations: Permutations of a permutation test.
        max_batches: Number of batches analyzed per cell, from the first.
        max_operations: Floating-point operations that one interval or null distribution may take.
            Beyond it, intervals of angles and neuron overlaps are omitted and fewer random
            matrices are drawn.
    """

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    costly_resamples: int = 100
    k: int = 10
    top_share: float = 0.05
    null_draws: int = 200
    splits: int = 5
    permutations: int = 9999
    max_batches: int = 20
    max_operations: float = 7e10

    def rng(self, *purpose: object) -> np.random.Generator:
        """A random generator for one purpose, independent of what was computed before."""
        name = "\n".join(map(str, purpose)).encode()
        number = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
        return np.random.default_rng([self.bootstrap.seed, number])


@dataclass(frozen=True)
class StateOptions:
    """Settings for measuring the states of the unedited model.

    Attributes:
        bootstrap: Resampling of facts; its seed seeds everything random.
        shuffles: Random language swaps for the null distribution, and random splits into halves.
        point_layers: Layers whose MLP outputs are projected to two dimensions; None: the first,
            the middle and the last.
        point_facts: Maximum number of facts projected, from the first.
        classifier_facts: Maximum number of facts for the linear classifiers, from the first.
        classifier_folds: Cross-validation folds of the linear classifiers.
        label_permutations: Classifiers trained on permuted labels.
    """

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    shuffles: int = 200
    point_layers: tuple[int, ...] | None = None
    point_facts: int = 500
    classifier_facts: int = 250
    classifier_folds: int = 5
    label_permutations: int = 3


@dataclass(frozen=True)
class EditedStateOptions:
    """Settings for measuring what edits do to states.

    Attributes:
        bootstrap: Resampling of facts; its seed also draws the listed neurons.
        facts_at_once: Facts whose states are in memory at once.
        tokens_per_batch: Maximum number of tokens per forward pass, padding included.
        top_share: Share of neurons in each set of a Venn diagram.
        listed_neurons: Maximum number of neurons listed one by one per layer.
    """

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    facts_at_once: int = 128
    tokens_per_batch: int = 4096
    top_share: float = 0.05
    listed_neurons: int = 500
