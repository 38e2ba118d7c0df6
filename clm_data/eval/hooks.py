"""Looking into a model and changing it for a while; every change is undone on the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clm_data.eval.errors import EditError, LayoutError

if TYPE_CHECKING:
    from clm_data.eval.editors.base import Deltas
    from clm_data.eval.models import LoadedModel


@contextmanager
def swapped(model: Any, parts: Mapping[str, Any]) -> Iterator[None]:
    """Put other modules in the place of some, by dotted path."""
    before = {path: model.get_submodule(path) for path in parts}
    try:
        for path, part in parts.items():
            _put(model, path, part)
        yield
    finally:
        for path, part in before.items():
            _put(model, path, part)


def _put(model: Any, path: str, part: Any) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, part)


@contextmanager
def silenced(module: Any) -> Iterator[None]:
    """Make a module return zeros."""
    import torch

    handle = module.register_forward_hook(lambda _m, _i, out: torch.zeros_like(out))
    try:
        yield
    finally:
        handle.remove()


class Captured:
    """What a module took in and gave out when it last ran, without gradient."""

    def __init__(self) -> None:
        self.input: Any = None
        self.output: Any = None


@contextmanager
def captured(module: Any) -> Iterator[Captured]:
    """Keep a module's input and output."""
    seen = Captured()

    def keep(_module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        seen.input, seen.output = inputs[0].detach(), output.detach()

    handle = module.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def shifted(module: Any, places: Any, shift: Any) -> Iterator[None]:
    """Add ``shift`` (n, d) to a module's output (..., d) at n flat places."""

    def change(_module: Any, _inputs: tuple[Any, ...], output: Any) -> Any:
        return add_at(output, places, shift)

    handle = module.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def add_at(states: Any, places: Any, shift: Any) -> Any:
    """States (..., d) with ``shift`` (n, d) added at n flat places; gradients go through."""
    flat = states.flatten(0, -2)
    return flat.index_add(0, places.to(flat.device), shift.to(flat)).view_as(states)


@contextmanager
def restored(loaded: LoadedModel, paths: list[str]) -> Iterator[dict[str, Any]]:
    """Weights that may be changed inside and are as before, bit for bit, afterwards.

    Yields:
        The parameters by path.

    Raises:
        LayoutError: The model has no parameter of such a path.
    """
    import torch

    try:
        weights = {path: loaded.model.get_parameter(path) for path in paths}
    except AttributeError as error:
        raise LayoutError(f"{loaded.name}: {error}") from error
    originals = {path: weight.detach().clone() for path, weight in weights.items()}
    try:
        yield weights
    finally:
        with torch.no_grad():
            for path, weight in weights.items():
                weight.copy_(originals[path])


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
