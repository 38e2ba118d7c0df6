"""The algorithm that MEMIT, AlphaEdit and PMET share.

Meng et al., Mass-Editing Memory in a Transformer, 2023, algorithm 1: optimize target values at the
last edited layer; then, for each edited layer from the lowest up, read the keys, take a share of
the residual that is left at the last layer, and solve for the weight's change. The methods differ
in the solve, in where target values are optimized, and in the share.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from clm_data.eval.editors.base import Setup, Stopwatch, ValueMethodParams
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.keys import LayerwiseForward, fact_prompts, mean_keys
from clm_data.eval.editors.norm_anchor import anchor_norm, anchor_state, anchored, past_norm
from clm_data.eval.editors.origin import model_id
from clm_data.eval.editors.ranges import Layer
from clm_data.eval.editors.solve import check_finite
from clm_data.eval.editors.value_optimizer import optimize_target_values
from clm_data.eval.editors.values import Site, TargetValues, ValueParams
from clm_data.eval.errors import EditError, edit_errors
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest, Placement

if TYPE_CHECKING:
    from torch import Tensor

    from clm_data.eval.editors.moments import Moments


_UNCHANGED = 1e-5
"""A residual below this share of the target values is rounding: they are there already."""


@dataclass(frozen=True)
class MultilayerParams(ValueMethodParams):
    """Hyperparameters that the multi-layer methods have in common.

    Attributes:
        layers: The edited layers, lowest first; target values are those of the last.
        values: How target values are optimized.
    """

    layers: tuple[Layer, ...]
    values: ValueParams

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layers or list(self.layers) != sorted(set(self.layers)):
            raise EditError(f"layers {list(self.layers)} must be in ascending order, each once")

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """All of `layers`."""
        return self.layers

    @property
    def moment_layers(self) -> tuple[int, ...]:
        """All of `layers`."""
        return self.layers

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same hyperparameters for other layers."""
        return replace(self, layers=layers)


