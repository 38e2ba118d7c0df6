"""Figures of the geometry of weight changes, drawn from ``geometry.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import GEOMETRY_MEASURES, BilingualText, batch_of
from clm_data.eval.csv_tables import Row, Tables, of_variant, unique, variants, where
from clm_data.eval.figures.layout import add_legend, integer_ticks, log_ticks, panel_grid
from clm_data.eval.figures.marks import (
    data_points,
    draw_line,
    draw_null_ranges,
    draw_reported_range,
)
from clm_data.eval.figures.style import LAYER, FigureSpec, layer_name
from clm_data.eval.paper_ranges import reported_range
from clm_data.eval.tables import variant_name
from clm_data.records import LANGUAGES, Language

_NULL = BilingualText("随机基线：奇异值相同的随机矩阵", "null: random matrices, same spectra")
_REPORTED = BilingualText("论文报告的范围", "range reported in the paper")
_CONTROLS = {
    "disjoint": (
        BilingualText("对照：同语言的另一批事实", "control: another batch, same language"),
        "-",
        2.2,
    ),
    "split": (
        BilingualText(
            "对照：同批事实的两半（余弦偏低）", "control: halves of a batch (biased low)"
        ),
        ":",
        1.4,
    ),
}
"""Label, line style and line width of a control, by how its two sets of facts were chosen."""
_INDEPENDENCE_MEASURES = (
    "cosine", "angle_left_mean", "angle_left_max", "angle_right_mean", "jaccard_rows",
    "jaccard_columns",
)  # fmt: skip
_ADDITIVITY_MEASURES = ("cosine", "relative_error", "jaccard_rows", "jaccard_columns")
_BATCH_SIZE_MEASURES = (
    ("zh-en", "cosine"),
    ("zh-en", "angle_left_mean"),
    ("zh-en", "jaccard_rows"),
    ("sum-mix", "cosine"),
    ("sum-mix", "relative_error"),
    ("sum-mix", "jaccard_rows"),
)
_COMPARISONS = {
    "zh-en": BilingualText("中文与英文", "Chinese vs. English"),
    "sum-mix": BilingualText("两者之和与双语编辑", "sum vs. edit in both languages"),
}


def _of_comparison(rows: Sequence[Row], comparison: str) -> list[Row]:
    return where(rows, comparison=comparison, batch="all")


def _by_model(tables: Tables, comparison: str) -> Iterator[tuple[str, list[Row]]]:
    """The rows over all batches of each model that has the comparison."""
    for model in unique(tables["geometry.csv"], "model"):
        rows = where(tables["geometry.csv"], model=model, batch="all")
        if where(rows, comparison=comparison):
            yield model, rows


def _draw_independence(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    for model, rows in _by_model(tables, "zh-en"):
        title = INDEPENDENCE.heading(lang, model)
        yield model, _comparison_figure(lang, title, rows, "zh-en", _INDEPENDENCE_MEASURES)


def _draw_additivity(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    for model, rows in _by_model(tables, "sum-mix"):
        title = ADDITIVITY.heading(lang, model)
        yield model, _comparison_figure(lang, title, rows, "sum-mix", _ADDITIVITY_MEASURES)


def _comparison_figure(
    lang: Language, title: str, rows: Sequence[Row], comparison: str, measures: Sequence[str]
) -> Any:
    """Measures of a comparison by layer: a group per variant, a line per batch size."""
    shown = [one for one in variants(rows) if _of_comparison(of_variant(rows, one), comparison)]
    figure, groups = panel_grid(title, [variant_name(one) for one in shown], len(measures))
    for group, variant in zip(groups, shown, strict=True):
        of_one = of_variant(rows, variant)
        for axes, measure in zip(group, measures, strict=True):
            _draw_comparison(axes, lang, where(of_one, measure=measure), comparison, measure)
    add_legend(figure, groups)
    return figure


def _draw_comparison(
    axes: Any, lang: Language, rows: Sequence[Row], comparison: str, measure: str
) -> None:
    _draw_reported(axes, lang, comparison, measure)
    sizes = unique(_of_comparison(rows, comparison), "batch_size")
    slot = 0.8 / max(len(sizes), 1)
    for style, size in enumerate(sizes):
        of_size = where(rows, batch_size=size)
        shift = slot * (style - (len(sizes) - 1) / 2)
        null = data_points(_of_comparison(of_size, f"null-{comparison}"))
        draw_null_ranges(axes, null, _NULL.text(lang), shift=shift, width=0.9 * slot)
        if comparison == "zh-en":
            _draw_control(axes, lang, of_size, shift, slot)
        points = data_points(_of_comparison(of_size, comparison))
        draw_line(axes, points, batch_of(size).text(lang), style, shift=shift)
    axes.set_title(GEOMETRY_MEASURES[measure].text(lang))
    axes.set_xlabel(LAYER.text(lang))
    integer_ticks(axes, [point.x for point in data_points(_of_comparison(rows, comparison))])


def _draw_reported(axes: Any, lang: Language, comparison: str, measure: str) -> None:
    reported = reported_range(comparison, measure)
    if reported is not None:
        draw_reported_range(axes, reported.low, reported.high, _REPORTED.text(lang))


def _draw_control(
    axes: Any, lang: Language, rows: Sequence[Row], shift: float, slot: float
) -> None:
    """Draw the value of two sets of facts in one language: two batches, or else two halves."""
    half = 0.3 * slot
    for kind, (label, line_style, width) in _CONTROLS.items():
        by_language = (
            data_points(_of_comparison(rows, f"{kind}-{edited}")) for edited in LANGUAGES
        )
        points = [point for points in by_language for point in points]
        for point in points:
            axes.plot(
                [point.x + shift - half, point.x + shift + half],
                [point.y] * 2,
                color="black",
                linestyle=line_style,
                linewidth=width,
                label=label.text(lang),
            )
        if points:
            return


def _draw_batch_sizes(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Measures by batch size, a line per layer, for variants with several batch sizes."""
    for model, rows in _by_model(tables, "zh-en"):
        shown = [
            one
            for one in variants(rows)
            if len(unique(_of_comparison(of_variant(rows, one), "zh-en"), "batch_size")) > 1
        ]
        if not shown:
            continue
        measures = [pair for pair in _BATCH_SIZE_MEASURES if where(rows, comparison=pair[0])]
        title = BATCH_SIZES.heading(lang, model)
        figure, groups = panel_grid(title, [variant_name(one) for one in shown], len(measures))
        for group, variant in zip(groups, shown, strict=True):
            of_one = of_variant(rows, variant)
            for axes, (comparison, measure) in zip(group, measures, strict=True):
                _draw_by_batch_size(axes, lang, where(of_one, measure=measure), comparison, measure)
        add_legend(figure, groups)
        yield model, figure


