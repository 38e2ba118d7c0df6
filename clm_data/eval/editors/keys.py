"""Keys: what enters the edited projection at the subject's last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.model.hooks import Captured, captured
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import run_layout
from clm_data.eval.model.prefix_tree import (
    BIN_NODES,
    NodeLayout,
    PrefixTree,
    distinct_nodes,
    group_by_prefix,
)
from clm_data.eval.placement import Placement

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class _Batch:
    """Sentences that run together.

    Attributes:
        indices: Which sentences.
        layout: Their tokens up to the subject, in bins.
        states: Token ids (bins, width), or the hidden states (bins, width, d) that enter the layer
            reached so far.
        subjects: (sentences,) flat index of each subject's last token in (bins x width).
    """

    indices: list[int]
    layout: NodeLayout
    states: Tensor
    subjects: Tensor


class LayerwiseForward:
    """A forward pass of many sentences that can pause at any layer, so that it can be edited.

    Sentences end at the subject's last token, as later tokens cannot affect a key. Layers that
    have been passed are not run again: edit a layer only after reading its inputs and before
    advancing beyond it.

    Args:
        loaded: The model.
        placements: The sentences.
        tokens_per_batch: Maximum tokens per forward pass.
    """

    def __init__(
        self, loaded: LoadedModel, placements: Sequence[Placement], tokens_per_batch: int
    ) -> None:
        rows = [placement.up_to_subject for placement in placements]
        self._loaded = loaded
        self._count = len(placements)
        self._layer = 0
        self._batches: list[_Batch] = []
        tree = PrefixTree(rows, list(map(len, rows)))
        bins = group_by_prefix(tree.paths) if loaded.packs else [[i] for i in range(len(rows))]
        bins_per_batch = max(1, tokens_per_batch // max(BIN_NODES, *map(len, rows)))
        for start in range(0, len(bins), bins_per_batch):
            some = bins[start : start + bins_per_batch]
            nodes = [distinct_nodes(tree.paths[i] for i in one) for one in some]
            layout = tree.build_layout(nodes, [[] for _ in some], loaded.device)
            indices = [i for one in some for i in one]
            subjects = tree.places(layout)[[tree.paths[i][-1] for i in indices]]
            self._batches.append(_Batch(indices, layout, tree.tokens(layout.nodes), subjects))

    def advance_to(self, layer: int) -> None:
        """Run all sentences up to the input of `layer`, with the weights as they are now."""
        import torch

        with torch.no_grad():
            if layer > self._layer:
                for batch in self._batches:
                    batch.states = self._run(batch, layer)
                self._layer = layer

    def _run(self, batch: _Batch, stop: int) -> Tensor:
        return run_layout(self._loaded, batch.states, batch.layout, self._layer, stop)

    def projection_inputs(self, layer: int) -> Tensor:
        """What enters the edited projection of a layer at each subject, (sentences, m)."""
        return self._at_subjects(layer, lambda record, _: record.input)

    def projection_outputs(self, layer: int) -> Tensor:
        """What leaves the edited projection of a layer at each subject, (sentences, d)."""
        return self._at_subjects(layer, lambda record, _: record.output)

    def layer_outputs(self, layer: int) -> Tensor:
        """The hidden state that leaves a layer at each subject, (sentences, d)."""
        return self._at_subjects(layer, lambda _, hidden: hidden)

    def _at_subjects(self, layer: int, select: Callable[[Captured, Tensor], Tensor]) -> Tensor:
        """Run up to a layer without advancing, and read selected states at the subjects."""
        import torch

        found: dict[int, Tensor] = {}
        with torch.no_grad(), captured(self._loaded.mlp_out(layer)) as record:
            for batch in self._batches:
                hidden = self._run(batch, layer + 1)
                states = select(record, hidden).flatten(0, -2)  # OPT's MLP has no rows
                states = states[batch.subjects.to(states.device)]
                found.update(zip(batch.indices, states, strict=True))
        return at_least_float32(torch.stack([found[i] for i in range(self._count)]))


def fact_prompts(facts: Sequence[PlacedFact]) -> list[Placement]:
    """The prompts of all facts in all contexts, those of one fact together."""
    return [placement for fact in facts for placement in fact.prompts]


def mean_keys(inputs: Tensor, contexts: int, *, half_bare: bool) -> Tensor:
    """Average the keys of a fact over its contexts.

    Args:
        inputs: (facts x contexts, m), the contexts of one fact together.
        contexts: Number of contexts per fact, the bare one first.
        half_bare: Give the bare context half of the weight and the others the other half, as
            MEMIT's code does, instead of the same weight to all, as ROME's does.

    Returns:
        (m, facts).
    """
    grouped = inputs.view(-1, contexts, inputs.shape[-1])
    if contexts == 1 or not half_bare:
        return grouped.mean(1).T
    return (grouped[:, 0] / 2 + grouped[:, 1:].mean(1) / 2).T
