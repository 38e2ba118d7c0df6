"""Linear classifiers that predict the language of a state, tested on facts they have not seen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clm_data.errors import MissingExtraError
from clm_data.eval.analysis.language.estimates import exact, mean_of_known
from clm_data.eval.analysis.language.states import ParallelStates
from clm_data.eval.analysis.options import StateOptions
from clm_data.eval.intervals import FloatArray, Interval

IntArray = NDArray[np.int64]


def classifier_measures(
    states: ParallelStates, layer: int, options: StateOptions
) -> Iterator[tuple[str, Interval | None]]:
    """Accuracy of a classifier on the hidden states of a layer, and two baselines.

    Yields:
        ``classifier_accuracy``; ``classifier_permuted`` (labels swapped at random within facts);
        ``classifier_majority`` (always one language: 0.5).

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    zh = states.zh.hidden[layer][: options.classifier_facts]
    en = states.en.hidden[layer][: options.classifier_facts]
    accuracy = held_out_accuracies(zh, en, options)
    permuted = _permuted_accuracies(zh, en, options)
    yield "classifier_accuracy", mean_of_known(accuracy, options.bootstrap)
    yield "classifier_permuted", mean_of_known(permuted, options.bootstrap)
    yield "classifier_majority", exact(0.5, len(zh))


def held_out_accuracies(
    zh: ArrayLike, en: ArrayLike, options: StateOptions, labels: IntArray | None = None
) -> FloatArray:
    """Accuracy on the two states of each fact, by cross-validation over facts, shape (n,).

    Logistic regression (L2, C = 1) on features that are standardized with the mean and standard
    deviation of the training folds. Both states of a fact are in the same fold, so that only their
    language tells them apart.

    Args:
        zh: Chinese states, shape (n, d) with n >= 2.
        en: English states of the same facts, shape (n, d).
        options: Number of folds and random seed.
        labels: Label 0 or 1 of each fact's Chinese state, shape (n,); its English state has the
            other one. Defaults to 1.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "eval") from error
    states = np.stack([np.asarray(side, dtype=np.float64) for side in (zh, en)], axis=1)
    count, _, width = states.shape
    zh_labels = np.ones(count, dtype=np.int64) if labels is None else labels
    targets = np.stack([zh_labels, 1 - zh_labels], axis=1)
    order = np.random.default_rng(options.bootstrap.seed).permutation(count)
    folds = order % min(options.classifier_folds, count)
    out = np.empty(count)
    for fold in range(folds.max() + 1):
        test = folds == fold
        train = states[~test].reshape(-1, width)
        mean, deviation = train.mean(0), train.std(0)
        deviation[deviation == 0] = 1
        model = LogisticRegression(max_iter=1000)
        model.fit((train - mean) / deviation, targets[~test].ravel())
        predicted = model.predict((states[test].reshape(-1, width) - mean) / deviation)
        out[test] = (predicted == targets[test].ravel()).reshape(-1, 2).mean(1)
    return out


def _permuted_accuracies(zh: ArrayLike, en: ArrayLike, options: StateOptions) -> FloatArray:
    """Accuracy by fact, the mean over classifiers trained on randomly permuted labels."""
    count = len(np.asarray(zh))
    rng = np.random.default_rng(options.bootstrap.seed + 1)
    drawn = [rng.integers(0, 2, count) for _ in range(options.label_permutations)]
    if not drawn:
        return np.empty(0)
    accuracies = [held_out_accuracies(zh, en, options, labels) for labels in drawn]
    return np.asarray(np.mean(accuracies, axis=0))