def _draw_by_batch_size(
    axes: Any, lang: Language, rows: Sequence[Row], comparison: str, measure: str
) -> None:
    _draw_reported(axes, lang, comparison, measure)
    for style, layer in enumerate(unique(rows, "layer")):
        points = data_points(where(_of_comparison(rows, comparison), layer=layer), x="batch_size")
        draw_line(axes, points, layer_name(layer).text(lang), style)
    axes.set_xscale("log")
    log_ticks(axes.xaxis, [float(size) for size in unique(rows, "batch_size")])
    axes.set_xlabel(BilingualText("批大小（条）", "batch size (facts)").text(lang))
    axes.set_title(
        f"{_COMPARISONS[comparison].text(lang)}\n{GEOMETRY_MEASURES[measure].text(lang)}"
    )


INDEPENDENCE = FigureSpec(
    "geometry_independence",
    "geometry",
    ("geometry.csv",),
    BilingualText("中文编辑与英文编辑的独立性", "Independence of Chinese and English edits"),
    BilingualText(
        "同一批事实分别用中文和英文编辑，比较两次编辑的权重改变：余弦相似度、主夹角，以及改变最大"
        "的前 5% 神经元的重合度，按层给出。斜线框：奇异值相同的随机矩阵取值的 95% 区间。黑色短横："
        "同一语言中两批不同事实之间的值；点线表示只有一批事实，取其两半比较，此时余弦偏低。黄色："
        "论文报告的范围。竖线为 95% 区间。",
        "The same facts are edited in Chinese and in English. By layer: cosine similarity of the "
        "two weight changes, principal angles between them, and overlap of the 5% of neurons that "
        "change most. Hatched boxes: 95% range for random matrices with the same singular values. "
        "Black dashes: two batches of different facts in the same language; dotted if only one "
        "batch was edited and its halves are compared, in which case cosines are biased low. "
        "Yellow: range reported in the paper. Bars are 95% intervals.",
    ),
    _draw_independence,
    "1",
)
ADDITIVITY = FigureSpec(
    "geometry_additivity",
    "geometry",
    ("geometry.csv",),
    BilingualText("中文编辑与英文编辑的可加性", "Additivity of Chinese and English edits"),
    BilingualText(
        "中文编辑与英文编辑的权重改变之和，与同一批事实双语编辑的权重改变相比，按层给出。斜线框与"
        "黄线的含义同上图。",
        "The sum of the weight changes of the Chinese and the English edits, compared with the "
        "weight change of editing the same facts in both languages, by layer. Boxes and yellow "
        "lines as in the previous figure.",
    ),
    _draw_additivity,
    "1",
)
BATCH_SIZES = FigureSpec(
    "geometry_batch_size",
    "geometry",
    ("geometry.csv",),
    BilingualText("批大小对独立性与可加性的影响", "Independence and additivity by batch size"),
    BilingualText(
        "上两图的主要指标随批大小（一次编辑的事实数）的变化，每条线对应一层。黄色：论文报告的范围。",
        "The main measures of the two previous figures by the number of facts edited at once, one "
        "line per layer. Yellow: range reported in the paper.",
    ),
    _draw_batch_sizes,
    "1",
)
GEOMETRY_FIGURES = (INDEPENDENCE, ADDITIVITY, BATCH_SIZES)
