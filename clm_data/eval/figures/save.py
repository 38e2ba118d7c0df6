"""Write figures as PNG and SVG, with fonts that have every character."""

from __future__ import annotations

import string
from functools import cached_property
from pathlib import Path
from typing import Any

from clm_data.files import atomic_file, sha256_file
from clm_data.fonts import FontStack, find_fonts
from clm_data.languages import has_han

_USUAL_TEXT = string.digits + string.ascii_letters + " .,:%()[]·-中文编辑的可靠性，。：（）"
"""Characters that most Chinese figures contain."""


class Fonts:
    """Chooses fonts for Chinese texts, searching the installed fonts once for most figures."""

    @cached_property
    def _usual(self) -> FontStack | None:
        return find_fonts(_USUAL_TEXT)

    def key(self) -> str:
        """Identifies the fonts that figures are usually drawn with, by content."""
        files = () if self._usual is None else self._usual.files
        return " ".join(sha256_file(Path(file)) for file in files)

    def for_text(self, text: str) -> FontStack | None:
        """Fonts that have every character of a text; None if some character is in no font."""
        usual = self._usual
        return usual if usual is not None and usual.covers(text) else find_fonts(text)


def save_figure(figure: Any, files: tuple[Path, Path], fonts: Fonts) -> bool:
    """Write a figure as PNG and SVG.

    The files contain neither dates nor versions, so the same figure and fonts give the same bytes.

    Returns:
        Whether it was written; False if no installed font has its characters.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if not _set_fonts(figure, fonts):
        return False
    png, svg = files
    png.parent.mkdir(parents=True, exist_ok=True)
    # `Figure.savefig` would draw each file twice to find the layout; here it is found once.
    with atomic_file(png, overwrite=True) as draft:
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(draft, metadata={"Software": None})
    figure.set_layout_engine("none")
    with atomic_file(svg, overwrite=True) as draft:
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(draft, metadata={"Date": None, "Creator": None})
    return True


def _set_fonts(figure: Any, fonts: Fonts) -> bool:
    """Give every text with Chinese characters fonts that have them all."""
    from matplotlib.text import Text

    chinese = [text for text in figure.findobj(Text) if has_han(text.get_text())]
    if not chinese:
        return True
    letters = {letter for text in chinese for letter in text.get_text()} - {"\n"}
    stack = fonts.for_text("".join(sorted(letters)))
    if stack is None:
        return False
    for text in chinese:
        text.set_fontproperties(stack.properties(text.get_fontsize()))
    return True
