"""MEMIT: Meng et al., Mass-Editing Memory in a Transformer, ICLR 2023."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.editors.multilayer import Method, SpreadParams, spread_edit
from clm_data.eval.editors.solve import least_squares
from clm_data.eval.editors.values import TINY_VALUES, ValueParams
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest


@dataclass(frozen=True)
class MemitParams(SpreadParams):
    """Hyperparameters of MEMIT.

    Attributes:
        moment_weight: The weight of the second moment against the new keys (lambda).
    """

    moment_weight: float = 15000.0


# EasyEdit, hparams/MEMIT: qwen2-7b.yaml, mistral-7b.yaml and llama-7b.yaml agree on these.
_SHIPPED = ValueParams(steps=25, lr=0.5, clamp=4.0, kl_factor=0.0625, weight_decay=1e-3)
_SEVEN = MemitParams((4, 5, 6, 7, 8), _SHIPPED)

METHOD = Method("memit", ("layer",), lambda left: 1 / left)


@dataclass(frozen=True)
class Memit:
    """Spreads each fact's residual evenly over the layers, solved by least squares."""

    params: MemitParams
    setup: Setup

    PARAMS: ClassVar[Mapping[str, MemitParams]] = {
        # No yaml for Llama-3 with MEMIT; MEMIT-FE/llama3-8b.yaml has lr 0.1 and decay 0.5.
        "llama-3-8b": MemitParams((4, 5, 6, 7, 8), ValueParams(25, 0.1, 4.0, 0.0625, 0.5)),
        "qwen2-7b": _SEVEN,
        "mistral-7b": _SEVEN,
        # As llama-7b.yaml, the same architecture.
        "llama2-chinese-7b": _SEVEN,
        # The run that the parity figures come from: 20 steps.
        "smollm2-135m": MemitParams((4, 5, 6, 7, 8), ValueParams(20, 0.5, 4.0, 0.0625, 1e-3)),
        # Chosen here for a model of a few layers.
        "tiny": MemitParams((0, 1), TINY_VALUES, moment_weight=300.0),
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
        moments = self.setup.needed_moments("memit")

        def solver(layer: int, keys: Any) -> Any:
            factor = moments.factor(layer, keys.device)
            return least_squares(keys, factor, self.params.moment_weight)

        return spread_edit(
            model, requests, self.setup, self.params, METHOD, solver, past=past, targets=targets
        )
