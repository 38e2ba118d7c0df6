"""Tables of what edits do to states; see ``docs/reference/language-vectors.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from clm_data.eval.analysis.geometry.measures import top_neurons
from clm_data.eval.analysis.geometry.saved_edits import GROUP_COLUMNS
from clm_data.eval.analysis.language.activation import (
    ActivationChanges,
    histograms,
    quantiles,
    selectivity,
    venn_regions,
)
from clm_data.eval.analysis.language.estimates import (
    MEASURE_COLUMNS,
    correlation,
    mean_of_known,
    measure_rows,
)
from clm_data.eval.analysis.options import EditedStateOptions
from clm_data.eval.csv_tables import ResultRow, ResultTables
from clm_data.eval.intervals import FloatArray
from clm_data.eval.results import EditLanguage
from clm_data.records import LANGUAGES, Language

KINDS = ("actual", "expected")
"""Kinds of change of MLP outputs: measured, and computed from the weight change alone."""
WEIGHT_KINDS = ("weight_rows", "weight_columns")
"""Kinds of weight change of a neuron: of a hidden dimension, and of an inner neuron."""
_PLACE = (*GROUP_COLUMNS, "layer")
COLUMNS = {
    "activation": (*_PLACE, "edit", "lang", *MEASURE_COLUMNS),
    "activation_cdf": (*_PLACE, "edit", "lang", "kind", "share", "value"),
    "neurons": (*_PLACE, "edit", "lang", "kind", "low", "high", "count"),
    "neuron_points": (*_PLACE, "edit", "lang", "neuron", "actual", "expected"),
    "venn": (*_PLACE, "kind", "region", "count", "by_chance", "set_size", "neurons"),
    "selectivity": (*_PLACE, "edit", *MEASURE_COLUMNS),
    "selectivity_points": (*_PLACE, "edit", "id", "bias", "selectivity"),
}
"""Columns by table."""
Biases = Mapping[int, Mapping[str, float]]
"""Language bias by layer and fact, in the unedited model."""


@dataclass
class EditStats:
    """What the edits in one language do, accumulated over batches.

    Attributes:
        layers: The edited layers.
        batches: Number of batches.
        ids: Record ids of the facts.
        activations: Changes of MLP outputs by edited layer and prompt language.
        row_changes: Sum over batches of each row's largest absolute weight change, by layer.
        column_changes: The same for each column.
        relative_changes: Relative changes of hidden states by layer and prompt language, in parts
            that together have the order of ``ids``.
    """

    layers: tuple[int, ...] = ()
    batches: int = 0
    ids: list[str] = field(default_factory=list)
    activations: dict[tuple[int, Language], ActivationChanges] = field(default_factory=dict)
    row_changes: dict[int, FloatArray] = field(default_factory=dict)
    column_changes: dict[int, FloatArray] = field(default_factory=dict)
    relative_changes: dict[tuple[int, Language], list[FloatArray]] = field(default_factory=dict)

    def weight_changes(self, layer: int, kind: str) -> FloatArray:
        """Mean over batches of each neuron's weight change; ``kind`` is in WEIGHT_KINDS."""
        sums = self.row_changes if kind == "weight_rows" else self.column_changes
        return sums[layer] / self.batches


def group_tables(
    stats: Mapping[EditLanguage, EditStats], biases: Biases, options: EditedStateOptions
) -> ResultTables:
    """The rows of one group of cells, by table, without the columns of the group.

    Args:
        stats: What the edits do, by editing language.
        biases: Language bias of each fact.
        options: Sample sizes.
    """
    out: ResultTables = {name: [] for name in COLUMNS}
    for edit, one in stats.items():
        for (layer, lang), changes in sorted(one.activations.items()):
            place: ResultRow = {"layer": layer, "edit": edit, "lang": lang}
            out["activation"] += measure_rows(changes.measures(options.bootstrap), place)
            for kind in KINDS:
                out["activation_cdf"] += _quantile_rows(changes.mean_absolute(kind), place, kind)
            out["neuron_points"] += _listed_neurons(changes, place, options)
        for layer in one.layers:
            place = {"layer": layer, "edit": edit, "lang": None}
            for kind in WEIGHT_KINDS:
                changed = one.weight_changes(layer, kind)
                out["activation_cdf"] += _quantile_rows(changed, place, kind)
        out["selectivity"] += _selectivity_rows(edit, one, biases, options)
        out["selectivity_points"] += _selectivity_points(edit, one, biases)
    out["neurons"] = list(_histogram_rows(stats))
    out["venn"] = list(_venn_rows(stats, options))
    return out


def _quantile_rows(values: FloatArray, place: ResultRow, kind: str) -> Iterator[ResultRow]:
    for share, value in quantiles(values):
        yield {**place, "kind": kind, "share": share, "value": value}


