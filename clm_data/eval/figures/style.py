"""What the figures share: colours, marks, both languages, files that are the same each time.

Nothing here loads the plotting library before something is drawn. Colours are Okabe and Ito's,
told apart by every eye; what a colour says a marker and a kind of line say, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_data.eval.bilingual import LANGUAGE_NAMES, BilingualText
from clm_data.eval.csv_tables import Row, Tables, float_or_none
from clm_data.fonts import FontStack, find_fonts
from clm_data.languages import has_han
from clm_data.records import Language

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X")
STROKES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
GREY = "#5a5a5a"
LANGUAGE_STYLE = {"zh": 1, "en": 0, "mix": 2}
"""Number of the style of a language, the same in every figure."""
_DPI = 150
_MANY = 400
"""Points; more are drawn as a picture within the SVG."""
_HANDLE = 0.7
"""Inches of a legend's mark with the space around it."""
_WIDE, _NARROW = 9.2, 5.6
"""Points that a letter of a legend takes, at most on average: Chinese, others."""


LAYER = BilingualText("层", "layer")


@dataclass
class Renderer:
    """Draws in one language.

    Attributes:
        lang: Of all texts.
        font: For Chinese texts; found when first needed.
    """

    lang: Language
    font: FontStack | None = field(default=None, repr=False)

    def __call__(self, words: BilingualText | str) -> str:
        """A text in the pen's language."""
        return words if isinstance(words, str) else words.text(self.lang)

    def language(self, name: str) -> str:
        """A language's name."""
        return self(LANGUAGE_NAMES.get(name, name))


Draw = Callable[[Tables, Renderer], Iterator[tuple[str, Any]]]
"""Yields (model, figure); the model is empty where a figure shows all of them."""


@dataclass(frozen=True)
class Spec:
    """A figure.

    Attributes:
        name: File stem.
        chapter: ``evaluation``, ``geometry`` or ``language``.
        sources: The CSV files it is drawn from; without the first there is nothing to draw.
        title: Over it.
        caption: How to read it.
        draw: Makes it.
        paper: The figure of the paper it answers to.
    """

    name: str
    chapter: str
    sources: tuple[str, ...]
    title: BilingualText
    caption: BilingualText
    draw: Draw
    paper: str = ""


@contextmanager
def settings() -> Iterator[None]:
    """The plotting library as it comes, whatever the user's own settings are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.hashsalt": "clm-data",
                "svg.fonttype": "path",
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


def save(figure: Any, files: tuple[Path, Path], pen: Renderer) -> bool:
    """Write a figure as PNG and SVG; False where no installed font has its characters.

    Neither holds a time or a version: the same numbers and fonts give the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if not _set_fonts(figure, pen):
        return False
    png, svg = files
    png.parent.mkdir(parents=True, exist_ok=True)
    # Not by `savefig`, which draws each file twice; the layout is found once.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(png, metadata={"Software": None})
    figure.set_layout_engine("none")
    canvas = FigureCanvasSVG(figure)
    canvas.print_svg(svg, metadata={"Date": None, "Creator": None})
    return True


def _set_fonts(figure: Any, pen: Renderer) -> bool:
    """Give every text with Chinese characters a font that has them all."""
    from matplotlib.text import Text

    chinese = []
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        if has_han(text.get_text()):
            chinese.append(text)
    if not chinese:
        return True
    needed = "".join(sorted({letter for text in chinese for letter in text.get_text()} - {"\n"}))
    if pen.font is None or not pen.font.covers(needed):
        pen.font = find_fonts(needed)
    if pen.font is None:
        return False
    for text in chinese:
        text.set_fontproperties(pen.font.properties(text.get_fontsize()))
    return True


def grid(
    pen: Renderer,
    title: str,
    rows: Sequence[str],
    count: int,
    *,
    height: float = 2.5,
    width: float = 3.0,
    most: int = 3,
) -> tuple[Any, list[list[Any]]]:
    """A figure with headed groups of panels.

    Args:
        pen: In whose language.
        title: Over all.
        rows: The groups' headings; an empty one is left out.
        count: Panels of each group.
        height: Of a panel, inches.
        width: Of a panel, inches.
        most: Panels side by side; narrow figures can be read on paper and on small screens.

    Returns:
        The figure, and the panels of each group.
    """
    from matplotlib.figure import Figure

    across = 2 if count == 4 and most == 3 else min(count, most)
    down = -(-count // across)
    size = (max(6.4, width * across), height * down * len(rows) + 0.9)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    panels = []
    for part, name in zip(parts, rows, strict=True):
        if name:
            part.suptitle(name, fontsize=10, x=0.01, ha="left", fontweight="bold")
        places = list(part.subplots(down, across, squeeze=False).flat)
        for spare in places[count:]:
            spare.axis("off")
        panels.append(places[:count])
    return figure, panels


def legend(figure: Any, panels: Iterable[Iterable[Any]], columns: int = 4) -> None:
    """One legend under all panels, each label once."""
    found: dict[str, Any] = {}
    for row in panels:
        for axes in row:
            handles, labels = axes.get_legend_handles_labels()
            for handle, label in zip(handles, labels, strict=True):
                found.setdefault(label, handle)
    if found:
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside lower center",
            ncols=_columns(list(found), columns, figure.get_figwidth()),
            frameon=False,
        )


