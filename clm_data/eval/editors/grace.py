"""GRACE: Hartvigsen et al., Aging with GRACE, NeurIPS 2023."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from clm_data.eval.editors.adam import adam_step
from clm_data.eval.editors.base import OneLayerParams, Setup, Stopwatch
from clm_data.eval.editors.codebook import (
    Codebook,
    Entries,
    LabelRule,
    Replaced,
    Scope,
    no_entries,
)
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.keys import LayerwiseForward
from clm_data.eval.editors.origin import check_origin, model_id
from clm_data.eval.editors.ranges import Count, LearningRate, NonNegative, Seed
from clm_data.eval.editors.solve import check_finite
from clm_data.eval.editors.training import TrainingBatch, answer_rows
from clm_data.eval.errors import edit_errors
from clm_data.eval.model.batching import batches_by_length
from clm_data.eval.model.hooks import replaced_output
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.partial_forward import precompute_prefixes
from clm_data.eval.placement import EditRequest, Placement

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GraceParams(OneLayerParams):
    """Hyperparameters of GRACE.

    Attributes:
        layer: The layer whose MLP output projection has the codebook.
        steps: Number of steps of Adam on each value.
        lr: Adam's learning rate.
        epsilon: Radius of a new entry, as a Euclidean distance between keys.
        start: What a value is before training: uniform numbers from 0 to 1, or the layer's output.
        seed: Seed of the uniform numbers.
        labels: How the labels of two facts are compared.
        replaced: Where a value replaces the layer's output.
    """

    steps: Count = 50
    lr: LearningRate = 1.0
    epsilon: NonNegative = 1.0
    start: Literal["uniform", "output"] = "uniform"
    seed: Seed = 42
    labels: LabelRule = "text"
    replaced: Replaced = "last"

    @property
    def scope(self) -> Scope:
        """How the codebook decides."""
        return Scope(self.layer, self.epsilon, self.labels, self.replaced)


@dataclass(frozen=True)
class _Batch:
    """Sentences that run together, from the codebook's layer up.

    Attributes:
        sentences: The sentences and the answer tokens that they predict.
        places: Places in `sentences.packed` whose output is replaced.
        of_place: (places,) the value of each place.
    """

    sentences: TrainingBatch
    places: Tensor
    of_place: Tensor


@dataclass(frozen=True)
class Grace:
    """Adds facts to a codebook: prompts near a fact's prompt get the fact's value at one layer.

    The key of a fact is what enters the projection at the last token of its prompt; only its value
    is trained, on the answer.
    """

    params: GraceParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, GraceParams]] = {
        # EasyEdit, hparams/GRACE, has values for Llama-2-7B (layer 27), Qwen2-7B and Qwen2.5-7B
        # (layer 18), and GPT-J. Our choice for the others of 32 layers: the layer of Llama-2.
        "llama2-chinese-7b": GraceParams(layer=27),
        "llama-3-8b": GraceParams(layer=27),
        "llama-3.1-8b": GraceParams(layer=27),
        "mistral-7b": GraceParams(layer=27),
        "qwen2-7b": GraceParams(layer=18),
        "qwen2.5-7b": GraceParams(layer=18),
        # Our choice: the same relative depth in 36 layers.
        "qwen3-8b": GraceParams(layer=23),
        "gpt-j-6b": GraceParams(layer=25, steps=200),  # gpt-j-6b.yaml
        # gpt2-xl.yaml has this layer's input projection; here it is the output projection.
        "gpt2-xl": GraceParams(layer=35, steps=200),
        # The settings of the parity run.
        "smollm2-135m": GraceParams(layer=26),
        # Our choice: the largest layer whose value still reaches every token of an answer; a fact's
        # nearest neighbor among 100 is about 6 away.
        "tiny": GraceParams(layer=2, epsilon=4.0),
    }

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Codebook | None = None
    ) -> Codebook:
        """See `Editor.edit`."""
        return self.edit_from(model, requests, None, past=past)

    def edit_from(
        self,
        model: LoadedModel,
        requests: Sequence[EditRequest],
        starts: Tensor | None,
        *,
        past: Codebook | None = None,
    ) -> Codebook:
        """Edit facts whose values start at given ones.

        Args:
            model: See `Editor.edit`.
            requests: See `Editor.edit`.
            starts: (N, d), one row for each request that can be placed; None for `params.start`.
            past: See `Editor.edit`.

        Raises:
            EditError: See `Editor.edit`.
        """
        self.setup.check_model(model)
        if past is not None:
            check_origin("an edit", past.model, past.origin, model)
        placed, unplaced = place_facts(model, requests, self.setup.protocol, self.setup.contexts)
        facts, rows, refused = answer_rows(model, placed, self.setup.protocol)
        scope, watch = self.params.scope, Stopwatch()
        with edit_errors(f"grace on {model.name}"):
            with watch.phase("keys"):
                keys, outputs = _states(model, rows, scope.layer, self.setup.tokens_per_batch)
            if starts is None:
                starts = outputs if self.params.start == "output" else self._uniform(rows, outputs)
            labels = [self._label(fact, row) for fact, row in zip(facts, rows, strict=True)]
            empty = no_entries(keys.shape[1], outputs.shape[1])
            known = empty if past is None else past.entries
            after, of_fact = known.insert(keys, starts, labels, scope)
            with watch.phase("values"):
                values = self._train(model, rows, _begin(known, after, starts, of_fact), of_fact)
            entries, _ = empty.insert(keys, values, labels, scope)
        return Codebook(
            "grace",
            model.name,
            scope,
            keys,
            check_finite(values, "the values"),
            tuple(labels),
            entries,
            tuple(fact.request.id for fact in facts),
            unplaced + refused,
            watch.seconds,
            (self.params.steps,) * len(facts),
            origin=model_id(model),
        )

    def _label(self, fact: PlacedFact, row: Placement) -> str:
        if self.params.labels == "text":
            return fact.request.target
        ignored = len(row.ids) + 1 - len(row.labels)
        return repr((sum(row.labels) - 100 * ignored) / (len(row.ids) + 1))

    def _uniform(self, rows: Sequence[Placement], like: Tensor) -> Tensor:
        """Uniform numbers (N, d) that depend on the seed and on a fact's own tokens only."""
        import torch

        values = torch.empty_like(like)
        for row, value in zip(rows, values, strict=True):
            text = repr((self.params.seed, row.ids, row.labels)).encode()
            seed = int.from_bytes(hashlib.sha256(text).digest()[:7], "big")
            value.uniform_(generator=torch.Generator().manual_seed(seed))
        return values

    def _train(
        self, model: LoadedModel, rows: Sequence[Placement], begin: Tensor, of_fact: Sequence[int]
    ) -> Tensor:
        """The trained value of each fact, (N, d).

        Args:
            model: The model.
            rows: The facts' sentences.
            begin: (N, d) value of each fact before training; facts with one entry have the same.
            of_fact: The entry of each fact; facts with one entry share its value.
        """
        import torch

        slots = {entry: slot for slot, entry in enumerate(dict.fromkeys(of_fact))}
        of_row = [slots[entry] for entry in of_fact]
        value = begin[[of_fact.index(entry) for entry in slots]].to(model.device)
        batches = self._batches(model, rows, of_row)
        averages = (torch.zeros_like(value), torch.zeros_like(value))
        for step in range(self.params.steps):
            value.requires_grad_()
            grad = torch.zeros_like(value)
            for batch in batches:
                loss = self._loss(model, batch, value)
                grad += torch.autograd.grad(loss, value)[0]
            value = adam_step(value, grad, averages, step + 1, self.params.lr)
        return value.cpu()[of_row]

    def _batches(
        self, model: LoadedModel, rows: Sequence[Placement], of_row: Sequence[int]
    ) -> list[_Batch]:
        """The sentences with everything computed that the values do not affect."""
        batches = []
        lengths = [len(row.ids) for row in rows]
        for indices in batches_by_length(lengths, self.setup.tokens_per_batch):
            some = [rows[i] for i in indices]
            batches.append(self._batch(model, some, [of_row[i] for i in indices]))
        return batches

    def _batch(
        self, model: LoadedModel, rows: Sequence[Placement], of_row: Sequence[int]
    ) -> _Batch:
        import torch

        everywhere = self.params.replaced == "all"
        first = [0 if everywhere else row.prompt - 1 for row in rows]
        suffixes = precompute_prefixes(model, [row.ids for row in rows], first, self.params.layer)
        packed = suffixes.pack(range(len(rows)))
        places, of_place, reads = [], [], []
        labels: list[int] = []
        weight: list[float] = []
        for slot, row in enumerate(rows):
            pivot = int(packed.pivots[slot]) - first[slot]
            changed = range(len(row.ids)) if everywhere else [row.prompt - 1]
            places += [pivot + place for place in changed]
            of_place += [of_row[slot]] * len(changed)
            reads += [pivot + place for place in row.reads]
            labels += row.labels
            weight += [1 / len(row.labels)] * len(row.labels)
        where, slots, at, ids, share = (
            torch.tensor(column, device=packed.hidden.device)
            for column in (places, of_place, reads, labels, weight)
        )
        return _Batch(TrainingBatch(packed, at, ids, share), where, slots)

    def _loss(self, model: LoadedModel, batch: _Batch, values: Tensor) -> Tensor:
        """Sum over the facts of the mean negative log likelihood of their answers, a scalar."""
        new = values[batch.of_place.to(values.device)]
        with replaced_output(model.mlp_out(self.params.layer), batch.places, new):
            return batch.sentences.loss(model)


def _states(
    model: LoadedModel, rows: Sequence[Placement], layer: int, tokens_per_batch: int
) -> tuple[Tensor, Tensor]:
    """What enters (N, m) and leaves (N, d) a projection at the prompts' last tokens, on the CPU."""
    prompts = [replace(row, subject=row.prompt - 1) for row in rows]
    forward = LayerwiseForward(model, prompts, tokens_per_batch)
    forward.advance_to(layer)
    inputs, outputs = forward.projection_inputs(layer), forward.projection_outputs(layer)
    return inputs.float().cpu(), outputs.float().cpu()


def _begin(known: Entries, after: Entries, starts: Tensor, of_fact: Sequence[int]) -> Tensor:
    """The value of each fact before training: that of its entry in `known`, or a start, (N, d)."""
    begin = starts.clone()
    for fact, entry in enumerate(of_fact):
        old = entry < len(known.labels)
        begin[fact] = known.values[entry] if old else starts[of_fact.index(entry)]
    return begin