def _listed_neurons(
    changes: ActivationChanges, place: ResultRow, options: EditedStateOptions
) -> Iterator[ResultRow]:
    """Mean changes of randomly drawn neurons, the same ones for every edit and language."""
    actual, expected = changes.mean("actual"), changes.mean("expected")
    rng = np.random.default_rng(options.bootstrap.seed)
    drawn = rng.permutation(len(actual))[: options.listed_neurons]
    for neuron in sorted(drawn.tolist()):
        means = {"actual": float(actual[neuron]), "expected": float(expected[neuron])}
        yield {**place, "neuron": neuron, **means}


def _histogram_rows(stats: Mapping[EditLanguage, EditStats]) -> Iterator[ResultRow]:
    """Histograms of the change by neuron, in bins that all edits share."""
    for layer, lang in sorted({place for one in stats.values() for place in one.activations}):
        means = {
            (edit, kind): one.activations[layer, lang].mean(kind)
            for edit, one in stats.items()
            if (layer, lang) in one.activations
            for kind in KINDS
        }
        yield from _histograms(means, layer, lang)
    for layer in sorted({layer for one in stats.values() for layer in one.layers}):
        for kind in WEIGHT_KINDS:
            weights = {
                (edit, kind): one.weight_changes(layer, kind)
                for edit, one in stats.items()
                if layer in one.layers
            }
            yield from _histograms(weights, layer, None)


def _histograms(
    values: Mapping[tuple[EditLanguage, str], FloatArray], layer: int, lang: Language | None
) -> Iterator[ResultRow]:
    for (edit, kind), low, high, count in histograms(values):
        place: ResultRow = {"layer": layer, "edit": edit, "lang": lang, "kind": kind}
        yield {**place, "low": low, "high": high, "count": count}


def _venn_rows(
    stats: Mapping[EditLanguage, EditStats], options: EditedStateOptions
) -> Iterator[ResultRow]:
    """Overlap of the neurons that zh, en and mix edits change most; needs all three."""
    if set(stats) != {"zh", "en", "mix"} or not all(one.ids for one in stats.values()):
        return
    common = set.intersection(*(set(one.layers) for one in stats.values()))
    for layer in sorted(common):
        for kind in (*WEIGHT_KINDS, *KINDS):
            changes = {edit: _neuron_changes(one, edit, layer, kind) for edit, one in stats.items()}
            total = len(changes["zh"])
            sets = {str(edit): top_neurons(c, options.top_share) for edit, c in changes.items()}
            for region, count, expected in venn_regions(sets, total):
                yield {
                    "layer": layer,
                    "kind": kind,
                    "region": region,
                    "count": count,
                    "by_chance": expected,
                    "set_size": len(sets["zh"]),
                    "neurons": total,
                }


def _neuron_changes(one: EditStats, edit: EditLanguage, layer: int, kind: str) -> FloatArray:
    """Change of each neuron, in the weights or in the states of the editing language."""
    if kind in WEIGHT_KINDS:
        return one.weight_changes(layer, kind)
    sides: tuple[Language, ...] = LANGUAGES if edit == "mix" else (edit,)
    return np.asarray(sum(one.activations[layer, lang].mean_absolute(kind) for lang in sides))


def _fact_values(
    edit: EditLanguage, one: EditStats, bias: Mapping[str, float], layer: int
) -> Mapping[str, FloatArray]:
    """Relative changes, selectivity and bias of each fact, shape (n,); empty for mixed edits."""
    if edit == "mix":
        return {}
    other: Language = "en" if edit == "zh" else "zh"
    own_change = np.concatenate(one.relative_changes[layer, edit])
    other_change = np.concatenate(one.relative_changes[layer, other])
    return {
        "own_change": own_change,
        "other_change": other_change,
        "selectivity": selectivity(own_change, other_change),
        "bias": np.array([bias.get(fact, np.nan) for fact in one.ids]),
    }


def _selectivity_rows(
    edit: EditLanguage, one: EditStats, biases: Biases, options: EditedStateOptions
) -> Iterator[ResultRow]:
    """Means by layer, and the correlation of selectivity with language bias."""
    for layer in sorted({layer for layer, _ in one.relative_changes} & set(biases)):
        values = _fact_values(edit, one, biases[layer], layer)
        if not values:
            return
        names = ("own_change", "other_change", "selectivity")
        measures = [(name, mean_of_known(values[name], options.bootstrap)) for name in names]
        known = ~(np.isnan(values["selectivity"]) | np.isnan(values["bias"]))
        pair = (values["bias"][known], values["selectivity"][known])
        measures.append(("bias_selectivity_correlation", correlation(*pair, options.bootstrap)))
        yield from measure_rows(measures, {"layer": layer, "edit": edit})


def _selectivity_points(edit: EditLanguage, one: EditStats, biases: Biases) -> Iterator[ResultRow]:
    """Bias and selectivity of every fact at the last edited layer."""
    if not one.layers or one.layers[-1] not in biases:
        return
    layer = one.layers[-1]
    values = _fact_values(edit, one, biases[layer], layer)
    for i, fact in enumerate(one.ids if values else ()):
        bias, selective = float(values["bias"][i]), float(values["selectivity"][i])
        if not np.isnan([bias, selective]).any():
            place: ResultRow = {"layer": layer, "edit": edit, "id": fact}
            yield {**place, "bias": bias, "selectivity": selective}
