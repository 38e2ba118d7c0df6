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

from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.model.hooks import add_at, captured, shifted
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import Packed, make_tail
from clm_data.eval.model.prefix_tree import even

Site = Literal["layer", "mlp", "attn"]


@dataclass(frozen=True)
class ValueParams:
    """How target values are optimised.

    Attributes:
        steps: One more than the updates at most, as the reference counts.
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


# Chosen here: the tiny model's hidden states are some hundred times those of a large one.
TINY_VALUES = ValueParams(steps=40, lr=5.0, clamp=1.5, kl_factor=0.0625, weight_decay=1e-3)


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


@dataclass
class _Read:
    """What a step reads at the model's end.

    Attributes:
        nll: (facts,) mean negative log likelihood of the answers.
        kl: (facts,) weighted.
        hit: (facts,) whether every answer token is the likeliest.
        slope: (places, d) of ``factor * nll + kl`` at the states that were read.
        before: (facts, vocabulary) log-probabilities after the subject before any change.
    """

    nll: Any
    kl: Any
    hit: Any
    slope: Any
    before: Any


class _Work:
    """How far the optimisation of some facts is: one row a fact.

    Attributes:
        first: By site: the values before any change.
        changes: By site.
        before: See :class:`_Read`; None before the first step.
        factor: (facts,) weight of the likelihood.
    """

    def __init__(self, first: list[Any], params: ValueParams) -> None:
        import torch

        self._params = params
        self.first = first
        self.changes = [torch.zeros_like(value, requires_grad=True) for value in first]
        self._adam = [(torch.zeros_like(value), torch.zeros_like(value)) for value in first]
        self.before: Any = None
        self.factor = torch.full((len(first[0]),), params.nll_factor, device=first[0].device)

    def target(self, slot: int) -> Any:
        """A fact's value now, on the CPU."""
        return (self.first[0][slot] + self.changes[0][slot].detach()).cpu()

    def update(self, grads: Sequence[Any], step: int) -> None:
        """Change the values; steps count from 1."""
        for site, (grad, value) in enumerate(zip(grads, self.first, strict=True)):
            moved = adam_step(self.changes[site], grad, self._adam[site], step, self._params.lr)
            radius = self._params.clamp * value.norm(dim=1)
            self.changes[site] = _clamped(moved, radius).requires_grad_()

    def keep(self, slots: Any) -> None:
        """Forget the other facts."""
        self.first = [value[slots] for value in self.first]
        self.changes = [change.detach()[slots].requires_grad_() for change in self.changes]
        self._adam = [(mean[slots], square[slots]) for mean, square in self._adam]
        self.before, self.factor = self.before[slots], self.factor[slots]


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
            ids[(i + 1) * (len(fact.rows) + 1) - 1] = fact.kl.up_to_subject
        start = layer + 1 if sites == ("layer",) else layer
        self.tail = make_tail(loaded, ids, [row.subject for row in rows], start)
        self.per_fact = len(facts[0].rows) + 1

    def solve(self) -> list[tuple[Any, int]]:
        """Target value (CPU, float32) and number of updates by fact."""
        import torch

        active = list(range(len(self.facts)))
        plan = self._plan(active)
        work = _Work(self._initial(plan), self.params)
        out: list[Any] = [None] * len(active)
        for step in range(self.params.steps - 1):
            done, slope = self._look(plan, work)
            for slot in done.nonzero().flatten().tolist():
                out[active[slot]] = (work.target(slot), step)
            keep = (~done).nonzero().flatten()
            if not len(keep):
                return out
            work.update(torch.autograd.grad(slope, work.changes), step + 1)
            if len(keep) < len(active):
                active = [active[i] for i in keep.tolist()]
                plan = self._plan(active)
                work.keep(keep)
        for slot, fact in enumerate(active):  # the last update's loss would change nothing
            out[fact] = (work.target(slot), self.params.steps - 1)
        return out

    def _look(self, plan: _Step, work: _Work) -> tuple[Any, Any]:
        """(facts,) which are done; a number whose gradient is that of the loss."""
        import torch

        params = self.params
        states = self._forward(plan, work.changes)
        found = self._read(plan, states.detach(), work.factor, work.before)
        work.before = found.before
        decay = params.weight_decay * sum(
            change.norm(dim=1) / value.norm(dim=1) ** 2
            for change, value in zip(work.changes, work.first, strict=True)
        )
        done = work.factor * found.nll + found.kl + decay.detach() < params.stop_at
        if params.ease_off:
            done = done | (found.hit & (found.kl <= 0.01))
            work.factor = torch.where(found.hit, 0.1, 1.0) * params.nll_factor
        return done, (states * found.slope).sum().to(decay.device) + decay.sum()

    def _plan(self, active: list[int]) -> _Step:
        import torch

        rows = [fact * self.per_fact + c for fact in active for c in range(self.per_fact)]
        packed = self.tail.pack(rows, self._bins(active))
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

    def _bins(self, active: list[int]) -> list[list[int]]:
        """Facts by bin, once for each context, as their rows behind one context begin alike.

        The KL rows, of one token each, are dealt out among the contexts.
        """
        contexts = self.per_fact - 1
        starts = range(0, len(active) * self.per_fact, self.per_fact)
        longest = [
            max(self.tail.lengths[fact * self.per_fact : (fact + 1) * self.per_fact])
            for fact in active
        ]
        bins = []
        for together in even(longest):
            for c in range(contexts):
                kl = [starts[i] + contexts for i in together[c::contexts]]
                bins.append([starts[i] + c for i in together] + kl)
        return bins

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

    def _forward(self, plan: _Step, changes: list[Any]) -> Any:
        """Hidden states before the final norm where logits are read, (places, d)."""
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
        return out[plan.places.to(out.device)]

    def _read(self, plan: _Step, states: Any, factor: Any, before: Any) -> _Read:
        """The loss without the decay, and its slope at the states that are read.

        The slope at the logits is written in their place: a step has no second array of that size.
        """
        import torch

        states.requires_grad_()
        made = self.loaded.logits(states)
        logits = made.detach()
        labels, fact = plan.labels.to(logits.device), plan.fact.to(logits.device)
        answers, essence = logits.split([len(labels), len(logits) - len(labels)])
        now = essence.log_softmax(dim=1)
        before = now if before is None else before
        ratio = now - before
        chance = now.exp()
        kl = (chance * ratio).sum(1)
        essence.copy_(self.params.kl_factor * chance * (ratio - kl[:, None]))
        peak = answers.amax(1, keepdim=True)
        chosen = answers.gather(1, labels[:, None])
        missed = (chosen < peak)[:, 0]
        total = answers.sub_(peak).exp_().sum(1, keepdim=True)
        each = (total.log() + peak - chosen)[:, 0]
        weight = (plan.weight.to(answers) * factor.to(answers)[fact])[:, None]
        answers.mul_(weight / total).scatter_add_(1, labels[:, None], -weight)
        (slope,) = torch.autograd.grad(made, states, logits)
        nll = each.new_zeros(len(kl)).index_add(0, fact, each * plan.weight.to(each))
        wrong = each.new_zeros(len(kl)).index_add(0, fact, missed.to(each))
        home = plan.fact.device
        kl = self.params.kl_factor * kl
        return _Read(nll.to(home), kl.to(home), (wrong == 0).to(home), slope, before)


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
