"""FT-L, constrained fine-tuning: Zhu et al., Modifying Memories in Transformer Models, 2020."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from clm_data.eval.editors.base import EditorParams, Setup, Stopwatch
from clm_data.eval.editors.deltas import Delta, Deltas, applied
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.solve import finite
from clm_data.eval.editors.values import adam_step
from clm_data.eval.errors import edit_errors
from clm_data.eval.model.batching import batches_by_length
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import Packed, make_tail
from clm_data.eval.placement import EditRequest


@dataclass(frozen=True)
class FineTuningParams(EditorParams):
    """Hyperparameters of FT-L.

    Attributes:
        layer: Whose MLP output projection is trained.
        steps: Steps, each on all facts at once.
        lr: Adam's learning rate.
        limit: No weight moves further than this from where it was.
        stop_at: Mean loss under which training ends.
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
        """The same hyperparameters for the last of ``layers``."""
        return replace(self, layer=layers[-1])


# EasyEdit, hparams/FT/llama3-8b.yaml, and mistral-7b.yaml alike (layer, steps, lr); the limit is
# that of gpt2-xl_constr.json, as the yamls of 7B models set none.
_SHIPPED = FineTuningParams(layer=21, steps=25, lr=5e-4, limit=5e-4)


@dataclass(frozen=True)
class FineTuning:
    """Trains one projection on the answers, within a box around its weights.

    The loss of a fact is the mean negative log likelihood of its answer's tokens: under teacher
    forcing, or all of them at the prompt's last token, as the protocol's ``ft_objective`` says.
    """

    params: FineTuningParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, FineTuningParams]] = {
        "llama-3-8b": _SHIPPED,
        "qwen2-7b": replace(_SHIPPED, layer=27),  # EasyEdit, hparams/FT/qwen2-7b.yaml
        "mistral-7b": _SHIPPED,
        "llama2-chinese-7b": _SHIPPED,
        # Chosen here: the same depth in proportion, and small models need larger steps.
        "smollm2-135m": FineTuningParams(layer=20, steps=25, lr=5e-4, limit=5e-3),
        "tiny": FineTuningParams(layer=2, steps=25, lr=5e-3, limit=5e-2),
    }

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """See :class:`Editor`."""
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
        left = (change.T if model.layout.transposed else change).float().cpu().contiguous()
        return Deltas(
            "ft",
            model.name,
            {path: Delta(finite(left, "fine-tuning"))},
            tuple(fact.request.id for fact in facts),
            refused,
            seconds=watch.seconds,
            steps=(steps,) * len(facts),
        )

    def _train(self, model: LoadedModel, facts: list[PlacedFact], weight: Any) -> tuple[Any, int]:
        """The change in the orientation that the weight is stored in, and the steps taken."""
        import torch

        params = self.params
        batches = self._batches(model, facts)
        start = at_least_float32(weight.detach()).clone()
        change = torch.zeros_like(start)
        state = (torch.zeros_like(start), torch.zeros_like(start))
        for step in range(params.steps):
            weight.requires_grad_(True)
            try:
                loss, grad = 0.0, torch.zeros_like(start)
                for packed, reads in batches:
                    part = self._loss(model, packed, reads) / len(facts)
                    grad += torch.autograd.grad(part, weight)[0].to(grad)
                    loss += float(part.detach())
            finally:
                weight.requires_grad_(False)
            if loss < params.stop_at:
                return change, step
            change = adam_step(change, grad, state, step + 1, params.lr)
            change = change.clamp(-params.limit, params.limit)
            with torch.no_grad():
                weight.copy_(start + change)
        return change, params.steps

    def _batches(self, model: LoadedModel, facts: list[PlacedFact]) -> list[tuple[Packed, Any]]:
        """Bare sentences, with the layers below done once, and where their answers are."""
        import torch

        rows = [self._sentence(fact) for fact in facts]
        batches = []
        for group in batches_by_length([len(ids) for ids, _ in rows], self.setup.tokens_per_batch):
            here = [rows[i] for i in group]
            ids = [one for one, _ in here]
            tail = make_tail(model, ids, [0] * len(ids), self.params.layer)
            packed = tail.pack(range(len(ids)))
            reads = [
                (slot, at, label, 1 / len(answer))
                for slot, (_, answer) in enumerate(here)
                for at, label in answer
            ]
            device = packed.hidden.device
            slots, at, labels, share = (
                torch.tensor(part, device=device) for part in zip(*reads, strict=True)
            )
            batches.append((packed, (packed.offsets[slots] + at, labels, share)))
        return batches

    def _sentence(self, fact: PlacedFact) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
        """What the model reads, and (position, answer token that it should say there)."""
        row, prompt = fact.rows[0], fact.prompts[0].ids
        if self.setup.protocol.ft_objective == "answer":
            return row.ids, list(zip(row.reads, row.labels, strict=True))
        return prompt, [(len(prompt) - 1, label) for label in row.labels]

    @staticmethod
    def _loss(model: LoadedModel, packed: Packed, reads: Any) -> Any:
        import torch

        places, labels, share = reads
        out = packed.run(packed.hidden)
        logits = model.logits(out[places.to(out.device)])
        each = torch.nn.functional.cross_entropy(logits, labels.to(logits.device), reduction="none")
        return (each * share.to(each)).sum()
