"""WISE: Wang et al., WISE: Rethinking the Knowledge Memory for Lifelong Editing, NeurIPS 2024."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, ClassVar, Self

from clm_data.eval.editors.base import Setup, Stopwatch
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.origin import check_origin, model_id
from clm_data.eval.editors.retrieval import Pair, side
from clm_data.eval.editors.side_memory import Shard, SideMemory, SideScope
from clm_data.eval.editors.solve import check_finite
from clm_data.eval.editors.training import answer_rows
from clm_data.eval.editors.wise_training import (
    SideTraining,
    Unrelated,
    WiseParams,
    activation_name,
    trained_entries,
)
from clm_data.eval.errors import EditError, edit_errors
from clm_data.eval.model.loaded import LoadedModel, at_least_float32
from clm_data.eval.placement import EditRequest
from clm_data.records import LANGUAGES, Language, Record

if TYPE_CHECKING:
    from torch import Tensor

_CALIBRATED_ON = 25
"""Facts of each language that the unit of distances is measured on."""
# EasyEdit, hparams/WISE: llama-7b.yaml and mistral-7b.yaml, which train one fact after another.
_LLAMA_2 = WiseParams(layer=27)


@dataclass(frozen=True)
class Wise:
    """Trains a copy of one weight on the facts, and answers prompts near them with that copy.

    Which prompts those are is decided by how far the copy moves the projection's outputs: training
    moves edited prompts far, and unrelated text, of which each fact has one, hardly at all.

    Attributes:
        params: Hyperparameters.
        setup: See `Setup`.
        unrelated: Texts by language, which `fit` finds; None before.
        unit: Distance that α, β and γ are multiples of.
    """

    params: WiseParams
    setup: Setup
    unrelated: Mapping[Language, tuple[Unrelated, ...]] | None = None
    unit: float = 1.0

    name: ClassVar[str] = "wise"
    PARAMS: ClassVar[Mapping[str, WiseParams]] = {
        "llama2-chinese-7b": _LLAMA_2,
        "mistral-7b": _LLAMA_2,
        # llama3-8b.yaml and llama3.1-8b.yaml
        "llama-3-8b": WiseParams(layer=29, steps=30, lr=0.9, alpha=2.0, act_ratio=0.5),
        "llama-3.1-8b": WiseParams(layer=29, steps=30, lr=0.9, beta=10.0),
        "qwen2.5-7b": WiseParams(layer=23),  # qwen2.5-7b.yaml
        "qwen2-7b": WiseParams(layer=23),  # There is no yaml; Qwen2.5's.
        "qwen3-8b": WiseParams(layer=29),  # Our choice: the same relative depth in 36 layers.
        "gpt-j-6b": WiseParams(layer=21, alpha=15.0, beta=40.0, gamma=20.0),  # gpt-j-6B.yaml
        # gpt2-xl.yaml loads GPT-2, of 12 layers. Our choice: its settings, at GPT-J's relative
        # depth.
        "gpt2-xl": WiseParams(layer=36, steps=40, act_ratio=0.8),
        # The settings of the parity run.
        "smollm2-135m": WiseParams(layer=26, steps=30, lr=0.2, alpha=1.0, beta=4.0, gamma=2.0),
        # Our choice, on facts of the demo after the first hundred and models that know them. One
        # copy learns 100 facts. With contexts, which are strings of names, generality is the same.
        "tiny": WiseParams(
            layer=3,
            steps=150,
            lr=0.2,
            alpha=5.0,
            beta=30.0,
            gamma=20.0,
            mask_ratio=0.5,
            batch_size=None,
            contexts=1,
            unrelated=8,
        ),
    }

    def fit(self, model: LoadedModel, rows: Sequence[Pair]) -> Self:
        """See `TrainedEditor.fit`: take the unrelated texts from the rows, and measure the unit.

        The locality probes of records that are not edited are unrelated texts as well; the paper's
        texts are such questions, too.
        """
        if not rows:
            raise EditError(
                f"{self.name} needs texts about subjects that are not edited, and there are none; "
                "edit fewer facts with --facts"
            )
        texts: dict[Language, tuple[Unrelated, ...]] = {}
        for lang in LANGUAGES:
            facts = [side(row, lang) for row in rows]
            probes = [row.probe(lang) for row in rows if isinstance(row, Record)]
            texts[lang] = (
                *(Unrelated(lang, fact.prompt, fact.ground_truth) for fact in facts),
                *(Unrelated(lang, probe.loc, probe.loc_ans) for probe in probes),
            )
        fitted = replace(self, unrelated=texts, unit=1.0)
        if self.params.unit == "distance":
            return fitted
        return replace(fitted, unit=fitted._measured_unit(model, rows))

    def _measured_unit(self, model: LoadedModel, rows: Sequence[Pair]) -> float:
        """The median distance of a fact's rows after one step on it."""
        requests = [
            EditRequest(f"{number}:{lang}", lang, fact.prompt, fact.subject, fact.target_new)
            for number, row in enumerate(rows[:_CALIBRATED_ON])
            for lang in LANGUAGES
            for fact in [side(row, lang)]
        ]
        facts, _ = place_facts(model, requests, self.setup.protocol, self.setup.contexts)
        weight = _weight(model, self.params.layer)
        trained = self._trained(weight, 0)
        found: list[float] = []
        for fact in facts:
            run = self._training(model, [fact], steps=1).train(
                at_least_float32(weight).new_zeros(weight.shape), trained, weight
            )
            found += run.distances
        unit = float(median(found))
        if not unit > 0:
            raise EditError(f"{self.name} on {model.name}: a step moves no output; raise lr")
        return unit

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: SideMemory | None = None
    ) -> SideMemory:
        """See `Editor.edit`."""
        params = self.params
        if self.unrelated is None:
            raise EditError(f"{self.name} needs unrelated texts first; call fit")
        if past is not None:
            check_origin("an edit", past.model, past.origin, model)
        scope = self.scope_of(model)
        placed, unplaced = place_facts(model, requests, self.setup.protocol, self.setup.contexts)
        facts, _, refused = answer_rows(model, placed, self.setup.protocol)
        weight, watch = _weight(model, params.layer), Stopwatch()
        shards: list[Shard] = []
        steps: list[int] = []
        with edit_errors(f"{self.name} on {model.name}"), watch.phase("train"):
            shard = self._opened(weight, _last(past, scope, weight))
            while len(steps) < len(facts):
                if shard.room == 0:
                    shards.append(shard.added())
                    shard = self._opened(weight, _empty(shard.known.number + 1, weight))
                size = min(params.batch_size or len(facts), shard.room or len(facts))
                batch = facts[len(steps) : len(steps) + size]
                run = self._training(model, batch).train(shard.change, shard.trained, weight)
                shard.distances += run.distances
                steps += [run.steps] * len(batch)
            shards.append(shard.added())
        return SideMemory(
            self.name,
            model.name,
            scope,
            tuple(shards),
            tuple(fact.request.id for fact in facts),
            unplaced + refused,
            watch.seconds,
            tuple(steps),
            origin=model_id(model),
        )

    def scope_of(self, model: LoadedModel) -> SideScope:
        """How side memories of a model are kept and chosen."""
        params = self.params
        model.mlp_out(params.layer)
        return SideScope(
            params.layer,
            model.layout.weight(params.layer),
            activation_name(model, params),
            params.act_ratio,
            params.save_freq,
            params.merge_freq,
            params.density,
            params.long_prompts,
            self.unit,
        )

    def _training(
        self, model: LoadedModel, facts: Sequence[PlacedFact], *, steps: int | None = None
    ) -> SideTraining:
        """Facts that are trained together."""
        params = self.params
        return SideTraining(
            model,
            facts,
            [self.unrelated_to(fact.request) for fact in facts],
            replace(
                params,
                alpha=params.alpha * self.unit,
                beta=params.beta * self.unit,
                gamma=params.gamma * self.unit,
                steps=params.steps if steps is None else steps,
            ),
            self.setup,
        )

    def unrelated_to(self, request: EditRequest) -> list[Unrelated]:
        """Texts for a fact, which depend on the seed and the fact's id only."""
        other = tuple(lang for lang in LANGUAGES if lang != request.lang)
        found = []
        for number in range(self.params.unrelated):
            lang = (request.lang, *other)[number % len(LANGUAGES)]
            texts = (self.unrelated or {})[lang]
            name = repr((self.params.seed, request.id, number)).encode()
            found.append(texts[int(hashlib.sha256(name).hexdigest(), 16) % len(texts)])
        return found

    def _opened(self, weight: Tensor, known: Shard) -> _OpenShard:
        return _OpenShard(
            known, known.change.clone(), self._trained(weight, known.number), self.params.save_freq
        )

    def _trained(self, weight: Tensor, number: int) -> Tensor:
        """The entries that a shard trains."""
        rows, columns = weight.shape
        drawn = trained_entries(rows, columns, self.params.mask_ratio, self.params.seed + number)
        return drawn.to(weight.device)


