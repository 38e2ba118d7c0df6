"""ROME: Meng et al., Locating and Editing Factual Associations in GPT, NeurIPS 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from clm_data.eval.editors.base import EditorParams, Setup, Stopwatch
from clm_data.eval.editors.deltas import Delta, Deltas, add_, applied
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.keys import LayerwiseForward, mean_keys
from clm_data.eval.editors.solve import finite
from clm_data.eval.editors.values import TINY_VALUES, ValueParams, target_values
from clm_data.eval.errors import edit_errors
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest


@dataclass(frozen=True)
class RomeParams(EditorParams):
    """Hyperparameters of ROME.

    Attributes:
        layer: The edited layer.
        values: How the target value is optimised.
        use_moments: Turn the key by the inverse second moment, as the paper does.
    """

    layer: int
    values: ValueParams
    use_moments: bool = False

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """The one edited layer."""
        return (self.layer,)

    @property
    def moment_layers(self) -> tuple[int, ...]:
        """The edited layer if ``use_moments``, otherwise none."""
        return (self.layer,) if self.use_moments else ()

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same hyperparameters for the last of ``layers``."""
        return replace(self, layer=layers[-1])


# EasyEdit, hparams/ROME: llama3-8b.yaml, qwen2-7b.yaml, mistral-7b.yaml agree, and leave the second
# moment out (mom2_adjustment: false).
_SHIPPED = RomeParams(5, ValueParams(25, 0.5, 4.0, 0.0625, 1e-3))


@dataclass(frozen=True)
class Rome:
    """One rank-one change a fact, at one layer, fact after fact on top of each other."""

    params: RomeParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, RomeParams]] = {
        "llama-3-8b": _SHIPPED,
        "qwen2-7b": _SHIPPED,
        "mistral-7b": _SHIPPED,
        # No yaml: those of its architecture.
        "llama2-chinese-7b": _SHIPPED,
        "smollm2-135m": _SHIPPED,
        # Chosen here for a model of a few layers.
        "tiny": RomeParams(1, TINY_VALUES),
    }

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """See :class:`Editor`."""
        import torch

        facts, refused = place_facts(model, requests, self.setup.protocol, self.setup.contexts)
        path, watch = model.layout.weight(self.params.layer), Stopwatch()
        model.mlp_out(self.params.layer)
        changes: list[Delta] = []
        steps: list[int] = []
        with (
            edit_errors(f"rome on {model.name}"),
            applied(model, past),
            restored(model, [path]) as weights,
        ):
            for fact in facts:
                delta, count = self._change(model, fact, watch)
                add_(weights[path], delta.dense(), transposed=model.layout.transposed)
                changes.append(Delta(delta.left.cpu(), delta.right.cpu()))
                steps.append(count)
        left = torch.cat([delta.left for delta in changes], dim=1)
        right = torch.cat([delta.right for delta in changes], dim=0)
        return Deltas(
            "rome",
            model.name,
            {path: Delta(left, right)},
            tuple(fact.request.id for fact in facts),
            refused,
            seconds=watch.seconds,
            steps=tuple(steps),
        )

    def _change(self, model: LoadedModel, fact: PlacedFact, watch: Stopwatch) -> tuple[Delta, int]:
        layer, budget = self.params.layer, self.setup.tokens_per_batch
        with watch.phase("values"):
            values = target_values(
                model, [fact], layer, self.params.values, sites=("mlp",), tokens_per_batch=budget
            )
        with watch.phase("keys"):
            walk = LayerwiseForward(model, fact.prompts, budget)
            walk.to(layer)
            inputs, output = walk.inputs(layer), walk.mlp_outputs(layer)[0]
        with watch.phase("solve"):
            key = mean_keys(inputs, len(fact.prompts), halves=False)[:, 0]
            if self.params.use_moments:
                key = self.setup.needed_moments("rome").solve(layer, key)
            left, right = rank_one(key, inputs[0], values.targets[0].to(output), output)
            return Delta(left[:, None], right[None]), values.steps[0]


def rank_one(key: Any, now_in: Any, target: Any, now_out: Any) -> tuple[Any, Any]:
    """The change ``left right^T`` along a key that makes ``now_in`` give ``target``.

    Equation 2 of the paper, as its code normalises it.

    Args:
        key: (m,), turned by the inverse second moment or not.
        now_in: (m,), what enters the projection.
        target: (d,), what should leave it.
        now_out: (d,), what leaves it now.

    Raises:
        EditError: The input has no part along the key, or something is NaN.
    """
    direction = key / key.norm()
    left = (target - now_out) / (now_in @ direction)
    return finite(left, "the rank-one change"), finite(direction, "the key")
