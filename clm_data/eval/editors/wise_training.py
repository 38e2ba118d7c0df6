"""How WISE trains a side memory: its rows, distances, margins and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from clm_data.eval.editors.base import OneLayerParams, Setup
from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.ranges import (
    Count,
    LearningRate,
    NonNegative,
    Positive,
    Seed,
    Share,
)
from clm_data.eval.editors.side_memory import activation, token_distances
from clm_data.eval.editors.training import (
    Sentence,
    TrainingBatch,
    TrainingInputs,
    answer_sentence,
    with_eos,
)
from clm_data.eval.errors import EditError
from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.hooks import captured, replaced_output
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import run_layers
from clm_data.eval.placement import asked, encode
from clm_data.eval.protocols import EditProtocol
from clm_data.records import Language

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")
"""Names of the activation in models' configs."""
_STOP_CHANGE, _STOP_LOSS = 1e-4, 0.02
"""Training ends when the loss changes by no more than the first and is no more than the second."""


@dataclass(frozen=True)
class WiseParams(OneLayerParams):
    """Hyperparameters of WISE.

    Attributes:
        layer: The layer whose MLP output projection W gets side memories.
        steps: Maximum number of steps for each batch of facts.
        lr: Learning rate of plain gradient descent.
        alpha: α. Unrelated text is to move at most so far.
        beta: β. Edited prompts are to move at least so far.
        gamma: γ. An edited prompt is to move so much farther than the fact's unrelated text.
        unit: What α, β and γ count. `distance`: Euclidean distances, which grow with the width of
            the model and the size of its activations. `calibrated`: the median distance of an
            edited prompt after one step, over facts that are not edited.
        act_ratio: r. A prompt is answered from memory if it moves at least r times as far as the
            edited fact that moved least; 0 answers every prompt, infinity none.
        mask_ratio: Share of the entries of W that are trained, drawn once per shard.
        limit: Maximum absolute change of an entry; None for no limit.
        weight_decay: Factor of W' in its gradient.
        batch_size: Facts that are trained together, their losses summed; None for all.
        contexts: Maximum number of contexts of a fact, the empty one included; None for all.
        unrelated: Unrelated texts per fact: the first in its language, the second in the other, and
            so on.
        save_freq: See `SideScope`.
        merge_freq: See `SideScope`.
        density: See `SideScope`.
        measured: Tokens whose mean is a row's distance. `prompt`: those of context and prompt,
            which is what prompts are routed by. `row`: those of the answer as well.
        threshold: Distance of a fact that counts for the threshold: that of its prompt alone
            (`bare`), as it is asked, or the mean over its contexts (`contexts`, as in EasyEdit).
        append_eos: Train the end-of-sequence token after the answer.
        activation: The activation before distances; None for the model's own.
        seed: Seed of the trained entries and of the choice of unrelated texts.
        decayed: Entries that weight decay changes: the trained ones, or `all` (as in EasyEdit,
            where the others shrink as well).
        divisor: What the answer's negative log likelihood is divided by: its number of tokens T, or
            T + 1 (`tokens+1`, as in EasyEdit).
        padding: `ignored`: padding has no part in anything. `counted`, as in EasyEdit: the rows of
            a batch are padded on the left to one length, padding counts in distances, and an
            answer begins after as many tokens as the longest prompt has, which is inside the
            prompt if the unrelated text is the longest row.
        long_prompts: See `SideScope`.
    """

    steps: Count = 70
    lr: LearningRate = 1.0
    alpha: NonNegative = 5.0
    beta: NonNegative = 20.0
    gamma: NonNegative = 10.0
    unit: Literal["distance", "calibrated"] = "distance"
    act_ratio: Annotated[float, Field(ge=0)] = 0.88
    mask_ratio: Share = 0.2
    limit: Positive | None = 1.0
    weight_decay: NonNegative = 1e-5
    batch_size: Count | None = 1
    contexts: Count | None = None
    unrelated: Count = 1
    save_freq: Count | None = 500
    merge_freq: Count | None = 1000
    density: Share = 0.53
    measured: Literal["prompt", "row"] = "prompt"
    threshold: Literal["bare", "contexts"] = "bare"
    append_eos: bool = False
    activation: str | None = None
    seed: Seed = 42
    decayed: Literal["trained", "all"] = "trained"
    divisor: Literal["tokens", "tokens+1"] = "tokens"
    padding: Literal["ignored", "counted"] = "ignored"
    long_prompts: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_freq is not None and (
            self.save_freq is None or self.merge_freq % self.save_freq
        ):
            raise EditError(
                f"merge_freq is {self.merge_freq}; it must be a multiple of save_freq, which is "
                f"{self.save_freq}, or null"
            )


