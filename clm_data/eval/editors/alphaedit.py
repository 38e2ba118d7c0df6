"""AlphaEdit: Fang et al., AlphaEdit: Null-Space Constrained Knowledge Editing, ICLR 2025."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from clm_data.eval.editors.multilayer import MultilayerEditor, MultilayerParams
from clm_data.eval.editors.ranges import NonNegative, Positive
from clm_data.eval.editors.solve import solve_null_space
from clm_data.eval.editors.values import TINY_VALUES, ValueParams

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AlphaEditParams(MultilayerParams):
    """Hyperparameters of AlphaEdit.

    Attributes:
        threshold: Eigenvalue of the second moment from which a direction must not change.
        ridge: Weight of the L2 penalty on the update.
    """

    threshold: NonNegative = 2e-2
    ridge: Positive = 1.0


_LAYERS = (4, 5, 6, 7, 8)
# EasyEdit, hparams/AlphaEdit/qwen2.5-7b.yaml.
_QWEN = AlphaEditParams(
    _LAYERS, ValueParams(steps=25, lr=0.5, clamp=4.0, kl_factor=0.0625, weight_decay=1e-3)
)
# EasyEdit, hparams/AlphaEdit/llama3-8b.yaml.
_LLAMA3 = AlphaEditParams(
    _LAYERS, ValueParams(steps=25, lr=0.1, clamp=0.75, kl_factor=0.0625, weight_decay=0.5)
)
# EasyEdit, hparams/AlphaEdit/gpt-j-6B.yaml and gpt2-xl.yaml.
_GPT_J = AlphaEditParams(
    (3, 4, 5, 6, 7, 8),
    ValueParams(steps=25, lr=0.5, clamp=0.75, kl_factor=0.0625, weight_decay=0.5),
    ridge=10.0,
)
_GPT2_XL = replace(_GPT_J, layers=(13, 14, 15, 16, 17), values=replace(_GPT_J.values, steps=20))
# Our choice: the target values of MEMIT's parity run.
_SMOLLM2 = AlphaEditParams(
    _LAYERS, ValueParams(steps=20, lr=0.5, clamp=4.0, kl_factor=0.0625, weight_decay=1e-3)
)


@dataclass(frozen=True)
class AlphaEdit(MultilayerEditor):
    """Changes weights only in directions in which the second moment is small.

    The keys in `past.keys` are protected, too. Callers that revert edits must not pass those
    edits as `past` (the reference keeps protecting keys of reverted edits).
    """

    params: AlphaEditParams

    name: ClassVar[str] = "alphaedit"
    returns_keys: ClassVar[bool] = True
    PARAMS: ClassVar[Mapping[str, AlphaEditParams]] = {
        "llama-3-8b": _LLAMA3,
        "llama-3.1-8b": replace(_LLAMA3, ridge=10.0),  # llama3.1-8b.yaml
        "qwen2-7b": _QWEN,
        "qwen2.5-7b": _QWEN,
        # Our choice: Qwen2.5's, at the same relative depth.
        "qwen3-8b": replace(_QWEN, layers=(6, 7, 8, 9, 10)),
        # There is no yaml, and the reference raises a NameError for Mistral. MEMIT's values for it.
        "mistral-7b": _QWEN,
        # There is no yaml. MEMIT's values for llama-7b.
        "llama2-chinese-7b": _QWEN,
        "gpt-j-6b": _GPT_J,
        "gpt2-xl": _GPT2_XL,
        "smollm2-135m": _SMOLLM2,
        # Our choice: the corpus is all that the model knows, so eigenvalues are larger.
        "tiny": AlphaEditParams((0, 1), TINY_VALUES, threshold=1.0, ridge=10.0),
    }

    def solve(self, layer: int, keys: Tensor, past_keys: Tensor) -> Tensor:
        """See `MultilayerEditor.solve`."""
        past_keys = past_keys.to(keys.device)
        basis = self.protected_basis(layer, past_keys)
        return solve_null_space(keys, past_keys, basis, self.params.ridge)

    def protected_basis(self, layer: int, past_keys: Tensor) -> Tensor:
        """The directions that must not change, (m, r), orthonormal columns, float64.

        Args:
            layer: The edited layer.
            past_keys: Keys of the edits in `past`, (m, Np).
        """
        return self.moments().top_eigenvectors(layer, self.params.threshold, past_keys.device)
