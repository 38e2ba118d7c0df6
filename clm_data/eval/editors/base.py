"""What all editors have in common: hyperparameters, setup, and the `Editor` protocol."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Protocol, Self, TypeVar, runtime_checkable

from pydantic import Field

from clm_data.eval.editors.contexts import Contexts
from clm_data.eval.editors.edits import Edit
from clm_data.eval.editors.origin import check_origin
from clm_data.eval.editors.ranges import Layer, Share, check_ranges
from clm_data.eval.editors.retrieval import Pair
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EditProtocol

if TYPE_CHECKING:
    from clm_data.eval.editors.moments import LanguageMoments, Moments
    from clm_data.eval.editors.value_cache import TargetValueCache


class EditorParams(ABC):
    """Hyperparameters of a method; each method subclasses it as a frozen dataclass.

    Every number declares its range, with one of the types of `ranges`.

    Raises:
        EditError: A value is out of range or has another type; the message names it.
    """

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    @abstractmethod
    def edited_layers(self) -> tuple[int, ...]:
        """Layers whose MLP output projection changes, lowest first."""

    @property
    def moment_layers(self) -> tuple[int, ...]:
        """Layers whose second moment the method reads; by default none."""
        return ()

    @property
    def moments_by_language(self) -> bool:
        """Whether the method reads the second moments of each language, not of all text."""
        return False

    @abstractmethod
    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same hyperparameters for other layers; a single-layer method takes the last one."""


@dataclass(frozen=True)
class OneLayerParams(EditorParams):
    """Hyperparameters of a method that edits one layer.

    Attributes:
        layer: The layer whose MLP output projection is edited.
    """

    layer: Layer

    @property
    def edited_layers(self) -> tuple[int, ...]:
        """The one layer."""
        return (self.layer,)

    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same hyperparameters for the last of `layers`."""
        return replace(self, layer=layers[-1])


SWITCH = {"switch": True}
"""Metadata of a hyperparameter that is part of results and keys only if it is not the default."""


def switches(params: EditorParams) -> dict[str, bool]:
    """Names of the switches, and whether each has another value than its default."""
    return {
        one.name: getattr(params, one.name) != one.default
        for one in fields(params)  # type: ignore[arg-type]
        if one.metadata.get("switch")
    }


@dataclass(frozen=True)
class DeltaParams(EditorParams):
    """Hyperparameters of all methods that change weights; `make_editor` applies them.

    Attributes:
        rect: Keep only this share of each change, the entries with the largest |change / weight|
            (RECT; Gu et al., Model Editing Harms General Abilities of Large Language Models, EMNLP
            2024, who use 0.4). None keeps all.
        prune: Base of the logarithm that damps the singular values of the change of a weight over
            all edits, where they exceed the weight's largest (PRUNE; Ma et al.,
            Perturbation-Restrained Sequential Model Editing, ICLR 2025, who use 1.2). None damps
            none.
    """

    rect: Share | None = field(default=None, kw_only=True, metadata=SWITCH)
    prune: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = field(
        default=None, kw_only=True, metadata=SWITCH
    )

    @property
    def stabilizes(self) -> bool:
        """Whether the weight changes are changed after the method."""
        return self.rect is not None or self.prune is not None


@dataclass(frozen=True)
class ValueMethodParams(DeltaParams):
    """Hyperparameters of all methods with target values.

    Attributes:
        nas: Norm anchoring (Liu et al., Toward Ultra-Long-Horizon Sequential Model Editing, 2026):
            scale each target value to the mean norm of those of the unedited model; a fact whose
            value has more than twice that norm is left as it is.
    """

    nas: bool = field(default=False, kw_only=True, metadata=SWITCH)


@dataclass(frozen=True)
class Setup:
    """What an editor needs besides its hyperparameters.

    Attributes:
        protocol: The settings in which `native` and `easyedit` differ.
        contexts: Texts put before the prompts.
        moments: Second moments by layer; None for methods that read none.
        tokens_per_batch: Maximum tokens (rows times length) per forward pass; bounds memory.
        value_cache: Target values in the unedited model; None to optimize them in every edit.
        language_moments: Second moments of each language; None for methods that read none.
    """

    protocol: EditProtocol
    contexts: Contexts
    moments: Moments | None = None
    tokens_per_batch: int = 4096
    value_cache: TargetValueCache | None = None
    language_moments: LanguageMoments | None = None

    def check_model(self, model: LoadedModel) -> None:
        """Check that moments and cached values were computed from this unedited model.

        Raises:
            EditError: They belong to another model; the message names both.
        """
        languages = self.language_moments.by_language if self.language_moments is not None else {}
        for moments in (self.moments, *languages.values()):
            if moments is None:
                continue
            check_origin("second moments", moments.model, moments.origin, model)
        if self.value_cache is not None:
            self.value_cache.check_model(model)

    def require_moments(self, method: str) -> Moments:
        """The second moments.

        Raises:
            EditError: There are none; the message names the method.
        """
        if self.moments is None:
            raise EditError(f"{method} needs second moments; compute them with second_moments")
        return self.moments

    def require_language_moments(self, method: str) -> LanguageMoments:
        """The second moments of each language.

        Raises:
            EditError: There are none; the message names the method.
        """
        if self.language_moments is None:
            raise EditError(
                f"{method} needs second moments of each language; compute them with "
                "second_moments, one language at a time"
            )
        return self.language_moments


EditT = TypeVar("EditT", bound=Edit)
"""What a method returns, such as `Deltas`."""


class Editor(Protocol[EditT]):
    """An editing method with its hyperparameters; it can edit any number of models."""

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: EditT | None = None
    ) -> EditT:
        """Compute the edit of some facts; the model itself is left unchanged.

        Args:
            model: The model, without `past` applied.
            requests: The facts; those that cannot be placed are listed in `Edit.refused`.
            past: Earlier edits, which the new one is computed on top of. The result holds the
                new edit only; `past.plus(result)` holds both.

        Raises:
            EditError: No fact can be placed, or the computation failed.
        """
        ...


@runtime_checkable
class TrainedEditor(Protocol):
    """An editor that learns from facts before it can edit any."""

    def fit(self, model: LoadedModel, rows: Sequence[Pair]) -> Self:
        """Train or calibrate the method on facts that are not edited.

        Args:
            model: The unedited model, which is left unchanged.
            rows: Facts in both languages; none is about a subject that is edited.

        Returns:
            The editor with what it learned.

        Raises:
            EditError: There are too few rows, or training failed.
        """
        ...


class Stopwatch:
    """Accumulates seconds by phase; a phase ends when a GPU has finished its work.

    Attributes:
        seconds: Phase name to seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        import torch

        start = time.perf_counter()
        try:
            yield
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
