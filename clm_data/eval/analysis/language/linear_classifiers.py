"""A linear probe: how well one cut through the states tells the language of a fact it never saw."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clm_data.errors import MissingExtraError
from clm_data.eval.analysis.language.states import States
from clm_data.eval.analysis.language.vectors import (
    Array,
    Options,
    Row,
    as_rows,
    mean_of,
)
from clm_data.eval.intervals import Interval

Labels = NDArray[np.int64]


def probe_layers(states: States, how: Options) -> list[Row]:
    """Probe accuracy of the hidden states by layer, with what permuted labels and a guess give.

    Returns:
        Rows of ``language_layers``: ``probe_accuracy``, ``probe_permuted``, ``probe_majority``.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    rows: list[Row] = []
    for number in sorted(states.layers):
        zh = states.zh.hidden[number][: how.probe_facts]
        en = states.en.hidden[number][: how.probe_facts]
        about = {"model": states.model, "part": "hidden", "layer": number}
        found = [
            ("probe_accuracy", mean_of(accuracies(zh, en, how), how.bootstrap)),
            ("probe_permuted", mean_of(_permuted(zh, en, how), how.bootstrap)),
            ("probe_majority", Interval(0.5, 0.5, 0.5, len(zh))),
        ]
        rows += as_rows(found, about)
    return rows


def accuracies(zh: ArrayLike, en: ArrayLike, how: Options, labels: Labels | None = None) -> Array:
    """Share of a fact's two sides whose label a probe finds that has not seen the fact: (n,).

    Logistic regression (L2, C = 1) on features of mean 0 and variance 1, both from the training
    folds; both sides of a fact are in one fold, so that nothing but the language tells them apart.

    Args:
        zh: (n, d), n >= 2.
        en: The same facts, (n, d).
        how: Folds, and the seed of their drawing.
        labels: 1 or 0 of the zh side by fact, the en side has the other one; None: 1 for all.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "eval") from error
    sides = np.stack([np.asarray(zh, dtype=np.float64), np.asarray(en, dtype=np.float64)], axis=1)
    count = len(sides)
    known = np.ones(count, dtype=np.int64) if labels is None else labels
    wanted = np.stack([known, 1 - known], axis=1)
    folds = np.random.default_rng(how.bootstrap.seed).permutation(count) % min(
        how.probe_folds, count
    )
    out = np.empty(count)
    for fold in range(folds.max() + 1):
        test = folds == fold
        train, target = sides[~test].reshape(-1, sides.shape[2]), wanted[~test].ravel()
        mean, spread = train.mean(0), train.std(0)
        spread[spread == 0] = 1
        model = LogisticRegression(max_iter=1000).fit((train - mean) / spread, target)
        asked = (sides[test].reshape(-1, sides.shape[2]) - mean) / spread
        right = model.predict(asked) == wanted[test].ravel()
        out[test] = right.reshape(-1, 2).mean(1)
    return out


def _permuted(zh: ArrayLike, en: ArrayLike, how: Options) -> Array:
    """Accuracy by fact, mean over probes that learnt labels swapped within facts by chance."""
    count = len(np.asarray(zh))
    rng = np.random.default_rng(how.bootstrap.seed + 1)
    drawn = [rng.integers(0, 2, count) for _ in range(how.probe_shuffles)]
    if not drawn:
        return np.empty(0)
    return np.asarray(np.mean([accuracies(zh, en, how, labels) for labels in drawn], axis=0))