@dataclass(frozen=True)
class MultilayerEditor(ABC):
    """An editor that distributes the change of N facts over several layers.

    Attributes:
        params: The method's hyperparameters.
        setup: Protocol, contexts and second moments.
        name: The method's name, in messages and results.
        sites: What is changed at the subject while target values are optimized; the residual is
            measured at the first site.
        returns_keys: Whether to read the keys again in the edited model, for `Deltas.keys`.
    """

    params: MultilayerParams
    setup: Setup

    name: ClassVar[str]
    sites: ClassVar[tuple[Site, ...]] = ("layer",)
    returns_keys: ClassVar[bool] = False

    @abstractmethod
    def solve(self, layer: int, keys: Tensor, past_keys: Tensor) -> Tensor:
        """Solve for the matrix A of the change R A^T that adds residuals R (d, N) at some keys.

        Args:
            layer: The edited layer.
            keys: K, (m, N).
            past_keys: Keys of the edits in `past`, (m, Np); Np may be 0.

        Returns:
            A, (m, N), float64.
        """

    def moments(self) -> Moments:
        """The second moments that `solve` reads.

        Raises:
            EditError: There are none.
        """
        return self.setup.require_moments(self.name)

    def share(self, layers_left: int) -> float:
        """The share of the residual that a layer takes.

        Args:
            layers_left: Number of edited layers from this one up.
        """
        return 1 / layers_left

    def joiner(self) -> str | None:
        """Text between prompt and answer; None for the protocol's."""
        return None

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """See `Editor.edit`."""
        return self._edit(model, requests, past, None)

    def edit_to_targets(
        self,
        model: LoadedModel,
        requests: Sequence[EditRequest],
        targets: Tensor,
        *,
        past: Deltas | None = None,
    ) -> Deltas:
        """Edit facts with given target values, without optimizing any.

        Args:
            model: See `Editor.edit`.
            requests: See `Editor.edit`.
            targets: (N, d), one row for each request that can be placed, in order.
            past: See `Editor.edit`.

        Raises:
            EditError: See `Editor.edit`; or the number of targets is wrong.
        """
        return self._edit(model, requests, past, targets)

    def _edit(
        self,
        model: LoadedModel,
        requests: Sequence[EditRequest],
        past: Deltas | None,
        targets: Tensor | None,
    ) -> Deltas:
        self.moments()  # raises if there are none
        self.setup.check_model(model)
        facts, refused = place_facts(
            model, requests, self.setup.protocol, self.setup.contexts, joiner=self.joiner()
        )
        if targets is not None and len(targets) != len(facts):
            raise EditError(f"{self.name}: {len(targets)} target values for {len(facts)} facts")
        watch = Stopwatch()
        state: dict[str, Tensor] = {}
        for layer in self.params.edited_layers:
            self._gain(model, layer)  # raises if the layer cannot be edited
        with edit_errors(f"{self.name} on {model.name}"), applied(model, past):
            if targets is None:
                with watch.phase("values"):
                    values = self._target_values(model, facts, past)
                    if self.params.nas:
                        values, state = self._anchored(model, facts, values, past)
            else:
                values = TargetValues(targets, ())
            check_finite(values.targets, "target values")
            weights, keys, arrived = self._change_weights(model, facts, values.targets, past, watch)
        return Deltas(
            self.name,
            model.name,
            weights,
            tuple(fact.request.id for fact in facts),
            refused,
            keys,
            watch.seconds,
            values.steps,
            origin=model_id(model),
            arrived=arrived,
            state=state,
        )

    def _target_values(
        self, model: LoadedModel, facts: Sequence[PlacedFact], past: Deltas | None
    ) -> TargetValues:
        """Optimized target values; the cache is for the unedited model only."""
        layer, params = self.params.layers[-1], self.params.values

        def optimize(some: Sequence[PlacedFact]) -> TargetValues:
            return optimize_target_values(
                model,
                some,
                layer,
                params,
                sites=self.sites,
                tokens_per_batch=self.setup.tokens_per_batch,
            )

        cache = self.setup.value_cache
        if cache is None or past is not None:
            return optimize(facts)
        return cache.get_or_optimize(facts, layer, params, self.sites, optimize)

    def _anchored(
        self,
        model: LoadedModel,
        facts: Sequence[PlacedFact],
        values: TargetValues,
        past: Deltas | None,
    ) -> tuple[TargetValues, dict[str, Tensor]]:
        """Target values after norm anchoring, and the state to carry to later edits."""
        top = self.params.layers[-1]
        prompts = [fact.prompts[0] for fact in facts]
        bare = LayerwiseForward(model, prompts, self.setup.tokens_per_batch)
        bare.advance_to(top)
        unchanged = bare.projection_outputs(top) * self._gain(model, top)  # what the MLP adds, v0
        rest = self._current_values(bare, top) - unchanged
        wanted = values.targets.to(rest) - rest
        norm = anchor_norm(wanted) if past is None else past_norm(past.state)
        targets = (rest + anchored(wanted, unchanged, norm)).cpu()
        return TargetValues(targets, values.steps), anchor_state(norm)

    def _change_weights(
        self,
        model: LoadedModel,
        facts: Sequence[PlacedFact],
        targets: Tensor,
        past: Deltas | None,
        watch: Stopwatch,
    ) -> tuple[dict[str, WeightDelta], dict[str, Tensor], float | None]:
        """The changes, and the keys of the facts in the changed model, by parameter path.

        The last value is `Deltas.arrived`.
        """
        prompts, contexts = fact_prompts(facts), len(facts[0].prompts)
        top = self.params.layers[-1]
        past_keys = past.keys if past is not None else {}
        weights: dict[str, WeightDelta] = {}
        kept_out: list[float] = []
        with watch.phase("keys"):
            forward = LayerwiseForward(model, prompts, self.setup.tokens_per_batch)
            bare = LayerwiseForward(model, prompts[::contexts], self.setup.tokens_per_batch)
        paths = [model.layout.weight(layer) for layer in self.params.layers]
        with restored(model, paths) as parameters:
            for index, (layer, path) in enumerate(zip(self.params.layers, paths, strict=True)):
                with watch.phase("keys"):
                    forward.advance_to(layer)
                    bare.advance_to(layer)
                    keys = mean_keys(forward.projection_inputs(layer), contexts, half_bare=True)
                    current = self._current_values(bare, top)
                with watch.phase("solve"):
                    share = self.share(len(paths) - index)
                    residual = (targets.to(current) - current) * share
                    right = self.solve(layer, keys, past_keys.get(path, keys[:, :0])).T
                    change = residual / self._gain(model, layer)
                    delta = WeightDelta(change.T.to(right), right)
                    delta.add_to(parameters[path], transposed=model.layout.transposed)
                    weights[path] = WeightDelta(_to_storage(delta.left), _to_storage(right))
                    if residual.norm() > _UNCHANGED * targets.to(residual).norm():
                        kept_out.append(1 - share * share_let_through(residual, right, keys))
            with watch.phase("keys"):
                arrived = 1 - math.prod(kept_out) if kept_out else None
                return weights, self._edited_keys(model, prompts, contexts), arrived

    def _current_values(self, bare: LayerwiseForward, top: int) -> Tensor:
        """What the target values are compared with, in the bare context, (N, d)."""
        if self.sites == ("layer",):
            return bare.layer_outputs(top)
        return bare.projection_outputs(top)

    def _gain(self, model: LoadedModel, layer: int) -> float:
        """The factor from the projection's output to what the target values are values of."""
        if self.sites == ("layer",):
            return model.gain(layer)
        model.mlp_out(layer)
        return 1.0

    def _edited_keys(
        self, model: LoadedModel, prompts: Sequence[Placement], contexts: int
    ) -> dict[str, Tensor]:
        """Keys (m, N) read in the edited model by parameter path; empty unless `returns_keys`."""
        keys: dict[str, Tensor] = {}
        if self.returns_keys:
            forward = LayerwiseForward(model, prompts, self.setup.tokens_per_batch)
            for layer in self.params.layers:
                forward.advance_to(layer)
                inputs = forward.projection_inputs(layer)
                keys[model.layout.weight(layer)] = mean_keys(inputs, contexts, half_bare=True).cpu()
        return keys


def share_let_through(residual: Tensor, right: Tensor, keys: Tensor) -> float:
    """The share of residuals that a change R A^T adds at the keys that it was solved for.

    1 - |R - R A^T K| / |R|, with Frobenius norms. The rest is what the solve gives up so that the
    outputs at other keys change less.

    Args:
        residual: R^T, (N, d).
        right: A^T, (N, m).
        keys: K, (m, N).
    """
    residual = residual.to(right)
    missing = residual - (right @ keys.to(right)).T @ residual
    return 1 - float(missing.norm() / residual.norm())


def _to_storage(factor: Tensor) -> Tensor:
    return factor.float().cpu().contiguous()
