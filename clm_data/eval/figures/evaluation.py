"""Figures of the evaluation, drawn from the tables that a report writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.csv_tables import Row, Tables, unique, where
from clm_data.eval.figures.style import (
    COLOURS,
    LANGUAGE_STYLE,
    MARKERS,
    Point,
    Renderer,
    Spec,
    grid,
    legend,
    line,
    log_ticks,
    points,
)

_PARTS = {
    "reliability": BilingualText("可靠性", "reliability"),
    "generality": BilingualText("泛化性", "generality"),
    "locality": BilingualText("局部性", "locality"),
}
_EDITS = ("zh", "en", "mix")
_PERCENT = BilingualText("百分数", "percent")
_EDIT = BilingualText("编辑", "edit")
_MOST_DOMAINS = 40


def before_after(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Each cell's measures in both languages, before and after."""
    for model in unique(tables["evaluation_long.csv"], "model"):
        rows = where(tables["evaluation_long.csv"], model=model)
        cells = list(dict.fromkeys(_cell(row) for row in rows))
        height = 1.2 + 0.42 * len(cells)
        title = f"{pen(MEASURED.title)} · {model}"
        figure, panels = grid(pen, title, [""], len(_PARTS), height=height, width=3.4)
        for axes, (part, words) in zip(panels[0], _PARTS.items(), strict=True):
            for place, cell in enumerate(cells):
                mine = [row for row in rows if _cell(row) == cell]
                _dots(axes, pen, mine, part, place)
            axes.set_title(pen(words))
            axes.set_xlabel(pen(_PERCENT))
            axes.set_xlim(-3, 103)
            axes.set_ylim(len(cells) - 0.5, -0.5)
            axes.grid(axis="x", color="#dddddd", linewidth=0.6)
            names = [_name(pen, cell) for cell in cells] if part == "reliability" else []
            axes.set_yticks(range(len(cells)), names or [""] * len(cells))
        legend(figure, panels)
        yield model, figure


def _cell(row: Row) -> tuple[str, ...]:
    return row["method"], row["edit"], row["batch_size"], row["note"]


def _name(pen: Renderer, cell: Sequence[str]) -> str:
    method, edit, size, note = cell
    note = f" {note}" if note else ""
    return f"{method} {pen(_EDIT)} {edit}, {size}{note}"


def _dots(axes: Any, pen: Renderer, rows: Sequence[Row], part: str, place: int) -> None:
    when = {
        "before": BilingualText("，编辑前", ", before"),
        "after": BilingualText("，编辑后", ", after"),
    }
    for lang, shift in (("zh", -0.18), ("en", 0.18)):
        style = LANGUAGE_STYLE[lang]
        for name, words in when.items():
            for row in where(rows, when=name, measure=f"{lang}_{part}"):
                mean, low, high = (100 * float(row[key]) for key in ("mean", "low", "high"))
                axes.errorbar(
                    [mean],
                    [place + shift + (-0.08 if name == "before" else 0.08)],
                    xerr=[[mean - low], [high - mean]],
                    color=COLOURS[style],
                    marker=MARKERS[style],
                    markerfacecolor="white" if name == "before" else COLOURS[style],
                    linestyle="none",
                    capsize=2,
                    label=pen.language(lang) + pen(words),
                )


