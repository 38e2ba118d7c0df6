"""What the edits of a sweep do to states: apply each saved change and read the states again.

Facts are read before and after each batch of edits in both languages, some at a time; only sums and
a few numbers per fact are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from clm_data.errors import InputFileError
from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.saved_edits import EditGroup, SavedEdit
from clm_data.eval.analysis.language.activation import ActivationChanges, relative_change
from clm_data.eval.analysis.language.edited_tables import COLUMNS, EditStats, group_tables
from clm_data.eval.analysis.language.states import ParallelStates, read_states
from clm_data.eval.analysis.language.vectors import parallel_layer
from clm_data.eval.analysis.options import EditedStateOptions
from clm_data.eval.csv_tables import ResultTables
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.edits import applied
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import EditProtocol, get_protocol
from clm_data.eval.results import EditLanguage
from clm_data.records import LANGUAGES, Record

_EDIT_LANGUAGES: tuple[EditLanguage, ...] = ("zh", "en", "mix")


def edited_state_tables(
    loaded: LoadedModel,
    states: ParallelStates,
    records: Sequence[Record],
    groups: Iterable[EditGroup],
    options: EditedStateOptions | None = None,
) -> ResultTables:
    """Apply the saved edits of a sweep to the model and measure what they change.

    Args:
        loaded: The unedited model, which is restored after each edit.
        states: Its states, for the language bias of each fact.
        records: The records that were edited.
        groups: Saved edits, from ``find_edits``. Groups of other models are skipped, and so are
            sequential runs, whose saved change is the sum of successive edits, edits of other
            weights than the MLP's output projections, to which the neurons in the tables belong,
            and methods that route a layer, whose change acts on some prompts only.
        options: Sample sizes and limits; defaults to ``EditedStateOptions()``.

    Returns:
        The tables of ``edited_tables.COLUMNS``, described in
        ``docs/reference/language-vectors.md``.

    Raises:
        InputFileError: A file of deltas cannot be read, or an edited fact is not in ``records``.
        EditError: The deltas belong to another model.
    """
    options = options or EditedStateOptions()
    tables: ResultTables = {name: [] for name in COLUMNS}
    biases = {layer: _biases(states, layer) for layer in states.layers}
    reader = _EditReader(loaded, {record.id: record for record in records}, options)
    for group in groups:
        if group.setting.model != loaded.name or group.setting.mode == "sequential":
            continue
        edits = [edit for files in group.batches.values() for edit in files]
        if any(edit.kind != "deltas" for edit in edits) or not edits_mlp_outputs(group, loaded):
            continue
        stats = {
            language: reader.read(group, language)
            for language in _EDIT_LANGUAGES
            if language in group.batches
        }
        for name, rows in group_tables(stats, biases, options).items():
            tables[name] += [{**group.columns, **row} for row in rows]
    return tables


def edits_mlp_outputs(group: EditGroup, loaded: LoadedModel) -> bool:
    """Whether a group's edits change the MLP's output projections and nothing else."""
    return all(
        paths == (loaded.layout.weight(layer),)
        for files in group.batches.values()
        for edit in files
        for layer, paths in edit.weights.items()
    )


def _biases(states: ParallelStates, layer: int) -> dict[str, float]:
    """Language bias by fact."""
    bias = parallel_layer(states.zh.hidden[layer], states.en.hidden[layer]).bias
    return dict(zip(states.ids, bias.tolist(), strict=True))


class _EditReader:
    """Applies saved edits to a model and reads the states of the edited facts."""

    def __init__(
        self, loaded: LoadedModel, records: Mapping[str, Record], options: EditedStateOptions
    ) -> None:
        self._loaded = loaded
        self._records = records
        self._options = options

    def read(self, group: EditGroup, language: EditLanguage) -> EditStats:
        """What the batches of one editing language change."""
        stats = EditStats()
        protocol = get_protocol(group.setting.protocol)
        for edit in group.batches[language]:
            facts = self._facts(edit)
            deltas = Deltas.load(edit.path)
            changes = {layer: edit.change(layer) for layer in sorted(edit.weights)}
            stats.layers = tuple(changes)
            stats.batches += 1
            for layer, change in changes.items():
                for sums, values in (
                    (stats.row_changes, change.neurons.rows),
                    (stats.column_changes, change.neurons.columns),
                ):
                    sums[layer] = sums.get(layer, np.zeros(())) + values
            for start in range(0, len(facts), self._options.facts_at_once):
                part = facts[start : start + self._options.facts_at_once]
                self._add(stats, part, protocol, deltas, changes)
        return stats

    def _facts(self, edit: SavedEdit) -> list[Record]:
        """The records with all their edits placed, in the order of the edits."""
        ids = dict.fromkeys(fact for fact in edit.facts if fact not in edit.refused)
        missing = [fact for fact in ids if fact not in self._records]
        if missing:
            raise InputFileError(
                f"{edit.path.parent.parent}: fact {missing[0]} is not in the dataset; use the "
                "dataset that was edited with --dataset"
            )
        return [self._records[fact] for fact in ids]

    def _add(
        self,
        stats: EditStats,
        facts: Sequence[Record],
        protocol: EditProtocol,
        deltas: Deltas,
        changes: Mapping[int, LowRankMatrix],
    ) -> None:
        """Read some facts before and after an edit and add their changes."""
        edited = sorted(changes)
        from_first = tuple(range(edited[0], self._loaded.depth))

        def read(neurons: Sequence[int]) -> ParallelStates:
            return read_states(
                self._loaded,
                facts,
                protocol,
                hidden=from_first,
                mlp=edited,
                neurons=neurons,
                tokens_per_batch=self._options.tokens_per_batch,
            )

        before = read(edited)
        with applied(self._loaded, deltas):
            after = read(())
        stats.ids += before.ids
        for lang in LANGUAGES:
            old, new = before.side(lang), after.side(lang)
            for layer, change in changes.items():
                expected = change.apply(old.neurons[layer].astype(np.float64))
                activations = stats.activations.setdefault((layer, lang), ActivationChanges())
                activations.add(old.mlp[layer], new.mlp[layer], expected)
            for layer in from_first:
                relative = relative_change(old.hidden[layer], new.hidden[layer])
                stats.relative_changes.setdefault((layer, lang), []).append(relative)
