"""Finds installed fonts that can draw a text, also where no single font has all its characters.

Debian's Droid Sans Fallback, for example, has Chinese characters but no digits. Charts and figures
choose their fonts here alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.languages import HAN

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties
    from matplotlib.ft2font import FT2Font

_SIMPLIFIED = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "SimHei",
)
"""Preferred families for simplified Chinese, best first; any other font is used after them."""


@dataclass(frozen=True)
class FontStack:
    """Fonts that together have every character of a text.

    Attributes:
        files: Font files in order of preference. A face of a collection is a ``str`` subclass that
            carries the face's index.
    """

    files: tuple[str, ...]

    def covers(self, text: str) -> bool:
        """Whether the fonts have every character of a text."""
        from matplotlib.font_manager import get_font

        fonts = [get_font(file) for file in self.files]
        return all(any(font.get_char_index(ord(letter)) for font in fonts) for letter in set(text))

    def properties(self, size: float) -> FontProperties:
        """What matplotlib's text functions take as ``fontproperties``.

        Args:
            size: In points.
        """
        from matplotlib.font_manager import FontProperties

        if len(self.files) == 1:
            return FontProperties(fname=self.files[0], size=size)
        return FontProperties(family=[_registered(file) for file in self.files], size=size)

    def __str__(self) -> str:
        return ", ".join(self.files)


def find_fonts(text: str) -> FontStack | None:
    """Choose installed fonts for a text.

    One font if it has all characters. Otherwise the font with the most of them comes first and
    others supply the rest. The font files themselves are searched because matplotlib's own list of
    them may be out of date.

    Returns:
        None if some character is in no installed font.
    """
    missing = set(text)
    fonts = [(_rank(font), file, _characters(font, missing)) for file, font in _available()]
    files: list[str] = []
    while missing or not files:
        if not fonts:
            return None
        _, file, found = min(fonts, key=lambda each: (-len(each[2] & missing), *each[:2]))
        if missing and not found & missing:
            return None
        files.append(file)
        missing -= found
    return FontStack(tuple(files))


def shipped_font() -> FontStack:
    """DejaVu Sans as it comes with matplotlib: the same on every machine, without Chinese."""
    import matplotlib

    return FontStack((str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")),))


def _available() -> Iterator[tuple[str, FT2Font]]:
    """The shipped font and every face of every installed font file."""
    from matplotlib import font_manager

    for file in (*shipped_font().files, *font_manager.findSystemFonts()):
        yield from _faces(file)


def _faces(file: str) -> Iterator[tuple[str, FT2Font]]:
    """The faces of a font file; only the first if matplotlib (before 3.11) cannot use others."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    try:
        first = FT2Font(file)
        yield file, first
        face_path: Any = getattr(font_manager, "FontPath", None)
        for index in range(1, first.num_faces if face_path else 1):
            yield face_path(file, index), FT2Font(file, face_index=index)
    except (OSError, RuntimeError):
        return


def _rank(font: FT2Font) -> tuple[Any, ...]:
    """Sort key: preferred families, then the shipped font, then all others by name."""
    family = font.family_name
    preference = _SIMPLIFIED.index(family) if family in _SIMPLIFIED else len(_SIMPLIFIED)
    others = font.fname not in shipped_font().files
    plain = font.style_name in ("Regular", "Normal", "Book")
    return preference, others, not plain, family, font.style_name


def _characters(font: FT2Font, wanted: set[str]) -> set[str]:
    """The wanted characters that a font has.

    A glyph shared by several Chinese characters does not count: last-resort fonts draw the same box
    for a whole script.
    """
    glyphs = {character: font.get_char_index(ord(character)) for character in wanted}
    uses = Counter(glyph for character, glyph in glyphs.items() if HAN.match(character))
    return {character for character, glyph in glyphs.items() if glyph and uses[glyph] <= 1}


def _registered(file: str) -> str:
    """A family name by which matplotlib finds exactly this file; it combines fonts by name only."""
    from matplotlib.font_manager import FontEntry, fontManager

    index = getattr(file, "face_index", 0)
    name = f"clm-data:{file}:{index}"
    if name not in fontManager.get_font_names():
        face: dict[str, Any] = {"index": index} if index else {}  # matplotlib 3.11 and newer
        fontManager.ttflist.append(FontEntry(fname=str(file), name=name, **face))
    return name
