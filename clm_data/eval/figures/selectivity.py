"""Figures of how far edits keep to their language: ``selectivity.csv`` and its points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.csv_tables import (
    Row,
    Tables,
    largest_batch,
    of_variant,
    unique,
    variants,
    where,
)
from clm_data.eval.figures.edits import PAPER_FIGURES, edited_in, largest_places
from clm_data.eval.figures.style import (
    LANGUAGE_STYLE,
    LAYER,
    Renderer,
    Spec,
    batch_words,
    grid,
    legend,
    line,
    points,
    scatter,
    whole_ticks,
)
from clm_data.eval.tables import variant_name


def bias_selectivity(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Each fact's language bias against how far its edit keeps to its language."""
    correlations = where(tables["selectivity.csv"], measure="bias_selectivity_correlation")
    for model, names, groups in largest_places(pen, tables, "selectivity_points.csv"):
        figure, panels = grid(pen, f"{pen(BIAS.title)} · {model}", names, 2, height=3.0, width=4.2)
        mine = where(correlations, model=model)
        for axes_row, rows in zip(panels, groups, strict=True):
            for axes, edit in zip(axes_row, ("zh", "en"), strict=True):
                _bias_panel(axes, pen, where(rows, edit=edit), mine, edit)
        legend(figure, panels)
        yield model, figure


def _bias_panel(
    axes: Any, pen: Renderer, rows: Sequence[Row], correlations: Sequence[Row], edit: str
) -> None:
    xs = [float(row["bias"]) for row in rows]
    ys = [float(row["selectivity"]) for row in rows]
    scatter(axes, xs, ys, edited_in(pen, edit), LANGUAGE_STYLE[edit])
    axes.axhline(0, color="#8c8c8c", linewidth=0.8)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel(
        pen(
            BilingualText(
                "语言偏向（在语言向量上的距离）", "language bias (distance along the vector)"
            )
        )
    )
    axes.set_ylabel(pen(BilingualText("编辑选择性", "edit selectivity")))
    keys = ("method", "protocol", "mode", "layers", "batch_size", "layer", "edit")
    found = where(correlations, **{key: rows[0][key] for key in keys}) if rows else []
    if found:
        ends = [f"{float(found[0][name]):.2f}" for name in ("value", "low", "high")]
        axes.set_title(f"r = {ends[0]} [{ends[1]}, {ends[2]}]")


def selectivity_layers(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """How much an edit moves its own language's states and the other's, by layer."""
    for model in unique(tables["selectivity.csv"], "model"):
        rows = where(tables["selectivity.csv"], model=model)
        known = variants(rows)
        mine = [largest_batch(of_variant(rows, one)) for one in known]
        names = [
            f"{variant_name(one)}, {batch_words(pen, found[0]['batch_size'])}"
            for one, found in zip(known, mine, strict=True)
        ]
        figure, panels = grid(pen, f"{pen(SELECTIVITY.title)} · {model}", names, 3, width=3.6)
        for axes_row, found in zip(panels, mine, strict=True):
            _moved(axes_row, pen, found)
        legend(figure, panels)
        yield model, figure


def _moved(axes_row: Sequence[Any], pen: Renderer, rows: Sequence[Row]) -> None:
    shown = {
        "own_change": BilingualText("本语言状态的相对变化", "relative change, own language"),
        "other_change": BilingualText("另一语言状态的相对变化", "relative change, other language"),
        "selectivity": BilingualText("编辑选择性", "edit selectivity"),
    }
    for axes, (measure, words) in zip(axes_row, shown.items(), strict=True):
        for edit in ("zh", "en"):
            series = points(where(rows, measure=measure, edit=edit))
            line(axes, series, edited_in(pen, edit), LANGUAGE_STYLE[edit])
        axes.set_title(pen(words))
        axes.set_xlabel(pen(LAYER))
        whole_ticks(axes, [float(row["layer"]) for row in rows])


BIAS = Spec(
    "bias_selectivity",
    "language",
    ("selectivity_points.csv", "selectivity.csv"),
    BilingualText("语言偏向与编辑选择性", "Language bias and edit selectivity"),
    BilingualText(
        "每点一条事实。选择性为一：编辑只移动本语言的状态；为零：两种语言一样。r：相关系数与区间。",
        "A point a fact. Selectivity one: the edit moves the states of its own language alone; "
        "zero: both alike. r: correlation with its interval.",
    ),
    bias_selectivity,
    PAPER_FIGURES,
)
SELECTIVITY = Spec(
    "selectivity_layers",
    "language",
    ("selectivity.csv",),
    BilingualText("编辑在各层移动了什么", "What edits move, by layer"),
    BilingualText(
        "主语处隐藏状态的变化与其自身长度之比，按层；左：被编辑的语言，中：另一语言，右：选择性。",
        "Change of the hidden state at the subject over its own length, by layer: the edited "
        "language, the other one, and the selectivity that follows.",
    ),
    selectivity_layers,
    PAPER_FIGURES,
)
SELECTIVITY_FIGURES = (SELECTIVITY, BIAS)
