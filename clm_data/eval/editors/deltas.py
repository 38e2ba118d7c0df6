"""Edits that change weights: the low-rank change of one weight, and the changes of an edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clm_data.eval.editors.edits import facts_of, facts_of_both, metadata_of, read_saved
from clm_data.eval.editors.tensor_files import save_safetensors
from clm_data.eval.errors import EditError, LayoutError
from clm_data.eval.model.hooks import restored
from clm_data.eval.model.loaded import LoadedModel, at_least_float32

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter
    from transformers import PreTrainedModel


_SAMPLES = 1024
"""Elements of each weight that are saved with an edit."""


@dataclass(frozen=True, eq=False)
class WeightDelta:
    """The change of one weight W (d x m), as `left @ right` or as one dense matrix.

    Shapes are those of `torch.nn.Linear`, (out, in), also for models that store W transposed. In
    most methods, an edit of N facts has rank N or less: column i of `left` and row i of `right`
    belong to fact i. UltraEdit's belong to tokens of the facts, LoRA's to no fact.
    The statistics of `clm_data.eval.analysis.geometry` use a numpy type of their own; see
    `docs/decisions/013-low-rank-types.md`.

    Attributes:
        left: (d, N), or the dense change (d, m) if `right` is None.
        right: (N, m), or None.
    """

    left: Tensor
    right: Tensor | None = None

    def dense(self, device: torch.device | None = None) -> Tensor:
        """The change as one matrix (d, m), on `device` or else where `left` is."""
        left = self.left.to(device) if device is not None else self.left
        return left if self.right is None else left @ self.right.to(left.device)

    def __add__(self, other: WeightDelta) -> WeightDelta:
        """The sum; stays low-rank if both are, with the facts of `other` last."""
        import torch

        if self.right is None or other.right is None:
            return WeightDelta(self.dense() + other.dense())
        return WeightDelta(
            torch.cat([self.left, other.left], dim=1), torch.cat([self.right, other.right], dim=0)
        )

    def add_to(self, weight: Parameter, *, transposed: bool) -> None:
        """Add the change to a weight in place; the sum is computed in float32 or float64.

        Args:
            weight: (d, m), or (m, d) if `transposed`.
            transposed: Whether the weight is stored as (in, out); see `ModelLayout`.

        Raises:
            EditError: The shapes differ.
        """
        import torch

        self.check_fits(weight, transposed=transposed)
        change = self.dense(weight.device)
        with torch.no_grad():
            total = at_least_float32(weight)
            weight.copy_(total + (change.T if transposed else change).to(total))

    def check_fits(self, weight: Parameter, *, transposed: bool) -> None:
        """Check that the change can be added to a weight; see :meth:`add_to`.

        Raises:
            EditError: The shapes differ.
        """
        shape = (len(self.left), (self.left if self.right is None else self.right).shape[1])
        shape = shape[::-1] if transposed else shape
        if shape != tuple(weight.shape):
            raise EditError(
                f"a change of shape {shape} does not fit a weight of shape "
                f"{tuple(weight.shape)}: the deltas belong to another model"
            )


@dataclass(frozen=True)
class Deltas:
    """The weight changes of an edit, and which facts it covers; an `Edit`.

    Attributes:
        method: Name of the method.
        model: Name of the model.
        weights: Parameter path to change.
        edited: Ids of the facts that were edited.
        refused: (id, reason) of the facts that could not be placed.
        keys: Parameter path to the keys (m, N) of the edited facts, read in the edited model, which
            later AlphaEdit edits protect; empty for other methods.
        state: What a method carries from one edit to the next, by name, such as UltraEdit's
            normalizer; that of a later edit replaces it.
        by_fact: Whether the terms of factors may be one per fact; LoRA's belong to no fact.
        seconds: Seconds by phase; not saved.
        steps: Optimization steps by fact, if target values were optimized; not saved.
        arrived: Share of the wanted change that the solves of all layers let through, at the keys
            that they were solved for; None without a solve or a wanted change; not saved.
        origin: `model_id` of the unedited model; empty in files of earlier versions.
        base: Parameter path to a sample of the values (N,) that the weight has in the unedited
            model; see :meth:`with_base`. Empty if unknown.
    """

    method: str
    model: str
    weights: Mapping[str, WeightDelta]
    edited: tuple[str, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    keys: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    steps: tuple[int, ...] = ()
    origin: str = ""
    arrived: float | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    by_fact: bool = True
    base: Mapping[str, Tensor] = field(default_factory=dict)

    def plus(self, later: Deltas) -> Deltas:
        """This edit followed by a later one; `seconds` and `steps` are dropped.

        Raises:
            EditError: The edits belong to different models.
        """
        facts = facts_of_both(self, later)
        weights = dict(self.weights)
        for path, delta in later.weights.items():
            weights[path] = weights[path] + delta if path in weights else delta
        keys = dict(self.keys)
        for path, new in later.keys.items():
            keys[path] = _append_columns(keys.get(path), new)
        return replace(
            self,
            weights=weights,
            keys=keys,
            state={**self.state, **later.state},
            by_fact=self.by_fact and later.by_fact,
            base={**later.base, **self.base},
            **facts,
        )

    def with_base(self, model: PreTrainedModel) -> Deltas:
        """The same edit with a sample of the weights that it changes, read from the unedited model.

        By it :meth:`check_base` recognizes the model, also one that has the edit already; `origin`
        leaves out the weights that most methods change.

        Raises:
            LayoutError: The model lacks a weight that the edit changes.
        """
        return replace(
            self, base={path: _sample(self._weight(model, path)) for path in self.weights}
        )

    def check_base(self, model: PreTrainedModel) -> None:
        """Check that the weights to change are those of the unedited model, as far as `base` says.

        A model in another dtype is compared in the dtype of the model or of the edit.

        Raises:
            LayoutError: The model lacks a weight that the edit changes.
            EditError: A weight differs.
        """
        import torch

        for path, then in self.base.items():
            now = _sample(self._weight(model, path))
            if torch.equal(now, then.to(now.dtype)) or torch.equal(now.to(then.dtype), then):
                continue
            raise EditError(
                f"{path} is not as in the model that was edited ({self.model}): this is another "
                "model, or one that was edited already; load the unedited model again"
            )

    @contextmanager
    def apply_to(self, model: LoadedModel) -> Iterator[LoadedModel]:
        """Add the changes to the weights; on exit copies of the old weights are put back."""
        with restored(model, list(self.weights)):
            self.merge_into(model.model, transposed=model.layout.transposed)
            yield model

    def merge_into(self, model: PreTrainedModel, *, transposed: bool) -> None:
        """Add the changes to the weights of a model, for good; after an error, none is changed.

        Args:
            model: The model.
            transposed: Whether it stores these weights as (in, out); see `ModelLayout`.

        Raises:
            LayoutError: The model lacks a weight that the edit changes.
            EditError: A change does not fit its weight.
        """
        found = {path: self._weight(model, path) for path in self.weights}
        for path, weight in found.items():
            self.weights[path].check_fits(weight, transposed=transposed)
        for path, weight in found.items():
            self.weights[path].add_to(weight, transposed=transposed)

    def _weight(self, model: PreTrainedModel, path: str) -> Parameter:
        try:
            return model.get_parameter(path)
        except AttributeError as error:
            raise LayoutError(
                f"{self.method} changes {path}, which this model lacks: the edit belongs to "
                f"another model ({self.model})"
            ) from error

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        tensors = {f"left:{name}": delta.left for name, delta in self.weights.items()}
        for name, delta in self.weights.items():
            if delta.right is not None:
                tensors[f"right:{name}"] = delta.right
        tensors |= {f"keys:{name}": keys for name, keys in self.keys.items()}
        tensors |= {f"state:{name}": value for name, value in self.state.items()}
        tensors |= {f"base:{name}": value for name, value in self.base.items()}
        more = {} if self.by_fact else {"by_fact": "false"}
        save_safetensors(tensors, path, metadata_of(self, more))

    @staticmethod
    def load(path: Path) -> Deltas:
        """Read a file that `save` wrote.

        Raises:
            InputFileError: The file cannot be read, or holds something else.
        """
        with read_saved(path, "deltas") as (metadata, tensors):
            left, right, keys, state, base = (
                _with_prefix(tensors, f"{prefix}:")
                for prefix in ("left", "right", "keys", "state", "base")
            )
            weights = {name: WeightDelta(tensor, right.get(name)) for name, tensor in left.items()}
            by_fact = metadata.get("by_fact") != "false"
            return Deltas(
                weights=weights,
                keys=keys,
                state=state,
                base=base,
                by_fact=by_fact,
                **facts_of(metadata),
            )


def _sample(weight: Tensor) -> Tensor:
    """About `_SAMPLES` elements (N,) of a weight, from all of its rows and columns in turn."""
    flat = weight.detach().reshape(-1)
    step = max(1, len(flat) // _SAMPLES) | 1  # odd: a row's length is even, as a rule
    return flat[::step].cpu().clone()


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}


def _append_columns(first: Tensor | None, second: Tensor) -> Tensor:
    import torch

    return second if first is None else torch.cat([first, second], dim=1)
