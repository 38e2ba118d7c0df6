"""The chart on the card: entries by domain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.dataset_stats import DomainCount, Stats
from clm_data.languages import HAN

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

_BAR = "#0072B2"  # Okabe and Ito's blue: told apart from white and black by every eye
_WIDTH, _ROW, _FRAME, _DPI = 8.0, 0.3, 1.2, 150
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
"""Families drawn for simplified Chinese, best for a chart first; others that fit come after."""


def draw_domains(stats: Stats, path: Path) -> None:
    """Draw the number of entries of each domain as a PNG, largest first.

    In Chinese where an installed font has every character needed, else in English, never in boxes.
    The same counts and the same fonts give the same bytes.

    Args:
        stats: What to draw; domains without entries are drawn too.
        path: The PNG file to write.
    """
    counts = sorted(stats.domains, key=lambda count: -count.records)
    chinese = [count.zh for count in counts]
    title = f"各领域条目数（共 {stats.records} 条）"
    font = chinese_font("".join((*chinese, title, "条目数", "0123456789")))
    if font is not None:
        _draw(path, font, counts, names=chinese, title=title, label="条目数")
        return
    font = _shipped_font()
    english = [_writable(font, count) for count in counts]
    title = f"Entries by domain ({stats.records} in all)"
    _draw(path, font, counts, names=english, title=title, label="entries")


def chinese_font(text: str) -> str | None:
    """An installed font that has every character of a text; None where there is none.

    Looks at the font files themselves, as the plotting library's own list of them may be old.
    Returns a path (with the face, for a collection) as ``FontProperties(fname=...)`` takes it.
    """
    from matplotlib import font_manager

    faces = (face for file in font_manager.findSystemFonts() for face in _faces(file))
    fitting = ((_rank(font), name) for name, font in faces if _has_all(font, text))
    return min(fitting, default=(None, None))[1]


def _faces(file: str) -> Iterator[tuple[str, FT2Font]]:
    """The faces of a font file; only the first where the plotting library cannot use others."""
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
    family = font.family_name
    preference = _SIMPLIFIED.index(family) if family in _SIMPLIFIED else len(_SIMPLIFIED)
    return preference, font.style_name not in ("Regular", "Normal", "Book"), family, font.style_name


def _has_all(font: FT2Font, text: str) -> bool:
    """Whether a font has a glyph for each character, and for each Han character its own.

    Last-resort fonts map whole scripts to one box.
    """
    glyphs = {character: font.get_char_index(ord(character)) for character in set(text)}
    han = [glyph for character, glyph in glyphs.items() if HAN.match(character)]
    return 0 not in glyphs.values() and len(set(han)) == len(han)


def _shipped_font() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


def _writable(font: str, count: DomainCount) -> str:
    """The English name, or the id where the font lacks a character of the name."""
    from matplotlib.ft2font import FT2Font

    return count.en if _has_all(FT2Font(font), count.en) else count.id or "-"


def _draw(
    path: Path, font: str, counts: list[DomainCount], *, names: list[str], title: str, label: str
) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

    def text(size: float) -> dict[str, Any]:
        return {"fontproperties": FontProperties(fname=font, size=size), "parse_math": False}

    with mpl.rc_context():
        mpl.rcdefaults()  # no matplotlibrc of the user's
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
