"""The tables of what edits do to states; see ``docs/reference/language-vectors.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from clm_data.eval.analysis.geometry.measures import top_neurons
from clm_data.eval.analysis.geometry.saved_edits import ABOUT
from clm_data.eval.analysis.language.activation import (
    Changes,
    cumulative,
    histograms,
    selectivity,
    venn,
)
from clm_data.eval.analysis.language.vectors import (
    Array,
    Row,
    Tables,
    as_rows,
    correlation,
    mean_of,
)
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.results import EditLanguage
from clm_data.records import LANGUAGES, Language

KINDS = ("actual", "expected")
"""A change of MLP outputs: as measured, and as the weight change alone makes it."""
WEIGHTS = ("weight_rows", "weight_columns")
"""A neuron's largest absolute weight change: of a hidden dimension, of an inner neuron."""


@dataclass(frozen=True)
class EditOptions:
    """How edits are looked at.

    Attributes:
        bootstrap: Of intervals over facts.
        facts_at_once: Facts whose states are held at one time; bounds memory.
        tokens_per_batch: Tokens run at once.
        top: Share of the neurons that make a set of a Venn diagram.
        sample: Neurons of each layer listed one by one, at most.
    """

    bootstrap: Bootstrap = field(default_factory=Bootstrap)
    facts_at_once: int = 128
    tokens_per_batch: int = 4096
    top: float = 0.05
    sample: int = 500


@dataclass
class Seen:
    """One cell of a group: what its edits did, summed over batches.

    Attributes:
        layers: The edited ones.
        changes: MLP outputs by edited layer and language.
        rows: By layer: each row's largest absolute weight change, summed over batches.
        columns: The same of each column.
        ids: Facts, in the order of ``moved``.
        moved: Relative change of hidden states by layer and language, in parts.
        batches: How many were looked at.
    """

    layers: tuple[int, ...] = ()
    changes: dict[tuple[int, Language], Changes] = field(default_factory=dict)
    rows: dict[int, Array] = field(default_factory=dict)
    columns: dict[int, Array] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    moved: dict[tuple[int, Language], list[Array]] = field(default_factory=dict)
    batches: int = 0


_PLACE = (*ABOUT, "layer")
_MEASURE = ("measure", "value", "low", "high", "count")
COLUMNS: dict[str, tuple[str, ...]] = {
    "activation": (*_PLACE, "edit", "lang", *_MEASURE),
    "activation_cdf": (*_PLACE, "edit", "lang", "kind", "share", "value"),
    "neurons": (*_PLACE, "edit", "lang", "kind", "low", "high", "count"),
    "neuron_points": (*_PLACE, "edit", "lang", "neuron", "actual", "expected"),
    "venn": (*_PLACE, "kind", "region", "count", "by_chance", "set_size", "neurons"),
    "selectivity": (*_PLACE, "edit", *_MEASURE),
    "selectivity_points": (*_PLACE, "edit", "id", "bias", "selectivity"),
}
"""Columns of each table, for tables without rows."""


def tables_of(
    seen: Mapping[EditLanguage, Seen], bias: Mapping[int, Mapping[str, float]], how: EditOptions
) -> Tables:
    """The rows of one group of cells, by table, without the columns that say which group."""
    out: Tables = {name: [] for name in COLUMNS}
    for edit, one in seen.items():
        for (layer, lang), changes in sorted(one.changes.items()):
            about = {"layer": layer, "edit": edit, "lang": lang}
            out["activation"] += as_rows(list(changes.measures(how.bootstrap)), about)
            for kind in KINDS:
                out["activation_cdf"] += _cumulative(changes.size(kind), about, kind)
            out["neuron_points"] += _sampled(changes, about, how)
        for layer in one.layers:
            for kind in WEIGHTS:
                weights: Row = {"layer": layer, "edit": edit, "lang": None}
                out["activation_cdf"] += _cumulative(_score(one, edit, layer, kind), weights, kind)
        out["selectivity"] += _selectivity(edit, one, bias, how)
        out["selectivity_points"] += _selectivity_points(edit, one, bias)
    out["neurons"] = list(_neurons(seen))
    out["venn"] = list(_venn(seen, how))
    return out


def _cumulative(values: Array, about: Row, kind: str) -> Iterator[Row]:
    for share, value in cumulative(values):
        yield {**about, "kind": kind, "share": share, "value": value}


def _sampled(changes: Changes, about: Row, how: EditOptions) -> Iterator[Row]:
    """Some neurons' mean changes, the same ones for every edit and language."""
    actual, expected = changes.mean("actual"), changes.mean("expected")
    rng = np.random.default_rng(how.bootstrap.seed)
    for neuron in sorted(rng.permutation(len(actual))[: how.sample].tolist()):
        one, two = float(actual[neuron]), float(expected[neuron])
        yield {**about, "neuron": neuron, "actual": one, "expected": two}