def _columns(labels: Sequence[str], most: int, width: float) -> int:
    """Columns of a legend, filled one after the other, that fit within a width in inches."""
    inches = [
        _HANDLE + sum(_WIDE if has_han(letter) else _NARROW for letter in label) / 72
        for label in labels
    ]
    for count in range(min(most, len(labels)), 1, -1):
        rows = -(-len(labels) // count)
        if sum(max(inches[top : top + rows]) for top in range(0, len(labels), rows)) <= width:
            return count
    return 1


@dataclass(frozen=True)
class Point:
    """A value with its interval, where it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


def points(rows: Iterable[Row], x: str = "layer", y: str = "value") -> list[Point]:
    """Points of rows that have a value, by x."""
    found = [
        Point(
            float(row[x]),
            float(row[y]),
            float_or_none(row.get("low")),
            float_or_none(row.get("high")),
        )
        for row in rows
        if row.get(y, "") != ""
    ]
    return sorted(found, key=lambda point: point.x)


def line(axes: Any, series: Sequence[Point], label: str, style: int, *, shift: float = 0) -> None:
    """A line with markers and intervals, in the style of that number, moved aside by ``shift``."""
    if not series:
        return
    below, above = (
        [abs(point.y - end) if (end := getattr(point, side)) is not None else 0 for point in series]
        for side in ("low", "high")
    )
    axes.errorbar(
        [point.x + shift for point in series],
        [point.y for point in series],
        yerr=[below, above],
        label=label,
        color=COLOURS[style % len(COLOURS)],
        marker=MARKERS[style % len(MARKERS)],
        linestyle=STROKES[style % len(STROKES)],
        capsize=2,
        elinewidth=0.9,
    )


def boxes(
    axes: Any, series: Sequence[Point], label: str, *, shift: float = 0, width: float = 0.8
) -> None:
    """What chance gives: a hatched box at each x, from low to high."""
    known = [point for point in series if point.low is not None and point.high is not None]
    if not known:
        return
    axes.use_sticky_edges = False
    axes.bar(
        [point.x + shift for point in known],
        [(point.high or 0) - (point.low or 0) for point in known],
        bottom=[point.low for point in known],
        width=width,
        color="#d9d9d9",
        edgecolor=GREY,
        hatch="////",
        linewidth=0.8,
        label=label,
        zorder=0,
    )


def reference(axes: Any, low: float | None, high: float | None, label: str) -> None:
    """A range that the paper states: a band, or a line where it has one end."""
    if low is not None and high is not None:
        axes.axhspan(low, high, color="#F0E442", alpha=0.7, label=label, zorder=0, linewidth=0)
    elif (only := low if high is None else high) is not None:
        axes.axhline(only, color="#8a7a00", linestyle=(0, (6, 2)), linewidth=1.4, label=label)


def whole_ticks(axes: Any, values: Iterable[float]) -> None:
    """A tick at each whole number, or at fewer where there are many."""
    from matplotlib.ticker import MaxNLocator

    places = sorted(set(values))
    if 0 < len(places) <= 8:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xlim(places[0] - 0.6, places[-1] + 0.6)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def log_ticks(axis: Any, values: Iterable[float]) -> None:
    """Plain numbers on a logarithmic axis, at these values alone."""
    from matplotlib.ticker import FixedLocator, NullLocator

    places = sorted(set(values))
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_ticklabels([f"{place:g}" for place in places])


def few_ticks(axes: Any) -> None:
    """No more numbers along either axis than have room."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(6))


def scatter(axes: Any, xs: Sequence[float], ys: Sequence[float], label: str, style: int) -> None:
    """Points in the style of that number."""
    axes.scatter(
        xs,
        ys,
        s=14,
        color=COLOURS[style % len(COLOURS)],
        marker=MARKERS[style % len(MARKERS)],
        alpha=0.55,
        linewidths=0,
        label=label,
        rasterized=len(xs) > _MANY,
    )


def batch_words(pen: Renderer, size: str) -> str:
    """A batch size in words."""
    return pen(BilingualText(f"每批 {size} 条", f"batch of {size}"))
