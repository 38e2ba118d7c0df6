"""Target values: which hidden state at the subject makes the model say the new answer.

Meng et al., Mass-Editing Memory in a Transformer (2023), section 4.2; for
PMET's variant Li et al. (2024).
Many facts are optimised in one batch; facts do not influence each other, and a fact that is done
leaves the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

from clm_data.eval.editors.base import PlacedFact
from clm_data.eval.hooks import add_at, captured, shifted
from clm_data.eval.models import LoadedModel, at_least_float32
from clm_data.eval.tail import Packed, make_tail

Site = Literal["layer", "mlp", "attn"]


@dataclass(frozen=True)
class ValueParams:
    """How target values are optimised.

    Attributes:
        steps: Forward passes at most; one fewer updates.
        lr: Adam's learning rate.
        clamp: The change is kept within this many norms of the initial value.
        kl_factor: Weight of KL(now || before) after the subject of the KL prompt.
        weight_decay: Weight of |change| / |initial value| squared.
        nll_factor: Weight of the answer's negative log likelihood.
        ease_off: PMET's rule: once every answer token is the likeliest, the likelihood counts a
            tenth, and the fact is done as soon as the weighted KL is at most 0.01.
        stop_at: Loss under which a fact is done.
    """

    steps: int
    lr: float
    clamp: float
    kl_factor: float
    weight_decay: float
    nll_factor: float = 1.0
    ease_off: bool = False
    stop_at: float = 0.05


@dataclass(frozen=True)
class Values:
    """Target values, in the order of the facts.

    Attributes:
        targets: (N, d), float32, on the CPU.
        steps: Updates made for each fact.
    """

    targets: Any
    steps: tuple[int, ...]


def target_values(
    loaded: LoadedModel,
    facts: Sequence[PlacedFact],
    layer: int,
    params: ValueParams,
    *,
    sites: tuple[Site, ...] = ("layer",),
    tokens_per_batch: int = 4096,
) -> Values:
    """Optimise target values at one layer.

    Args:
        loaded: The model; its weights get no gradient.
        facts: The facts.
        layer: Where the value stands.
        params: How to optimise.
        sites: What is changed at the subject: the layer's output, or the output projections of its
            MLP and attention. The target returned is the first's.
        tokens_per_batch: Tokens run at once.
    """
    import torch

    loaded.mlp_out(layer)
    targets: list[Any] = [None] * len(facts)
    steps = [0] * len(facts)
    for batch in batches(facts, tokens_per_batch):
        group = _Group(loaded, [facts[i] for i in batch], layer, params, sites)
        for index, (target, count) in zip(batch, group.solve(), strict=True):
            targets[index], steps[index] = target, count
    return Values(torch.stack(targets), tuple(steps))


def batches(facts: Sequence[PlacedFact], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of facts that are optimised together."""
    batch: list[int] = []
    tokens = 0
    for index, fact in enumerate(facts):
        size = 1 + sum(len(row.ids) - row.subject for row in fact.rows)
        if batch and tokens + size > tokens_per_batch:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += size
    if batch:
        yield batch


@dataclass
class _Step:
    """Rows laid out for a step, and where their logits are read.

    Attributes:
        packed: The rows of the facts at work, those of a fact together, KL last.
        places: One an answer token, then one a fact for KL.
        labels: One an answer token.
        fact: Which fact it belongs to.
        weight: Its part in the fact's loss.
    """

    packed: Packed
    places: Any
    labels: Any
    fact: Any
    weight: Any


