"""Bytes that the parts of a cell's computation need, by what they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clm_data.eval.editors.alphaedit import AlphaEditParams
from clm_data.eval.editors.base import EditorParams
from clm_data.eval.editors.ft import FineTuningParams
from clm_data.eval.editors.grace import GraceParams
from clm_data.eval.editors.lora import LoraParams, adapted_maps
from clm_data.eval.editors.multilayer import MultilayerParams
from clm_data.eval.editors.rome import RomeParams
from clm_data.eval.editors.training import TrainingParams
from clm_data.eval.editors.ultraedit import UltraEditParams
from clm_data.eval.estimate.texts import FactTokens, QuestionTokens
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.sweep.plan import PlannedCell

_SINGLE, _DOUBLE = 4, 8
_LOGITS = 3
"""Arrays of logits in float32 that a pass holds at once."""


@dataclass(frozen=True)
class Needs:
    """Bytes by what they are for.

    Attributes:
        device: In the memory of the model's device.
        main: In main memory, if the device is a GPU; otherwise both are in main memory.
    """

    device: Mapping[str, int]
    main: Mapping[str, int]


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model.

    Attributes:
        weights: Bytes of the weights.
        element: Bytes of a number.
        hidden: d, the width of the hidden states.
        inner: m, what enters an edited projection.
        vocabulary: Tokens.
        depth: Layers.
        kept: Bytes per token and layer that a forward pass keeps for the backward pass.
        tokens_per_batch: Maximum tokens per forward pass.
    """

    weights: int
    element: int
    hidden: int
    inner: int
    vocabulary: int
    depth: int
    kept: float
    tokens_per_batch: int

    def forward(self, tokens: int) -> int:
        """Bytes that a pass through a layer holds at once."""
        tokens = min(tokens, self.tokens_per_batch)
        return tokens * self.element * (8 * self.hidden + 3 * self.inner)

    def backward(self, tokens: int, layers: int) -> int:
        """Bytes that a pass with gradients holds at once."""
        tokens = min(tokens, self.tokens_per_batch)
        return self.forward(tokens) + round(tokens * layers * self.kept)

    def logits(self, tokens: int) -> int:
        """Bytes of the logits at some tokens."""
        return _LOGITS * tokens * self.vocabulary * _SINGLE


def sizes_of(model: LoadedModel, layer: int, kept: float, tokens_per_batch: int) -> Sizes:
    """The sizes of a model without weights.

    Args:
        model: The model.
        layer: A layer that can be edited.
        kept: See `Sizes`.
        tokens_per_batch: See there.
    """
    weights = sum(one.numel() * one.element_size() for one in model.model.parameters())
    edited = model.mlp_out(layer).weight
    hidden, inner = edited.T.shape if model.layout.transposed else edited.shape
    vocabulary = model.model.get_input_embeddings().weight.shape[0]
    return Sizes(
        weights,
        edited.element_size(),
        hidden,
        inner,
        vocabulary,
        model.depth,
        kept,
        tokens_per_batch,
    )


def needs_of(
    cell: PlannedCell,
    sizes: Sizes,
    model: LoadedModel,
    facts: Sequence[FactTokens],
    questions: Sequence[QuestionTokens],
) -> Needs | None:
    """What a cell needs: what stays, and its largest phase; None for methods not known here.

    Args:
        cell: The cell.
        sizes: Sizes of the model.
        model: The model without weights.
        facts: The facts of one edit.
        questions: The questions that are asked after it.
    """
    params = cell.params
    found = _Found({"weights": sizes.weights}, {}, {"measuring": _measuring(sizes, questions)})
    if params.moment_layers:
        _add_moments(found, params, sizes, len(facts))
    if isinstance(params, MultilayerParams | RomeParams):
        _add_targets(found, params, sizes, facts)
    elif isinstance(params, TrainingParams):
        _add_training(found, params, sizes, facts, _trained(params, sizes, model))
    elif isinstance(params, UltraEditParams):
        _add_gradients(found, params, sizes, facts)
    elif isinstance(params, GraceParams):
        answers = sum(fact.answer for fact in facts)
        above = sizes.depth - params.layer
        found.phases["training"] = sizes.backward(answers, above) + sizes.logits(answers)
        found.main["codebook"] = len(facts) * (sizes.hidden + sizes.inner) * _SINGLE
    else:
        return None
    largest = max(found.phases, key=lambda name: found.phases[name])
    found.device[f"{largest} (the largest phase)"] = found.phases[largest]
    return Needs(found.device, found.main)


