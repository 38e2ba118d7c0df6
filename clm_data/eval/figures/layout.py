"""Layout of figures: panels under headings, one legend, axis ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from clm_data.languages import has_han

_DPI = 150
_MARKER_WIDTH = 0.7
"""Width of a legend's marker with its margins, in inches."""
_CHINESE_WIDTH, _OTHER_WIDTH = 9.2, 5.6
"""Average width of a character in a legend, in points."""


def panel_grid(
    title: str,
    headings: Sequence[str],
    count: int,
    *,
    height: float = 2.5,
    width: float = 3.0,
    columns: int = 3,
) -> tuple[Any, list[list[Any]]]:
    """A figure with groups of panels, each group under a heading.

    Args:
        title: Title of the figure.
        headings: Headings of the groups; an empty one is not shown.
        count: Panels in each group.
        height: Height of a panel in inches.
        width: Width of a panel in inches.
        columns: Maximum number of panels side by side.

    Returns:
        The figure, and the axes of each group.
    """
    from matplotlib.figure import Figure

    across = 2 if count == 4 and columns == 3 else min(count, columns)
    down = -(-count // across)
    size = (max(6.4, width * across), height * down * len(headings) + 0.9)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    groups = []
    parts = figure.subfigures(len(headings), 1, squeeze=False)[:, 0]
    for part, heading in zip(parts, headings, strict=True):
        if heading:
            part.suptitle(heading, fontsize=10, x=0.01, ha="left", fontweight="bold")
        axes = list(part.subplots(down, across, squeeze=False).flat)
        for unused in axes[count:]:
            unused.axis("off")
        groups.append(axes[:count])
    return figure, groups


def add_legend(figure: Any, groups: Iterable[Iterable[Any]], columns: int = 4) -> None:
    """Add one legend below all panels, with each label once."""
    handle_of: dict[str, Any] = {}
    for group in groups:
        for axes in group:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handle_of.setdefault(label, handle)
    if handle_of:
        figure.legend(
            list(handle_of.values()),
            list(handle_of),
            loc="outside lower center",
            ncols=_columns(list(handle_of), columns, figure.get_figwidth()),
            frameon=False,
        )


def _columns(labels: Sequence[str], most: int, width: float) -> int:
    """How many columns of a legend fit into a width in inches; it is filled column by column."""
    inches = [
        _MARKER_WIDTH
        + sum(_CHINESE_WIDTH if has_han(letter) else _OTHER_WIDTH for letter in label) / 72
        for label in labels
    ]
    for count in range(min(most, len(inches)), 1, -1):
        rows = -(-len(inches) // count)
        if sum(max(inches[i : i + rows]) for i in range(0, len(inches), rows)) <= width:
            return count
    return 1


def integer_ticks(axes: Any, values: Iterable[float]) -> None:
    """Put a tick on the x axis at each value, or at fewer integers if there are over eight."""
    from matplotlib.ticker import MaxNLocator

    places = sorted(set(values))
    if 0 < len(places) <= 8:
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.set_xlim(places[0] - 0.6, places[-1] + 0.6)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def log_ticks(axis: Any, values: Iterable[float]) -> None:
    """Label a logarithmic axis with plain numbers at these values only."""
    from matplotlib.ticker import FixedLocator, NullLocator

    places = sorted(set(values))
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_ticklabels([f"{place:g}" for place in places])


def few_ticks(axes: Any) -> None:
    """Limit the ticks of both axes so that their labels do not overlap."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(6))
