"""States of a model at the subject's last token of parallel facts, layer by layer.

For each layer there are the hidden state that leaves it, the output of its MLP, and the inner
neurons of the MLP, which enter its output projection (the keys of MEMIT). A prompt is run up to its
subject, once for all layers, and hooks take each layer's rows during the run, so that no full
activations are kept. ``docs/reference/language-vectors.md`` gives the memory for an 8B model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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

if TYPE_CHECKING:
    from torch import Tensor

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class LanguageStates:
    """States of the facts in one language, by layer from 0.

    Attributes:
        hidden: Hidden states that leave the layer, shape (facts, d).
        mlp: Outputs of the MLP's output projection, shape (facts, d).
        neurons: Inputs of the MLP's output projection, shape (facts, m).
    """

    hidden: Mapping[int, Float32Array]
    mlp: Mapping[int, Float32Array]
    neurons: Mapping[int, Float32Array]


@dataclass(frozen=True)
class ParallelStates:
    """States of the same facts in both languages; row i of every array is fact ``ids[i]``.

    Attributes:
        model: Label of the model.
        ids: Record ids of the facts that can be placed in both languages.
        zh: States of the Chinese prompts.
        en: States of the English prompts.
        refused: Prompts that cannot be placed, as ``RECORD:LANGUAGE``; their facts are left out.
    """

    model: str
    ids: tuple[str, ...]
    zh: LanguageStates
    en: LanguageStates
    refused: tuple[Refusal, ...] = ()

    def side(self, lang: Language) -> LanguageStates:
        """The states of one language."""
        return self.zh if lang == "zh" else self.en

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers with hidden states."""
        return tuple(self.zh.hidden)


def read_states(
    loaded: LoadedModel,
    records: Sequence[Record],
    protocol: EditProtocol,
    *,
    hidden: Sequence[int] | None = None,
    mlp: Sequence[int] | None = None,
    neurons: Sequence[int] = (),
    tokens_per_batch: int = 4096,
) -> ParallelStates:
    """Read the states of facts at the last token of the subject, in the prompt without contexts.

    Args:
        loaded: The model with its current weights: inside ``applied``, the edited ones.
        records: The facts.
        protocol: Defines the subject's last token.
        hidden: Layers whose hidden states are read; None: all.
        mlp: Layers whose MLP outputs are read; None: all.
        neurons: Layers whose inner neurons are read; they are several times as wide as states.
        tokens_per_batch: Maximum number of tokens per forward pass, padding included.

    Raises:
        EditError: No fact can be placed, a state is NaN or infinite, or memory runs out.
        LayoutError: The model has no such layer.
    """
    every = range(loaded.depth)
    taps = [_Tap("hidden", layer) for layer in (every if hidden is None else hidden)]
    taps += [_Tap("mlp", layer) for layer in (every if mlp is None else mlp)]
    taps += [_Tap("neurons", layer) for layer in neurons]
    kept, placements, refused = _place(loaded, records, protocol)
    with edit_errors(f"states of {loaded.name}"):
        states = _read(loaded, placements, taps, tokens_per_batch)
    return ParallelStates(
        loaded.name,
        tuple(record.id for record in kept),
        _of_language(states, "zh"),
        _of_language(states, "en"),
        tuple(refused),
    )


class _Tap(NamedTuple):
    """A place in the model where states are read."""

    part: str
    """``hidden``, ``mlp`` or ``neurons``."""
    layer: int


def _place(
    loaded: LoadedModel, records: Sequence[Record], protocol: EditProtocol
) -> tuple[list[Record], list[Placement], list[Refusal]]:
    """Records that can be placed in both languages, with a placement for each of LANGUAGES."""
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
        reason = refused[0].reason if refused else "there are no records"
        raise EditError(f"no fact can be placed: {reason}")
    return kept, placements, refused


def _of_language(states: Mapping[_Tap, Float32Array], lang: Language) -> LanguageStates:
    """The rows of one language, which alternate in the order of LANGUAGES."""
    first, step = LANGUAGES.index(lang), len(LANGUAGES)

    def by_layer(part: str) -> dict[int, Float32Array]:
        return {tap.layer: rows[first::step] for tap, rows in states.items() if tap.part == part}

    return LanguageStates(by_layer("hidden"), by_layer("mlp"), by_layer("neurons"))


class _StateReader:
    """Forward hooks that collect the states at given tokens, batch by batch.

    Attributes:
        arrays: States read so far, shape (prompts, width), by tap.
    """

    def __init__(self, prompts: int) -> None:
        self.arrays: dict[_Tap, Float32Array] = {}
        self._prompts = prompts
        self._indices: Sequence[int] = ()
        self._positions: Sequence[int] = ()

    def next_batch(self, indices: Sequence[int], positions: Sequence[int]) -> None:
        """Announce the prompts that run next, and the token position to read in each."""
        self._indices, self._positions = list(indices), list(positions)

    def hook(self, loaded: LoadedModel, tap: _Tap) -> AbstractContextManager[Any]:
        """Register the hook of a tap; the returned handle removes it on exit.

        Raises:
            LayoutError: The model has no such layer.
        """
        module = loaded.mlp_out(tap.layer)
        if tap.part == "hidden":
            module = loaded.model.get_submodule(f"{loaded.layout.layers}.{tap.layer}")

        def keep(_module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            found = inputs if tap.part == "neurons" else output
            self._put(tap, found[0] if isinstance(found, tuple) else found)

        handle: AbstractContextManager[Any] = module.register_forward_hook(keep)
        return handle

    def _put(self, tap: _Tap, states: Tensor) -> None:
        """Keep the states of the current batch, (rows, tokens, width) or (rows x tokens, width)."""
        rows = list(range(len(self._positions)))
        states = states.reshape(len(rows), -1, states.shape[-1])
        values = at_least_float32(states[rows, list(self._positions)]).cpu().numpy()
        if tap not in self.arrays:
            self.arrays[tap] = np.empty((self._prompts, values.shape[-1]), dtype=np.float32)
        self.arrays[tap][self._indices] = values


def _read(
    loaded: LoadedModel,
    placements: Sequence[Placement],
    taps: Sequence[_Tap],
    tokens_per_batch: int,
) -> dict[_Tap, Float32Array]:
    """States of all prompts at the subject's last token, shape (prompts, width), by tap."""
    import torch

    if not taps:
        return {}
    stop = 1 + max(tap.layer for tap in taps)
    reader = _StateReader(len(placements))
    with torch.no_grad(), ExitStack() as stack:
        for tap in taps:
            stack.enter_context(reader.hook(loaded, tap))
        lengths = [len(placement.up_to_subject) for placement in placements]
        for indices in batches_by_length(lengths, tokens_per_batch):
            reader.next_batch(indices, [placements[i].subject for i in indices])
            ids = padded([placements[i].up_to_subject for i in indices], loaded.device)
            run_layers(loaded, ids, 0, stop)
    states = {tap: reader.arrays[tap] for tap in taps}
    for tap, array in states.items():
        if not np.isfinite(array).all():
            raise EditError(f"{loaded.name}: {tap.part} of layer {tap.layer} is NaN or infinite")
    return states
