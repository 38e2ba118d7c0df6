"""The way MEMIT, AlphaEdit and PMET share: read keys, take a share of what is missing, solve.

They differ in one solve, in where the target value stands, and in the share a layer takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

from clm_data.eval.editors.base import EditorParams, Setup, Stopwatch
from clm_data.eval.editors.deltas import Delta, Deltas, add_, applied
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.keys import LayerwiseForward, fact_prompts, mean_keys
from clm_data.eval.editors.solve import finite
from clm_data.eval.editors.values import Site, ValueParams, Values, target_values
from clm_data.eval.errors import EditError, edit_errors
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest

Solver = Callable[[int, Any], Any]
"""(layer, keys (m, N)) to A (m, N): the weight changes by R A^T."""


@dataclass(frozen=True)
class SpreadParams(EditorParams):
    """What methods that spread an edit over layers have in common.

    Attributes:
        layers: The edited layers, lowest first; the target value stands at the last.
        values: How target values are optimised.
    """

    layers: tuple[int, ...]
    values: ValueParams

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise EditError(f"layers {list(self.layers)} must be given once each, lowest first")

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """All of ``layers``."""
        return self.layers

    @property
    def moment_layers(self) -> tuple[int, ...]:
        """All of ``layers``."""
        return self.layers

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same hyperparameters for other layers."""
        return replace(self, layers=layers)


@dataclass(frozen=True)
class Method:
    """Where a method differs.

    Attributes:
        name: For messages and results.
        sites: What is changed while target values are optimised.
        share: What part of the missing a layer takes, by the number of layers left with it.
        joiner: Between prompt and answer in place of the protocol's.
        keep_keys: Read the keys again in the edited model and return them.
    """

    name: str
    sites: tuple[Site, ...]
    share: Callable[[int], float]
    joiner: str | None = None
    keep_keys: bool = False


def spread_edit(
    loaded: LoadedModel,
    requests: Sequence[EditRequest],
    setup: Setup,
    params: SpreadParams,
    method: Method,
    solver: Solver,
    *,
    past: Deltas | None,
    targets: Any = None,
) -> Deltas:
    """Edit facts in over several layers.

    ``targets`` (N, d) are used in place of optimised target values; for the rest see
    :class:`Editor`.

    Raises:
        EditError: See :class:`Editor`.
    """
    facts, refused = place_facts(
        loaded, requests, setup.protocol, setup.contexts, joiner=method.joiner
    )
    watch = Stopwatch()
    for layer in params.layers:
        loaded.mlp_out(layer)
    with edit_errors(f"{method.name} on {loaded.name}"), applied(loaded, past):
        values = Values(targets, ())
        if targets is None:
            with watch.phase("values"):
                values = _values(loaded, facts, setup, params, method, past)
        finite(values.targets, "target values")
        weights, keys = _update(loaded, facts, setup, params, method, solver, values.targets, watch)
    return Deltas(
        method.name,
        loaded.name,
        weights,
        tuple(fact.request.id for fact in facts),
        refused,
        keys,
        watch.seconds,
        values.steps,
    )


def _values(
    loaded: LoadedModel,
    facts: Sequence[PlacedFact],
    setup: Setup,
    params: SpreadParams,
    method: Method,
    past: Deltas | None,
) -> Values:
    layer = params.layers[-1]

    def find(some: Sequence[PlacedFact]) -> Values:
        return target_values(
            loaded,
            some,
            layer,
            params.values,
            sites=method.sites,
            tokens_per_batch=setup.tokens_per_batch,
        )

    if setup.kept is None or past is not None:
        return find(facts)
    return setup.kept.values(facts, layer, params.values, method.sites, find)


def _update(
    loaded: LoadedModel,
    facts: Sequence[PlacedFact],
    setup: Setup,
    params: SpreadParams,
    method: Method,
    solver: Solver,
    targets: Any,
    watch: Stopwatch,
) -> tuple[dict[str, Delta], dict[str, Any]]:
    prompts = fact_prompts(facts)
    contexts = len(facts[0].prompts)
    top = params.layers[-1]
    weights: dict[str, Delta] = {}
    with ExitStack() as stack:
        with watch.phase("keys"):
            walk = LayerwiseForward(loaded, prompts, setup.tokens_per_batch)
            bare = LayerwiseForward(loaded, prompts[::contexts], setup.tokens_per_batch)
        paths = [loaded.layout.weight(layer) for layer in params.layers]
        parameters = stack.enter_context(restored(loaded, paths))
        for index, layer in enumerate(params.layers):
            with watch.phase("keys"):
                walk.to(layer)
                bare.to(layer)
                keys = mean_keys(walk.inputs(layer), contexts, halves=True)
                now = bare.outputs(top) if method.sites == ("layer",) else bare.mlp_outputs(top)
            with watch.phase("solve"):
                missing = (targets.to(now) - now) * method.share(len(params.layers) - index)
                right = solver(layer, keys).T
                delta = Delta(missing.T.to(right), right)
                path = paths[index]
                add_(parameters[path], delta.dense(), transposed=loaded.layout.transposed)
                weights[path] = Delta(_light(delta.left), _light(delta.right))
        kept: dict[str, Any] = {}
        if method.keep_keys:
            with watch.phase("keys"):
                again = LayerwiseForward(loaded, prompts, setup.tokens_per_batch)
                for layer, path in zip(params.layers, paths, strict=True):
                    again.to(layer)
                    kept[path] = mean_keys(again.inputs(layer), contexts, halves=True).cpu()
    return weights, kept


def _light(factor: Any) -> Any:
    return factor.float().cpu().contiguous()
