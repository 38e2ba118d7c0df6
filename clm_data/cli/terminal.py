"""Text as a terminal shows it: nothing in it can move the cursor or turn the line around."""

from __future__ import annotations

import re

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with each character that a terminal would obey written out, such as ⟨U+001B⟩.

    These are control characters other than line breaks and tabs, and characters that change the
    direction of writing. Texts of models and of files may contain them.
    """
    return _OBEYED.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def json_for_terminals(text: str) -> str:
    """JSON with the characters of :func:`printable` as escapes, which mean the same."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
