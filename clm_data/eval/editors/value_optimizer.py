"""Optimizing target values.

For each fact, a change of the hidden state at the subject's last token is optimized with Adam
(Meng et al., Mass-Editing Memory in a Transformer, 2023, equation 16; for PMET's variant Li et
al., PMET: Precise Model Editing in a Transformer, 2024). Many facts are optimized in one batch,
where they do not affect each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clm_data.eval.editors.adam import adam_step
from clm_data.eval.editors.facts import PlacedFact
from clm_data.eval.editors.values import Site, TargetValues, ValueParams
from clm_data.eval.model.hooks import add_at, captured, shifted_output
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.model.partial_forward import PackedSuffixes, precompute_prefixes
from clm_data.eval.model.prefix_tree import balance_bins

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


STEPS_PER_CHECK = 5
"""Steps on a GPU after which the host waits for it, to drop the facts that are finished."""


def optimize_target_values(
    loaded: LoadedModel,
    facts: Sequence[PlacedFact],
    layer: int,
    params: ValueParams,
    *,
    sites: tuple[Site, ...] = ("layer",),
    tokens_per_batch: int = 4096,
) -> TargetValues:
    """Optimize the target values of some facts at one layer.

    Args:
        loaded: The model; its weights get no gradient.
        facts: The facts.
        layer: The layer whose output, or whose MLP's and attention's outputs, are optimized.
        params: Hyperparameters.
        sites: What is changed at the subject. The targets are values of the first site.
        tokens_per_batch: Maximum tokens per forward pass.

    Raises:
        LayoutError: The model has no such layer.
    """
    import torch

    loaded.mlp_out(layer)
    steps_per_check = 1 if loaded.device.type == "cpu" else STEPS_PER_CHECK
    targets: dict[int, Tensor] = {}
    steps: dict[int, int] = {}
    for batch in fact_batches(facts, tokens_per_batch):
        optimizer = _ValueOptimizer(loaded, [facts[i] for i in batch], layer, params, sites)
        for index, (target, count) in zip(batch, optimizer.optimize(steps_per_check), strict=True):
            targets[index], steps[index] = target, count
    order = range(len(facts))
    return TargetValues(torch.stack([targets[i] for i in order]), tuple(steps[i] for i in order))


def fact_batches(facts: Sequence[PlacedFact], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indices of facts that are optimized together, in order.

    A fact counts the tokens of its sentences after the subject, and one for its KL prompt.
    """
    batch: list[int] = []
    tokens = 0
    for index, fact in enumerate(facts):
        size = 1 + sum(len(row.ids) - row.subject for row in fact.sentences)
        if batch and tokens + size > tokens_per_batch:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += size
    if batch:
        yield batch


@dataclass(frozen=True)
class _StepPlan:
    """The rows of the active facts, and where their logits are read.

    Attributes:
        packed: The sentences of each active fact together, its KL prompt last.
        places: (answer tokens + facts,) places in `packed` whose states are read: one per answer
            token, then one per fact for KL.
        labels: (answer tokens,) token ids.
        fact: (answer tokens,) which active fact a token belongs to.
        weight: (answer tokens,) a token's share in the fact's mean negative log likelihood.
    """

    packed: PackedSuffixes
    places: Tensor
    labels: Tensor
    fact: Tensor
    weight: Tensor


@dataclass(frozen=True)
class _Loss:
    """The loss of each active fact without the weight decay, and its gradient.

    Attributes:
        nll: (facts,) mean negative log likelihood of the answer's tokens.
        kl: (facts,) KL times `kl_factor`.
        all_correct: (facts,) whether every answer token is the most likely one.
        grad: (places, d) gradient of `nll_factor` NLL + KL with respect to the states read.
        baseline: (facts, vocabulary) log-probabilities after the subject of the KL prompt before
            any change.
    """

    nll: Tensor
    kl: Tensor
    all_correct: Tensor
    grad: Tensor
    baseline: Tensor


