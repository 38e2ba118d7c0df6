"""Fields that are written only if they have another value than their default."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from clm_data.records import Frozen


class OmitsDefaults(Frozen):
    """A record that writes the fields in `OMITTED` only if they differ from their defaults.

    So files and keys of earlier versions, which lack these fields, stay as they are.
    """

    OMITTED: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        same = [
            name
            for name in self.OMITTED
            if getattr(self, name) == fields[name].get_default(call_default_factory=True)
        ]
        written: dict[str, Any] = handler(self)
        return {name: value for name, value in written.items() if name not in same}
