"""Ranges of hyperparameters: declared with a field, checked whenever hyperparameters are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from clm_data.eval.errors import EditError

Count = Annotated[int, Field(ge=1)]
"""1 or more."""
NonNegativeCount = Annotated[int, Field(ge=0)]
"""0 or more."""
Layer = Annotated[int, Field(ge=0)]
"""Index of a decoder layer, from 0; whether the model has it is checked with the model."""
Seed = Annotated[int, Field(ge=0, lt=2**64)]
"""Random seed."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
"""Any number but NaN and the infinities."""
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""0 or more, finite."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Above 0, finite."""
LearningRate = Annotated[float, Field(gt=0, le=1000)]
"""Above 0; no method learns anything at more than 1000."""
Share = Annotated[float, Field(gt=0, le=1)]
"""Above 0, up to 1."""


@cache
def _adapters(params: type) -> Mapping[str, TypeAdapter[Any]]:
    """By field of a dataclass; nested dataclasses, which check themselves, have none."""
    hints = get_type_hints(params, include_extras=True)
    names = [field.name for field in fields(params)]
    return {name: TypeAdapter(hints[name]) for name in names if not is_dataclass(hints[name])}


def validated(params: type, name: str, value: Any, *, strict: bool) -> Any:
    """A hyperparameter with the declared type and in the declared range.

    Args:
        params: The dataclass.
        name: A field of it that is no dataclass itself.
        value: The value.
        strict: Whether the type must match; otherwise text is converted to numbers and lists to
            tuples. True and false are never numbers, nor anything else true or false.

    Raises:
        EditError: It has another type or is out of range; the message names all three.
    """
    adapter = _adapters(params)[name]
    try:
        new = adapter.validate_python(value, strict=strict)
        if isinstance(new, bool) or isinstance(value, bool):
            adapter.validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise EditError(f"{params.__name__}: '{name}' is {value!r}: {reason}") from error
    return new


def check_ranges(params: object) -> None:
    """Check every field of a dataclass against its declared type and range.

    Raises:
        EditError: One is invalid; the message names it, the value and what it should be.
    """
    group: type = type(params)
    for name in _adapters(group):
        validated(group, name, getattr(params, name), strict=True)
