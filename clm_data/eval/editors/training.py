"""Training on facts, as fine-tuning and LoRA do it: sentences, minibatches, epochs, loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from clm_data.eval.editors.base import DeltaParams
from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.ranges import Count, Finite, LearningRate, Seed
from clm_data.eval.errors import EditError, PlacementError
from clm_data.eval.model.batching import batches_by_length
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import (
    PackedSuffixes,
    precompute_prefixes,
    suffixes_of_states,
)
from clm_data.eval.placement import Placement, answer_positions
from clm_data.eval.protocols import EditProtocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TrainingParams(DeltaParams):
    """How facts are trained: the hyperparameters that fine-tuning and LoRA share.

    Attributes:
        epochs: Maximum number of passes over the facts; if facts are trained one group after
            another, over each group.
        lr: Adam's learning rate.
        batch_size: Facts per step; None for all.
        order: `breadth-first`: every epoch passes over all facts, in minibatches that are drawn
            anew. `depth-first`: the first `batch_size` facts are trained to the end, then the next
            ones, each time with a new Adam; later facts may overwrite earlier ones.
        objective: What is predicted. `answer`: each answer token after the ones before it;
            `protocol`: what the protocol's `ft_objective` says.
        append_eos: Train the end-of-sequence token after the answer, so that free generation stops
            there.
        stop_at: A step whose mean loss is below this is not taken, and training ends after an
            epoch whose mean loss is.
        seed: Random seed of the minibatches, and of what else is drawn.
    """

    epochs: Count
    lr: LearningRate
    batch_size: Count | None = None
    order: Literal["breadth-first", "depth-first"] = "breadth-first"
    objective: Literal["protocol", "answer"] = "protocol"
    append_eos: bool = False
    stop_at: Finite = 1e-2
    seed: Seed = 42


@dataclass(frozen=True)
class Sentence:
    """A fact as it is trained.

    Attributes:
        ids: Input token ids.
        places: Indices in `ids` whose next-token predictions are trained.
        labels: The token to predict at each place.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    labels: tuple[int, ...]


def training_sentence(
    loaded: LoadedModel, fact: PlacedFact, protocol: EditProtocol, params: TrainingParams
) -> Sentence:
    """The sentence of a fact, in the bare context.

    Args:
        loaded: The model, for its tokenizer.
        fact: The fact.
        protocol: How answer tokens are found, and the objective if `params` leaves it open.
        params: The objective, and whether the answer ends in an end-of-sequence token.

    Raises:
        PlacementError: The answer has no tokens of its own.
        EditError: `append_eos`, and the tokenizer has no end-of-sequence token, or the answer's
            tokens are all read at the prompt.
    """
    row, prompt = fact.sentences[0], fact.prompts[0].ids
    if params.objective == "protocol" and protocol.ft_objective == "prompt_last":
        if params.append_eos:
            raise EditError("append_eos needs the objective answer: set objective to answer")
        return Sentence(prompt, (len(prompt) - 1,) * len(row.labels), row.labels)
    if params.objective == "answer":
        sentence = answer_sentence(loaded, fact, protocol)
    else:
        sentence = Sentence(row.ids, row.reads, row.labels)
    return with_eos(loaded, sentence) if params.append_eos else sentence


def answer_sentence(
    loaded: LoadedModel,
    fact: PlacedFact,
    protocol: EditProtocol,
    number: int = 0,
    template: str = "{}",
) -> Sentence:
    """A fact after a context, with each answer token after the ones before it.

    With `reencode`, the answer's tokens are found as EasyEdit's FT-M, LoRA and WISE find them: all
    after those of the prompt.

    Args:
        loaded: The model, for its tokenizer.
        fact: The fact.
        protocol: How answer tokens are found.
        number: Number of the context.
        template: The context.

    Raises:
        PlacementError: The answer has no tokens of its own.
    """
    if protocol.labels == "offsets":
        row = fact.sentences[number]
        return Sentence(row.ids, row.reads, row.labels)
    request = fact.request
    encoded, answer = answer_positions(
        loaded.tokenizer,
        template.removesuffix("{}") + request.prompt,
        protocol.join(request.lang),
        request.target,
        "reencode",
    )
    labels = tuple(encoded.ids[i] for i in answer)
    return Sentence(encoded.ids[: answer[-1]], tuple(i - 1 for i in answer), labels)


