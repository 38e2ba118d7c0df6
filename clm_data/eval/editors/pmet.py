"""PMET: Li et al., PMET: Precise Model Editing in a Transformer, AAAI 2024."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from clm_data.eval.editors.memit import Memit, MemitParams
from clm_data.eval.editors.values import Site, ValueParams


@dataclass(frozen=True)
class PmetParams(MemitParams):
    """Hyperparameters of PMET, the same as MEMIT's."""


# EasyEdit, hparams/PMET/llama-7b.yaml, the only one for a 7B model; used for all of them.
_REFERENCE = PmetParams(
    (4, 5, 6, 7, 8),
    ValueParams(
        steps=20,
        lr=0.5,
        clamp=1.0,
        kl_factor=0.0625,
        weight_decay=0.5,
        nll_factor=1.0,
        ease_off=True,
    ),
)
# EasyEdit, hparams/PMET/gpt-j-6B.yaml.
_GPT_J = replace(
    _REFERENCE,
    layers=(3, 4, 5, 6, 7, 8),
    values=replace(_REFERENCE.values, steps=30, lr=0.2, clamp=0.75, kl_factor=1.0),
)


@dataclass(frozen=True)
class Pmet(Memit):
    """MEMIT with target values of the MLP, optimized together with those of the attention.

    Only the MLP's values are edited in. A layer takes the residual over the square root of the
    number of layers left.
    """

    params: PmetParams

    name: ClassVar[str] = "pmet"
    sites: ClassVar[tuple[Site, ...]] = ("mlp", "attn")
    PARAMS: ClassVar[Mapping[str, PmetParams]] = {
        "llama-3-8b": _REFERENCE,
        "llama-3.1-8b": _REFERENCE,
        "qwen2-7b": _REFERENCE,
        "qwen2.5-7b": _REFERENCE,
        # Our choice: at the same relative depth.
        "qwen3-8b": replace(_REFERENCE, layers=(5, 6, 7, 8, 9)),
        "mistral-7b": _REFERENCE,
        "llama2-chinese-7b": _REFERENCE,
        "gpt-j-6b": _GPT_J,
        # There is no yaml. GPT-J's values, and the layers of MEMIT's gpt2-xl.yaml.
        "gpt2-xl": replace(_GPT_J, layers=(13, 14, 15, 16, 17)),
        # Our choice, as for MEMIT (docs/decisions/043).
        "smollm2-135m": replace(_REFERENCE, moment_weight=1000.0),
        # Our choice for a model of four layers.
        "tiny": replace(
            _REFERENCE,
            layers=(0, 1),
            values=replace(_REFERENCE.values, steps=40, lr=5.0, clamp=4.0),
            moment_weight=300.0,
        ),
    }

    def share(self, layers_left: int) -> float:
        """One over the square root of the number of layers left."""
        return float(layers_left**-0.5)

    def joiner(self) -> str | None:
        """None for the protocol's joiner, or no text if `pmet_joiner` is `none`."""
        return "" if self.setup.protocol.pmet_joiner == "none" else None
