"""ROME: Meng et al., Locating and Editing Factual Associations in GPT, NeurIPS 2022."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from clm_data.eval.editors.base import OneLayerParams, Setup, Stopwatch, ValueMethodParams
from clm_data.eval.editors.deltas import Deltas, WeightDelta
from clm_data.eval.editors.edits import applied
from clm_data.eval.editors.facts import PlacedFact, place_facts
from clm_data.eval.editors.keys import LayerwiseForward, mean_keys
from clm_data.eval.editors.norm_anchor import anchor_norm, anchor_state, anchored, past_norm
from clm_data.eval.editors.origin import model_id
from clm_data.eval.editors.solve import check_finite
from clm_data.eval.editors.value_optimizer import optimize_target_values
from clm_data.eval.editors.values import TINY_VALUES, TargetValues, ValueParams
from clm_data.eval.errors import edit_errors
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RomeParams(OneLayerParams, ValueMethodParams):
    """Hyperparameters of ROME.

    Attributes:
        layer: The edited layer.
        values: How the target value is optimized.
        use_moments: Multiply the key by the inverse second moment, as the paper does.
    """

    values: ValueParams
    use_moments: bool = False

    @property
    def moment_layers(self) -> tuple[int, ...]:
        """The edited layer if `use_moments`, otherwise none."""
        return (self.layer,) if self.use_moments else ()


# EasyEdit, hparams/ROME: llama3-8b.yaml, qwen2-7b.yaml, qwen2.5-7b.yaml and mistral-7b.yaml are
# equal.
# They do not use the second moment (mom2_adjustment: false).
_REFERENCE = RomeParams(
    5, ValueParams(steps=25, lr=0.5, clamp=4.0, kl_factor=0.0625, weight_decay=1e-3)
)
# gpt-j-6B.yaml; gpt2-xl.yaml uses the second moment.
_GPT_J = replace(_REFERENCE, values=replace(_REFERENCE.values, steps=20, weight_decay=0.5))
_GPT2_XL = replace(_GPT_J, layer=17, use_moments=True)


@dataclass(frozen=True)
class Rome:
    """Changes one layer by a rank-one matrix per fact; each fact's change includes the previous."""

    params: RomeParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, RomeParams]] = {
        "llama-3-8b": _REFERENCE,
        "llama-3.1-8b": _REFERENCE,  # there is no yaml; Llama-3's
        "qwen2-7b": _REFERENCE,
        "qwen2.5-7b": _REFERENCE,
        "qwen3-8b": replace(_REFERENCE, layer=7),  # our choice: Qwen2.5's relative depth
        "mistral-7b": _REFERENCE,
        "llama2-chinese-7b": _REFERENCE,  # there is no yaml; those of its architecture
        "gpt-j-6b": _GPT_J,
        "gpt2-xl": _GPT2_XL,
        "smollm2-135m": _REFERENCE,  # our choice: those of the large models
        # Our choice for a model of four layers.
        "tiny": RomeParams(1, TINY_VALUES),
    }

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """See `Editor.edit`."""
        import torch

        self.setup.check_model(model)
        facts, refused = place_facts(model, requests, self.setup.protocol, self.setup.contexts)
        path, watch = model.layout.weight(self.params.layer), Stopwatch()
        model.mlp_out(self.params.layer)
        lefts: list[Tensor] = []
        rights: list[Tensor] = []
        steps: list[int] = []
        with (
            edit_errors(f"rome on {model.name}"),
            applied(model, past),
            restored(model, [path]) as weights,
        ):
            norm = self._anchor_norm(model, facts, past) if self.params.nas else None
            for fact in facts:
                left, right, count = self._change(model, fact, watch, norm)
                delta = WeightDelta(left[:, None], right[None])
                delta.add_to(weights[path], transposed=model.layout.transposed)
                lefts.append(left.cpu())
                rights.append(right.cpu())
                steps.append(count)
        return Deltas(
            "rome",
            model.name,
            {path: WeightDelta(torch.stack(lefts, dim=1), torch.stack(rights))},
            tuple(fact.request.id for fact in facts),
            refused,
            seconds=watch.seconds,
            steps=tuple(steps),
            origin=model_id(model),
            state=anchor_state(norm) if norm is not None else {},
        )

    def _target_values(self, model: LoadedModel, facts: Sequence[PlacedFact]) -> TargetValues:
        return optimize_target_values(
            model,
            facts,
            self.params.layer,
            self.params.values,
            sites=("mlp",),
            tokens_per_batch=self.setup.tokens_per_batch,
        )

    def _anchor_norm(
        self, model: LoadedModel, facts: Sequence[PlacedFact], past: Deltas | None
    ) -> Tensor:
        """The norm of norm anchoring; from target values of all facts before the first change."""
        if past is not None:
            return past_norm(past.state)
        return anchor_norm(self._target_values(model, facts).targets)

    def _change(
        self, model: LoadedModel, fact: PlacedFact, watch: Stopwatch, norm: Tensor | None
    ) -> tuple[Tensor, Tensor, int]:
        """Left (d,) and right (m,) vector of a fact's change, and the optimization steps."""
        layer, budget = self.params.layer, self.setup.tokens_per_batch
        with watch.phase("values"):
            values = self._target_values(model, [fact])
        with watch.phase("keys"):
            forward = LayerwiseForward(model, fact.prompts, budget)
            forward.advance_to(layer)
            inputs = forward.projection_inputs(layer)
            output = forward.projection_outputs(layer)[0]
        with watch.phase("solve"):
            key = mean_keys(inputs, len(fact.prompts), half_bare=False)[:, 0]
            if self.params.use_moments:
                key = self.setup.require_moments("rome").solve(layer, key)
            target = values.targets[0].to(output)
            if norm is not None:
                target = anchored(target[None], output[None], norm)[0]
            left, right = rank_one_update(key, inputs[0], target, output)
            return left, right, values.steps[0]


def rank_one_update(
    key: Tensor, bare_input: Tensor, target: Tensor, bare_output: Tensor
) -> tuple[Tensor, Tensor]:
    """The change u v^T of a weight, along a key, after which `bare_input` gives `target`.

    Equation 2 of the paper, normalized as in its code.

    Args:
        key: (m,), multiplied by the inverse second moment or not.
        bare_input: (m,), what enters the projection in the bare context.
        target: (d,), what should leave it.
        bare_output: (d,), what leaves it now.

    Returns:
        u (d,), and v (m,) of norm 1.

    Raises:
        EditError: The result contains NaN or infinity, as if the input is orthogonal to the key.
    """
    direction = key / key.norm()
    left = (target - bare_output) / (bare_input @ direction)
    return check_finite(left, "the rank-one update"), check_finite(direction, "the key")
