"""Changing hyperparameters by name, as a recipe does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar

from clm_data.errors import ConfigError
from clm_data.eval.editors.base import EditorParams, switches
from clm_data.eval.editors.ranges import validated
from clm_data.eval.errors import EditError

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
        ConfigError: `layers` is empty, a name is unknown, or a value has the wrong type or is out
            of range.
    """
    if layers == ():
        raise ConfigError("the list of layers is empty; specify at least one")
    try:
        return _changed(params if layers is None else params.with_layers(layers), changes)
    except EditError as error:
        raise ConfigError(str(error)) from error


def _changed(params: Params, changes: Mapping[str, Any]) -> Params:
    group = type(params).__name__
    known = {field.name for field in fields(params)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(f"{group} has no '{name}'; it has {', '.join(sorted(known))}")
        old = getattr(params, name)
        if is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{group}: '{name}' is a group, not {value!r}")
            new[name] = _changed(old, value)
        else:
            new[name] = validated(type(params), name, value, strict=False)
    return replace(params, **new)  # type: ignore[type-var]


def params_json(params: EditorParams) -> dict[str, Any]:
    """Hyperparameters as JSON; switches (`SWITCH`) only if they are not the default."""
    values = asdict(params)  # type: ignore[call-overload]
    off = {name for name, on in switches(params).items() if not on}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name not in off
    }
