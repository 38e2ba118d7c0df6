"""Weight changes: low-rank factors of one matrix, all matrices of an edit, and applying them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError
from clm_data.eval.errors import EditError
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel


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


def add_(weight: Any, change: Any, *, transposed: bool) -> None:
    """Add a change of shape (out, in) to a weight, summed in float32.

    Raises:
        EditError: The shapes do not fit.
    """
    import torch

    change = change.T if transposed else change
    if tuple(change.shape) != tuple(weight.shape):
        raise EditError(
            f"a change of shape {tuple(change.shape)} does not fit a weight of shape "
            f"{tuple(weight.shape)}: the deltas belong to another model"
        )
    with torch.no_grad():
        total = weight.float() if weight.dtype != torch.float64 else weight
        weight.copy_(total + change.to(total))


@contextmanager
def applied(loaded: LoadedModel, deltas: Deltas | None) -> Iterator[None]:
    """The model with deltas added; its weights are as before, bit for bit, afterwards.

    Raises:
        LayoutError: The model lacks a weight that the deltas name.
        EditError: A delta's shape does not fit.
    """
    changes = deltas.weights if deltas is not None else {}
    with restored(loaded, list(changes)) as weights:
        for path, weight in weights.items():
            add_(weight, changes[path].dense(weight.device), transposed=loaded.layout.transposed)
        yield
