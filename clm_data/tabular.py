"""Results that are tables: `to_pandas()` on request, an HTML table in notebooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20
"""Rows of a table that a notebook shows."""

T = TypeVar("T")


class Tabular(ABC):
    """Base of results that can be read as a table."""

    def table_title(self) -> str:
        """One line above the table."""
        return type(self).__name__

    @abstractmethod
    def table_rows(self) -> list[dict[str, Any]]:
        """The rows; every row has the same keys, which are the columns."""

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a `pandas.DataFrame`."""
        import pandas as pd

        return pd.DataFrame(self.table_rows())

    def _repr_html_(self) -> str:
        return html_table(self.table_title(), self.table_rows())


class Listing(Tabular, Sequence[T], Generic[T]):
    """An immutable list of records that prints as a table.

    Args:
        items: Pydantic models or dataclasses of one type.
        title: The line above the table.
    """

    def __init__(self, items: Iterable[T], title: str) -> None:
        self._items, self._title = tuple(items), title

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"<{self._title}: {len(self)}>"

    def table_title(self) -> str:
        """One line above the table."""
        return self._title

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each item, its fields as columns."""
        return [_fields(item) for item in self._items]


def _fields(item: Any) -> dict[str, Any]:
    if hasattr(item, "model_dump"):
        return dict(item.model_dump(mode="json"))
    return dict(vars(item))


def html_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """An HTML table of the first rows, with everything escaped."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in (rows[0] if rows else ()))
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>"
        for row in rows[:_SHOWN]
    )
    more = f"<p>... and {len(rows) - _SHOWN} more rows</p>" if len(rows) > _SHOWN else ""
    return (
        f"<div><p><b>{escape(title)}</b></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}</div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)