def answer_rows(
    loaded: LoadedModel, placed: Sequence[PlacedFact], protocol: EditProtocol
) -> tuple[list[PlacedFact], list[Placement], tuple[tuple[str, str], ...]]:
    """The facts whose answers have tokens, their bare sentences, and (id, reason) of the others.

    With labels by `reencode`, the answer is not encoded again: only EasyEdit's methods with target
    values do that.

    Raises:
        EditError: No answer has tokens.
    """
    kept, rows, refused = [], [], []
    for fact in placed:
        row = fact.sentences[0]
        if protocol.labels == "reencode":
            try:
                counted = answer_sentence(loaded, fact, protocol)
            except PlacementError as error:
                refused.append((fact.request.id, str(error)))
                continue
            prompt = counted.places[0] + 1
            row = Placement(counted.ids, row.subject, counted.places, counted.labels, prompt)
        kept.append(fact)
        rows.append(row)
    if not rows:
        raise EditError(f"no fact can be edited: {refused[0][1]}")
    return kept, rows, tuple(refused)


def with_eos(loaded: LoadedModel, sentence: Sentence) -> Sentence:
    """The sentence with the end-of-sequence token trained after its answer.

    Raises:
        EditError: The tokenizer has none.
    """
    end = loaded.tokenizer.eos_token_id
    if end is None:
        raise EditError(
            f"{loaded.name}: the tokenizer has no end-of-sequence token to train; set append_eos "
            "to false"
        )
    ids = (*sentence.ids, sentence.labels[-1])
    return Sentence(ids, (*sentence.places, len(ids) - 1), (*sentence.labels, end))


def training_sentences(
    loaded: LoadedModel,
    facts: Sequence[PlacedFact],
    protocol: EditProtocol,
    params: TrainingParams,
) -> tuple[list[PlacedFact], list[Sentence], tuple[tuple[str, str], ...]]:
    """The facts that can be trained, their sentences, and (id, reason) of the others.

    Raises:
        EditError: No fact can be trained, or see :func:`training_sentence`.
    """
    kept, sentences, refused = [], [], []
    for fact in facts:
        try:
            sentences.append(training_sentence(loaded, fact, protocol, params))
            kept.append(fact)
        except PlacementError as error:
            refused.append((fact.request.id, str(error)))
    if not kept:
        raise EditError(f"no fact can be edited: {refused[0][1]}")
    return kept, sentences, tuple(refused)


@dataclass(frozen=True)
class TrainingBatch:
    """Sentences that run together, from the lowest trained layer up.

    Attributes:
        packed: The sentences.
        places: (answer tokens,) places in `packed` whose states predict an answer token.
        labels: (answer tokens,) token ids.
        weight: (answer tokens,) share in the mean negative log likelihood of the fact.
        sentences: By row of `packed`, the number of its sentence.
    """

    packed: PackedSuffixes
    places: Tensor
    labels: Tensor
    weight: Tensor
    sentences: tuple[int, ...] = ()

    def loss(self, loaded: LoadedModel) -> Tensor:
        """Sum over the facts of the mean negative log likelihood, a scalar."""
        import torch

        out = self.packed.run(self.packed.hidden)
        logits = loaded.logits(out[self.places.to(out.device)])
        labels = self.labels.to(logits.device)
        token_nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return (token_nll * self.weight.to(token_nll)).sum()