@dataclass(frozen=True)
class _Found:
    """Bytes by what they are for: on the device, in main memory, and of phases on the device."""

    device: dict[str, int]
    main: dict[str, int]
    phases: dict[str, int]


def _add_moments(found: _Found, params: EditorParams, sizes: Sizes, facts: int) -> None:
    square, layers = sizes.inner**2, len(params.moment_layers)
    kinds = 2 if params.moments_by_language else 1
    found.main["second moments"] = kinds * layers * square * _SINGLE
    kind = "projector" if isinstance(params, AlphaEditParams) else "factors of second moments"
    found.main[kind] = layers * square * _DOUBLE
    found.phases["sums of second moments"] = square * (2 * layers * _DOUBLE + 3 * _SINGLE)
    found.phases["solving"] = 4 * _DOUBLE * (square + sizes.inner * facts)


def _add_targets(
    found: _Found,
    params: MultilayerParams | RomeParams,
    sizes: Sizes,
    facts: Sequence[FactTokens],
) -> None:
    d, m, layers = sizes.hidden, sizes.inner, len(params.edited_layers)
    together = facts if isinstance(params, MultilayerParams) else facts[:1]
    search = _searching(sizes, params.edited_layers[-1], together)
    found.phases["search for target values"] = search
    found.device["originals of edited weights"] = layers * d * m * sizes.element
    found.main["weight changes"] = layers * len(facts) * (d + 3 * m) * _SINGLE


def _add_training(
    found: _Found,
    params: TrainingParams,
    sizes: Sizes,
    facts: Sequence[FactTokens],
    trained: int,
) -> None:
    tokens, reads = sum(f.sentence for f in facts), sum(f.answer for f in facts)
    start = params.layer if isinstance(params, FineTuningParams) else 0
    part = min(1.0, sizes.tokens_per_batch / max(tokens, 1))
    activations = sizes.backward(tokens, sizes.depth - start)
    found.phases["training"] = activations + sizes.logits(round(reads * part))
    found.device["optimizer, gradient and change"] = 6 * trained * _SINGLE
    found.main["weight changes"] = trained * _SINGLE


def _add_gradients(
    found: _Found, params: UltraEditParams, sizes: Sizes, facts: Sequence[FactTokens]
) -> None:
    d, m, weights = sizes.hidden, sizes.inner, len(params.weights())
    tokens, reads = sum(f.sentence for f in facts), sum(f.answer for f in facts)
    above = sizes.depth - params.edited_layers[0]
    found.phases["gradients"] = sizes.backward(tokens, above) + sizes.logits(reads)
    found.device["originals of edited weights"] = weights * d * m * sizes.element
    found.main["weight changes"] = weights * min(reads * (d + m), d * m) * _SINGLE


def _searching(sizes: Sizes, layer: int, facts: Sequence[FactTokens]) -> int:
    """The search for target values: states kept for the backward pass, cached keys, and logits."""
    suffixes = sum(fact.suffixes for fact in facts)
    part = min(1.0, sizes.tokens_per_batch / max(suffixes, 1))
    sentences, reads = sum(f.sentences for f in facts), sum(f.reads for f in facts)
    layers = sizes.depth - layer - 1
    cached = 2 * round(sentences * part) * layers * sizes.hidden * sizes.element
    return (
        cached + sizes.backward(suffixes, layers) + sizes.logits(round(part * (reads + len(facts))))
    )


def _measuring(sizes: Sizes, questions: Sequence[QuestionTokens]) -> int:
    """Reading answers, or decoding them with keys and values of all layers."""
    read, predicted = sum(q.read for q in questions), sum(q.predicted for q in questions)
    part = min(1.0, sizes.tokens_per_batch / max(read / 4, 1))
    reading = sizes.forward(read // 4) + sizes.logits(round(part * predicted / 4))
    tokens = min(sizes.tokens_per_batch, sum(q.prompt + q.generated for q in questions))
    cached = 2 * tokens * sizes.depth * sizes.hidden * sizes.element
    return max(reading, cached + sizes.forward(tokens) + sizes.logits(len(questions)))


def _trained(params: TrainingParams, sizes: Sizes, model: LoadedModel) -> int:
    """Numbers that are trained."""
    if isinstance(params, LoraParams):
        paths = adapted_maps(model, params)
        shapes = [model.model.get_submodule(path).weight.shape for path in paths]
        total: int = params.rank * sum(sum(shape) for shape in shapes)
        return total
    return sizes.hidden * sizes.inner
