"""PMET: Li et al., PMET: Precise Model Editing in a Transformer, AAAI 2024."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.memit import MemitParams
from clm_data.eval.editors.multilayer import Method, spread_edit
from clm_data.eval.editors.solve import least_squares
from clm_data.eval.editors.values import ValueParams
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest


@dataclass(frozen=True)
class PmetParams(MemitParams):
    """Hyperparameters of PMET: those of MEMIT."""


# EasyEdit, hparams/PMET/llama-7b.yaml; the only one for a 7B model, taken for all of them.
_SHIPPED = PmetParams(
    (4, 5, 6, 7, 8), ValueParams(20, 0.5, 1.0, 0.0625, 0.5, nll_factor=1.0, ease_off=True)
)

METHOD = Method("pmet", ("mlp", "attn"), lambda left: left**-0.5)


@dataclass(frozen=True)
class Pmet:
    """Optimises the outputs of attention and MLP together and edits the MLP's part in.

    A layer's share is one over the root of the layers left.
    """

    params: PmetParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, PmetParams]] = {
        "llama-3-8b": _SHIPPED,
        "qwen2-7b": _SHIPPED,
        "mistral-7b": _SHIPPED,
        "llama2-chinese-7b": _SHIPPED,
        "smollm2-135m": _SHIPPED,
        # Chosen here for a model of a few layers.
        "tiny": replace(
            _SHIPPED,
            layers=(0, 1),
            values=replace(_SHIPPED.values, steps=40, lr=5.0, clamp=4.0),
            moment_weight=300.0,
        ),
    }

    def edit(
        self,
        model: LoadedModel,
        requests: Sequence[EditRequest],
        *,
        past: Deltas | None = None,
        targets: Any = None,
    ) -> Deltas:
        """See :class:`Editor`; ``targets`` (N, d) stand in for optimised target values."""
        moments = self.setup.needed_moments("pmet")

        def solver(layer: int, keys: Any) -> Any:
            factor = moments.factor(layer, keys.device)
            return least_squares(keys, factor, self.params.moment_weight)

        bare = self.setup.protocol.pmet_joiner == "none"
        method = replace(METHOD, joiner="" if bare else None)
        return spread_edit(
            model, requests, self.setup, self.params, method, solver, past=past, targets=targets
        )
