"""Seconds of the phases of a cell, from measured speeds and the tokens of its texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from clm_data.eval.editors import method_class
from clm_data.eval.editors.alphaedit import AlphaEditParams
from clm_data.eval.editors.base import EditorParams
from clm_data.eval.editors.ft import FineTuningParams
from clm_data.eval.editors.grace import GraceParams
from clm_data.eval.editors.lora import LoraParams
from clm_data.eval.editors.multilayer import MultilayerParams
from clm_data.eval.editors.rome import RomeParams
from clm_data.eval.editors.training import TrainingParams
from clm_data.eval.editors.ultraedit import UltraEditParams
from clm_data.eval.estimate.speed import Speed
from clm_data.eval.estimate.texts import FactTokens, QuestionTokens, Texts
from clm_data.eval.recipe import Recipe
from clm_data.eval.sweep.cell import batches_of, measured_after
from clm_data.eval.sweep.plan import PlannedCell

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """What the seconds of a model's work depend on.

    Attributes:
        speed: Measured times.
        depth: Number of layers.
        tokens_per_batch: Maximum tokens per forward pass.
    """

    speed: Speed
    depth: int
    tokens_per_batch: int

    def passes(self, tokens: int) -> int:
        """Forward passes for some tokens."""
        return max(1, math.ceil(tokens / self.tokens_per_batch))

    def through(self, tokens: int, layers: int, reads: int = 0) -> float:
        """Seconds to run tokens through some layers once."""
        return self.speed.seconds(tokens, layers, passes=self.passes(tokens), reads=reads)


class SweepTime:
    """Seconds of the cells of one model, asked for in the order in which a sweep computes them.

    What an earlier cell has computed (target values, factors of second moments) costs nothing.

    Args:
        timing: Speeds and sizes.
        recipe: Batches, checkpoints, and whether text is generated.
        texts: By protocol.
        records: Number of records.
    """

    def __init__(
        self, timing: Timing, recipe: Recipe, texts: dict[str, Texts], records: int
    ) -> None:
        self._timing, self._recipe, self._texts, self._records = timing, recipe, texts, records
        self._known: set[tuple[object, ...]] = set()

    def baseline(self, protocol: str) -> float:
        """Seconds to measure the unedited model: as after an edit, and true answers once more."""
        questions = self._questions(protocol, range(self._records))
        again = sum(one.read for one in questions) // 4
        return self._measure(questions) + self._timing.through(again, self._timing.depth)

    def cell(self, cell: PlannedCell) -> float | None:
        """Seconds of a cell at most, without what is shared; None if the method's are unknown."""
        setting = cell.setting
        batches = batches_of(self._records, setting.batch_size, self._recipe.max_batches)
        stops = measured_after(len(batches), self._recipe.checkpoints)
        total = 0.0
        for number, batch in enumerate(batches):
            sequential = setting.mode == "sequential"
            edit = self._edit(cell, batch, first=not sequential or number == 0)
            if edit is None:
                return None
            total += edit
            if not sequential:
                total += self._measure(self._questions(setting.protocol, batch))
            elif number + 1 in stops or number + 1 == len(batches):
                total += self._measure(self._questions(setting.protocol, range(batch.stop)))
        return total

    def _questions(self, protocol: str, indices: Iterable[int]) -> list[QuestionTokens]:
        return [one for index in indices for one in self._texts[protocol].questions(index)]

    def _measure(self, questions: Sequence[QuestionTokens]) -> float:
        timing = self._timing
        read, predicted = sum(q.read for q in questions), sum(q.predicted for q in questions)
        passes = max(4, timing.passes(read))  # four kinds of questions, each in batches of its own
        seconds = timing.speed.seconds(read, timing.depth, passes=passes, reads=predicted)
        if not self._recipe.generate:
            return seconds
        for group in _grouped(questions, [q.prompt + q.generated for q in questions], timing):
            steps = max(one.generated for one in group)
            tokens = sum(one.prompt for one in group) + len(group) * (steps - 1)
            reads = len(group) * steps
            seconds += timing.speed.seconds(tokens, timing.depth, passes=steps, reads=reads)
        return seconds

    def _edit(self, cell: PlannedCell, batch: range, *, first: bool) -> float | None:
        """Seconds of the edit of a batch.

        Args:
            cell: The cell.
            batch: Indices of the records.
            first: Whether the edit is one of the unedited model, whose target values are kept.
        """
        setting, params = cell.setting, cell.params
        facts: dict[str, FactTokens] = {}
        for index in batch:
            facts |= self._texts[setting.protocol].facts(index, setting.language)
        if cell.easyedit is not None or getattr(params, "stabilizes", False):
            return None
        tokens = list(facts.values())
        if isinstance(params, MultilayerParams):
            searched = self._new(cell, facts) if first else tokens
            values = self._values(params, searched)
            return values + self._keys(params, tokens) + self._solve(cell, len(tokens))
        if isinstance(params, RomeParams):
            each = (self._values(params, [one]) + self._rome_keys(params, one) for one in tokens)
            return sum(each) + self._factors(cell)
        if isinstance(params, TrainingParams):
            return self._training(params, tokens)
        if isinstance(params, UltraEditParams):
            return self._once(params, tokens)
        if isinstance(params, GraceParams):
            return self._grace(params, tokens)
        return None

    def _new(self, cell: PlannedCell, facts: dict[str, FactTokens]) -> list[FactTokens]:
        """The facts whose target values no earlier cell has searched for."""
        params, found = cell.params, []
        assert isinstance(params, MultilayerParams)
        sites = method_class(cell.setting.method).sites
        for name, tokens in facts.items():
            key = (cell.setting.protocol, params.layers[-1], params.values, sites, name)
            if key not in self._known:
                self._known.add(key)
                found.append(tokens)
        return found

    def _values(self, params: MultilayerParams | RomeParams, facts: Sequence[FactTokens]) -> float:
        """The search for target values, if no fact is finished before the last step."""
        timing, total = self._timing, 0.0
        layers = timing.depth - params.edited_layers[-1]
        steps = params.values.steps - 1
        for group in _grouped(facts, [fact.suffixes for fact in facts], timing, in_order=True):
            sentences, reads = sum(f.sentences for f in group), sum(f.reads for f in group)
            suffixes = sum(f.suffixes for f in group)
            total += timing.speed.seconds(sentences, timing.depth, passes=2)
            total += timing.speed.seconds(
                steps * suffixes, layers, passes=steps, reads=steps * reads, backward=True
            )
        return total

    def _keys(self, params: MultilayerParams, facts: Sequence[FactTokens]) -> float:
        timing, top = self._timing, params.layers[-1]
        prompts = sum(fact.prompts for fact in facts)
        bare = sum(fact.prompt for fact in facts)
        total = timing.through(prompts, top + len(params.layers))
        total += sum(timing.through(bare, top + 1 - layer) for layer in (0, *params.layers))
        return total * (2 if isinstance(params, AlphaEditParams) else 1)

    def _rome_keys(self, params: RomeParams, fact: FactTokens) -> float:
        return self._timing.through(fact.prompts, params.layer + 2)

    def _solve(self, cell: PlannedCell, facts: int) -> float:
        return self._factors(cell) + facts * self._timing.speed.multiply * len(
            cell.params.moment_layers
        )

    def _factors(self, cell: PlannedCell) -> float:
        """What is computed from second moments once: Cholesky factors or eigenvectors."""
        params, speed = cell.params, self._timing.speed
        eigen = isinstance(params, AlphaEditParams)
        kind = (eigen, getattr(params, "threshold", None), params.moments_by_language)
        total = 0.0
        for layer in params.moment_layers:
            key = (cell.setting.protocol, params.moment_layers, layer, *kind)
            if key not in self._known:
                self._known.add(key)
                total += speed.eigh if eigen else speed.cholesky
        return total

    def _training(self, params: TrainingParams, facts: Sequence[FactTokens]) -> float:
        """All epochs, if no loss falls below the limit."""
        timing = self._timing
        start = params.layer if isinstance(params, FineTuningParams) else _lowest(params)
        tokens, reads = sum(f.sentence for f in facts), sum(f.answer for f in facts)
        steps = math.ceil(len(facts) / min(params.batch_size or len(facts), len(facts)))
        passes = max(steps, timing.passes(tokens))
        below = timing.through(tokens, start)
        return below + params.epochs * timing.speed.seconds(
            tokens, timing.depth - start, passes=passes, reads=reads, backward=True
        )

    def _once(self, params: UltraEditParams, facts: Sequence[FactTokens]) -> float:
        timing, start = self._timing, params.edited_layers[0]
        tokens, reads = sum(f.sentence for f in facts), sum(f.answer for f in facts)
        passes = max(timing.passes(tokens), math.ceil(len(facts) / params.facts_per_step))
        above = timing.speed.seconds(
            tokens, timing.depth - start, passes=passes, reads=reads, backward=True
        )
        return above + timing.speed.seconds(tokens, start, passes=passes)

    def _grace(self, params: GraceParams, facts: Sequence[FactTokens]) -> float:
        timing, layers = self._timing, self._timing.depth - params.layer
        tokens, reads = sum(f.answer for f in facts), sum(f.answer for f in facts)
        passes = timing.passes(tokens)
        below = timing.through(sum(f.sentence for f in facts), 2 * timing.depth)
        return below + params.steps * timing.speed.seconds(
            tokens, layers, passes=passes, reads=reads, backward=True
        )


def _lowest(params: EditorParams) -> int:
    """The lowest layer that LoRA adapts."""
    return min(params.layers or (0,)) if isinstance(params, LoraParams) else 0


def _grouped(
    items: Sequence[T], sizes: Sequence[int], timing: Timing, *, in_order: bool = False
) -> Iterator[list[T]]:
    """Items that run together: of at most `tokens_per_batch` tokens, shortest first if padded."""
    order = range(len(items)) if in_order else sorted(range(len(items)), key=lambda i: sizes[i])
    group: list[T] = []
    tokens = 0
    for index in order:
        size = sizes[index]
        total = tokens + size if in_order else (len(group) + 1) * size
        if group and total > timing.tokens_per_batch:
            yield group
            group, total = [], size
        group.append(items[index])
        tokens = total
    if group:
        yield group
