"""Data in a panel: lines with intervals, ranges, scattered points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.eval.csv_tables import Row, float_or_none
from clm_data.eval.figures.style import COLORS, GRAY, LINE_STYLES, MARKERS

_RASTERIZED = 400
"""Above this number of points, SVG files contain them as an image."""


@dataclass(frozen=True)
class DataPoint:
    """A value at x, with its interval if there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


def data_points(rows: Iterable[Row], x: str = "layer", y: str = "value") -> list[DataPoint]:
    """The rows that have a value, as points sorted by x; intervals are in ``low`` and ``high``."""
    points = [
        DataPoint(
            float(row[x]),
            float(row[y]),
            float_or_none(row.get("low")),
            float_or_none(row.get("high")),
        )
        for row in rows
        if row.get(y, "") != ""
    ]
    return sorted(points, key=lambda point: point.x)


def draw_line(
    axes: Any, points: Sequence[DataPoint], label: str, style: int, *, shift: float = 0
) -> None:
    """Draw a line with markers and intervals.

    Args:
        axes: The panel.
        points: Nothing is drawn if there are none.
        label: Label in the legend.
        style: Index into the colors, markers and line styles.
        shift: Added to every x, so that intervals of several lines do not overlap.
    """
    if not points:
        return
    below, above = (
        [abs(point.y - end) if (end := getattr(point, side)) is not None else 0 for point in points]
        for side in ("low", "high")
    )
    axes.errorbar(
        [point.x + shift for point in points],
        [point.y for point in points],
        yerr=[below, above],
        label=label,
        color=COLORS[style % len(COLORS)],
        marker=MARKERS[style % len(MARKERS)],
        linestyle=LINE_STYLES[style % len(LINE_STYLES)],
        capsize=2,
        elinewidth=0.9,
    )


def draw_null_ranges(
    axes: Any, points: Sequence[DataPoint], label: str, *, shift: float = 0, width: float = 0.8
) -> None:
    """Draw the range expected by chance at each x: a hatched box from ``low`` to ``high``."""
    known = [point for point in points if point.low is not None and point.high is not None]
    if not known:
        return
    axes.use_sticky_edges = False
    axes.bar(
        [point.x + shift for point in known],
        [(point.high or 0) - (point.low or 0) for point in known],
        bottom=[point.low for point in known],
        width=width,
        color="#d9d9d9",
        edgecolor=GRAY,
        hatch="////",
        linewidth=0.8,
        label=label,
        zorder=0,
    )


def draw_reported_range(axes: Any, low: float | None, high: float | None, label: str) -> None:
    """Draw a range that the paper reports: a band, or a line if it has only one bound."""
    if low is not None and high is not None:
        axes.axhspan(low, high, color="#F0E442", alpha=0.7, label=label, zorder=0, linewidth=0)
    elif (bound := low if high is None else high) is not None:
        axes.axhline(bound, color="#8a7a00", linestyle=(0, (6, 2)), linewidth=1.4, label=label)


def draw_scatter(
    axes: Any, xs: Sequence[float], ys: Sequence[float], label: str, style: int
) -> None:
    """Draw points in the color and marker of a style."""
    axes.scatter(
        xs,
        ys,
        s=14,
        color=COLORS[style % len(COLORS)],
        marker=MARKERS[style % len(MARKERS)],
        alpha=0.55,
        linewidths=0,
        label=label,
        rasterized=len(xs) > _RASTERIZED,
    )