class TrainingInputs:
    """Sentences with the layers below the lowest trained one computed, which is done once.

    Args:
        loaded: The model, with earlier edits applied.
        sentences: One per fact.
        start: The lowest trained layer.
        tokens_per_batch: Maximum tokens per forward pass.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        sentences: Sequence[Sentence],
        start: int,
        tokens_per_batch: int,
    ) -> None:
        self.loaded, self.sentences, self.start = loaded, sentences, start
        self._tokens_per_batch = tokens_per_batch
        states: dict[int, Tensor] = {}
        for indices in self._grouped(range(len(sentences))):
            ids = [sentences[i].ids for i in indices]
            suffixes = precompute_prefixes(loaded, ids, [0] * len(ids), start)
            for slot, index in enumerate(indices):
                states[index] = suffixes.hidden[suffixes.tree.paths[slot]]
        self._states = states

    def _grouped(self, facts: Sequence[int]) -> list[list[int]]:
        lengths = [len(self.sentences[i].ids) for i in facts]
        groups = batches_by_length(lengths, self._tokens_per_batch)
        return [[facts[i] for i in group] for group in groups]

    def batches(self, facts: Sequence[int]) -> list[TrainingBatch]:
        """Some facts as forward passes of at most `tokens_per_batch` tokens."""
        return [self._batch(group) for group in self._grouped(facts)]

    def _batch(self, facts: Sequence[int]) -> TrainingBatch:
        import torch

        rows = [self.sentences[i] for i in facts]
        states = [self._states[i] for i in facts]
        suffixes = suffixes_of_states(self.loaded, [row.ids for row in rows], states, self.start)
        packed = suffixes.pack(range(len(rows)))
        entries = [
            (slot, position, label, 1 / len(row.labels))
            for slot, row in enumerate(rows)
            for position, label in zip(row.places, row.labels, strict=True)
        ]
        device = packed.hidden.device
        slots, positions, labels, weight = (
            torch.tensor(column, device=device) for column in zip(*entries, strict=True)
        )
        places = packed.pivots[slots] + positions
        return TrainingBatch(packed, places, labels, weight, tuple(facts))


class Trained(Protocol):
    """What is trained: tensors, and how a gradient changes them."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The tensors that the loss is differentiated with respect to."""
        ...

    def update(self, grads: Sequence[Tensor]) -> None:
        """Take one step of the optimizer.

        Args:
            grads: By tensor; float32, or float64 if the tensor is.
        """
        ...

    def restart(self) -> None:
        """Forget the optimizer's averages, not what has been trained."""
        ...


@dataclass(frozen=True)
class TrainingRun:
    """What a training did.

    Attributes:
        steps: Number of steps by fact.
        losses: Mean loss of the facts of each step before it, in order, and of steps that were not
            taken because it was below `stop_at`.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]


def train(inputs: TrainingInputs, params: TrainingParams, trained: Trained) -> TrainingRun:
    """Train on all sentences.

    Args:
        inputs: The sentences.
        params: Epochs, minibatches and order.
        trained: What is trained; changed in place.
    """
    import torch

    count = len(inputs.sentences)
    size = min(params.batch_size or count, count)
    drawn = torch.Generator().manual_seed(params.seed)
    steps, losses = [0] * count, []
    whole = size if params.order == "depth-first" else count
    for first in range(0, count, whole):
        group = range(first, min(first + whole, count))
        trained.restart()
        batches = inputs.batches(group) if len(group) <= size else None
        for _ in range(params.epochs):
            total = 0.0
            for facts in _minibatches(group, size, drawn):
                ready = inputs.batches(facts) if batches is None else batches
                loss, grads = _gradients(inputs.loaded, ready, len(facts), trained.tensors)
                losses.append(loss)
                total += loss * len(facts)
                if loss < params.stop_at:
                    continue
                trained.update(grads)
                for fact in facts:
                    steps[fact] += 1
            if total / len(group) < params.stop_at:
                break
    return TrainingRun(tuple(steps), tuple(losses))


def _minibatches(group: range, size: int, drawn: torch.Generator) -> Iterator[Sequence[int]]:
    """The facts of each step of an epoch: in random order if there are several steps."""
    import torch

    if len(group) <= size:
        yield group
        return
    order = torch.randperm(len(group), generator=drawn).tolist()
    for start in range(0, len(order), size):
        yield [group[i] for i in order[start : start + size]]


def _gradients(
    loaded: LoadedModel, batches: Sequence[TrainingBatch], facts: int, tensors: Sequence[Tensor]
) -> tuple[float, list[Tensor]]:
    """The mean loss of some facts, and its gradient by tensor in float32 or float64."""
    import torch

    total, grads = 0.0, [torch.zeros_like(at_least_float32(tensor)) for tensor in tensors]
    for tensor in tensors:
        tensor.requires_grad_(True)
    try:
        for batch in batches:
            part = batch.loss(loaded) / facts
            for total_grad, grad in zip(grads, torch.autograd.grad(part, tensors), strict=True):
                total_grad.add_(grad.to(total_grad))
            total += float(part.detach())
    finally:
        for tensor in tensors:
            tensor.requires_grad_(False)
    return total, grads
