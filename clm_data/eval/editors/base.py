"""What every editor takes and gives."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from clm_data.errors import InputFileError
from clm_data.eval.contexts import Contexts
from clm_data.eval.errors import EditError, PlacementError
from clm_data.eval.models import LoadedModel
from clm_data.eval.protocols import Protocol as EditProtocol
from clm_data.eval.requests import EditRequest, Placement, place, place_prompt
from clm_data.languages import TABLE

if TYPE_CHECKING:
    from clm_data.eval.editors.covariance import Moments
    from clm_data.eval.editors.kept import KeptValues


@dataclass(frozen=True)
class Delta:
    """The change of one weight, in orientation (out, in): ``left @ right``, or ``left`` alone.

    Attributes:
        left: (d, N), or (d, m) where ``right`` is None.
        right: (N, m).
    """

    left: Any
    right: Any = None

    def dense(self, device: Any = None) -> Any:
        """The whole matrix (d, m)."""
        left = self.left.to(device) if device is not None else self.left
        return left if self.right is None else left @ self.right.to(left.device)


@dataclass(frozen=True)
class Deltas:
    """What an edit changes, and what it left undone.

    Attributes:
        method: The method's name.
        model: The model's name.
        weights: By parameter path.
        edited: Ids of the facts that were edited.
        refused: (id, reason) of those that could not be placed.
        keys: By parameter path: keys (m, N) of the edited facts in the edited model, which a later
            AlphaEdit must not disturb; empty for other methods.
        seconds: By phase; not saved.
        steps: Optimisation steps taken by fact, where values were optimised; not saved.
    """

    method: str
    model: str
    weights: Mapping[str, Delta]
    edited: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    steps: tuple[int, ...] = ()

    def plus(self, later: Deltas) -> Deltas:
        """Both edits, one after the other.

        Raises:
            EditError: They are of different models.
        """
        if self.model != later.model:
            raise EditError(f"deltas of {self.model} and {later.model} cannot be added")
        weights = dict(self.weights)
        for path, delta in later.weights.items():
            weights[path] = _sum(weights[path], delta) if path in weights else delta
        return Deltas(
            self.method,
            self.model,
            weights,
            self.edited + later.edited,
            self.refused + later.refused,
            {**self.keys, **{p: _beside(self.keys.get(p), k) for p, k in later.keys.items()}},
        )

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        from safetensors.torch import save_file

        tensors = {f"left:{name}": delta.left for name, delta in self.weights.items()}
        for name, delta in self.weights.items():
            if delta.right is not None:
                tensors[f"right:{name}"] = delta.right
        tensors |= {f"keys:{name}": keys for name, keys in self.keys.items()}
        about = {
            "method": self.method,
            "model": self.model,
            "edited": json.dumps(self.edited),
            "refused": json.dumps(self.refused, ensure_ascii=False),
        }
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about)

    @staticmethod
    def load(path: Path) -> Deltas:
        """Read what :meth:`save` wrote.

        Raises:
            InputFileError: The file is not one of ours.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Deltas(
                about["method"],
                about["model"],
                {
                    name.removeprefix("left:"): Delta(
                        tensor, tensors.get(f"right:{name.removeprefix('left:')}")
                    )
                    for name, tensor in tensors.items()
                    if name.startswith("left:")
                },
                tuple(json.loads(about["edited"])),
                tuple((one, why) for one, why in json.loads(about["refused"])),
                {
                    name.removeprefix("keys:"): tensor
                    for name, tensor in tensors.items()
                    if name.startswith("keys:")
                },
            )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputFileError(f"{path} holds no saved deltas: {error}") from error


def _sum(first: Delta, second: Delta) -> Delta:
    import torch

    if first.right is None or second.right is None:
        return Delta(first.dense() + second.dense())
    return Delta(
        torch.cat([first.left, second.left], dim=1), torch.cat([first.right, second.right], dim=0)
    )


def _beside(first: Any, second: Any) -> Any:
    import torch

    return second if first is None else torch.cat([first, second], dim=1)


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


@dataclass(frozen=True)
class PlacedFact:
    """A fact with its sentences as tokens.

    Attributes:
        request: The fact.
        rows: Prompt and answer behind each context, the bare one first.
        kl: The KL prompt with the subject.
        prompts: The prompt alone behind each context, the bare one first.
    """

    request: EditRequest
    rows: tuple[Placement, ...]
    kl: Placement
    prompts: tuple[Placement, ...]


def place_facts(
    loaded: LoadedModel, requests: Sequence[EditRequest], setup: Setup, *, joiner: str | None = None
) -> tuple[list[PlacedFact], tuple[tuple[str, str], ...]]:
    """Place facts; those that cannot be placed come second, as (id, reason).

    Args:
        loaded: The model, for its tokenizer.
        requests: The facts.
        setup: Protocol and contexts.
        joiner: Between prompt and answer, in place of the protocol's.

    Raises:
        EditError: None can be placed.
    """
    kept: list[PlacedFact] = []
    refused: list[tuple[str, str]] = []
    words, protocol = loaded.tokenizer, setup.protocol
    for request in requests:
        templates = setup.contexts.for_fact(protocol, request.lang)
        essence = TABLE[protocol.kl_lang(request.lang)].essence.replace("{}", request.subject)
        about = EditRequest(request.id, request.lang, essence, request.subject, request.target)
        try:
            rows = tuple(place(words, request, protocol, t, joiner=joiner) for t in templates)
            prompts = tuple(place_prompt(words, request, protocol, t) for t in templates)
            kl = place_prompt(words, about, protocol)
            kept.append(PlacedFact(request, rows, kl, prompts))
        except PlacementError as error:
            refused.append((request.id, str(error)))
    if not kept:
        why = refused[0][1] if refused else "there are none"
        raise EditError(f"no fact can be edited: {why}")
    return kept, tuple(refused)


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
