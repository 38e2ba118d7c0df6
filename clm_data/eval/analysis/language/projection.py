"""MLP outputs of both languages projected to two dimensions: PCA, t-SNE, and UMAP if installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from clm_data.errors import MissingExtraError
from clm_data.eval.analysis.language.estimates import exact, measure_rows
from clm_data.eval.analysis.language.states import ParallelStates
from clm_data.eval.analysis.options import StateOptions
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.intervals import FloatArray
from clm_data.records import LANGUAGES

_UMAP_MISSING = "umap-learn is not installed; run: pip install umap-learn"
_COMPONENTS = 50
"""Principal components that t-SNE and UMAP start from."""


def project_states(
    states: ParallelStates, options: StateOptions
) -> tuple[list[ResultRow], list[ResultRow]]:
    """Project the MLP outputs of some layers to two dimensions.

    Returns:
        Rows of ``language_points``, and rows of ``language_layers`` with the share of the variance
        along the first two principal axes. If UMAP is not installed, one row per layer says so in
        the column ``note``.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    points: list[ResultRow] = []
    shares: list[ResultRow] = []
    for layer in _projected_layers(states, options):
        sides = [states.side(lang).mlp[layer][: options.point_facts] for lang in LANGUAGES]
        components, share = principal_components(np.concatenate(sides), _COMPONENTS)
        measures = [
            (f"pca_share_{axis}", exact(float(share[axis - 1]), len(components))) for axis in (1, 2)
        ]
        common: ResultRow = {"model": states.model, "part": "mlp", "layer": layer}
        shares += measure_rows(measures, common)
        for method, project in _METHODS.items():
            plane = project(components, options.bootstrap.seed)
            points += _point_rows(states, layer, method, plane, len(sides[0]))
    return points, shares


def _projected_layers(states: ParallelStates, options: StateOptions) -> list[int]:
    layers = sorted(states.zh.mlp)
    if options.point_layers is not None:
        return [layer for layer in layers if layer in options.point_layers]
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]}) if layers else []


def _point_rows(
    states: ParallelStates, layer: int, method: str, plane: FloatArray | None, facts: int
) -> Iterator[ResultRow]:
    common: ResultRow = {"model": states.model, "layer": layer, "method": method}
    if plane is None:
        yield {**common, "id": "", "lang": "", "x": None, "y": None, "note": _UMAP_MISSING}
        return
    ids = [(fact, lang) for lang in LANGUAGES for fact in states.ids[:facts]]
    for (fact, lang), (x, y) in zip(ids, plane.tolist(), strict=True):
        yield {**common, "id": fact, "lang": lang, "x": x, "y": y, "note": ""}


def principal_components(points: ArrayLike, count: int) -> tuple[FloatArray, FloatArray]:
    """Principal components, each axis pointing from English to Chinese.

    Args:
        points: Shape (2n, d), Chinese in the first n rows and English in the others.
        count: Maximum number of components.

    Returns:
        Coordinates (2n, k) and shares of the variance (k,). k is at least 2, padded with zeros.
    """
    data = np.asarray(points, dtype=np.float64)
    data = data - data.mean(0)
    left, values, _ = np.linalg.svd(data, full_matrices=False)
    rank = min(count, len(values))
    coordinates = left[:, :rank] * values[:rank]
    half = len(coordinates) // 2
    coordinates *= np.where(coordinates[:half].mean(0) < coordinates[half:].mean(0), -1, 1)
    share = values[:rank] ** 2 / max(float((values**2).sum()), np.finfo(float).tiny)
    padding = max(0, 2 - rank)
    return np.pad(coordinates, ((0, 0), (0, padding))), np.pad(share, (0, padding))


def _pca(components: FloatArray, _seed: int) -> FloatArray:
    return components[:, :2]


def _tsne(components: FloatArray, seed: int) -> FloatArray:
    """t-SNE on one thread, because sums over several threads are not reproducible."""
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "eval") from error
    perplexity = min(30.0, (len(components) - 1) / 3)
    deviation = max(float(components[:, 0].std()), np.finfo(float).tiny)
    start = components[:, :2] / deviation * 1e-4
    model = TSNE(perplexity=perplexity, init=start, learning_rate="auto", random_state=seed)
    with threadpool_limits(limits=1):
        return np.asarray(model.fit_transform(components), dtype=np.float64)


def _umap(components: FloatArray, seed: int) -> FloatArray | None:
    try:
        from umap import UMAP
    except ImportError:
        return None
    neighbors = min(15, len(components) - 1)
    model = UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(components), dtype=np.float64)


_METHODS: dict[str, Callable[[FloatArray, int], FloatArray | None]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}
