"""Changing hyperparameters by name, as a recipe does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from clm_data.errors import ConfigError
from clm_data.eval.editors.base import EditorParams, switches

Params = TypeVar("Params")


def with_overrides(
    params: EditorParams, layers: tuple[int, ...] | None, changes: Mapping[str, Any]
) -> EditorParams:
    """Hyperparameters with other layers and other values.

    Args:
        params: The hyperparameters to start from.
        layers: Layers to edit; None keeps those of `params`.
        changes: Values by name; a mapping for a nested group such as `values`.

    Raises:
        ConfigError: `layers` is empty, a name is unknown, or a value has the wrong type.
    """
    if layers is not None:
        if not layers:
            raise ConfigError("the list of layers is empty; specify at least one")
        params = params.with_layers(layers)
    return _changed(params, changes)


def _changed(params: Params, changes: Mapping[str, Any]) -> Params:
    group = type(params).__name__
    known = {field.name for field in fields(params)}  # type: ignore[arg-type]
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(f"{group} has no '{name}'; it has {', '.join(sorted(known))}")
        old = getattr(params, name)
        if is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{group}: '{name}' is a group, not {value!r}")
            new: Any = _changed(old, value)
        else:
            new = _validated(params, name, value)
        params = replace(params, **{name: new})  # type: ignore[type-var]
    return params


def _validated(params: Any, name: str, value: Any) -> Any:
    """The value converted to the declared type: text to numbers, lists to tuples."""
    try:
        return TypeAdapter(get_type_hints(type(params))[name]).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{type(params).__name__}: '{name}' is {value!r}: {reason}") from error


def params_json(params: EditorParams) -> dict[str, Any]:
    """Hyperparameters as JSON; switches (`SWITCH`) only if they are not the default."""
    values = asdict(params)  # type: ignore[call-overload]
    off = {name for name, on in switches(params).items() if not on}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in off
    }
