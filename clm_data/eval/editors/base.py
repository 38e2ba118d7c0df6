"""What every editor takes and gives."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from clm_data.eval.editors.contexts import Contexts
from clm_data.eval.editors.deltas import Deltas
from clm_data.eval.errors import EditError
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.protocols import EditProtocol

if TYPE_CHECKING:
    from clm_data.eval.editors.covariance import Moments
    from clm_data.eval.editors.value_cache import KeptValues


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
        protocol: The choices that ``native`` and ``easyedit`` differ in.
        contexts: Texts put before the prompts.
        moments: Second moments of the layers; None for methods that use none.
        tokens_per_batch: Bounds memory: tokens (rows times length) that are run at once.
        kept: Target values in the unedited model; None: they are found anew by each edit.
    """

    protocol: EditProtocol
    contexts: Contexts
    moments: Moments | None = None
    tokens_per_batch: int = 4096
    kept: KeptValues | None = None

    def needed_moments(self, method: str) -> Moments:
        """The second moments.

        Raises:
            EditError: There are none.
        """
        if self.moments is None:
            raise EditError(f"{method} needs second moments; make them with second_moments")
        return self.moments


class Editor(Protocol):
    """A method with its hyperparameters, ready to edit any number of models."""

    def edit(
        self, model: LoadedModel, requests: Sequence[EditRequest], *, past: Deltas | None = None
    ) -> Deltas:
        """Find the weight changes that edit the facts in; the model is left as it was.

        Args:
            model: Its weights without ``past``.
            requests: The facts; one that cannot be placed is in ``Deltas.refused``.
            past: Earlier edits that the new ones come on top of. The result holds the new
                changes only: ``past.plus(result)`` is both.

        Raises:
            EditError: No fact can be placed, or the computation failed; one line.
        """
        ...


class Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time inside towards a phase."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin
