"""WISE's side memories: copies of one weight, and which prompts are answered with which copy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from clm_data.eval.editors.edits import facts_of, facts_of_both, metadata_of, read_saved
from clm_data.eval.editors.routed import OUT_OF_SCOPE, RoutedModel
from clm_data.eval.editors.tensor_files import save_safetensors
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel, at_least_float32

if TYPE_CHECKING:
    from torch import Tensor

_LONG = 100
"""Tokens of a prompt above which `long_prompts: max` takes the largest distance."""


@dataclass(frozen=True)
class SideScope:
    """How side memories are kept and chosen; the same for all edits of a sequence.

    Attributes:
        layer: The layer whose MLP output projection W has side memories.
        weight: Path of W.
        activation: Name of the activation φ that distances are measured behind.
        act_ratio: r. A memory is chosen only where the distance is at least r times its threshold.
        save_freq: Facts per shard; None for one shard.
        merge_freq: Facts after which the shards so far are merged into one memory; None for never.
        density: Share of a shard's entries that a merge keeps.
        long_prompts: How the distance of a prompt of over 100 tokens is measured: the mean of its
            tokens, as for others, or the largest (`max`, as in EasyEdit).
        unit: Distance that margins were multiples of; 1 if they were absolute distances.
    """

    layer: int
    weight: str
    activation: str
    act_ratio: float = 0.88
    save_freq: int | None = 500
    merge_freq: int | None = 1000
    density: float = 0.53
    long_prompts: Literal["mean", "max"] = "mean"
    unit: float = 1.0


@dataclass(frozen=True, eq=False)
class Shard:
    """What some facts change in one copy of W.

    Attributes:
        number: Number of the copy, from 0.
        change: W' - W, (d, m), at least float32.
        threshold: ε, the smallest mean distance of an edited fact.
        facts: Number of facts.
    """

    number: int
    change: Tensor
    threshold: float
    facts: int

    def __add__(self, later: Shard) -> Shard:
        """The same copy after more facts."""
        return Shard(
            self.number,
            self.change + later.change,
            min(self.threshold, later.threshold),
            self.facts + later.facts,
        )


@dataclass(frozen=True, eq=False)
class SideMemory:
    """The edit of WISE: the changes of its shards; an `Edit`.

    A later edit continues the last shard, so its `shards` hold what it added to that.

    Attributes:
        method: Name of the method.
        model: Name of the model.
        scope: How memories are kept and chosen.
        shards: By number, lowest first.
        edited: Ids of the facts.
        refused: See `Edit`.
        seconds: See `Edit`.
        steps: See `Edit`.
        origin: See `Edit`.
    """

    method: str
    model: str
    scope: SideScope
    shards: tuple[Shard, ...]
    edited: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    steps: tuple[int, ...] = ()
    origin: str = ""
    arrived: None = None

    def plus(self, later: SideMemory) -> SideMemory:
        """This edit followed by a later one that continued its last shard.

        Raises:
            EditError: The edits belong to different models, or have different scopes.
        """
        facts = facts_of_both(self, later)
        if self.scope != later.scope:
            raise EditError(f"side memories of {self.scope} and {later.scope} cannot be added")
        shards = {shard.number: shard for shard in self.shards}
        for shard in later.shards:
            known = shards.get(shard.number)
            shards[shard.number] = shard if known is None else known + shard
        return replace(self, shards=tuple(shards[number] for number in sorted(shards)), **facts)

    @cached_property
    def memories(self) -> tuple[Shard, ...]:
        """What prompts are routed to: complete groups of `merge_freq` facts merged, and the rest.

        A merged memory has the smallest threshold of its shards.
        """
        size, whole = self.scope.save_freq, self.scope.merge_freq
        if size is None or whole is None:
            return self.shards
        groups: dict[int, list[Shard]] = {}
        for shard in self.shards:
            groups.setdefault(shard.number // (whole // size), []).append(shard)
        memories: list[Shard] = []
        for group in groups.values():
            facts = sum(shard.facts for shard in group)
            if facts < whole:
                memories += group
                continue
            change = ties([shard.change for shard in group], self.scope.density)
            threshold = min(shard.threshold for shard in group)
            memories.append(Shard(group[0].number, change, threshold, facts))
        return tuple(memories)

    @contextmanager
    def apply_to(self, model: LoadedModel) -> Iterator[RoutedModel]:
        """Route the layer; no weight changes."""
        device = model.mlp_out(self.scope.layer).weight.device
        router = _SideRouter(
            tuple(memory.change.to(device) for memory in self.memories),
            tuple(self.scope.act_ratio * memory.threshold for memory in self.memories),
            activation(self.scope.activation),
            self.scope.long_prompts,
        )
        yield RoutedModel(model, self.scope.layer, router)

    def save(self, path: Path) -> None:
        """Write a safetensors file; the analysis of geometry reads the changes of the shards."""
        about = {
            "kind": "side-memory",
            "scope": asdict(self.scope),
            "shards": [(shard.number, shard.threshold, shard.facts) for shard in self.shards],
        }
        tensors = {self._name(shard.number): shard.change for shard in self.shards}
        save_safetensors(tensors, path, metadata_of(self, about))

    def _name(self, number: int) -> str:
        return f"left:{self.scope.weight}" + (f":{number}" if number else "")

    @staticmethod
    def load(path: Path) -> SideMemory:
        """Read a file that `save` wrote.

        Raises:
            InputFileError: The file cannot be read, or holds something else.
        """
        with read_saved(path, "side-memory") as (metadata, tensors):
            scope = SideScope(**json.loads(metadata["scope"]))
            empty = SideMemory(scope=scope, shards=(), **facts_of(metadata))
            shards = tuple(
                Shard(number, tensors[empty._name(number)], threshold, facts)
                for number, threshold, facts in json.loads(metadata["shards"])
            )
            return replace(empty, shards=shards)


@dataclass(frozen=True)
class _SideRouter:
    """Answers with the memory that moves a prompt's outputs most, if it moves them far enough.

    Attributes:
        changes: W' - W by memory.
        thresholds: Smallest distance by memory.
        activation: φ.
        long_prompts: See `SideScope`.
    """

    changes: Sequence[Tensor]
    thresholds: Sequence[float]
    activation: Callable[[Tensor], Tensor]
    long_prompts: Literal["mean", "max"]

    def route(self, inputs: Tensor, outputs: Tensor, prompt: Tensor) -> Tensor:
        """The memory of each row; see `Router.route`."""
        import torch

        best = torch.full_like(outputs[:, 0, 0], -1.0, dtype=torch.float64)
        routes = torch.full_like(best, OUT_OF_SCOPE, dtype=torch.long)
        mask = prompt.to(outputs.device)
        tokens = mask.sum(dim=1).clamp(min=1)
        for number, (change, threshold) in enumerate(
            zip(self.changes, self.thresholds, strict=True)
        ):
            moved = outputs + _added(inputs, change)
            by_token = token_distances(moved, outputs, self.activation).double() * mask
            distance = by_token.sum(dim=1) / tokens
            if self.long_prompts == "max":
                distance = by_token.amax(dim=1).where(tokens > _LONG, distance)
            chosen = (distance >= threshold) & (distance > best)
            best, routes = distance.where(chosen, best), routes.masked_fill(chosen, number)
        return routes

    def answer(
        self, inputs: Tensor, outputs: Tensor, prompt: Tensor | None, routes: Tensor
    ) -> Tensor:
        """What leaves each row's copy of the projection; see `Router.answer`."""
        new = at_least_float32(outputs).clone()
        for number in routes.unique().tolist():
            rows = (routes == number).nonzero().flatten()
            new[rows] += _added(inputs[rows], self.changes[number])
        return new


