"""A row under reading: remembers what was read, so that what was not can be listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]
REST = " after the first"
"""Ending of the name of a list of which only the first item is read."""


class Fields:
    """The fields of one row. Each method that returns a value marks its field as read."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._read: set[str] = set()
        self._parts: dict[str, Fields] = {}
        self._left: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._row

    def names(self) -> list[str]:
        """The names of the fields, in order."""
        return [str(name) for name in self._row]

    def get(self, name: str) -> Any:
        """A value, unaltered; None if there is no such field."""
        self._read.add(name)
        return self._row.get(name)

    def first(self, name: str) -> Any:
        """The first item of a list, at any depth; None if it is empty; other values unaltered."""
        items = flat(self.get(name))
        if len(items) > 1:
            self._left.append(f"{name}{REST}")
        return items[0] if items else None

    def answers(self, *names: str) -> tuple[Any, tuple[Any, ...]]:
        """The first of the accepted answers in the first of these fields, and all others.

        Fields such as ``answers_aliases`` and ``answers_alias`` hold other spellings of an answer.
        """
        found: list[Any] = []
        main = next((name for name in names if name in self), names[0])
        endings = ("", "_alias", "_aliases")
        for name in (main + ending for ending in endings if main + ending in self):
            found += [item for item in flat(self.get(name)) if item not in (None, "")]
        if not found:  # an empty text is not the same as no text
            empty = flat(self.get(main))
            return (empty[0] if empty else None), ()
        return (found[0] if found else None), tuple(found[1:])

    def part(self, name: str) -> Fields | None:
        """An object inside the row, or in a list of one; None if the value is not an object."""
        value = self._row.get(name)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if not isinstance(value, Mapping):
            return None
        self._read.add(name)
        return self._parts.setdefault(name, Fields(value))

    def leave(self, what: str) -> None:
        """List something that the schema cannot hold."""
        self._left.append(what)

    def unread(self) -> Iterator[str]:
        """Names of the fields that were not read and have a value, as paths."""
        for name, value in self._row.items():
            if name not in self._read and not _is_nothing(value):
                yield str(name)
        for name, part in self._parts.items():
            yield from (f"{name}.{inner}" for inner in part.unread())
        yield from self._left


def flat(value: Any) -> list[Any]:
    """The items of a list at any depth, or the value itself as the only item."""
    if isinstance(value, list):
        return [item for inner in value for item in flat(inner)]
    return [value]


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)
