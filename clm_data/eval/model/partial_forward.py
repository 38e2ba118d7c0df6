"""Forward passes through some layers and some tokens only.

An edit changes a hidden state at the subject's last token. With causal attention, no earlier token
and no lower layer depends on that change, so both are computed once (`precompute_prefixes`), and
each optimization step runs only the layers above and the tokens from there on
(`PackedSuffixes.run`).

The base model's own `forward` does the work, with layers outside the range skipped, and what enters
its final norm is read, so no architecture is reimplemented here. Every layer keeps its place
in the list, because some models look up masks or rotary embeddings by place. Hidden states enter
right before the first layer that runs, so that nothing done to embeddings is done to them.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clm_data.eval.model.hooks import (
    last_input,
    replaced_input,
    replaced_modules,
    skipped_layer,
)
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.prefix_tree import (
    NodeLayout,
    PrefixTree,
    distinct_nodes,
    group_by_prefix,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


class KVCache:
    """Keys and values by layer, with the interface that attention layers expect of a cache.

    Args:
        layers: Keys and values by layer index, (rows, heads, tokens, head size) each.
        recording: Store the keys and values of this pass, instead of prepending stored ones.
    """

    is_compileable = False

    def __init__(
        self, layers: dict[int, tuple[Tensor, Tensor]], *, recording: bool = False
    ) -> None:
        self.layers = layers
        self.recording = recording

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by each attention layer; returns the keys and values to attend to."""
        import torch

        if self.recording:
            self.layers[layer_idx] = (keys, values)
            return keys, values
        if layer_idx not in self.layers:
            return keys, values
        cached_keys, cached_values = self.layers[layer_idx]
        return torch.cat([cached_keys, keys], dim=2), torch.cat([cached_values, values], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of cached tokens."""
        return int(self.layers[layer_idx][0].shape[2]) if layer_idx in self.layers else 0


def _causal_mask(length: int, like: Tensor) -> Tensor:
    """Additive mask (1, 1, length, length), with the dtype and device of `like`."""
    import torch

    later = torch.ones(length, length, dtype=torch.bool, device=like.device).triu(1)
    return _additive_mask(~later[None, None], like)


def _additive_mask(allowed: Tensor, like: Tensor) -> Tensor:
    """0 where attention is allowed, the most negative number of the dtype elsewhere."""
    import torch

    mask = torch.zeros(allowed.shape, dtype=like.dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(like.dtype).min)


def run_layers(
    loaded: LoadedModel,
    inputs: Tensor,
    start: int,
    stop: int,
    *,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
    cache: KVCache | None = None,
) -> Tensor:
    """Run layers `start` to `stop - 1`.

    Args:
        loaded: The model.
        inputs: Token ids (rows, tokens), only if `start` is 0, or the hidden states (rows, tokens,
            d) that enter layer `start`.
        start: First layer.
        stop: One after the last layer.
        mask: Additive attention mask, (rows or 1, 1, tokens, cached + tokens); None for causal.
        positions: Position of each token, (rows or 1, tokens); None to count from 0.
        cache: Keys and values of earlier tokens, or a recording cache.

    Returns:
        The hidden states (rows, tokens, d) that leave layer `stop - 1`, before the final norm.
    """
    import torch

    layout, model = loaded.layout, loaded.model
    if start == stop and inputs.is_floating_point():
        return inputs
    length = inputs.shape[1]
    if positions is None:
        positions = torch.arange(length, device=inputs.device)[None]
    if loaded.longest is not None and length > loaded.longest:
        loaded.check_length(int(positions.max()) + 1)
    if mask is None:
        mask = _causal_mask(length, _like(loaded, inputs)[:0].to(inputs.device))
    replaced: dict[str, Module] = {}
    layers = list(model.get_submodule(layout.layers).children())
    for index, layer in enumerate(layers):
        if not start <= index < stop:
            replaced[f"{layout.layers}.{index}"] = skipped_layer(layer, loaded.layer_outputs)
    with ExitStack() as stack:
        stack.enter_context(replaced_modules(model, replaced))
        if inputs.is_floating_point():
            stack.enter_context(replaced_input(layers[start], inputs))
        entering = stack.enter_context(last_input(model.get_submodule(layout.norm)))
        own = {"attention_mask": mask, "position_ids": positions}
        model.base_model(
            **{"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs},
            **(own if loaded.masks else {}),
            use_cache=False,
            **({} if cache is None else {_name_of_cache(model.base_model): cache}),
        )
    return entering[0]


def _name_of_cache(model: Module) -> str:
    """The argument for cached keys and values: `cache` since transformers 5, or the older name."""
    names = inspect.signature(model.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def _like(loaded: LoadedModel, inputs: Tensor) -> Tensor:
    """A tensor with the dtype of the hidden states."""
    return inputs if inputs.is_floating_point() else loaded.model.get_input_embeddings().weight


def run_layout(
    loaded: LoadedModel,
    inputs: Tensor,
    layout: NodeLayout,
    start: int,
    stop: int,
    cache: KVCache | None = None,
) -> Tensor:
    """Same as `run_layers`, for nodes packed into bins: inputs are (bins, width[, d])."""
    mask = _additive_mask(layout.allowed, _like(loaded, inputs))
    return run_layers(
        loaded, inputs, start, stop, mask=mask, positions=layout.positions, cache=cache
    )


@dataclass(frozen=True)
class PackedSuffixes:
    """Suffixes of rows laid end to end in bins, with hardly any padding.

    A token attends only to tokens of its own row. Places are flat indices into (bins x width).

    Attributes:
        suffixes: Where the rows come from.
        hidden: What enters the first layer, (bins, width, d).
        pivots: (rows,) place of each row's pivot, its first token here.
        mask: Additive attention mask, (bins, 1, width, cached + width).
        positions: (bins, width).
        cached: Keys and values of the tokens before the pivots by layer, (bins, heads, cached,
            head size) each.
    """

    suffixes: Suffixes
    hidden: Tensor
    pivots: Tensor
    mask: Tensor
    positions: Tensor
    cached: dict[int, tuple[Tensor, Tensor]]

    def run(self, hidden: Tensor) -> Tensor:
        """Run the upper layers on changed inputs.

        Args:
            hidden: (bins, width, d), as `self.hidden`.

        Returns:
            Hidden states (bins x width, d) before the final norm.
        """
        out = run_layers(
            self.suffixes.loaded,
            hidden,
            self.suffixes.start,
            self.suffixes.loaded.depth,
            mask=self.mask,
            positions=self.positions,
            cache=KVCache(self.cached) if self.cached else None,
        )
        return out.flatten(0, 1)


@dataclass(frozen=True)
class Suffixes:
    """Rows from their pivots on, with everything before the pivots computed already.

    Attributes:
        loaded: The model.
        start: The first layer to run.
        tree: The rows' tokens; rows may share nodes before their pivots.
        hidden: What enters layer `start`, (nodes + 1, d).
        lengths: Number of tokens that run again, by row: those from the pivot on.
        pivots: Index of the pivot, by row.
        splits: Index of the first token that runs again, by row: the pivot, or 0 if the model's
            rows cannot be packed.
        places: (nodes + 1,) index of each node in `cached`.
        cached: Keys and values of the tokens before the pivots by layer, (places, heads, head
            size) each.
    """

    loaded: LoadedModel
    start: int
    tree: PrefixTree
    hidden: Tensor
    lengths: tuple[int, ...]
    pivots: tuple[int, ...]
    splits: tuple[int, ...]
    places: Tensor
    cached: dict[int, tuple[Tensor, Tensor]]

    def pack(
        self, rows: Sequence[int], bins: Sequence[Sequence[int]] | None = None
    ) -> PackedSuffixes:
        """Pack some rows for `PackedSuffixes.run`.

        Args:
            rows: Indices of rows.
            bins: Indices into `rows` by bin, best with a common prefix; None for bins with as
                little padding as possible.
        """
        import torch

        if not self.loaded.packs:
            bins = [[i] for i in range(len(rows))]
        elif bins is None:
            bins = _first_fit([self.lengths[row] for row in rows])
        paths = [self.tree.paths[row] for row in rows]
        split = [self.splits[row] for row in rows]
        layout = self.tree.build_layout(
            [[node for i in one for node in paths[i][split[i] :]] for one in bins],
            [distinct_nodes(paths[i][: split[i]] for i in one) for one in bins],
            self.hidden.device,
        )
        width = layout.nodes.shape[1]
        pivots = [0] * len(rows)
        for number, one in enumerate(bins):
            place = number * width
            for i in one:
                pivots[i] = place + self.pivots[rows[i]] - split[i]
                place += self.lengths[rows[i]]
        cached_places = self.places[layout.cached]
        return PackedSuffixes(
            self,
            self.hidden[layout.nodes],
            torch.tensor(pivots, device=self.hidden.device),
            _additive_mask(layout.allowed, self.hidden),
            layout.positions,
            {
                layer: (_gather(keys, cached_places), _gather(values, cached_places))
                for layer, (keys, values) in self.cached.items()
            },
        )


_MIN_BIN = 32
"""Minimum capacity of a bin in tokens: smaller bins leave padding, larger ones cost attention."""


def _first_fit(lengths: Sequence[int]) -> list[list[int]]:
    """First-fit-decreasing bin packing: indices by bin."""
    capacity = max(_MIN_BIN, *lengths)
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        need = lengths[index]
        slot = next((i for i, free in enumerate(room) if free >= need), None)
        if slot is None:
            slot = len(bins)
            bins.append([])
            room.append(capacity)
        bins[slot].append(index)
        room[slot] -= need
    return bins


def _gather(states: Tensor, places: Tensor) -> Tensor:
    """(nodes, heads, size) at (bins, tokens) places: (bins, heads, tokens, size)."""
    return states[places.to(states.device)].transpose(1, 2)


def precompute_prefixes(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], pivots: Sequence[int], start: int
) -> Suffixes:
    """Compute everything that a change at the pivots in layer `start` or above cannot affect.

    That is the layers below `start`, and the tokens before the pivots in all layers. Prefixes that
    rows share are computed once. If rows cannot be packed, it is the layers below `start` only.

    Args:
        loaded: The model.
        rows: Token ids.
        pivots: Index of the first token that may change, by row.
        start: The first layer whose input may change.
    """
    import torch

    splits = pivots if loaded.packs else [0] * len(rows)
    tree = PrefixTree(rows, splits)
    with torch.no_grad():
        lower = _layout_by_prefix(tree, tree.paths, loaded)
        out = run_layout(loaded, tree.tokens(lower.nodes), lower, 0, start)
        hidden = out.flatten(0, 1)[tree.places(lower).to(out.device)]
        cached: dict[int, tuple[Tensor, Tensor]] = {}
        places = torch.zeros(tree.count + 1, dtype=torch.long, device=hidden.device)
        if max(splits) > 0:
            prefixes = [path[:at] for path, at in zip(tree.paths, splits, strict=True) if at]
            upper = _layout_by_prefix(tree, prefixes, loaded)
            recorder = KVCache(cached, recording=True)
            run_layout(loaded, hidden[upper.nodes], upper, start, loaded.depth, recorder)
            places = tree.places(upper)
        for layer, (keys, values) in cached.items():
            cached[layer] = (_by_token(keys), _by_token(values))
    lengths = tuple(len(row) - at for row, at in zip(rows, splits, strict=True))
    return Suffixes(
        loaded, start, tree, hidden, lengths, tuple(pivots), tuple(splits), places, cached
    )


def suffixes_of_states(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], states: Sequence[Tensor], start: int
) -> Suffixes:
    """Whole rows whose states are known: :func:`precompute_prefixes` with every pivot at 0.

    Args:
        loaded: The model.
        rows: Token ids.
        states: What enters layer `start`, (tokens, d) by row.
        start: The first layer to run.
    """
    import torch

    none = [0] * len(rows)
    tree = PrefixTree(rows, none)  # no shared nodes: they are the rows' tokens, in order
    hidden = torch.cat([*states, torch.zeros_like(states[0][:1])])
    places = torch.zeros(tree.count + 1, dtype=torch.long, device=hidden.device)
    lengths = tuple(map(len, rows))
    return Suffixes(loaded, start, tree, hidden, lengths, tuple(none), tuple(none), places, {})


def _layout_by_prefix(
    tree: PrefixTree, paths: Sequence[Sequence[int]], loaded: LoadedModel
) -> NodeLayout:
    groups = group_by_prefix(paths) if loaded.packs else [[i] for i in range(len(paths))]
    bins = [distinct_nodes(paths[i] for i in one) for one in groups]
    return tree.build_layout(bins, [[] for _ in bins], loaded.device)


def _by_token(states: Tensor) -> Tensor:
    """(bins, heads, tokens, size) as (bins x tokens, heads, size)."""
    return states.transpose(1, 2).flatten(0, 1)
