"""LangEdit: null-space constraints for multilingual sequential editing, Findings of ACL 2025.

Mitigating Negative Interference in Multilingual Sequential Knowledge Editing through Null-Space
Constraints, arXiv 2506.10800.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

from clm_data.eval.editors.alphaedit import AlphaEdit, AlphaEditParams
from clm_data.eval.editors.ranges import NonNegative
from clm_data.eval.editors.solve import top_eigenvectors
from clm_data.eval.errors import EditError

if TYPE_CHECKING:
    from torch import Tensor

    from clm_data.eval.editors.moments import Moments


@dataclass(frozen=True)
class LangEditParams(AlphaEditParams):
    """Hyperparameters of LangEdit; those of AlphaEdit, and weights of what is protected.

    Attributes:
        zh_weight: Weight of the second moment of Chinese text. Only the ratio of the two weights
            matters.
        en_weight: Weight of the second moment of English text.
        past_weight: Weight of the second moment of the keys of earlier edits against the mean of
            the languages.
    """

    zh_weight: NonNegative = 0.5
    en_weight: NonNegative = 0.5
    past_weight: NonNegative = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.zh_weight + self.en_weight == 0:
            raise EditError("zh_weight and en_weight are both 0; one must be above 0")

    @property
    def moments_by_language(self) -> bool:
        """Yes."""
        return True


def _like_alphaedit(params: AlphaEditParams) -> LangEditParams:
    return LangEditParams(**{f.name: getattr(params, f.name) for f in fields(AlphaEditParams)})


@dataclass(frozen=True)
class LangEdit(AlphaEdit):
    """AlphaEdit with directions to protect that are found anew for each edit.

    They are the eigenvectors of C + `past_weight` Kp Kp^T / Np whose eigenvalue is at least
    `threshold`, where C is the weighted mean of the languages' second moments and Kp holds the Np
    keys of earlier edits, in whatever language. (The reference does not divide by Np.)
    """

    params: LangEditParams

    name: ClassVar[str] = "langedit"
    # The paper edits other models; these are AlphaEdit's.
    PARAMS: ClassVar[Mapping[str, LangEditParams]] = {
        model: _like_alphaedit(params) for model, params in AlphaEdit.PARAMS.items()
    }

    def moments(self) -> Moments:
        """The weighted mean of the languages' second moments."""
        return self.setup.require_language_moments(self.name).weighted(
            {"zh": self.params.zh_weight, "en": self.params.en_weight}
        )

    def protected_basis(self, layer: int, past_keys: Tensor) -> Tensor:
        """See `AlphaEdit.protected_basis`."""
        count, weight = past_keys.shape[1], self.params.past_weight
        if not count or not weight:
            return super().protected_basis(layer, past_keys)
        past = past_keys.double()
        moment = self.moments().moment(layer).to(past) + past @ past.T * (weight / count)
        return top_eigenvectors(moment, self.params.threshold)