@dataclass(frozen=True)
class Unrelated:
    """A text that an edit should not move.

    Attributes:
        lang: Its language.
        prompt: A prompt about another subject.
        answer: Its answer.
    """

    lang: Language
    prompt: str
    answer: str


@dataclass(frozen=True)
class Loss:
    """The loss of a step, as means over the facts of a batch.

    Attributes:
        answer: Negative log likelihood of the answers.
        margins: Of distances; see `WiseParams`.
    """

    answer: float
    margins: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.answer + self.margins


@dataclass(frozen=True)
class SideRun:
    """A finished training.

    Attributes:
        losses: Before each step, and of the step that was not taken, if one was not.
        steps: Number of steps.
        distances: (facts,) distance of each fact afterwards; see `WiseParams.threshold`.
    """

    losses: tuple[Loss, ...]
    steps: int
    distances: tuple[float, ...]


@dataclass(frozen=True)
class _Row:
    """A text with or without an answer to train.

    Attributes:
        ids: All its tokens.
        prompt: Number of tokens of context and prompt.
        answer: What is trained; None for unrelated text.
    """

    ids: tuple[int, ...]
    prompt: int
    answer: Sentence | None = None


@dataclass(frozen=True)
class _Pass:
    """Sentences that run together from the edited layer up.

    Attributes:
        sentences: The sentences.
        places: (tokens,) their places in `sentences.packed`.
        tokens: (tokens,) their indices among all tokens of the batch.
    """

    sentences: TrainingBatch
    places: Tensor
    tokens: Tensor


