"""MLP outputs of both languages as points in the plane: PCA, t-SNE, and UMAP where installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clm_data.errors import MissingExtraError
from clm_data.eval.analysis.language.states import States
from clm_data.eval.analysis.language.vectors import Array, Options, Row, as_rows
from clm_data.eval.intervals import Interval
from clm_data.records import LANGUAGES

_NO_UMAP = "umap-learn is not installed; run: pip install umap-learn"
_COMPONENTS = 50
"""Principal components that t-SNE and UMAP see."""


def draw_points(states: States, how: Options) -> tuple[list[Row], list[Row]]:
    """Place the MLP outputs of some layers in the plane.

    Returns:
        Rows of ``language_points``, and rows of ``language_layers`` with the share of the variance
        that lies along each of the two principal axes. Where UMAP is not installed, one row a layer
        says so in ``note``.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    points: list[Row] = []
    shares: list[Row] = []
    for number in _layers(states, how.point_layers):
        sides = [states.side(lang).mlp[number][: how.point_facts] for lang in LANGUAGES]
        axes, share = principal(np.concatenate(sides), _COMPONENTS)
        counted = [Interval(float(one), float(one), float(one), len(axes)) for one in share[:2]]
        about: Row = {"model": states.model, "part": "mlp", "layer": number}
        shares += as_rows([(f"pca_share_{i + 1}", one) for i, one in enumerate(counted)], about)
        for method, place in _METHODS.items():
            plane = place(axes, how.bootstrap.seed)
            points += _rows(states, number, method, plane, len(sides[0]))
    return points, shares


def _layers(states: States, wanted: Sequence[int] | None) -> list[int]:
    there = sorted(states.zh.mlp)
    if wanted is None:
        return sorted({there[0], there[len(there) // 2], there[-1]}) if there else []
    return [number for number in there if number in wanted]


def _rows(
    states: States, number: int, method: str, plane: Array | None, facts: int
) -> Iterator[Row]:
    about: Row = {"model": states.model, "layer": number, "method": method}
    if plane is None:
        yield {**about, "id": "", "lang": "", "x": None, "y": None, "note": _NO_UMAP}
        return
    ids = [(one, lang) for lang in LANGUAGES for one in states.ids[:facts]]
    for (one, lang), (x, y) in zip(ids, plane.tolist(), strict=True):
        yield {**about, "id": one, "lang": lang, "x": x, "y": y, "note": ""}


def principal(points: ArrayLike, most: int) -> tuple[Array, Array]:
    """Principal components.

    Args:
        points: (2n, d), the n Chinese ones first: each axis points from English to Chinese.
        most: Components at most.

    Returns:
        Places (2n, k) and the share of the variance along each axis (k,); k is at least 2, with
        zeros where the points span less.
    """
    data = np.asarray(points, dtype=np.float64)
    data = data - data.mean(0)
    left, sizes, _ = np.linalg.svd(data, full_matrices=False)
    rank = min(most, len(sizes))
    axes = left[:, :rank] * sizes[:rank]
    half = len(axes) // 2
    axes *= np.where(axes[:half].mean(0) < axes[half:].mean(0), -1, 1)
    share = sizes[:rank] ** 2 / max(float((sizes**2).sum()), np.finfo(float).tiny)
    lacking = max(0, 2 - rank)
    return np.pad(axes, ((0, 0), (0, lacking))), np.pad(share, (0, lacking))


def _first_two(axes: Array, _seed: int) -> Array:
    return axes[:, :2]


def _tsne(axes: Array, seed: int) -> Array:
    """t-SNE from the principal axes; one thread, as sums of several come in no fixed order."""
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "eval") from error
    perplexity = min(30.0, (len(axes) - 1) / 3)
    start: NDArray[Any] = axes[:, :2] / max(float(axes[:, 0].std()), np.finfo(float).tiny) * 1e-4
    made = TSNE(perplexity=perplexity, init=start, learning_rate="auto", random_state=seed)
    with threadpool_limits(limits=1):
        return np.asarray(made.fit_transform(axes), dtype=np.float64)


def _umap(axes: Array, seed: int) -> Array | None:
    try:
        from umap import UMAP
    except ImportError:
        return None
    near = min(15, len(axes) - 1)
    made = UMAP(n_neighbors=near, random_state=seed, n_jobs=1)
    return np.asarray(made.fit_transform(axes), dtype=np.float64)


_METHODS: dict[str, Callable[[Array, int], Array | None]] = {
    "pca": _first_two,
    "tsne": _tsne,
    "umap": _umap,
}
