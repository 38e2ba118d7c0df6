"""What the figures share: colors, markers, line styles, and how a figure is described.

Colors are those of Okabe and Ito, which remain distinct in common forms of color blindness.
Whatever differs in color also differs in marker or line style.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.csv_tables import Tables
from clm_data.records import Language

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
LINE_STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
GRAY = "#5a5a5a"
LANGUAGE_STYLE = {"zh": 1, "en": 0, "mix": 2}
"""Index into the colors, markers and line styles by language, the same in every figure."""
EDITING_LANGUAGES = ("zh", "en", "mix")
LAYER = BilingualText("层", "layer")

Draw = Callable[[Tables, Language], Iterator[tuple[str, Any]]]
"""Yields the model's name, empty if the figure shows all models, and a matplotlib figure."""


@dataclass(frozen=True)
class FigureSpec:
    """A figure that can be drawn.

    Attributes:
        name: Base name of its files.
        chapter: Chapter of the report: ``evaluation``, ``geometry`` or ``language``.
        sources: The CSV files it is drawn from; it is not drawn without the first.
        title: Its heading.
        caption: How to read it.
        draw: Draws it.
        paper: Number of the corresponding figure in the paper, if there is one.
    """

    name: str
    chapter: str
    sources: tuple[str, ...]
    title: BilingualText
    caption: BilingualText
    draw: Draw
    paper: str = ""

    def heading(self, lang: Language, model: str) -> str:
        """The title with the model's name."""
        colon = "：" if lang == "zh" else ": "
        return f"{self.title.text(lang)}{colon}{model}"


def joined(lang: Language, *parts: str) -> str:
    """Parts of a heading, separated by commas of the language; empty parts are left out."""
    return ("，" if lang == "zh" else ", ").join(filter(None, parts))


def layer_name(layer: str) -> BilingualText:
    """A layer, as in legends and panel titles."""
    return BilingualText(f"第 {layer} 层", f"layer {layer}")


@contextmanager
def plot_settings() -> Iterator[None]:
    """Matplotlib's defaults with the settings of the figures, ignoring the user's own."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.hashsalt": "clm-data",
                "svg.fonttype": "path",
                "text.parse_math": False,
                "axes.unicode_minus": False,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.titlesize": 10,
                "axes.labelsize": 9,
                "xtick.labelsize": 8,
                "ytick.labelsize": 8,
                "legend.fontsize": 9,
                "lines.linewidth": 1.6,
                "lines.markersize": 5,
                "hatch.linewidth": 0.4,
                "path.simplify": False,
            }
        )
        yield
