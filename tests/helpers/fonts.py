"""Font files made for a test, so that the result does not depend on the machine's fonts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def use_fonts(monkeypatch: pytest.MonkeyPatch, *files: Path) -> None:
    """Make these the only installed fonts."""
    names = [str(file) for file in files]
    monkeypatch.delenv("MPL_IGNORE_SYSTEM_FONTS", raising=False)
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: names)


def write_font(file: Path, glyphs: Mapping[str, str]) -> Path:
    """Write a TrueType font that maps characters to glyphs, all of them triangles."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((0, 500))
    pen.lineTo((500, 500))
    pen.closePath()
    outline = pen.glyph()
    names = [".notdef", *sorted(set(glyphs.values()))]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): name for character, name in glyphs.items()})
    builder.setupGlyf(dict.fromkeys(names, outline))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": file.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)
    return file
