"""Progress messages: long functions take a `log` callback and never print."""

from __future__ import annotations

from collections.abc import Callable

Log = Callable[[str], None]
"""Called with one line of text for people."""


def silent(_: str) -> None:
    """A `log` that drops its messages."""
