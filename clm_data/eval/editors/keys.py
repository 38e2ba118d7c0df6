"""Keys: what enters the edited projection at the subject's last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clm_data.eval.editors.base import PlacedFact
from clm_data.eval.hooks import captured
from clm_data.eval.models import LoadedModel, at_least_float32
from clm_data.eval.requests import Placement
from clm_data.eval.tail import padded, run_layers


class Walk:
    """Sentences on their way up through the layers, as far as the subject's last token.

    Nothing after that token bears on a key, and layers that have been passed are not run again:
    edit a layer only after its :meth:`inputs` were read and before the walk goes on.

    Args:
        loaded: The model.
        placements: The sentences.
        tokens_per_batch: Tokens run at once.
    """

    def __init__(
        self, loaded: LoadedModel, placements: Sequence[Placement], tokens_per_batch: int
    ) -> None:
        self._loaded = loaded
        self._count = len(placements)
        self._layer = 0
        self._batches: list[tuple[list[int], Any, Any]] = []
        for indices in batches_by_length([len(p.stem) for p in placements], tokens_per_batch):
            ids = padded([placements[i].stem for i in indices], loaded.device)
            self._batches.append((indices, ids, [placements[i].subject for i in indices]))

    def to(self, layer: int) -> None:
        """Go on to where layer ``layer`` begins, with the weights as they are now."""
        import torch

        with torch.no_grad():
            if layer > self._layer:
                self._batches = [
                    (indices, run_layers(self._loaded, states, self._layer, layer), subjects)
                    for indices, states, subjects in self._batches
                ]
                self._layer = layer

    def inputs(self, layer: int) -> Any:
        """What enters the edited projection of a layer at each subject: (sentences, m)."""
        return self._read(layer, layer + 1, "input")

    def mlp_outputs(self, layer: int) -> Any:
        """What leaves the edited projection of a layer at each subject: (sentences, d)."""
        return self._read(layer, layer + 1, "output")

    def outputs(self, layer: int) -> Any:
        """What leaves a layer at each subject: (sentences, d)."""
        return self._read(layer, layer + 1, "hidden")

    def _read(self, layer: int, stop: int, what: str) -> Any:
        import torch

        rows: list[Any] = [None] * self._count
        with torch.no_grad(), captured(self._loaded.mlp_out(layer)) as seen:
            for indices, states, subjects in self._batches:
                hidden = run_layers(self._loaded, states, self._layer, stop)
                found = hidden if what == "hidden" else getattr(seen, what)
                for slot, index in enumerate(indices):
                    rows[index] = found[slot, subjects[slot]]
        return at_least_float32(torch.stack(rows))


def fact_prompts(facts: Sequence[PlacedFact]) -> list[Placement]:
    """The prompts of all facts behind all contexts, those of one fact together."""
    return [placement for fact in facts for placement in fact.prompts]


def mean_keys(inputs: Any, contexts: int, *, halves: bool) -> Any:
    """One key a fact from its contexts.

    Args:
        inputs: (facts x contexts, m).
        contexts: Contexts a fact, the bare one first.
        halves: Half the bare one and half the mean of the others (MEMIT), or the mean of
            all (ROME).

    Returns:
        (m, facts).
    """
    grouped = inputs.view(-1, contexts, inputs.shape[-1])
    if contexts == 1 or not halves:
        return grouped.mean(1).T
    return (grouped[:, 0] / 2 + grouped[:, 1:].mean(1) / 2).T


def batches_by_length(lengths: Sequence[int], tokens_per_batch: int) -> list[list[int]]:
    """Indices of rows that run together, shortest first; padded, no more tokens than allowed."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > tokens_per_batch:
            batches.append([])
        batches[-1].append(index)
    return batches