def by_domain(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Reliability by domain: a panel an editing language, for each model's first method."""
    for model in unique(tables["evaluation_domains.csv"], "model"):
        rows = _first_group(where(tables["evaluation_domains.csv"], model=model))
        domains = list(dict.fromkeys(row["domain"] for row in rows))
        if not 1 < len(domains) <= _MOST_DOMAINS:
            continue
        edits = [edit for edit in _EDITS if where(rows, edit=edit)]
        about = f"{rows[0]['method']}, {rows[0]['batch_size']}"
        title = f"{pen(DOMAINS.title)} · {model} · {about}"
        height = 1.3 + 0.24 * len(domains)
        figure, panels = grid(pen, title, [""], len(edits), height=height, width=3.4)
        for axes, edit in zip(panels[0], edits, strict=True):
            _domain_panel(axes, pen, where(rows, edit=edit), domains)
            axes.set_title(f"{pen(BilingualText('编辑语言：', 'edited in '))}{pen.language(edit)}")
            first = edit == edits[0]
            names = [_domain_name(pen, rows, domain) for domain in domains]
            axes.set_yticks(range(len(domains)), names if first else [""] * len(domains))
        legend(figure, panels)
        yield model, figure


def _first_group(rows: Sequence[Row]) -> list[Row]:
    first = rows[0]
    keys = ("method", "batch_size", "note")
    return where(rows, **{key: first[key] for key in keys})


def _domain_name(pen: Renderer, rows: Sequence[Row], domain: str) -> str:
    row = where(rows, domain=domain)[0]
    return pen(BilingualText(row["domain_zh"], row["domain_en"])) + f" ({row['facts']})"


def _domain_panel(axes: Any, pen: Renderer, rows: Sequence[Row], domains: Sequence[str]) -> None:
    for lang in ("zh", "en"):
        style = LANGUAGE_STYLE[lang]
        known = [row for row in rows if row[f"{lang}_reliability"]]
        axes.plot(
            [float(row[f"{lang}_reliability"]) for row in known],
            [domains.index(row["domain"]) for row in known],
            color=COLOURS[style],
            marker=MARKERS[style],
            linestyle="none",
            label=pen(BilingualText("测量语言：", "measured in ")) + pen.language(lang),
        )
    axes.set_xlim(-3, 103)
    axes.set_ylim(len(domains) - 0.5, -0.5)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_xlabel(pen(_PERCENT))


def by_batch_size(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Reliability of both languages by batch size; only where there are several."""
    for model in unique(tables["evaluation_long.csv"], "model"):
        rows = where(tables["evaluation_long.csv"], model=model, when="after")
        methods = [
            name
            for name in unique(rows, "method")
            if len(unique(where(rows, method=name), "batch_size")) > 1
        ]
        if not methods:
            continue
        edits = [edit for edit in _EDITS if where(rows, edit=edit)]
        title = f"{pen(SIZES.title)} · {model}"
        figure, panels = grid(pen, title, methods, len(edits), width=3.4)
        for axes_row, method in zip(panels, methods, strict=True):
            for axes, edit in zip(axes_row, edits, strict=True):
                mine = where(rows, method=method, edit=edit)
                _curves(axes, pen, mine, "batch_size", edit)
                axes.set_xscale("log")
                log_ticks(axes.xaxis, [float(size) for size in unique(mine, "batch_size")])
                axes.set_xlabel(pen(BilingualText("批大小（条）", "batch size (facts)")))
        legend(figure, panels)
        yield model, figure


def along(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Reliability of both languages along sequential runs."""
    for model in unique(tables["evaluation_along.csv"], "model"):
        rows = where(tables["evaluation_along.csv"], model=model)
        groups = list(
            dict.fromkeys((row["method"], row["batch_size"], row["note"]) for row in rows)
        )
        edits = [edit for edit in _EDITS if where(rows, edit=edit)]
        names = [" ".join(filter(None, group)) for group in groups]
        figure, panels = grid(pen, f"{pen(ALONG.title)} · {model}", names, len(edits), width=3.4)
        for axes_row, (method, size, note) in zip(panels, groups, strict=True):
            for axes, edit in zip(axes_row, edits, strict=True):
                mine = where(rows, method=method, batch_size=size, note=note, edit=edit)
                _curves(axes, pen, mine, "edited", edit)
                axes.set_xlabel(pen(BilingualText("已编辑的条数", "facts edited so far")))
        legend(figure, panels)
        yield model, figure


def _curves(axes: Any, pen: Renderer, rows: Sequence[Row], x: str, edit: str) -> None:
    for lang in ("zh", "en"):
        mine = where(rows, measure=f"{lang}_reliability")
        series = [
            Point(p.x, 100 * p.y, 100 * (p.low or 0), 100 * (p.high or 0))
            for p in points(mine, x=x, y="mean")
        ]
        label = pen(BilingualText("测量语言：", "measured in ")) + pen.language(lang)
        line(axes, series, label, LANGUAGE_STYLE[lang])
    axes.set_ylim(-3, 103)
    axes.set_title(f"{pen(BilingualText('编辑语言：', 'edited in '))}{pen.language(edit)}")
    axes.set_ylabel(f"{pen(_PARTS['reliability'])} ({pen(_PERCENT)})")


MEASURED = Spec(
    "evaluation_measures",
    "evaluation",
    ("evaluation_long.csv",),
    BilingualText("编辑前后的两种语言", "Both languages, before and after"),
    BilingualText(
        "空心：编辑前；实心：编辑后。三角：中文；圆：英文。横线是区间。",
        "Hollow: before the edit; filled: after it. Triangle: Chinese; circle: English. Bars are "
        "intervals.",
    ),
    before_after,
)
DOMAINS = Spec(
    "evaluation_domains",
    "evaluation",
    ("evaluation_domains.csv",),
    BilingualText("各领域的可靠性", "Reliability by domain"),
    BilingualText(
        "编辑之后，各领域的可靠性；括号内是条目数。条目少的领域说明不了什么。",
        "After the edit; in brackets the number of facts. Domains of a few facts say little.",
    ),
    by_domain,
)
SIZES = Spec(
    "evaluation_batch_size",
    "evaluation",
    ("evaluation_long.csv",),
    BilingualText("批大小与可靠性", "Batch size and reliability"),
    BilingualText(
        "编辑之后，按一次编辑的条数。", "After the edit, by the number of facts edited at once."
    ),
    by_batch_size,
)
ALONG = Spec(
    "evaluation_along",
    "evaluation",
    ("evaluation_along.csv",),
    BilingualText("连续编辑的过程", "Along sequential edits"),
    BilingualText(
        "先前的编辑保留时，全部已编辑事实的可靠性。",
        "Reliability of all facts edited so far, earlier edits kept.",
    ),
    along,
)
EVALUATION_FIGURES = (MEASURED, DOMAINS, SIZES, ALONG)