@dataclass
class _OpenShard:
    """A shard while facts are added to it.

    Attributes:
        known: The shard after earlier edits.
        change: W' - W, which is trained in place.
        trained: The entries that are trained.
        save_freq: Facts per shard.
        distances: Of the added facts.
    """

    known: Shard
    change: Tensor
    trained: Tensor
    save_freq: int | None
    distances: list[float] = field(default_factory=list)

    @property
    def room(self) -> int | None:
        """Number of facts that can still be added; None if there is no limit."""
        known = self.known.facts + len(self.distances)
        return None if self.save_freq is None else self.save_freq - known

    def added(self) -> Shard:
        """What the facts added."""
        new = check_finite(self.change - self.known.change, "the side memory").cpu()
        return Shard(self.known.number, new, min(self.distances), len(self.distances))


def _weight(model: LoadedModel, layer: int) -> Tensor:
    """W of a layer, (d, m)."""
    weight: Tensor = model.mlp_out(layer).weight.detach()
    return weight.T if model.layout.transposed else weight


def _empty(number: int, weight: Tensor) -> Shard:
    import torch

    zeros = torch.zeros_like(at_least_float32(weight), memory_format=torch.contiguous_format)
    return Shard(number, zeros, float("inf"), 0)


def _last(past: SideMemory | None, scope: SideScope, weight: Tensor) -> Shard:
    """The shard that comes next: the last one of earlier edits, unless it is full."""
    if past is None or not past.shards:
        return _empty(0, weight)
    last = past.shards[-1]
    if last.facts == scope.save_freq:
        return _empty(last.number + 1, weight)
    return replace(last, change=last.change.to(_empty(0, weight).change))
