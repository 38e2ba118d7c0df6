"""Context managers that read or change a model for a while; each undoes its change on exit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from clm_data.eval.errors import LayoutError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter
    from transformers import PreTrainedModel


@contextmanager
def replaced_modules(model: Module, replacements: Mapping[str, Module]) -> Iterator[None]:
    """Replace submodules, given by dotted path."""
    originals = {path: model.get_submodule(path) for path in replacements}
    try:
        for path, module in replacements.items():
            _set_submodule(model, path, module)
        yield
    finally:
        for path, module in originals.items():
            _set_submodule(model, path, module)


def _set_submodule(model: Module, path: str, module: Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def skipped_layer(layer: Module, outputs: int | None = None) -> Module:
    """A module in the place of a decoder layer that returns its input.

    Its other attributes, such as the kind of its attention, are those of the layer.

    Args:
        layer: The layer.
        outputs: Length of the tuple that the layer returns; None if it returns a tensor.
    """
    import torch

    class Skipped(torch.nn.Module):  # type: ignore[misc]
        def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
            return hidden_states if outputs is None else (hidden_states, *[None] * (outputs - 1))

        def __getattr__(self, name: str) -> Any:
            return getattr(layer, name)

    return Skipped()


@contextmanager
def replaced_input(layer: Module, hidden: Tensor) -> Iterator[None]:
    """Make a decoder layer read other hidden states than those that enter it."""

    def hook(_module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entering = args[0] if args else kwargs["hidden_states"]
        new = hidden.to(entering.device)
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def last_input(module: Module) -> Iterator[list[Tensor]]:
    """The hidden states that enter a module when it is last called, as a list of one."""
    found: list[Tensor] = []

    def hook(_module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found[:] = [args[0] if args else kwargs["hidden_states"]]

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def without_generation_settings(model: PreTrainedModel) -> Iterator[None]:
    """Hide a checkpoint's generation settings, which `generate` uses where a caller sets none."""
    from transformers import GenerationConfig

    original = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = original


class Captured:
    """Input and output of a module's last forward pass; unset before the first."""

    input: Tensor
    output: Tensor


@contextmanager
def captured(module: Module, *, graph: bool = False) -> Iterator[Captured]:
    """Record a module's first positional input and its output at each forward pass, detached.

    Args:
        module: The module.
        graph: Leave the output in the graph, so that a loss has a gradient with respect to it.
    """
    record = Captured()

    def hook(_module: Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        record.input = inputs[0].detach()
        record.output = output if graph else output.detach()

    handle = module.register_forward_hook(hook)
    try:
        yield record
    finally:
        handle.remove()


@contextmanager
def shifted_output(module: Module, places: Tensor, shift: Tensor) -> Iterator[None]:
    """Add `shift` (n, d) to a module's output (..., d) at n flat places; see `add_at`."""

    def hook(_module: Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return add_at(output, places, shift)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def added_output(module: Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Add a function of a module's first positional input to its output, in the output's dtype."""

    def hook(_module: Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        new = change(inputs[0])
        return (output + new).to(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replaced_output(module: Module, places: Tensor, values: Tensor) -> Iterator[None]:
    """Put `values` (n, d) in the place of a module's output (..., d) at n distinct flat places."""

    def hook(_module: Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        flat = output.flatten(0, -2)
        where = places.to(flat.device)
        return flat.index_copy(0, where, values.to(flat)).view_as(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def add_at(states: Tensor, places: Tensor, shift: Tensor) -> Tensor:
    """Hidden states with a shift added at some places; differentiable in both.

    Args:
        states: (..., d).
        places: (n,) indices into the flattened leading dimensions of `states`.
        shift: (n, d).
    """
    flat = states.flatten(0, -2)
    return flat.index_add(0, places.to(flat.device), shift.to(flat)).view_as(states)


class _Named(Protocol):
    """A `LoadedModel`, whose module imports this one."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> PreTrainedModel: ...


@contextmanager
def restored(loaded: _Named, paths: Sequence[str]) -> Iterator[dict[str, Parameter]]:
    """Copy some weights and put the copies back on exit, bit for bit.

    Yields:
        The parameters by path; they may be changed in place.

    Raises:
        LayoutError: The model has no parameter with such a path.
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