def _added(inputs: Tensor, change: Tensor) -> Tensor:
    """What a change adds to the output, (..., d), at least float32; exactly 0 for no change."""
    return at_least_float32(inputs) @ change.T.to(at_least_float32(inputs))


def token_distances(new: Tensor, old: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Euclidean distances (...) of outputs (..., d) after the activation φ."""
    return (function(new) - function(at_least_float32(old))).norm(dim=-1)


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """An activation function of transformers by its name.

    Raises:
        EditError: There is none with this name.
    """
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise EditError(f"'{name}' is not an activation of transformers; set activation")
    return cast("Callable[[Tensor], Tensor]", ACT2FN[name])


def ties(changes: Sequence[Tensor], density: float) -> Tensor:
    """Merge changes of one weight: Yadav et al., TIES-Merging, NeurIPS 2023.

    Each change keeps its largest entries; by entry, the sign of their sum is elected, and those
    with that sign are averaged.

    Args:
        changes: (d, m) each.
        density: Share of the entries of each change that is kept.

    Returns:
        The merged change, (d, m).
    """
    import torch

    kept = [_largest(change, density) for change in changes]
    sign = torch.stack(kept).sum(dim=0).sign()
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for change in kept:
        agrees = (change.sign() == sign) & (sign != 0)
        total += change.where(agrees, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def _largest(change: Tensor, density: float) -> Tensor:
    """A change with all but its largest entries set to zero."""
    import torch

    flat = change.flatten()
    kept = flat.abs().topk(int(density * len(flat))).indices
    return torch.zeros_like(flat).index_copy(0, kept, flat[kept]).view_as(change)
