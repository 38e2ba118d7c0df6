"""FT-L, constrained fine-tuning: Zhu et al., Modifying Memories in Transformer Models, 2020."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from clm_data.eval.editors.adam import adam_step
from clm_data.eval.editors.base import EditorParams, Setup, Stopwatch
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.origin import model_id
from clm_data.eval.editors.solve import check_finite
from clm_data.eval.errors import edit_errors
from clm_data.eval.model.batching import batches_by_length
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import PackedSuffixes, precompute_prefixes
from clm_data.eval.placement import EditRequest

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


@dataclass(frozen=True)
class FineTuningParams(EditorParams):
    """Hyperparameters of FT-L.

    Attributes:
        layer: The layer whose MLP output projection is trained.
        steps: Maximum number of steps; each step is on all facts.
        lr: Adam's learning rate.
        limit: Maximum absolute change of any weight.
        stop_at: Mean loss below which training ends.
    """

    layer: int
    steps: int
    lr: float
    limit: float
    stop_at: float = 1e-2

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """The one trained layer."""
        return (self.layer,)

    @property
    def moment_layers(self) -> tuple[int, ...]:
        """None: fine-tuning reads no second moment."""
        return ()

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same hyperparameters for the last of `layers`."""
        return replace(self, layer=layers[-1])


# EasyEdit, hparams/FT/llama3-8b.yaml and mistral-7b.yaml (layer, steps, lr); the yamls of 7B models
# set no limit, so it is that of gpt2-xl_constr.json.
_REFERENCE = FineTuningParams(layer=21, steps=25, lr=5e-4, limit=5e-4)


@dataclass(frozen=True)
class _Batch:
    """Sentences that run together, from the trained layer up.

    Attributes:
        packed: The sentences.
        places: (answer tokens,) places in `packed` whose states predict an answer token.
        labels: (answer tokens,) token ids.
        weight: (answer tokens,) share in the mean negative log likelihood of the fact.
    """

    packed: PackedSuffixes
    places: Tensor
    labels: Tensor
    weight: Tensor


@dataclass(frozen=True)
class FineTuning:
    """Trains one projection on the answers; each weight stays within a limit of its old value.

    The loss of a fact is the mean negative log likelihood of its answer's tokens, either with
    teacher forcing or with all of them read at the prompt's last token, as the protocol's
    `ft_objective` says.
    """

    params: FineTuningParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, FineTuningParams]] = {
        "llama-3-8b": _REFERENCE,
        "qwen2-7b": replace(_REFERENCE, layer=27),  # EasyEdit, hparams/FT/qwen2-7b.yaml
        "mistral-7b": _REFERENCE,
        "llama2-chinese-7b": _REFERENCE,
        # Our choice: a layer at the same relative depth; small models need larger changes.
        "smollm2-135m": FineTuningParams(layer=20, steps=25, lr=5e-4, limit=5e-3),
        "tiny": FineTuningParams(layer=2, steps=25, lr=5e-3, limit=5e-2),
    }

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """See `Editor.edit`."""
        self.setup.check_model(model)
        facts, refused = place_facts(model, requests, self.setup.protocol, self.setup.contexts)
        path, watch = model.layout.weight(self.params.layer), Stopwatch()
        model.mlp_out(self.params.layer)
        with (
            edit_errors(f"ft on {model.name}"),
            applied(model, past),
            restored(model, [path]) as weights,
            watch.phase("train"),
        ):
            change, steps = self._train(model, facts, weights[path])
        change = (change.T if model.layout.transposed else change).float().cpu().contiguous()
        return Deltas(
            "ft",
            model.name,
            {path: WeightDelta(check_finite(change, "fine-tuning"))},
            tuple(fact.request.id for fact in facts),
            refused,
            seconds=watch.seconds,
            steps=(steps,) * len(facts),
            origin=model_id(model),
        )

    def _train(
        self, model: LoadedModel, facts: list[PlacedFact], weight: Parameter
    ) -> tuple[Tensor, int]:
        """The change, in the orientation that the weight is stored in, and the steps taken."""
        import torch

        params = self.params
        batches = self._batches(model, facts)
        start = at_least_float32(weight.detach()).clone()
        change = torch.zeros_like(start)
        averages = (torch.zeros_like(start), torch.zeros_like(start))
        for step in range(params.steps):
            weight.requires_grad_(True)
            try:
                loss, grad = 0.0, torch.zeros_like(start)
                for batch in batches:
                    part = self._loss(model, batch) / len(facts)
                    grad += torch.autograd.grad(part, weight)[0].to(grad)
                    loss += float(part.detach())
            finally:
                weight.requires_grad_(False)
            if loss < params.stop_at:
                return change, step
            change = adam_step(change, grad, averages, step + 1, params.lr)
            change = change.clamp(-params.limit, params.limit)
            with torch.no_grad():
                weight.copy_(start + change)
        return change, params.steps

    def _batches(self, model: LoadedModel, facts: list[PlacedFact]) -> list[_Batch]:
        """The sentences in the bare context, with the layers below the trained one computed."""
        import torch

        sentences = [self._sentence(fact) for fact in facts]
        lengths = [len(ids) for ids, _ in sentences]
        batches = []
        for indices in batches_by_length(lengths, self.setup.tokens_per_batch):
            rows = [sentences[i] for i in indices]
            ids = [row_ids for row_ids, _ in rows]
            suffixes = precompute_prefixes(model, ids, [0] * len(ids), self.params.layer)
            packed = suffixes.pack(range(len(ids)))
            entries = [
                (slot, position, label, 1 / len(answer))
                for slot, (_, answer) in enumerate(rows)
                for position, label in answer
            ]
            device = packed.hidden.device
            slots, positions, labels, weight = (
                torch.tensor(column, device=device) for column in zip(*entries, strict=True)
            )
            batches.append(_Batch(packed, packed.pivots[slots] + positions, labels, weight))
        return batches

    def _sentence(self, fact: PlacedFact) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        """The input's token ids, and (position, answer token to predict there)."""
        row, prompt = fact.sentences[0], fact.prompts[0].ids
        if self.setup.protocol.ft_objective == "answer":
            return row.ids, list(zip(row.reads, row.labels, strict=True))
        return prompt, [(len(prompt) - 1, label) for label in row.labels]

    @staticmethod
    def _loss(model: LoadedModel, batch: _Batch) -> Tensor:
        """Sum over the batch's facts of the mean negative log likelihood, a scalar."""
        import torch

        out = batch.packed.run(batch.packed.hidden)
        logits = model.logits(out[batch.places.to(out.device)])
        labels = batch.labels.to(logits.device)
        token_nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        return (token_nll * batch.weight.to(token_nll)).sum()
