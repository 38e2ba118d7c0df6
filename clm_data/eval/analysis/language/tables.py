"""Tables of the unedited model's states: language vectors, classifiers and projections."""

from __future__ import annotations

from clm_data.eval.analysis.checks import in_range
from clm_data.eval.analysis.language.estimates import MEASURE_COLUMNS, exact, measure_rows
from clm_data.eval.analysis.language.linear_classifiers import classifier_measures
from clm_data.eval.analysis.language.projection import project_states
from clm_data.eval.analysis.language.states import ParallelStates
from clm_data.eval.analysis.language.vectors import layer_measures, parallel_layer
from clm_data.eval.analysis.options import StateOptions
from clm_data.eval.csv_tables import ResultRow, ResultTables
from clm_data.eval.intervals import FloatArray

COLUMNS = {
    "language_layers": ("model", "part", "layer", *MEASURE_COLUMNS),
    "language_points": ("model", "layer", "method", "id", "lang", "x", "y", "note"),
    "language_refused": ("model", "id", "reason"),
}
"""Columns by table."""


def language_tables(states: ParallelStates, options: StateOptions | None = None) -> ResultTables:
    """Compute every table of the unedited model's states.

    Args:
        states: The states.
        options: Sample sizes; defaults to ``StateOptions()``.

    Returns:
        The tables of :data:`COLUMNS`, described in ``docs/reference/language-vectors.md``.

    Raises:
        EditError: There are fewer than two facts, or a layer has no language vector.
        MissingExtraError: scikit-learn is not installed.
    """
    options = options or StateOptions()
    rows: list[ResultRow] = []
    for part in ("hidden", "mlp"):
        rows += _vector_rows(states, part, options)
    for layer in sorted(states.layers):
        measures = classifier_measures(states, layer, options)
        rows += measure_rows(measures, {"model": states.model, "part": "hidden", "layer": layer})
    points, shares = project_states(states, options)
    refused: list[ResultRow] = [
        {"model": states.model, "id": one.id, "reason": one.reason} for one in states.refused
    ]
    return {
        "language_layers": rows + shares,
        "language_points": points,
        "language_refused": refused,
    }


def _vector_rows(states: ParallelStates, part: str, options: StateOptions) -> list[ResultRow]:
    """Measures of the language vectors of hidden states or MLP outputs, by layer."""
    rows: list[ResultRow] = []
    zh, en = getattr(states.zh, part), getattr(states.en, part)
    below: FloatArray | None = None
    for number in sorted(zh):
        layer = parallel_layer(zh[number], en[number])
        measures = list(layer_measures(layer, options))
        if below is not None:
            cosine = float(in_range(below @ layer.vector, -1, 1, "cosine of language vectors"))
            measures.append(("vector_cosine_below", exact(cosine, len(layer.zh))))
        below = layer.vector
        rows += measure_rows(measures, {"model": states.model, "part": part, "layer": number})
    return rows
