"""Looking into a model and changing it for a while; every change is undone on the way out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clm_data.eval.errors import LayoutError

if TYPE_CHECKING:
    from clm_data.eval.model.loaded import LoadedModel


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
