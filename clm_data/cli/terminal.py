"""Text as a terminal shows it: nothing in it can move the cursor or turn the line around."""

from __future__ import annotations

import re
from collections.abc import Iterator

_OPENING, _CLOSING = "（《〈“‘「『【［｛", "，。、；：！？）》〉”’」』】］｝…"
_WIDE = "\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uffe6\U00020000-\U0003ffff"
_UNIT = re.compile(rf"\s+|[{_OPENING}]*(?:[{_WIDE}]|[^\s{_WIDE}{_OPENING}]+)[{_CLOSING}]*|.")
"""What is not divided at the end of a line: a word, or a Chinese character and its punctuation."""
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with each character that a terminal would obey written out, such as ⟨U+001B⟩.

    These are control characters other than line breaks and tabs, and characters that change the
    direction of writing. Texts of models and of files may contain them.
    """
    return _OBEYED.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def wrapped(text: str, width: int) -> list[str]:
    """The lines of a text, wrapped to a number of columns, in which Chinese characters take two.

    A line ends between words or Chinese characters, but not before 。 or after 《. A longer word is
    divided.
    """
    return [part for line in text.split("\n") for part in _wrapped_line(line, width)]


def _wrapped_line(line: str, width: int) -> Iterator[str]:
    from rich.cells import cell_len, chop_cells

    current, used = "", 0
    for unit in _UNIT.findall(line.expandtabs(4)):
        parts = chop_cells(unit, width) if cell_len(unit) > width else [unit]
        for part in parts:
            size = cell_len(part)
            if current and used + size > width:
                yield current.rstrip()
                current, used = "", 0
                if part.isspace():
                    continue
            current, used = current + part, used + size
    yield current.rstrip()


def json_for_terminals(text: str) -> str:
    """JSON with the characters of :func:`printable` as escapes, which mean the same."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