class _State:
    """State of the optimization, one row per active fact.

    Attributes:
        initial: (facts, d) by site: the values before any change.
        changes: (facts, d) by site.
        baseline: See `_Loss`; None before the first step.
        nll_factor: (facts,) weight of the likelihood.
        steps: (facts,) number of updates before a fact was finished; -1 if it is not.
    """

    def __init__(self, initial: list[Tensor], params: ValueParams) -> None:
        import torch

        self._params = params
        self.initial = initial
        self.changes = [torch.zeros_like(value, requires_grad=True) for value in initial]
        self._averages = [(torch.zeros_like(value), torch.zeros_like(value)) for value in initial]
        self.baseline: Tensor | None = None
        first = initial[0]
        self.nll_factor = torch.full((len(first),), params.nll_factor, device=first.device)
        self.steps = torch.full((len(first),), -1, device=first.device)
        self._targets = torch.zeros_like(first)

    def finish(self, finished: Tensor, step: int) -> None:
        """Keep the current values of facts that are finished now, without waiting for the device.

        Args:
            finished: (facts,) whether a fact is finished; those that were before keep their values.
            step: Number of updates so far.
        """
        import torch

        new = finished & (self.steps < 0)
        current = self.initial[0] + self.changes[0].detach()
        self._targets = torch.where(new[:, None], current, self._targets)
        self.steps = torch.where(new, step, self.steps)

    def finished(self) -> dict[int, tuple[Tensor, int]]:
        """Of the finished facts the value at the first site, (d,), on the CPU, and the updates.

        This waits for the device.
        """
        steps = self.steps.tolist()
        return {slot: (self._targets[slot].cpu(), n) for slot, n in enumerate(steps) if n >= 0}

    def update(self, grads: Sequence[Tensor], step: int) -> None:
        """Apply an Adam step to the changes and clamp their norms; steps count from 1."""
        for site, (grad, value) in enumerate(zip(grads, self.initial, strict=True)):
            change = adam_step(
                self.changes[site], grad, self._averages[site], step, self._params.lr
            )
            radius = self._params.clamp * value.norm(dim=1)
            self.changes[site] = _clamp_norm(change, radius).requires_grad_()

    def keep(self, remaining: Sequence[int]) -> None:
        """Drop all facts but those at some slots."""
        import torch

        slots = torch.tensor(remaining, device=self.steps.device)
        self.steps, self._targets = self.steps[slots], self._targets[slots]
        self.initial = [value[slots] for value in self.initial]
        self.changes = [change.detach()[slots].requires_grad_() for change in self.changes]
        self._averages = [(mean[slots], square[slots]) for mean, square in self._averages]
        assert self.baseline is not None
        self.baseline, self.nll_factor = self.baseline[slots], self.nll_factor[slots]


