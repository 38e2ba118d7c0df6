"""Figures of edit selectivity, drawn from ``selectivity.csv`` and ``selectivity_points.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import BilingualText, batch_of, edited_in
from clm_data.eval.csv_tables import (
    Row,
    Tables,
    largest_batch,
    of_variant,
    unique,
    variants,
    where,
)
from clm_data.eval.figures.language import PAPER_FIGURES
from clm_data.eval.figures.layout import add_legend, integer_ticks, panel_grid
from clm_data.eval.figures.marks import data_points, draw_line, draw_scatter
from clm_data.eval.figures.neurons import last_edited_layers
from clm_data.eval.figures.style import LANGUAGE_STYLE, LAYER, FigureSpec, joined
from clm_data.eval.tables import variant_name
from clm_data.records import LANGUAGES, Language

_MEASURES = {
    "own_change": BilingualText("编辑语言的状态，相对变化", "relative change, edited language"),
    "other_change": BilingualText("另一语言的状态，相对变化", "relative change, other language"),
    "selectivity": BilingualText("编辑选择性", "edit selectivity"),
}
_BIAS = BilingualText("语言偏向（沿语言向量的差）", "language bias (along the language vector)")


def _draw_layers(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """How much edits change the states of either language, by layer."""
    for model in unique(tables["selectivity.csv"], "model"):
        rows = where(tables["selectivity.csv"], model=model)
        known = variants(rows)
        largest = [largest_batch(of_variant(rows, one)) for one in known]
        headings = [
            joined(lang, variant_name(one), batch_of(found[0]["batch_size"]).text(lang))
            for one, found in zip(known, largest, strict=True)
        ]
        title = SELECTIVITY.heading(lang, model)
        figure, groups = panel_grid(title, headings, len(_MEASURES), width=3.6)
        for group, found in zip(groups, largest, strict=True):
            for axes, (measure, name) in zip(group, _MEASURES.items(), strict=True):
                _draw_measure(axes, lang, where(found, measure=measure))
                axes.set_title(name.text(lang))
        add_legend(figure, groups)
        yield model, figure


def _draw_measure(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    for edit in LANGUAGES:
        points = data_points(where(rows, edit=edit))
        draw_line(axes, points, edited_in(edit).text(lang), LANGUAGE_STYLE[edit])
    axes.set_xlabel(LAYER.text(lang))
    integer_ticks(axes, [float(row["layer"]) for row in rows])


def _draw_bias(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """The language bias of each fact against the selectivity of its edit."""
    correlations = where(tables["selectivity.csv"], measure="bias_selectivity_correlation")
    for model, headings, groups in last_edited_layers(lang, tables, "selectivity_points.csv"):
        title = BIAS.heading(lang, model)
        figure, panels = panel_grid(title, headings, 2, height=3.0, width=4.2)
        of_model = where(correlations, model=model)
        for axes_of_group, rows in zip(panels, groups, strict=True):
            for axes, edit in zip(axes_of_group, LANGUAGES, strict=True):
                _draw_bias_panel(axes, lang, where(rows, edit=edit), of_model, edit)
        add_legend(figure, panels)
        yield model, figure


def _draw_bias_panel(
    axes: Any, lang: Language, rows: Sequence[Row], correlations: Sequence[Row], edit: str
) -> None:
    xs = [float(row["bias"]) for row in rows]
    ys = [float(row["selectivity"]) for row in rows]
    draw_scatter(axes, xs, ys, edited_in(edit).text(lang), LANGUAGE_STYLE[edit])
    axes.axhline(0, color="#8c8c8c", linewidth=0.8)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel(_BIAS.text(lang))
    axes.set_ylabel(_MEASURES["selectivity"].text(lang))
    columns = ("method", "protocol", "mode", "layers", "batch_size", "layer", "edit")
    found = where(correlations, **{name: rows[0][name] for name in columns}) if rows else []
    if found:
        r, low, high = (f"{float(found[0][name]):.2f}" for name in ("value", "low", "high"))
        axes.set_title(f"r = {r} [{low}, {high}]")


SELECTIVITY = FigureSpec(
    "selectivity_layers",
    "language",
    ("selectivity.csv",),
    BilingualText("编辑对各层隐藏状态的影响", "Effect of edits on hidden states by layer"),
    BilingualText(
        "主语最后一个词元处隐藏状态的变化与其自身范数之比，按层给出。左：编辑语言的状态；中：另一"
        "语言的状态；右：由两者得出的选择性。",
        "Change of the hidden state at the last token of the subject relative to its norm, by "
        "layer: states in the edited language, states in the other language, and the selectivity "
        "computed from both.",
    ),
    _draw_layers,
    PAPER_FIGURES,
)
BIAS = FigureSpec(
    "bias_selectivity",
    "language",
    ("selectivity_points.csv", "selectivity.csv"),
    BilingualText("语言偏向与编辑选择性", "Language bias and edit selectivity"),
    BilingualText(
        "每个点为一条事实。选择性为 1：编辑只改变编辑语言的状态；为 0：对两种语言的影响相同。r 为"
        "相关系数，方括号内为 95% 区间。",
        "Each point is a fact. Selectivity 1: the edit changes only the states of the edited "
        "language; 0: it changes both languages equally. r is the correlation with its 95% "
        "interval.",
    ),
    _draw_bias,
    PAPER_FIGURES,
)
SELECTIVITY_FIGURES = (SELECTIVITY, BIAS)
