"""Figures of the evaluation, drawn from ``evaluation_*.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import (
    EVALUATION_MEASURES,
    LANGUAGE_NAMES,
    BilingualText,
    batch_of,
    edited_in,
    measured_in,
)
from clm_data.eval.csv_tables import Row, Tables, unique, where
from clm_data.eval.figures.layout import add_legend, log_ticks, panel_grid
from clm_data.eval.figures.marks import DataPoint, data_points, draw_line
from clm_data.eval.figures.style import (
    COLORS,
    EDITING_LANGUAGES,
    LANGUAGE_STYLE,
    MARKERS,
    FigureSpec,
    joined,
)
from clm_data.records import LANGUAGES, Language

_PERCENT = BilingualText("百分比（%）", "percent")
_BATCH_SIZE = BilingualText("批大小（条）", "batch size (facts)")
_EDITED_SO_FAR = BilingualText("已编辑的事实数", "facts edited so far")
_WHEN = {
    "before": BilingualText("，编辑前", ", before"),
    "after": BilingualText("，编辑后", ", after"),
}
_MAX_DOMAINS = 40


def _draw_measures(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Each cell's measures in both languages, before and after the edit."""
    for model in unique(tables["evaluation_long.csv"], "model"):
        rows = where(tables["evaluation_long.csv"], model=model)
        cells = list(dict.fromkeys(_cell(row) for row in rows))
        title = MEASURES.heading(lang, model)
        height = 1.2 + 0.42 * len(cells)
        figure, groups = panel_grid(title, [""], len(EVALUATION_MEASURES), height=height, width=3.4)
        for axes, (measure, name) in zip(groups[0], EVALUATION_MEASURES.items(), strict=True):
            for place, cell in enumerate(cells):
                of_cell = [row for row in rows if _cell(row) == cell]
                _draw_cell(axes, lang, of_cell, measure, place)
            axes.set_title(name.text(lang))
            axes.set_xlabel(_PERCENT.text(lang))
            axes.set_xlim(-3, 103)
            axes.set_ylim(len(cells) - 0.5, -0.5)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            first = axes is groups[0][0]
            axes.set_yticks(
                range(len(cells)), [_cell_name(lang, cell) if first else "" for cell in cells]
            )
        add_legend(figure, groups)
        yield model, figure


def _cell(row: Row) -> tuple[str, ...]:
    return row["method"], row["edit"], row["batch_size"], row["note"]


def _cell_name(lang: Language, cell: Sequence[str]) -> str:
    method, edit, size, note = cell
    return joined(lang, method, LANGUAGE_NAMES[edit].text(lang), size, note)


def _draw_cell(axes: Any, lang: Language, rows: Sequence[Row], measure: str, place: int) -> None:
    for measured, shift in (("zh", -0.18), ("en", 0.18)):
        style = LANGUAGE_STYLE[measured]
        for when, suffix in _WHEN.items():
            for row in where(rows, when=when, measure=f"{measured}_{measure}"):
                mean, low, high = (100 * float(row[key]) for key in ("mean", "low", "high"))
                axes.errorbar(
                    [mean],
                    [place + shift + (-0.08 if when == "before" else 0.08)],
                    xerr=[[mean - low], [high - mean]],
                    color=COLORS[style],
                    marker=MARKERS[style],
                    markerfacecolor="white" if when == "before" else COLORS[style],
                    linestyle="none",
                    capsize=2,
                    label=LANGUAGE_NAMES[measured].text(lang) + suffix.text(lang),
                )


