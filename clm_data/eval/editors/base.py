"""What all editors have in common: hyperparameters, setup, and the `Editor` protocol."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from clm_data.eval.editors.contexts import Contexts
from clm_data.eval.editors.edits import Edit
from clm_data.eval.editors.origin import check_origin
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EditProtocol

if TYPE_CHECKING:
    from clm_data.eval.editors.moments import Moments
    from clm_data.eval.editors.value_cache import TargetValueCache


class EditorParams(ABC):
    """Hyperparameters of a method; each method subclasses it as a frozen dataclass."""

    @property
    @abstractmethod
    def edited_layers(self) -> tuple[int, ...]:
        """Layers whose MLP output projection changes, lowest first."""

    @property
    @abstractmethod
    def moment_layers(self) -> tuple[int, ...]:
        """Layers whose second moment the method reads; empty if it reads none."""

    @abstractmethod
    def with_layers(self, layers: tuple[int, ...]) -> Self:
        """The same hyperparameters for other layers; a single-layer method takes the last one."""


@dataclass(frozen=True)
class Setup:
    """What an editor needs besides its hyperparameters.

    Attributes:
        protocol: The settings in which `native` and `easyedit` differ.
        contexts: Texts put before the prompts.
        moments: Second moments by layer; None for methods that read none.
        tokens_per_batch: Maximum tokens (rows times length) per forward pass; bounds memory.
        value_cache: Target values in the unedited model; None to optimize them in every edit.
    """

    protocol: EditProtocol
    contexts: Contexts
    moments: Moments | None = None
    tokens_per_batch: int = 4096
    value_cache: TargetValueCache | None = None

    def check_model(self, model: LoadedModel) -> None:
        """Check that moments and cached values were computed from this unedited model.

        Raises:
            EditError: They belong to another model; the message names both.
        """
        if self.moments is not None:
            moments = self.moments
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


class Stopwatch:
    """Accumulates seconds by phase.

    Attributes:
        seconds: Phase name to seconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
