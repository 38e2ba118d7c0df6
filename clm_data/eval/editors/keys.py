"""Keys: what enters the edited projection at the subject's last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.model.hooks import captured
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import run_laid
from clm_data.eval.model.prefix_tree import WIDE, Forest, Layout, alike, distinct
from clm_data.eval.placement import Placement


class LayerwiseForward:
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
        stems = [placement.up_to_subject for placement in placements]
        self._loaded = loaded
        self._count = len(placements)
        self._layer = 0
        self._batches: list[tuple[list[int], Layout, Any, Any]] = []
        forest = Forest(stems, list(map(len, stems)))
        bins = alike(forest.paths)
        room = max(1, tokens_per_batch // max(WIDE, *map(len, stems)))
        for begin in range(0, len(bins), room):
            some = bins[begin : begin + room]
            nodes = [distinct(forest.paths[i] for i in one) for one in some]
            layout = forest.lay(nodes, [[] for _ in some], loaded.device)
            indices = [i for one in some for i in one]
            ends = forest.places(layout)[[forest.paths[i][-1] for i in indices]]
            self._batches.append((indices, layout, forest.tokens(layout.nodes), ends))

    def to(self, layer: int) -> None:
        """Go on to where layer ``layer`` begins, with the weights as they are now."""
        import torch

        with torch.no_grad():
            if layer > self._layer:
                self._batches = [
                    (indices, layout, self._run(states, layout, layer), ends)
                    for indices, layout, states, ends in self._batches
                ]
                self._layer = layer

    def _run(self, states: Any, layout: Layout, stop: int) -> Any:
        return run_laid(self._loaded, states, layout, self._layer, stop)

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
            for indices, layout, states, ends in self._batches:
                hidden = self._run(states, layout, stop)
                found = hidden if what == "hidden" else getattr(seen, what)
                found = found.flatten(0, 1)[ends.to(found.device)]
                for slot, index in enumerate(indices):
                    rows[index] = found[slot]
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
