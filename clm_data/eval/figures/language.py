"""Figures of language vectors, drawn from ``language_layers.csv`` and ``language_points.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import LANGUAGE_NAMES, BilingualText
from clm_data.eval.csv_tables import Row, Tables, unique, where
from clm_data.eval.figures.layout import add_legend, integer_ticks, panel_grid
from clm_data.eval.figures.marks import data_points, draw_line, draw_null_ranges, draw_scatter
from clm_data.eval.figures.style import GRAY, LANGUAGE_STYLE, LAYER, FigureSpec, layer_name
from clm_data.records import LANGUAGES, Language

PAPER_FIGURES = "5–8"
"""The paper's figures on language vectors and neurons, in its appendix."""
_HIDDEN = BilingualText("隐藏状态", "hidden state")
_MLP = BilingualText("MLP 输出", "MLP output")
_NULL = BilingualText("随机基线：随机互换语言", "null: languages swapped at random")
_CHANCE = BilingualText("随机猜测", "chance")
_METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}


def _draw_layers(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Measures of the language vector by layer."""
    for model in unique(tables["language_layers.csv"], "model"):
        rows = where(tables["language_layers.csv"], model=model)
        title = LAYERS.heading(lang, model)
        figure, groups = panel_grid(title, ["", ""], 3, width=3.6)
        panels = [axes for group in groups for axes in group]
        for axes, (heading, draw) in zip(panels, _PANELS, strict=True):
            draw(axes, lang, rows)
            axes.set_title(heading.text(lang))
            axes.set_xlabel(LAYER.text(lang))
            integer_ticks(axes, [float(row["layer"]) for row in rows])
        add_legend(figure, groups)
        yield model, figure


def _draw_measure(axes: Any, rows: Sequence[Row], measure: str, label: str, style: int) -> None:
    draw_line(axes, data_points(where(rows, measure=measure)), label, style)


def _draw_both_parts(axes: Any, lang: Language, rows: Sequence[Row], measure: str) -> None:
    """Draw a measure of hidden states and of MLP outputs."""
    _draw_measure(axes, where(rows, part="hidden"), measure, _HIDDEN.text(lang), 2)
    _draw_measure(axes, where(rows, part="mlp"), measure, _MLP.text(lang), 3)


def _draw_null(axes: Any, lang: Language, rows: Sequence[Row], measure: str) -> None:
    null = data_points(where(rows, part="hidden", measure=f"{measure}_shuffled"))
    draw_null_ranges(axes, null, _NULL.text(lang))


def _draw_projections(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    labels = {
        "zh": BilingualText("中文题干", "Chinese prompts"),
        "en": BilingualText("英文题干", "English prompts"),
    }
    for side, label in labels.items():
        hidden = where(rows, part="hidden")
        style = LANGUAGE_STYLE[side]
        _draw_measure(axes, hidden, f"projection_{side}", label.text(lang), style)


def _draw_difference(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    _draw_null(axes, lang, rows, "projection_difference")
    _draw_both_parts(axes, lang, rows, "projection_difference")


def _draw_delta(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    _draw_null(axes, lang, rows, "delta_cosine_held_out")
    _draw_both_parts(axes, lang, rows, "delta_cosine_held_out")


def _draw_bias(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    axes.axhline(0, color="#8c8c8c", linewidth=0.8)
    _draw_both_parts(axes, lang, rows, "bias_correlation")


def _draw_classifier(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    classifier = BilingualText("线性分类器", "linear classifier")
    permuted = BilingualText("标签随机的分类器", "classifier, permuted labels")
    _draw_measure(axes, rows, "classifier_accuracy", classifier.text(lang), 4)
    _draw_measure(axes, rows, "classifier_permuted", permuted.text(lang), 5)
    axes.axhline(0.5, color=GRAY, linewidth=1, linestyle="--", label=_CHANCE.text(lang))
    axes.set_ylim(-0.03, 1.05)


def _draw_stability(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    hidden = where(rows, part="hidden")
    halves = BilingualText("两半事实之间", "between halves of the facts")
    below = BilingualText("与下一层之间", "with the layer below")
    _draw_measure(axes, hidden, "split_half_cosine", halves.text(lang), 6)
    _draw_measure(axes, hidden, "vector_cosine_below", below.text(lang), 0)


_PANELS = (
    (BilingualText("在语言向量上的投影", "projection on the language vector"), _draw_projections),
    (
        BilingualText("投影之差（中文减英文）", "projection difference, zh − en"),
        _draw_difference,
    ),
    (BilingualText("差向量与语言向量的余弦", "cosine with the language vector"), _draw_delta),
    (BilingualText("两种语言投影的相关系数", "correlation of projections"), _draw_bias),
    (BilingualText("语言分类的正确率", "accuracy of classifying the language"), _draw_classifier),
    (
        BilingualText("语言向量的稳定性（余弦）", "stability of the vector (cosine)"),
        _draw_stability,
    ),
)


def _draw_points(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Facts as points in two dimensions: a group per method, a panel per layer."""
    for model in unique(tables["language_points.csv"], "model"):
        rows = [row for row in where(tables["language_points.csv"], model=model) if row["x"]]
        methods = [name for name in _METHODS if where(rows, method=name)]
        layers = unique(rows, "layer")
        if not methods:
            continue
        title = POINTS.heading(lang, model)
        headings = [_METHODS[name] for name in methods]
        figure, groups = panel_grid(title, headings, len(layers), height=2.9)
        for group, method in zip(groups, methods, strict=True):
            for axes, layer in zip(group, layers, strict=True):
                here = where(rows, method=method, layer=layer)
                for side in LANGUAGES:
                    xs, ys = (
                        [float(row[name]) for row in where(here, lang=side)] for name in ("x", "y")
                    )
                    label = LANGUAGE_NAMES[side].text(lang)
                    draw_scatter(axes, xs, ys, label, LANGUAGE_STYLE[side])
                axes.set_title(layer_name(layer).text(lang))
                _name_axes(axes, lang, method)
        add_legend(figure, groups)
        yield model, figure


def _name_axes(axes: Any, lang: Language, method: str) -> None:
    if method == "pca":
        axes.set_xlabel(BilingualText("第一主成分", "first component").text(lang))
        axes.set_ylabel(BilingualText("第二主成分", "second component").text(lang))
    else:
        axes.set_xlabel(f"{_METHODS[method]} 1")
        axes.set_ylabel(f"{_METHODS[method]} 2")


LAYERS = FigureSpec(
    "language_layers",
    "language",
    ("language_layers.csv",),
    BilingualText("各层的语言向量", "The language vector by layer"),
    BilingualText(
        "取题干中主语最后一个词元处的状态。语言向量：同一批事实的中文状态均值减去英文状态均值，再"
        "归一化为单位长度。差向量：一条事实的中文状态减去英文状态，与由其余事实求得的语言向量比较。"
        "斜线框：随机互换每条事实的两种语言时取值的 95% 区间。竖线为 95% 区间。",
        "States are read at the last token of the subject. The language vector is the mean Chinese "
        "state minus the mean English state of the same facts, scaled to unit length. The third "
        "panel compares each fact’s difference, Chinese minus English state, with the vector of "
        "all other facts. Hatched boxes: 95% range when the two languages of each fact are swapped "
        "at random. Bars are 95% intervals.",
    ),
    _draw_layers,
    PAPER_FIGURES,
)
POINTS = FigureSpec(
    "language_points",
    "language",
    ("language_points.csv",),
    BilingualText("MLP 输出的二维投影", "MLP outputs in two dimensions"),
    BilingualText(
        "每条事实对应两个点：中文（三角）与英文（圆点）。PCA 保持距离关系，t-SNE 与 UMAP 只保持邻"
        "近关系。",
        "Each fact is two points, Chinese (triangle) and English (circle). PCA preserves "
        "distances; t-SNE and UMAP only preserve neighborhoods.",
    ),
    _draw_points,
    PAPER_FIGURES,
)
LANGUAGE_FIGURES = (LAYERS, POINTS)