class _Group:
    """Facts whose values are optimised in one batch; rows of a fact lie together, KL last."""

    def __init__(
        self,
        loaded: LoadedModel,
        facts: list[PlacedFact],
        layer: int,
        params: ValueParams,
        sites: tuple[Site, ...],
    ) -> None:
        self.loaded, self.facts, self.layer = loaded, facts, layer
        self.params, self.sites = params, sites
        rows = [row for fact in facts for row in (*fact.rows, fact.kl)]
        ids = [row.ids for row in rows]
        for i, fact in enumerate(facts):  # nothing after the subject is read in the KL row
            ids[(i + 1) * (len(fact.rows) + 1) - 1] = fact.kl.stem
        start = layer + 1 if sites == ("layer",) else layer
        self.tail = make_tail(loaded, ids, [row.subject for row in rows], start)
        self.per_fact = len(facts[0].rows) + 1

    def solve(self) -> list[tuple[Any, int]]:
        """Target value (CPU, float32) and number of updates by fact."""
        import torch

        params, active = self.params, list(range(len(self.facts)))
        plan = self._plan(active)
        first = self._initial(plan)
        changes = [torch.zeros_like(value, requires_grad=True) for value in first]
        adam = [(torch.zeros_like(v), torch.zeros_like(v)) for v in first]
        before: Any = None
        factor = torch.full((len(active),), params.nll_factor, device=first[0].device)
        out: list[Any] = [None] * len(active)
        for step in range(params.steps):
            nll, hit, kl_log = self._forward(plan, changes)
            before = kl_log.detach() if before is None else before
            kl = params.kl_factor * (kl_log.exp() * (kl_log - before)).sum(1)
            decay = sum(
                change.norm(dim=1) / value.norm(dim=1) ** 2
                for change, value in zip(changes, first, strict=True)
            )
            loss = factor * nll + kl + params.weight_decay * decay
            done = loss.detach() < params.stop_at
            if params.ease_off:
                done = done | (hit & (kl.detach() <= 0.01))
                factor = torch.where(hit, 0.1, 1.0) * params.nll_factor
            done = done | (step == params.steps - 1)
            for slot in done.nonzero().flatten().tolist():
                target = (first[0][slot] + changes[0][slot].detach()).cpu()
                out[active[slot]] = (target, step)
            keep = (~done).nonzero().flatten()
            if not len(keep):
                break
            grads = torch.autograd.grad(loss[keep].sum(), changes)
            fresh = [
                _clamped(
                    adam_step(change, grad, state, step + 1, params.lr),
                    params.clamp * value.norm(dim=1),
                )
                for change, grad, state, value in zip(changes, grads, adam, first, strict=True)
            ]
            if len(keep) < len(active):
                active = [active[i] for i in keep.tolist()]
                plan = self._plan(active)
                first = [value[keep] for value in first]
                fresh = [change[keep] for change in fresh]
                adam = [(m[keep], v[keep]) for m, v in adam]
                before, factor = before[keep], factor[keep]
            changes = [change.requires_grad_() for change in fresh]
        return out

    def _plan(self, active: list[int]) -> _Step:
        import torch

        rows = [fact * self.per_fact + c for fact in active for c in range(self.per_fact)]
        packed = self.tail.pack(rows)
        entries = [
            (slot * self.per_fact + c, at - row.subject, label, slot, 1 / (len(row.labels) * n))
            for slot, fact in enumerate(active)
            for n in [len(self.facts[fact].rows)]
            for c, row in enumerate(self.facts[fact].rows)
            for at, label in zip(row.reads, row.labels, strict=True)
        ]
        device = packed.hidden.device
        of, at, labels, fact, weight = (
            torch.tensor(part, device=device) for part in zip(*entries, strict=True)
        )
        essence = packed.offsets[self.per_fact - 1 :: self.per_fact]
        return _Step(packed, torch.cat([packed.offsets[of] + at, essence]), labels, fact, weight)

    def _module(self, site: Site) -> Any:
        part = self.loaded.mlp_out if site == "mlp" else self.loaded.attn_out
        return part(self.layer)

    def _initial(self, plan: _Step) -> list[Any]:
        """The values before any change, at the bare context: (facts, d) float32 by site."""
        import torch

        packed, bare = plan.packed, plan.packed.offsets[:: self.per_fact]
        if self.sites == ("layer",):
            return [at_least_float32(packed.hidden.flatten(0, 1)[bare])]
        with torch.no_grad(), ExitStack() as stack:
            seen = [stack.enter_context(captured(self._module(site))) for site in self.sites]
            packed.run(packed.hidden)
        return [at_least_float32(one.output.flatten(0, 1)[bare]) for one in seen]

    def _forward(self, plan: _Step, changes: list[Any]) -> tuple[Any, Any, Any]:
        """(facts,) mean NLL; (facts,) whether every answer token is the likeliest; KL log-probs."""
        import torch

        packed = plan.packed
        spread = [change.repeat_interleave(self.per_fact, dim=0) for change in changes]
        hidden = packed.hidden
        with ExitStack() as stack:
            if self.sites == ("layer",):
                hidden = add_at(hidden, packed.offsets, spread[0])
            else:
                for site, shift in zip(self.sites, spread, strict=True):
                    stack.enter_context(shifted(self._module(site), packed.offsets, shift))
            out = packed.run(hidden)
        logits = self.loaded.logits(out[plan.places.to(out.device)]).to(plan.labels.device)
        answers, essence = logits.split([len(plan.labels), len(changes[0])])
        each = torch.nn.functional.cross_entropy(answers, plan.labels, reduction="none")
        nll = each.new_zeros(len(essence)).index_add(0, plan.fact, each * plan.weight.to(each))
        wrong = each.new_zeros(len(essence))
        if self.params.ease_off:
            missed = (answers.detach().argmax(1) != plan.labels).to(each)
            wrong = wrong.index_add(0, plan.fact, missed)
        return nll, wrong == 0, essence.log_softmax(dim=1)


def adam_step(value: Any, grad: Any, state: tuple[Any, Any], step: int, lr: float) -> Any:
    """One Adam step (Kingma and Ba, 2015) with the usual constants; ``state`` is updated."""
    mean, square = state
    mean.mul_(0.9).add_(grad, alpha=0.1)
    square.mul_(0.999).addcmul_(grad, grad, value=0.001)
    width = square.sqrt() / (1 - 0.999**step) ** 0.5 + 1e-8
    return value.detach() - lr / (1 - 0.9**step) * mean / width


def _clamped(change: Any, radius: Any) -> Any:
    norm = change.norm(dim=1)
    scale = (radius / norm.clamp(min=1e-30)).clamp(max=1.0)
    return change * scale[:, None]