class _ValueOptimizer:
    """Optimizes the target values of some facts in one batch.

    Rows are ordered by fact: its sentences, then its KL prompt.

    Args:
        loaded: The model.
        facts: Facts with the same number of contexts.
        layer: The optimized layer.
        params: Hyperparameters.
        sites: What is changed at the subject.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        facts: list[PlacedFact],
        layer: int,
        params: ValueParams,
        sites: tuple[Site, ...],
    ) -> None:
        self._loaded, self._facts, self._layer = loaded, facts, layer
        self._params, self._sites = params, sites
        self._contexts = len(facts[0].sentences)
        self._rows_per_fact = self._contexts + 1
        ids, subjects = [], []
        for fact in facts:
            ids += [row.ids for row in fact.sentences]
            ids.append(fact.kl_prompt.up_to_subject)  # later tokens of the KL prompt are not read
            subjects += [row.subject for row in (*fact.sentences, fact.kl_prompt)]
        start = layer + 1 if sites == ("layer",) else layer
        self._suffixes = precompute_prefixes(loaded, ids, subjects, start)

    def optimize(self, steps_per_check: int) -> list[tuple[Tensor, int]]:
        """The target value (d,) and the number of updates, by fact.

        A fact that is finished leaves the batch at the next check; until then its later values are
        ignored.

        Args:
            steps_per_check: Steps after which the host learns which facts are finished.
        """
        import torch

        active = list(range(len(self._facts)))
        plan = self._plan(active)
        state = _State(self._initial_values(plan), self._params)
        results: dict[int, tuple[Tensor, int]] = {}
        for step in range(self._params.steps - 1):
            finished, loss = self._evaluate(plan, state)
            state.finish(finished, step)
            leaving: dict[int, tuple[Tensor, int]] = {}
            if (step + 1) % steps_per_check == 0:
                leaving = state.finished()
                results |= {active[slot]: found for slot, found in leaving.items()}
            remaining = [slot for slot in range(len(active)) if slot not in leaving]
            if not remaining:
                break
            state.update(torch.autograd.grad(loss, state.changes), step + 1)
            if leaving:
                active = [active[slot] for slot in remaining]
                plan = self._plan(active)
                state.keep(remaining)
        else:  # the loss after the last update is not needed
            state.finish(torch.ones_like(state.steps, dtype=torch.bool), self._params.steps - 1)
            results |= {active[slot]: found for slot, found in state.finished().items()}
        return [results[i] for i in range(len(self._facts))]

    def _plan(self, active: list[int]) -> _StepPlan:
        import torch

        per_fact = self._rows_per_fact
        rows = [fact * per_fact + i for fact in active for i in range(per_fact)]
        packed = self._suffixes.pack(rows, self._bins(active))
        entries = [
            (
                slot * per_fact + i,
                read - row.subject,
                label,
                slot,
                1 / (len(row.labels) * self._contexts),
            )
            for slot, fact in enumerate(active)
            for i, row in enumerate(self._facts[fact].sentences)
            for read, label in zip(row.reads, row.labels, strict=True)
        ]
        device = packed.hidden.device
        row, offset, labels, fact, weight = (
            torch.tensor(column, device=device) for column in zip(*entries, strict=True)
        )
        kl_places = packed.pivots[per_fact - 1 :: per_fact]
        places = torch.cat([packed.pivots[row] + offset, kl_places])
        return _StepPlan(packed, places, labels, fact, weight)

    def _bins(self, active: list[int]) -> list[list[int]]:
        """Bins of rows: some facts in one context per bin, so that they share its cached prefix.

        KL prompts, one token each, are distributed over the contexts.
        """
        contexts, per_fact = self._contexts, self._rows_per_fact
        starts = range(0, len(active) * per_fact, per_fact)
        longest = [
            max(self._suffixes.lengths[fact * per_fact : (fact + 1) * per_fact]) for fact in active
        ]
        bins = []
        for together in balance_bins(longest):
            for context in range(contexts):
                kl_rows = [starts[i] + contexts for i in together[context::contexts]]
                bins.append([starts[i] + context for i in together] + kl_rows)
        return bins

    def _module(self, site: Site) -> Module:
        part = self._loaded.mlp_out if site == "mlp" else self._loaded.attn_out
        return part(self._layer)

    def _initial_values(self, plan: _StepPlan) -> list[Tensor]:
        """The unchanged values in the bare context by site, (facts, d), at least float32."""
        import torch

        packed, bare = plan.packed, plan.packed.pivots[:: self._rows_per_fact]
        if self._sites == ("layer",):
            return [at_least_float32(packed.hidden.flatten(0, 1)[bare])]
        with torch.no_grad(), ExitStack() as stack:
            records = [stack.enter_context(captured(self._module(site))) for site in self._sites]
            packed.run(packed.hidden)
        return [at_least_float32(record.output.flatten(0, -2)[bare]) for record in records]

    def _evaluate(self, plan: _StepPlan, state: _State) -> tuple[Tensor, Tensor]:
        """Evaluate the loss.

        Returns:
            (facts,) whether a fact is finished, and a scalar with the gradient of the loss.
        """
        import torch

        params = self._params
        states = self._forward(plan, state.changes)
        loss = self._loss(plan, states.detach(), state.nll_factor, state.baseline)
        state.baseline = loss.baseline
        decay = params.weight_decay * sum(
            change.norm(dim=1) / value.norm(dim=1) ** 2
            for change, value in zip(state.changes, state.initial, strict=True)
        )
        finished = state.nll_factor * loss.nll + loss.kl + decay.detach() < params.stop_at
        if params.ease_off:
            finished = finished | (loss.all_correct & (loss.kl <= 0.01))
            state.nll_factor = torch.where(loss.all_correct, 0.1, 1.0) * params.nll_factor
        return finished, (states * loss.grad).sum().to(decay.device) + decay.sum()

    def _forward(self, plan: _StepPlan, changes: list[Tensor]) -> Tensor:
        """Hidden states before the final norm at the places that are read, (places, d)."""
        packed = plan.packed
        per_row = [change.repeat_interleave(self._rows_per_fact, dim=0) for change in changes]
        hidden = packed.hidden
        with ExitStack() as stack:
            if self._sites == ("layer",):
                hidden = add_at(hidden, packed.pivots, per_row[0])
            else:
                for site, shift in zip(self._sites, per_row, strict=True):
                    stack.enter_context(shifted_output(self._module(site), packed.pivots, shift))
            out = packed.run(hidden)
        return out[plan.places.to(out.device)]

    def _loss(
        self, plan: _StepPlan, states: Tensor, nll_factor: Tensor, baseline: Tensor | None
    ) -> _Loss:
        """The loss at states (places, d), without the weight decay.

        The gradient with respect to the logits overwrites the logits, so that a step holds only
        one array of that size.
        """
        import torch

        states.requires_grad_()
        logits_with_grad = self._loaded.logits(states)
        logits = logits_with_grad.detach()
        labels, fact = plan.labels.to(logits.device), plan.fact.to(logits.device)
        answers, kl_logits = logits.split([len(labels), len(logits) - len(labels)])

        log_probs = kl_logits.log_softmax(dim=1)
        baseline = log_probs if baseline is None else baseline
        log_ratio = log_probs - baseline
        probs = log_probs.exp()
        kl = (probs * log_ratio).sum(1)
        kl_logits.copy_(self._params.kl_factor * probs * (log_ratio - kl[:, None]))

        peak = answers.amax(1, keepdim=True)
        chosen = answers.gather(1, labels[:, None])
        wrong = (chosen < peak)[:, 0]
        total = answers.sub_(peak).exp_().sum(1, keepdim=True)
        token_nll = (total.log() + peak - chosen)[:, 0]
        weight = (plan.weight.to(answers) * nll_factor.to(answers)[fact])[:, None]
        answers.mul_(weight / total).scatter_add_(1, labels[:, None], -weight)

        (grad,) = torch.autograd.grad(logits_with_grad, states, logits)
        nll = token_nll.new_zeros(len(kl)).index_add(0, fact, token_nll * plan.weight.to(token_nll))
        wrong_count = token_nll.new_zeros(len(kl)).index_add(0, fact, wrong.to(token_nll))
        home = plan.fact.device
        return _Loss(
            nll.to(home),
            (self._params.kl_factor * kl).to(home),
            (wrong_count == 0).to(home),
            grad,
            baseline,
        )


def _clamp_norm(change: Tensor, radius: Tensor) -> Tensor:
    """Rows (facts, d) scaled down to a norm of at most `radius` (facts,)."""
    norm = change.norm(dim=1)
    scale = (radius / norm.clamp(min=1e-30)).clamp(max=1.0)
    return change * scale[:, None]