def _neurons(seen: Mapping[EditLanguage, Seen]) -> Iterator[Row]:
    """Histograms of the change by neuron; bins are common to all edits."""
    for layer, lang in sorted({place for one in seen.values() for place in one.changes}):
        found = {
            (edit, kind): one.changes[layer, lang].mean(kind)
            for edit, one in seen.items()
            if (layer, lang) in one.changes
            for kind in KINDS
        }
        yield from _histograms(found, layer, lang)
    for layer in sorted({layer for one in seen.values() for layer in one.layers}):
        for kind in WEIGHTS:
            there = {edit: one for edit, one in seen.items() if layer in one.layers}
            weights = {(edit, kind): _score(one, edit, layer, kind) for edit, one in there.items()}
            yield from _histograms(weights, layer, None)


def _histograms(
    values: Mapping[tuple[EditLanguage, str], Array], layer: int, lang: Language | None
) -> Iterator[Row]:
    for (edit, kind), low, high, count in histograms(values):
        about = {"layer": layer, "edit": edit, "lang": lang, "kind": kind}
        yield {**about, "low": low, "high": high, "count": count}


def _venn(seen: Mapping[EditLanguage, Seen], how: EditOptions) -> Iterator[Row]:
    """Overlap of the neurons that zh, en and mix change most, where all three are there."""
    if set(seen) != {"zh", "en", "mix"} or not all(one.ids for one in seen.values()):
        return
    common = set.intersection(*(set(one.layers) for one in seen.values()))
    for layer in sorted(common):
        for kind in (*WEIGHTS, *KINDS):
            scores = {edit: _score(one, edit, layer, kind) for edit, one in seen.items()}
            total = len(scores["zh"])
            sets = {str(edit): top_neurons(one, how.top) for edit, one in scores.items()}
            for region, count, chance in venn(sets, total):
                yield {
                    "layer": layer,
                    "kind": kind,
                    "region": region,
                    "count": count,
                    "by_chance": chance,
                    "set_size": len(sets["zh"]),
                    "neurons": total,
                }


def _score(one: Seen, edit: EditLanguage, layer: int, kind: str) -> Array:
    """How much each neuron changes: in the weights, or in the states of the edited language."""
    if kind == "weight_rows":
        return one.rows[layer] / one.batches
    if kind == "weight_columns":
        return one.columns[layer] / one.batches
    sides: tuple[Language, ...] = LANGUAGES if edit == "mix" else (edit,)
    return np.asarray(sum(one.changes[layer, lang].size(kind) for lang in sides))


def _by_fact(
    edit: EditLanguage, one: Seen, bias: Mapping[str, float], layer: int
) -> Mapping[str, Array]:
    """Changes, selectivity and bias of the facts of a cell that have a bias."""
    if edit == "mix":
        return {}
    other: Language = "en" if edit == "zh" else "zh"
    own = np.concatenate(one.moved[layer, edit])
    others = np.concatenate(one.moved[layer, other])
    found = np.array([bias.get(id_, np.nan) for id_ in one.ids])
    return {
        "own_change": own,
        "other_change": others,
        "selectivity": selectivity(own, others),
        "bias": found,
    }


def _selectivity(
    edit: EditLanguage, one: Seen, bias: Mapping[int, Mapping[str, float]], how: EditOptions
) -> Iterator[Row]:
    """Means by layer, and how selectivity goes with language bias."""
    for layer in sorted({layer for layer, _ in one.moved} & set(bias)):
        facts = _by_fact(edit, one, bias[layer], layer)
        if not facts:
            return
        names = ("own_change", "other_change", "selectivity")
        found = [(name, mean_of(facts[name], how.bootstrap)) for name in names]
        both = ~(np.isnan(facts["selectivity"]) | np.isnan(facts["bias"]))
        pair = (facts["bias"][both], facts["selectivity"][both])
        found.append(("bias_selectivity_correlation", correlation(*pair, how.bootstrap)))
        yield from as_rows(found, {"layer": layer, "edit": edit})


def _selectivity_points(
    edit: EditLanguage, one: Seen, bias: Mapping[int, Mapping[str, float]]
) -> Iterator[Row]:
    """Every fact at the last edited layer."""
    if not one.layers or one.layers[-1] not in bias:
        return
    layer = one.layers[-1]
    facts = _by_fact(edit, one, bias[layer], layer)
    for place, id_ in enumerate(one.ids if facts else ()):
        x, y = float(facts["bias"][place]), float(facts["selectivity"][place])
        if not np.isnan([x, y]).any():
            yield {"layer": layer, "edit": edit, "id": id_, "bias": x, "selectivity": y}
