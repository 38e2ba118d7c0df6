"""Checks of the characters in a text, and how messages quote a text."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Collection
from urllib.parse import quote as percent_encoded

from clm_data.languages import HAN

_OTHER_SPACE = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_SPACE_IN_CHINESE = re.compile(rf"(?<={HAN.pattern}) (?={HAN.pattern})")
# Letters and marks without a visible shape that Unicode does not classify as control or format.
_INVISIBLE = re.compile(
    "[\ufffd\u115f\u1160\u3164\uffa0\u2800\u034f\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_LONGEST_QUOTE = 80
_SHORTEST_SECRET = 4
"""Shorter values are not masked: they would blank out parts of words."""


def is_blank(text: str | None) -> bool:
    """Whether a text is None or has only whitespace and invisible characters."""
    return text is None or all(char.isspace() or _is_control(char) for char in text)


def control_characters(text: str) -> list[str]:
    """The distinct zero-width, direction, control and private-use characters, BOM and U+FFFD."""
    if text.isprintable() and not _INVISIBLE.search(text):
        return []
    return list(dict.fromkeys(char for char in text if _is_control(char)))


def stray_whitespace(text: str) -> list[str]:
    """Descriptions of misplaced or unusual whitespace; empty if there is none."""
    found = []
    if text != text.strip():
        where = "start" if text != text.lstrip() else "end"
        found.append(f"whitespace at the {where}")
    inner = text.strip()
    others = dict.fromkeys(_OTHER_SPACE.findall(inner))
    found += [f"U+{ord(char):04X} ({unicodedata.name(char).lower()})" for char in others]
    if re.search(r"\s{2}", inner):
        found.append("repeated whitespace")
    if _SPACE_IN_CHINESE.search(inner):
        found.append("a space between Chinese characters")
    return found


def number_as_text(number: int | float) -> str | None:
    """A number as the text that a person would write: 1881, 1881.0 and 1.881e3 give "1881".

    None for NaN and infinity, which are no answers. Answers of models and imported files use this
    alike.
    """
    if isinstance(number, int):
        return str(number)
    if not math.isfinite(number):
        return None
    return str(int(number)) if number.is_integer() else repr(number)


def visible(text: str) -> str:
    """The text with invisible characters written out, as in ⟨U+200B⟩."""
    return "".join(
        f"⟨U+{ord(char):04X}⟩" if _is_control(char) or _OTHER_SPACE.match(char) else char
        for char in text
    )


def quote(text: str) -> str:
    """The text in quotation marks, with invisible characters written out, shortened if long."""
    shown = visible(text)
    if len(shown) > _LONGEST_QUOTE:
        shown = shown[: _LONGEST_QUOTE - 1] + "…"
    return f'"{shown}"'


def show_command(name: str) -> str:
    """The command that shows an entry, an answer or an imported row."""
    plain = re.fullmatch(r"[\w./#-]+", name) is not None
    return f"clm-data show {name if plain else shlex.quote(name)}"


def _is_control(char: str) -> bool:
    if _INVISIBLE.match(char):
        return True
    return unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}


def mask(text: str, secrets: Collection[str]) -> str:
    """Text with each secret replaced by ``***``, also where it is percent-encoded."""
    forms = {form for secret in secrets for form in (secret, percent_encoded(secret, safe=""))}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _SHORTEST_SECRET:
            text = text.replace(form, "***")
    return text