class SideTraining:
    """Some facts that are trained together, with all that a change of W does not affect.

    The change is (d, m) and of the dtype of at least float32, on the device of W. Only outputs of
    one projection depend on it, so its inputs are computed once, and a step runs the layers from
    there up.

    Args:
        model: The unedited model.
        facts: The facts.
        unrelated: Texts by fact, equally many for each.
        params: Hyperparameters; α, β and γ in distances.
        setup: How answers are placed, and the contexts.

    Raises:
        PlacementError: An answer has no tokens of its own.
        EditError: See :func:`activation_name` and `clm_data.eval.editors.training.with_eos`.
    """

    def __init__(
        self,
        model: LoadedModel,
        facts: Sequence[PlacedFact],
        unrelated: Sequence[Sequence[Unrelated]],
        params: WiseParams,
        setup: Setup,
    ) -> None:
        import torch

        self._model, self._params, self._facts = model, params, len(facts)
        self._function = activation(activation_name(model, params))
        rows = [row for fact in facts for row in _edit_rows(model, fact, setup, params)]
        self._contexts = len(rows) // len(facts)
        texts = [text for of_fact in unrelated for text in of_fact]
        rows += [_unrelated_row(model, text, setup.protocol) for text in texts]
        if params.padding == "counted":
            rows = _padded_answers(rows)
            pads = [max(len(row.ids) for row in rows) - len(row.ids) for row in rows]
            self._inputs, self._outputs = _padded_states(model, rows, params.layer)
        else:
            pads = [0] * len(rows)
            self._inputs, self._outputs = _states(model, rows, params.layer, setup.tokens_per_batch)
        starts = _starts([pad + len(row.ids) for pad, row in zip(pads, rows, strict=True)])
        firsts = [start + pad for start, pad in zip(starts, pads, strict=True)]
        row_of, share = [], []
        for number, (row, pad) in enumerate(zip(rows, pads, strict=True)):
            whole = params.measured == "row" or row.prompt == 0
            counted = pad + (len(row.ids) if whole else row.prompt)
            row_of += [number] * (pad + len(row.ids))
            share += [1 / counted] * counted + [0.0] * (pad + len(row.ids) - counted)
        device = self._outputs.device
        self._row_of = torch.tensor(row_of, device=device)
        self._share = torch.tensor(share, device=device, dtype=self._outputs.dtype)
        self._passes = self._loss_passes(rows, firsts, setup.tokens_per_batch)

    def _loss_passes(
        self, rows: Sequence[_Row], firsts: Sequence[int], tokens_per_batch: int
    ) -> list[_Pass]:
        """The sentences with their answers.

        Args:
            rows: All rows.
            firsts: Index of each row's first token among all tokens.
            tokens_per_batch: Maximum tokens per forward pass.
        """
        import torch

        sentences = [row.answer for row in rows if row.answer is not None]
        inputs = TrainingInputs(self._model, sentences, self._params.layer, tokens_per_batch)
        extra = 1 if self._params.divisor == "tokens+1" else 0
        passes = []
        for batch in inputs.batches(range(len(sentences))):
            device = batch.places.device
            shares = [
                1 / (len(sentences[i].labels) + extra) / self._contexts
                for i in batch.sentences
                for _ in sentences[i].labels
            ]
            pivots = batch.packed.pivots.tolist()
            places, tokens = (
                [
                    first + token
                    for first, i in zip(begin, batch.sentences, strict=True)
                    for token in range(len(sentences[i].ids))
                ]
                for begin in (pivots, [firsts[i] for i in batch.sentences])
            )
            weight = torch.tensor(shares, device=device)
            passes.append(
                _Pass(
                    replace(batch, weight=weight),
                    torch.tensor(places, device=device),
                    torch.tensor(tokens, device=self._outputs.device),
                )
            )
        return passes

    def train(self, change: Tensor, trained: Tensor, weight: Tensor) -> SideRun:
        """Train a change in place.

        Args:
            change: W' - W, (d, m).
            trained: (d, m), true at the entries that are trained.
            weight: W, (d, m).
        """
        params, losses, steps = self._params, list[Loss](), 0
        for _ in range(params.steps):
            loss, grad = self._loss(change)
            losses.append(loss)
            if settled(losses):
                break
            decay = params.weight_decay * (weight.to(change) + change)
            if params.decayed == "all":
                grad.mul_(trained).add_(decay)
            else:
                grad.add_(decay).mul_(trained)
            change.sub_(grad, alpha=params.lr)
            if params.limit is not None:
                change.clamp_(-params.limit, params.limit)
            steps += 1
        edited, _ = self._distances(self._moved(change))
        distances = edited[:, 0] if params.threshold == "bare" else edited.mean(dim=1)
        return SideRun(tuple(losses), steps, tuple(distances.tolist()))

    def _moved(self, change: Tensor) -> Tensor:
        """The projection's outputs with a change, (tokens, d)."""
        return self._outputs + self._inputs @ change.T

    def _distances(self, moved: Tensor) -> tuple[Tensor, Tensor]:
        """Distances of the rows of each fact (facts, contexts), and of its texts (facts, texts).

        A row's distance is the mean of those of its tokens.
        """
        by_token = token_distances(moved, self._outputs, self._function) * self._share
        rows = int(self._row_of[-1]) + 1
        distances = by_token.new_zeros(rows).index_add(0, self._row_of, by_token)
        own = self._facts * self._contexts
        return distances[:own].view(self._facts, -1), distances[own:].view(self._facts, -1)

    def _loss(self, change: Tensor) -> tuple[Loss, Tensor]:
        """The loss with a change, and the gradient (d, m) of its sum over the facts."""
        import torch

        moved = self._moved(change).requires_grad_()
        grad, answers = torch.zeros_like(moved), 0.0
        module = self._model.mlp_out(self._params.layer)
        for one in self._passes:
            with replaced_output(module, one.places, moved[one.tokens]):
                loss = one.sentences.loss(self._model)
            grad += torch.autograd.grad(loss, moved)[0]
            answers += float(loss.detach())
        margins = self._margins(*self._distances(moved))
        grad += torch.autograd.grad(margins, moved)[0]
        found = Loss(answers / self._facts, float(margins.detach()) / self._facts)
        return found, grad.T @ self._inputs

    def _margins(self, edited: Tensor, unrelated: Tensor) -> Tensor:
        """Sum over the facts of the activation loss (Wang et al., section 2.3), a scalar."""
        params = self._params
        return (
            _mean_of_positive((unrelated[:, :, None] - edited[:, None] + params.gamma).flatten(1))
            + _mean_of_positive(unrelated - params.alpha)
            + _mean_of_positive(params.beta - edited)
        ).sum()


def _mean_of_positive(values: Tensor) -> Tensor:
    """The mean of each row's positive values, (rows,); 0 if there are none."""
    positive = values > 0
    return values.where(positive, 0.0).sum(dim=1) / positive.sum(dim=1).clamp(min=1)


def settled(losses: Sequence[Loss]) -> bool:
    """Whether training has ended: the loss is small and hardly changes."""
    if len(losses) < 2:
        return False
    change = abs(losses[-1].total - losses[-2].total)
    return change <= _STOP_CHANGE and losses[-1].total <= _STOP_LOSS