def _draw_domains(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Reliability by domain of each model's first method, a panel for each editing language."""
    for model in unique(tables["evaluation_domains.csv"], "model"):
        rows = _first_method(where(tables["evaluation_domains.csv"], model=model))
        domains = list(dict.fromkeys(row["domain"] for row in rows))
        if not 1 < len(domains) <= _MAX_DOMAINS:
            continue
        edits = _edits(rows)
        method, size = rows[0]["method"], batch_of(rows[0]["batch_size"]).text(lang)
        title = joined(lang, DOMAINS.heading(lang, model), method, size)
        height = 1.3 + 0.24 * len(domains)
        figure, groups = panel_grid(title, [""], len(edits), height=height, width=3.4)
        for axes, edit in zip(groups[0], edits, strict=True):
            _draw_domain_panel(axes, lang, where(rows, edit=edit), domains)
            axes.set_title(edited_in(edit).text(lang))
            names = [_domain_name(lang, rows, domain) for domain in domains]
            first = edit == edits[0]
            axes.set_yticks(range(len(domains)), names if first else [""] * len(domains))
        add_legend(figure, groups)
        yield model, figure


def _edits(rows: Sequence[Row]) -> list[str]:
    """The editing languages that occur, in the usual order."""
    return [edit for edit in EDITING_LANGUAGES if where(rows, edit=edit)]


def _first_method(rows: Sequence[Row]) -> list[Row]:
    """The rows of the first method, batch size and note."""
    return where(rows, **{key: rows[0][key] for key in ("method", "batch_size", "note")})


def _domain_name(lang: Language, rows: Sequence[Row], domain: str) -> str:
    row = where(rows, domain=domain)[0]
    return f"{row[f'domain_{lang}']} ({row['facts']})"


def _draw_domain_panel(
    axes: Any, lang: Language, rows: Sequence[Row], domains: Sequence[str]
) -> None:
    for measured in LANGUAGES:
        style = LANGUAGE_STYLE[measured]
        known = [row for row in rows if row[f"{measured}_reliability"]]
        axes.plot(
            [float(row[f"{measured}_reliability"]) for row in known],
            [domains.index(row["domain"]) for row in known],
            color=COLORS[style],
            marker=MARKERS[style],
            linestyle="none",
            label=measured_in(measured).text(lang),
        )
    axes.set_xlim(-3, 103)
    axes.set_ylim(len(domains) - 0.5, -0.5)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_xlabel(_PERCENT.text(lang))


def _draw_batch_sizes(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Reliability by batch size, for methods with several batch sizes."""
    for model in unique(tables["evaluation_long.csv"], "model"):
        rows = where(tables["evaluation_long.csv"], model=model, when="after")
        methods = [
            method
            for method in unique(rows, "method")
            if len(unique(where(rows, method=method), "batch_size")) > 1
        ]
        if not methods:
            continue
        edits = _edits(rows)
        title = BATCH_SIZES.heading(lang, model)
        figure, groups = panel_grid(title, methods, len(edits), width=3.4)
        for group, method in zip(groups, methods, strict=True):
            for axes, edit in zip(group, edits, strict=True):
                of_edit = where(rows, method=method, edit=edit)
                _draw_reliability(axes, lang, of_edit, "batch_size", edit)
                axes.set_xscale("log")
                log_ticks(axes.xaxis, [float(size) for size in unique(of_edit, "batch_size")])
                axes.set_xlabel(_BATCH_SIZE.text(lang))
        add_legend(figure, groups)
        yield model, figure


def _draw_sequential(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Reliability during sequential editing."""
    for model in unique(tables["evaluation_along.csv"], "model"):
        rows = where(tables["evaluation_along.csv"], model=model)
        runs = list(dict.fromkeys((row["method"], row["batch_size"], row["note"]) for row in rows))
        edits = _edits(rows)
        headings = [
            joined(lang, method, batch_of(size).text(lang), note) for method, size, note in runs
        ]
        title = SEQUENTIAL.heading(lang, model)
        figure, groups = panel_grid(title, headings, len(edits), width=3.4)
        for group, (method, size, note) in zip(groups, runs, strict=True):
            of_run = where(rows, method=method, batch_size=size, note=note)
            for axes, edit in zip(group, edits, strict=True):
                _draw_reliability(axes, lang, where(of_run, edit=edit), "edited", edit)
                axes.set_xlabel(_EDITED_SO_FAR.text(lang))
        add_legend(figure, groups)
        yield model, figure


def _draw_reliability(axes: Any, lang: Language, rows: Sequence[Row], x: str, edit: str) -> None:
    """Draw reliability in both languages, in percent, by the column ``x``."""
    for measured in LANGUAGES:
        shares = data_points(where(rows, measure=f"{measured}_reliability"), x=x, y="mean")
        percents = [
            DataPoint(share.x, 100 * share.y, 100 * (share.low or 0), 100 * (share.high or 0))
            for share in shares
        ]
        draw_line(axes, percents, measured_in(measured).text(lang), LANGUAGE_STYLE[measured])
    axes.set_ylim(-3, 103)
    axes.set_title(edited_in(edit).text(lang))
    axes.set_ylabel(f"{EVALUATION_MEASURES['reliability'].text(lang)} (%)")


MEASURES = FigureSpec(
    "evaluation_measures",
    "evaluation",
    ("evaluation_long.csv",),
    BilingualText("编辑前后的中英文指标", "Both languages before and after editing"),
    BilingualText(
        "每行为一项实验：方法、编辑语言、批大小。空心为编辑前，实心为编辑后；三角为中文，圆点为英"
        "文。横线为 95% 自助法置信区间。",
        "Each row is one cell: method, editing language, batch size. Open markers: before the "
        "edit; filled markers: after it. Triangles: Chinese; circles: English. Bars are 95% "
        "bootstrap intervals.",
    ),
    _draw_measures,
)
DOMAINS = FigureSpec(
    "evaluation_domains",
    "evaluation",
    ("evaluation_domains.csv",),
    BilingualText("各领域的可靠性", "Reliability by domain"),
    BilingualText(
        "编辑后各领域的可靠性，括号内为条目数。条目少的领域，数值的不确定性较大。",
        "Reliability after editing, by domain; the number of facts is in parentheses. Values for "
        "domains with few facts are uncertain.",
    ),
    _draw_domains,
)
BATCH_SIZES = FigureSpec(
    "evaluation_batch_size",
    "evaluation",
    ("evaluation_long.csv",),
    BilingualText("不同批大小下的可靠性", "Reliability by batch size"),
    BilingualText(
        "编辑后的可靠性随批大小（一次编辑的事实数）的变化。竖线为 95% 自助法置信区间。",
        "Reliability after editing, by the number of facts edited at once. Bars are 95% bootstrap "
        "intervals.",
    ),
    _draw_batch_sizes,
)
SEQUENTIAL = FigureSpec(
    "evaluation_along",
    "evaluation",
    ("evaluation_along.csv",),
    BilingualText("连续编辑过程中的可靠性", "Reliability during sequential editing"),
    BilingualText(
        "连续编辑时先前的编辑予以保留；每个点为截至该时刻全部已编辑事实的可靠性。",
        "In sequential editing, earlier edits are kept. Each point is the reliability of all facts "
        "edited so far.",
    ),
    _draw_sequential,
)
EVALUATION_FIGURES = (MEASURES, DOMAINS, BATCH_SIZES, SEQUENTIAL)
