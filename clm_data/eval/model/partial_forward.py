"""Running part of a model: some layers, from stored hidden states, some tokens.

An edit changes a hidden state at the subject's last token. Under causal attention no earlier token
and no lower layer sees that change, so both are computed once (:func:`make_tail`) and each
optimisation step runs only the layers above and the tokens from there on (:meth:`Packed.run`).

The base model's own forward does the work, with its layer list cut and its final norm taken out,
so that no architecture is written again here.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from clm_data.eval.errors import LayoutError
from clm_data.eval.model.hooks import silenced, swapped
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.prefix_tree import Forest, Layout, alike, distinct


class KeysAndValues:
    """The keys and values of earlier tokens by layer, as attention asks a cache for them.

    Args:
        stored: By layer: keys and values, (rows, heads, tokens, head size) each.
        recording: Keep what the layers bring instead of putting the stored before it.
    """

    is_compileable = False

    def __init__(self, stored: dict[int, tuple[Any, Any]], *, recording: bool = False) -> None:
        self.stored = stored
        self.recording = recording

    def update(self, keys: Any, values: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Called by each attention layer."""
        import torch

        if self.recording:
            self.stored[layer_idx] = (keys, values)
            return keys, values
        if layer_idx not in self.stored:
            return keys, values
        before_k, before_v = self.stored[layer_idx]
        return torch.cat([before_k, keys], dim=2), torch.cat([before_v, values], dim=2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of stored tokens."""
        return int(self.stored[layer_idx][0].shape[2]) if layer_idx in self.stored else 0


def causal_mask(length: int, like: Any) -> Any:
    """Additive mask (1, 1, length, length) in the dtype of ``like``."""
    import torch

    later = torch.ones(length, length, dtype=torch.bool, device=like.device).triu(1)
    return _additive(~later[None, None], like)


def _additive(allowed: Any, like: Any) -> Any:
    import torch

    mask = torch.zeros(allowed.shape, dtype=like.dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(like.dtype).min)


def run_layers(
    loaded: LoadedModel,
    inputs: Any,
    start: int,
    stop: int,
    *,
    mask: Any = None,
    positions: Any = None,
    cache: KeysAndValues | None = None,
) -> Any:
    """Run layers ``start`` to ``stop - 1``.

    Args:
        loaded: The model.
        inputs: Token ids (rows, tokens) where ``start`` is 0, else the hidden states (rows, tokens,
            d) that enter layer ``start``.
        start: First layer.
        stop: One after the last layer.
        mask: Additive, (rows or 1, 1, tokens, stored + tokens); causal where it is None.
        positions: Position of each token (rows or 1, tokens); from 0 where it is None.
        cache: Earlier tokens, or a recorder.

    Returns:
        The hidden states (rows, tokens, d) that leave layer ``stop - 1``, before any final norm.
    """
    import torch

    layout, model = loaded.layout, loaded.model
    layers = model.get_submodule(layout.layers)
    if start == stop and (start > 0 or inputs.is_floating_point()):
        return inputs
    length = inputs.shape[1]
    if positions is None:
        positions = torch.arange(length, device=inputs.device)[None]
    like = inputs if inputs.is_floating_point() else model.get_input_embeddings().weight
    if mask is None:
        mask = causal_mask(length, like[:0].to(inputs.device))
    cut = {layout.layers: layers[start:stop], layout.norm: torch.nn.Identity()}
    with ExitStack() as stack:
        stack.enter_context(swapped(model, cut))
        if start > 0 and layout.positions is not None:
            stack.enter_context(silenced(model.get_submodule(layout.positions)))
        out = model.base_model(
            **{"input_ids" if start == 0 else "inputs_embeds": inputs},
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=False,
        )
    return out.last_hidden_state


def run_laid(
    loaded: LoadedModel,
    inputs: Any,
    layout: Layout,
    start: int,
    stop: int,
    cache: KeysAndValues | None = None,
) -> Any:
    """As :func:`run_layers`, for a layout of nodes."""
    like = inputs if inputs.is_floating_point() else loaded.model.get_input_embeddings().weight
    return run_layers(
        loaded,
        inputs,
        start,
        stop,
        mask=_additive(layout.allowed, like),
        positions=layout.positions,
        cache=cache,
    )


@dataclass(frozen=True)
class Packed:
    """Rows of a tail laid end to end in bins, so that next to nothing is padding.

    A token sees the tokens of its own row only. Places are flat indices into (bins x tokens).

    Attributes:
        tail: Where the rows come from.
        hidden: What enters the first layer, (bins, tokens, d).
        offsets: Place of each row's token 0, its pivot, in the order of ``rows``.
        mask: (bins, 1, tokens, stored + tokens), additive.
        positions: (bins, tokens).
        stored: Keys and values of the tokens before the pivots, by layer.
    """

    tail: Tail
    hidden: Any
    offsets: Any
    mask: Any
    positions: Any
    stored: dict[int, tuple[Any, Any]]

    def run(self, hidden: Any) -> Any:
        """Hidden states (bins x tokens, d) before the final norm, for changed inputs."""
        out = run_layers(
            self.tail.loaded,
            hidden,
            self.tail.start,
            self.tail.loaded.depth,
            mask=self.mask,
            positions=self.positions,
            cache=KeysAndValues(self.stored),
        )
        return out.flatten(0, 1)


@dataclass(frozen=True)
class Tail:
    """Rows from their pivots on, ready to be run through the upper layers again and again.

    Attributes:
        loaded: The model.
        start: The first layer to run.
        forest: The rows' tokens; those before the pivots may be several rows' at once.
        hidden: What enters that layer, (nodes + 1, d).
        lengths: By row: tokens from the pivot on.
        pivots: By row: tokens before the pivot.
        places: By node: where it stands in ``stored``.
        stored: Keys and values of the tokens before the pivots, (places, heads, head size), by
            layer.
    """

    loaded: LoadedModel
    start: int
    forest: Forest
    hidden: Any
    lengths: tuple[int, ...]
    pivots: tuple[int, ...]
    places: Any
    stored: dict[int, tuple[Any, Any]]

    def pack(self, rows: Sequence[int], bins: Sequence[Sequence[int]] | None = None) -> Packed:
        """Lay some rows out for :meth:`Packed.run`.

        Args:
            rows: Which.
            bins: Indices into ``rows`` of those that lie together, best with a common beginning;
                bins with hardly a gap where it is None.
        """
        import torch

        bins = _bins([self.lengths[row] for row in rows]) if bins is None else bins
        paths = [self.forest.paths[row] for row in rows]
        split = [self.pivots[row] for row in rows]
        layout = self.forest.lay(
            [[node for i in one for node in paths[i][split[i] :]] for one in bins],
            [distinct(paths[i][: split[i]] for i in one) for one in bins],
            self.hidden.device,
        )
        width = layout.nodes.shape[1]
        offsets = [0] * len(rows)
        for number, one in enumerate(bins):
            begin = number * width
            for i in one:
                offsets[i] = begin
                begin += self.lengths[rows[i]]
        places = self.places[layout.earlier]
        return Packed(
            self,
            self.hidden[layout.nodes],
            torch.tensor(offsets, device=self.hidden.device),
            _additive(layout.allowed, self.hidden),
            layout.positions,
            {
                layer: (_gather(a, places), _gather(b, places))
                for layer, (a, b) in self.stored.items()
            },
        )


_BIN = 32
"""Tokens a bin holds at least: fewer leave gaps, more make attention dear."""


def _bins(lengths: Sequence[int]) -> list[list[int]]:
    """First fit, longest first: indices by bin."""
    capacity = max(_BIN, *lengths)
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


def _gather(states: Any, places: Any) -> Any:
    """(nodes, heads, size) at (bins, tokens) places: (bins, heads, tokens, size)."""
    return states[places.to(states.device)].transpose(1, 2)


def make_tail(
    loaded: LoadedModel, rows: Sequence[Sequence[int]], pivots: Sequence[int], start: int
) -> Tail:
    """Compute once what no change at the pivots reaches; beginnings that rows share, once for all.

    Args:
        loaded: The model.
        rows: Token ids.
        pivots: By row: the first token that may change.
        start: The first layer that may change.
    """
    import torch

    forest = Forest(rows, pivots)
    with torch.no_grad():
        whole = _bundled(forest, forest.paths, loaded.device)
        out = run_laid(loaded, forest.tokens(whole.nodes), whole, 0, start)
        hidden = out.flatten(0, 1)[forest.places(whole).to(out.device)]
        stored: dict[int, tuple[Any, Any]] = {}
        places = torch.zeros(forest.count + 1, dtype=torch.long, device=hidden.device)
        if max(pivots) > 0:
            stems = [path[:at] for path, at in zip(forest.paths, pivots, strict=True) if at]
            before = _bundled(forest, stems, hidden.device)
            recorder = KeysAndValues(stored, recording=True)
            run_laid(loaded, hidden[before.nodes], before, start, loaded.depth, recorder)
            places = forest.places(before)
        for layer, (keys, values) in stored.items():
            stored[layer] = (_flat(keys), _flat(values))
    lengths = tuple(len(row) - at for row, at in zip(rows, pivots, strict=True))
    return Tail(loaded, start, forest, hidden, lengths, tuple(pivots), places, stored)


def _bundled(forest: Forest, paths: Sequence[Sequence[int]], device: Any) -> Layout:
    bins = [distinct(paths[i] for i in one) for one in alike(paths)]
    return forest.lay(bins, [[] for _ in bins], device)


def _flat(states: Any) -> Any:
    """(bins, heads, tokens, size) as (bins x tokens, heads, size)."""
    return states.transpose(1, 2).flatten(0, 1)


def check_layout(loaded: LoadedModel) -> None:
    """See that running the layers in two parts gives the model's own logits.

    Raises:
        LayoutError: It does not: the architecture does something between its parts that the
            editors do not know of.
    """
    import torch

    size = loaded.model.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([[i % size for i in (1, 2, 3, 5)]], device=loaded.device)
    half = max(1, loaded.depth // 2)
    with torch.no_grad():
        whole = loaded.model(input_ids=ids, use_cache=False).logits.float()
        lower = run_layers(loaded, ids, 0, half)
        parts = loaded.logits(run_layers(loaded, lower, half, loaded.depth)).to(whole.device)
    scale = whole.abs().max().clamp(min=1e-6)
    tolerance = 1e-3 if loaded.model.dtype in (torch.float32, torch.float64) else 5e-2
    capped = getattr(loaded.model.config, "final_logit_softcapping", None) is not None
    if capped or not bool((parts - whole).abs().max() <= tolerance * scale):
        raise LayoutError(
            f"{loaded.name} ({type(loaded.model).__name__}) does more than its layers, norm and "
            "head in turn; this architecture cannot be edited yet"
        )
