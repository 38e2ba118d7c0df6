"""The chart on the card: entries by domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clm_data.dataset_stats import DomainCount, Stats
from clm_data.fonts import FontStack, find_fonts, shipped_font

_BAR = "#0072B2"  # blue of the Okabe-Ito palette, safe for color-blind readers
_WIDTH, _ROW, _FRAME, _DPI = 8.0, 0.3, 1.2, 150


def draw_domains(stats: Stats, path: Path) -> None:
    """Draw the number of entries of each domain as a PNG, largest first.

    Labels are Chinese if the installed fonts have all characters of them, else English. The same
    counts and the same fonts give the same bytes.

    Args:
        stats: Counts by domain; domains without entries are drawn too.
        path: The PNG file to write.
    """
    counts = sorted(stats.domains, key=lambda count: -count.records)
    chinese = [count.zh for count in counts]
    title = f"各领域条目数（共 {stats.records} 条）"
    fonts = find_fonts("".join((*chinese, title, "条目数", "0123456789")))
    if fonts is not None:
        _draw(path, fonts, counts, names=chinese, title=title, label="条目数")
        return
    fonts = shipped_font()
    english = [count.en if fonts.covers(count.en) else count.id or "-" for count in counts]
    title = f"Entries by domain ({stats.records} in total)"
    _draw(path, fonts, counts, names=english, title=title, label="entries")


def _draw(
    path: Path,
    fonts: FontStack,
    counts: list[DomainCount],
    *,
    names: list[str],
    title: str,
    label: str,
) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    def text(size: float) -> dict[str, Any]:
        return {"fontproperties": fonts.properties(size), "parse_math": False}

    with mpl.rc_context():
        mpl.rcdefaults()  # ignore the user's matplotlibrc
        size = (_WIDTH, _FRAME + _ROW * len(counts))
        figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
        axes = figure.add_subplot()
        rows = range(len(counts))
        bars = axes.barh(rows, [count.records for count in counts], color=_BAR, height=0.7)
        axes.bar_label(bars, padding=3, **text(9))
        axes.set_yticks(rows, names, **text(9))
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.set_xlim(0, 1.08 * max((count.records for count in counts), default=0) or 1)
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_xlabel(label, **text(10))
        axes.set_title(title, loc="left", **text(12))
        figure.savefig(path, format="png", metadata={"Software": None})
