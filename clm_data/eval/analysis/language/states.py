"""What a model holds at the subject's last token of parallel facts, layer by layer.

Three things of each layer: the hidden state that leaves it, the output of its MLP, and the neurons,
which enter the MLP's output projection (the keys of MEMIT). A prompt is read as far as the subject
and once for all layers; each layer's rows are taken while the model runs, so that no layer's whole
activations are kept. Sizes for an 8B model stand in ``docs/reference/language-vectors.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clm_data.eval.errors import EditError, PlacementError, edit_errors
from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import run_layers
from clm_data.eval.placement import Placement, place_prompt
from clm_data.eval.protocols import EditProtocol
from clm_data.eval.results import Refusal
from clm_data.eval.sweep.cell import requests_for
from clm_data.records import LANGUAGES, Language, Record

States32 = NDArray[np.float32]


@dataclass(frozen=True)
class Side:
    """One language's states, by layer (from 0), float32.

    Attributes:
        hidden: What leaves the layer, (facts, d).
        mlp: What leaves the MLP's output projection, (facts, d).
        neurons: What enters it, (facts, m).
    """

    hidden: Mapping[int, States32]
    mlp: Mapping[int, States32]
    neurons: Mapping[int, States32]


@dataclass(frozen=True)
class States:
    """States of parallel facts: row i of every array is fact ``ids[i]``, in either language.

    Attributes:
        model: As in tables.
        ids: Record ids of the facts that could be placed in both languages.
        zh: Of the Chinese prompts.
        en: Of the English prompts.
        refused: Facts that could not be placed, with the language in the id (``ID:zh``); they are
            in neither side.
    """

    model: str
    ids: tuple[str, ...]
    zh: Side
    en: Side
    refused: tuple[Refusal, ...] = ()

    def side(self, lang: Language) -> Side:
        """The states of one language."""
        return self.zh if lang == "zh" else self.en

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose hidden states are there."""
        return tuple(self.zh.hidden)


def collect(
    loaded: LoadedModel,
    records: Sequence[Record],
    protocol: EditProtocol,
    *,
    hidden: Sequence[int] | None = None,
    mlp: Sequence[int] | None = None,
    neurons: Sequence[int] = (),
    tokens_per_batch: int = 4096,
) -> States:
    """Read the states of facts in both languages, at the last token of the bare prompt's subject.

    Args:
        loaded: The model, with its weights as they are now: inside ``applied`` an edited one.
        records: The facts.
        protocol: Where the subject's last token is.
        hidden: Layers whose hidden states are wanted; None: all.
        mlp: Layers whose MLP outputs are wanted; None: all.
        neurons: Layers whose neurons are wanted; they are three times as wide as a state.
        tokens_per_batch: Tokens run at once, padding counted.

    Raises:
        EditError: No fact can be placed, a state is NaN or infinite, or memory runs out.
        LayoutError: The model has no such layer.
    """
    every = range(loaded.depth)
    wanted = _Wanted(
        tuple(every if hidden is None else hidden),
        tuple(every if mlp is None else mlp),
        tuple(neurons),
    )
    kept, placements, refused = _place(loaded, records, protocol)
    with edit_errors(f"states of {loaded.name}"):
        found = _read(loaded, placements, wanted, tokens_per_batch)
    sides = [_side(found, wanted, first) for first in range(len(LANGUAGES))]
    by_language = dict(zip(LANGUAGES, sides, strict=True))
    return States(
        loaded.name,
        tuple(record.id for record in kept),
        by_language["zh"],
        by_language["en"],
        tuple(refused),
    )


@dataclass(frozen=True)
class _Wanted:
    hidden: tuple[int, ...]
    mlp: tuple[int, ...]
    neurons: tuple[int, ...]


def _place(
    loaded: LoadedModel, records: Sequence[Record], protocol: EditProtocol
) -> tuple[list[Record], list[Placement], list[Refusal]]:
    """Records that stand in both languages, and their placements in turn of LANGUAGES."""
    kept: list[Record] = []
    placements: list[Placement] = []
    refused: list[Refusal] = []
    for record in records:
        both: list[Placement] = []
        for request in requests_for([record], "mix"):
            try:
                both.append(place_prompt(loaded.tokenizer, request, protocol))
            except PlacementError as error:
                refused.append(Refusal(id=request.id, reason=str(error)))
        if len(both) == len(LANGUAGES):
            kept.append(record)
            placements += both
    if not kept:
        why = refused[0].reason if refused else "there are none"
        raise EditError(f"no fact can be placed: {why}")
    return kept, placements, refused


class _Rows:
    """Rows of one array, filled batch by batch; made when the width is known."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.array: Any = None

    def put(self, indices: Sequence[int], states: Any) -> None:
        found = at_least_float32(states).cpu().numpy()
        if self.array is None:
            self.array = np.empty((self._count, found.shape[-1]), dtype=np.float32)
        self.array[indices] = found


def _read(
    loaded: LoadedModel, placements: Sequence[Placement], wanted: _Wanted, tokens_per_batch: int
) -> dict[tuple[str, int], States32]:
    """States of all sentences, (sentences, width), by what they are and layer."""
    import torch

    names = [("hidden", i) for i in wanted.hidden]
    names += [("mlp", i) for i in wanted.mlp] + [("neurons", i) for i in wanted.neurons]
    rows = {name: _Rows(len(placements)) for name in names}
    if not rows:
        return {}
    stop = 1 + max(layer for _, layer in rows)
    now: list[Sequence[int]] = [(), ()]
    with torch.no_grad(), ExitStack() as stack:
        for name, row in rows.items():
            stack.enter_context(_watched(loaded, name, row, now))
        for indices in batches_by_length(
            [len(p.up_to_subject) for p in placements], tokens_per_batch
        ):
            now[:] = indices, [placements[i].subject for i in indices]
            ids = padded([placements[i].up_to_subject for i in indices], loaded.device)
            run_layers(loaded, ids, 0, stop)
    arrays = {name: row.array for name, row in rows.items()}
    for (what, layer), array in arrays.items():
        if not np.isfinite(array).all():
            raise EditError(f"{loaded.name}: {what} of layer {layer} came out as NaN or infinite")
    return arrays


def _watched(
    loaded: LoadedModel, name: tuple[str, int], rows: _Rows, now: Sequence[Sequence[int]]
) -> Any:
    """Keep a layer's states at the subjects of the batch that runs ``now``, as (indices, places).

    Returns:
        The hook's handle, a context that removes it.
    """
    what, layer = name
    projection = loaded.mlp_out(layer)
    module = projection
    if what == "hidden":
        module = loaded.model.get_submodule(f"{loaded.layout.layers}.{layer}")
    pick: Callable[[Any, Any], Any] = (lambda i, _: i[0]) if what == "neurons" else _output

    def keep(_module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        indices, places = now
        rows.put(indices, pick(inputs, output)[list(range(len(places))), list(places)])

    return module.register_forward_hook(keep)


def _output(_inputs: Any, output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _side(found: Mapping[tuple[str, int], States32], wanted: _Wanted, first: int) -> Side:
    """Every second row, from ``first``: the sentences of one language."""

    def of(what: str, layers: Sequence[int]) -> dict[int, States32]:
        step = len(LANGUAGES)
        return {i: found[what, i][first::step] for i in layers}

    return Side(of("hidden", wanted.hidden), of("mlp", wanted.mlp), of("neurons", wanted.neurons))
