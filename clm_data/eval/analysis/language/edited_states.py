"""What the edits of a results folder do to states: the analyses that need model and deltas.

Each batch of edits is put into the model again, its facts are read before and after in both
languages, a part of them at a time, and only sums and one number a fact are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from clm_data.errors import InputFileError
from clm_data.eval.analysis.geometry.measures import Change
from clm_data.eval.analysis.geometry.saved_edits import Group, SavedEdit
from clm_data.eval.analysis.language.activation import Changes, relative_change
from clm_data.eval.analysis.language.edited_tables import COLUMNS, EditOptions, Seen, tables_of
from clm_data.eval.analysis.language.states import States, collect
from clm_data.eval.analysis.language.vectors import Array, Tables, layer_of
from clm_data.eval.editors.deltas import Deltas, applied
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import get_protocol
from clm_data.eval.results import EditLanguage
from clm_data.records import LANGUAGES, Record

_ORDER: tuple[EditLanguage, ...] = ("zh", "en", "mix")


def analyse_edits(
    loaded: LoadedModel,
    states: States,
    records: Sequence[Record],
    groups: Iterable[Group],
    how: EditOptions | None = None,
) -> Tables:
    """Put the edits of a results folder into the model again and see what they change.

    Args:
        loaded: The unedited model; it is as before afterwards.
        states: Its states, for the language bias of each fact.
        records: The dataset that was edited.
        groups: What ``find_edits`` found in the folder; those of this model count, but for
            sequential runs, whose changes are of many edits on top of each other.
        how: Options; None: the defaults.

    Returns:
        The tables ``activation``, ``activation_cdf``, ``neurons``, ``neuron_points``, ``venn``,
        ``selectivity`` and ``selectivity_points``, as in ``docs/reference/language-vectors.md``.

    Raises:
        InputFileError: A file of deltas cannot be read, or facts that were edited are not among
            the records.
        EditError: The deltas belong to another model.
    """
    how = how or EditOptions()
    known = {record.id: record for record in records}
    tables: Tables = {name: [] for name in COLUMNS}
    bias = {layer: _bias(states, layer) for layer in states.layers}
    for group in groups:
        if group.setting.model != loaded.name or group.setting.mode == "sequential":
            continue
        seen = {
            language: _look(loaded, known, group, language, how)
            for language in _ORDER
            if language in group.batches
        }
        for name, rows in tables_of(seen, bias, how).items():
            tables[name] += [{**group.about, **row} for row in rows]
    return tables


def expected_change(change: Change, keys: Array) -> Array:
    """What a weight change adds to the outputs for some keys: (n, d) from (n, m)."""
    if change.right is None:
        return np.asarray(keys @ change.left.T)
    return np.asarray((keys @ change.right.T) @ change.left.T)


def _bias(states: States, layer: int) -> dict[str, float]:
    found = layer_of(states.zh.hidden[layer], states.en.hidden[layer])
    return dict(zip(states.ids, found.bias.tolist(), strict=True))


def _look(
    loaded: LoadedModel,
    known: Mapping[str, Record],
    group: Group,
    language: EditLanguage,
    how: EditOptions,
) -> Seen:
    """Go through the batches of one editing language."""
    seen = Seen()
    for edit in group.batches[language]:
        facts = _facts(known, edit)
        deltas = Deltas.load(edit.path)
        changes = {layer: edit.change(layer) for layer in sorted(edit.weights)}
        seen.layers = tuple(changes)
        seen.batches += 1
        for layer, change in changes.items():
            neurons = change.neurons
            seen.rows[layer] = seen.rows.get(layer, np.zeros(())) + neurons.rows
            seen.columns[layer] = seen.columns.get(layer, np.zeros(())) + neurons.columns
        for start in range(0, len(facts), how.facts_at_once):
            part = facts[start : start + how.facts_at_once]
            _compare(loaded, part, group.setting.protocol, deltas, changes, seen, how)
    return seen


def _facts(known: Mapping[str, Record], edit: SavedEdit) -> list[Record]:
    """The records that were edited whole, in the order of the edits."""
    ids = dict.fromkeys(one for one in edit.facts if one not in edit.refused)
    missing = [one for one in ids if one not in known]
    if missing:
        raise InputFileError(
            f"{edit.path.parent.parent}: fact {missing[0]} is not in the dataset; name the one "
            "that was edited with --dataset"
        )
    return [known[one] for one in ids]


def _compare(
    loaded: LoadedModel,
    facts: Sequence[Record],
    protocol: str,
    deltas: Deltas,
    changes: Mapping[int, Change],
    seen: Seen,
    how: EditOptions,
) -> None:
    """Read some facts before and after an edit and add what has changed."""
    layers = sorted(changes)
    above = tuple(range(layers[0], loaded.depth))

    def read(neurons: Sequence[int]) -> States:
        return collect(
            loaded,
            facts,
            get_protocol(protocol),
            hidden=above,
            mlp=layers,
            neurons=neurons,
            tokens_per_batch=how.tokens_per_batch,
        )

    before = read(layers)
    with applied(loaded, deltas):
        after = read(())
    seen.ids += before.ids
    for lang in LANGUAGES:
        old, new = before.side(lang), after.side(lang)
        for layer, change in changes.items():
            wanted = expected_change(change, old.neurons[layer].astype(np.float64))
            sums = seen.changes.setdefault((layer, lang), Changes())
            sums.add(old.mlp[layer], new.mlp[layer], wanted)
        for layer in above:
            moved = relative_change(old.hidden[layer], new.hidden[layer])
            seen.moved.setdefault((layer, lang), []).append(moved)