def trained_entries(rows: int, columns: int, ratio: float, seed: int) -> torch.Tensor:
    """The entries of a weight that a shard trains, (rows, columns), drawn as in the reference."""
    import numpy as np
    import torch

    drawn = np.random.RandomState(seed)
    chosen = np.empty((rows, columns), dtype=bool)
    for row in chosen:
        row[:] = drawn.random_sample(columns) < ratio
    return torch.from_numpy(chosen)


def activation_name(model: LoadedModel, params: WiseParams) -> str:
    """Name of the activation that distances are measured behind.

    Raises:
        EditError: The model's config names none, and the hyperparameters neither.
    """
    config = model.model.config
    named = [getattr(config, name, None) for name in _ACTIVATIONS]
    found = params.activation or next((one for one in named if isinstance(one, str)), None)
    if found is None:
        raise EditError(f"{model.name}: its config names no activation; set activation")
    return found


def _edit_rows(
    model: LoadedModel, fact: PlacedFact, setup: Setup, params: WiseParams
) -> list[_Row]:
    """A fact after each of its contexts."""
    templates = setup.contexts.for_fact(setup.protocol, fact.request.lang)
    rows = []
    for number, template in enumerate(templates[: params.contexts]):
        sentence = answer_sentence(model, fact, setup.protocol, number, template)
        if params.append_eos:
            sentence = with_eos(model, sentence)
        prompt = min(fact.sentences[number].prompt, sentence.places[0] + 1)
        rows.append(_Row((*sentence.ids, sentence.labels[-1]), prompt, sentence))
    return rows


def _unrelated_row(model: LoadedModel, text: Unrelated, protocol: EditProtocol) -> _Row:
    asking = asked(model.tokenizer, text.prompt, protocol)
    whole = asking + protocol.join(text.lang) + text.answer
    encoded = encode(model.tokenizer, whole, special=protocol.special_tokens)
    return _Row(encoded.ids, encoded.before(len(asking)))


def _padded_answers(rows: Sequence[_Row]) -> list[_Row]:
    """The rows with their answers where EasyEdit finds them in rows padded on the left."""
    longest = max(len(row.ids) for row in rows)
    prompt = max(row.prompt for row in rows if row.answer is not None)

    def moved(row: _Row) -> _Row:
        if row.answer is None:
            return row
        first = max(prompt - (longest - len(row.ids)), 1)
        places = tuple(range(first - 1, len(row.ids) - 1))
        return replace(row, answer=Sentence(row.ids[:-1], places, tuple(row.ids[first:])))

    return [moved(row) for row in rows]


def _starts(lengths: Sequence[int]) -> list[int]:
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts[:-1]


def _states(
    model: LoadedModel, rows: Sequence[_Row], layer: int, tokens_per_batch: int
) -> tuple[Tensor, Tensor]:
    """What enters (tokens, m) and leaves (tokens, d) a projection at all tokens of the rows."""
    import torch

    parts: dict[int, tuple[Tensor, Tensor]] = {}
    for batch in batches_by_length([len(row.ids) for row in rows], tokens_per_batch):
        ids = padded([rows[i].ids for i in batch], model.device)
        with torch.no_grad(), captured(model.mlp_out(layer)) as states:
            run_layers(model, ids, 0, layer + 1)
        for slot, i in enumerate(batch):
            length = len(rows[i].ids)
            inputs, outputs = (
                one.view(*ids.shape, -1)[slot, :length] for one in (states.input, states.output)
            )
            parts[i] = at_least_float32(inputs), at_least_float32(outputs)
    ordered = [parts[i] for i in range(len(rows))]
    return torch.cat([one for one, _ in ordered]), torch.cat([one for _, one in ordered])


def _padded_states(model: LoadedModel, rows: Sequence[_Row], layer: int) -> tuple[Tensor, Tensor]:
    """The same at all tokens of one batch that is padded on the left, padding included."""
    import torch

    longest = max(len(row.ids) for row in rows)
    pad = model.tokenizer.pad_token_id
    pad = model.tokenizer.eos_token_id if pad is None else pad
    ids = [[pad or 0] * (longest - len(row.ids)) + list(row.ids) for row in rows]
    mask = [[0] * (longest - len(row.ids)) + [1] * len(row.ids) for row in rows]
    with torch.no_grad(), captured(model.mlp_out(layer)) as states:
        model.model(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            use_cache=False,
        )
    inputs, outputs = states.input, states.output
    return (
        at_least_float32(inputs).reshape(-1, inputs.shape[-1]),
        at_least_float32(outputs).reshape(-1, outputs.shape[-1]),
    )
