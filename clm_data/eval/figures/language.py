"""Figures of language vectors, drawn from ``language_layers.csv`` and ``language_points.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.csv_tables import Row, Tables, unique, where
from clm_data.eval.figures.style import (
    LAYER,
    Renderer,
    Spec,
    boxes,
    grid,
    legend,
    line,
    points,
    scatter,
    whole_ticks,
)

_HIDDEN = BilingualText("隐藏状态", "hidden state")
_MLP = BilingualText("MLP 输出", "MLP output")
_SHUFFLED = BilingualText("随机：交换语言后的区间", "null: languages swapped by chance")
_METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
_TITLES = {
    "raw": BilingualText("在语言向量上的投影", "projection on the language vector"),
    "difference": BilingualText("投影之差，中文减英文", "projection difference, zh less en"),
    "delta": BilingualText("差向量与语言向量的余弦", "delta cosine"),
    "bias": BilingualText("两种语言投影的相关", "bias correlation"),
    "probe": BilingualText("线性探针正确率", "accuracy of a linear probe"),
    "stable": BilingualText("语言向量是否稳定（余弦）", "stability of the vector (cosine)"),
}


def by_layer(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Measures of the language vector by layer."""
    for model in unique(tables["language_layers.csv"], "model"):
        rows = where(tables["language_layers.csv"], model=model)
        figure, panels = grid(pen, f"{pen(LAYERS.title)} · {model}", ["", ""], 3, width=3.6)
        places = [axes for row in panels for axes in row]
        for axes, (name, draw) in zip(places, _PANELS.items(), strict=True):
            draw(axes, pen, rows)
            axes.set_title(pen(_TITLES[name]))
            axes.set_xlabel(pen(LAYER))
            whole_ticks(axes, [float(row["layer"]) for row in rows])
        legend(figure, panels)
        yield model, figure


def _series(axes: Any, rows: Sequence[Row], measure: str, label: str, style: int) -> None:
    line(axes, points(where(rows, measure=measure)), label, style)


def _raw(axes: Any, pen: Renderer, rows: Sequence[Row]) -> None:
    hidden = where(rows, part="hidden")
    _series(axes, hidden, "projection_zh", pen(BilingualText("中文提示", "Chinese prompts")), 1)
    _series(axes, hidden, "projection_en", pen(BilingualText("英文提示", "English prompts")), 0)


def _difference(axes: Any, pen: Renderer, rows: Sequence[Row]) -> None:
    hidden = where(rows, part="hidden")
    boxes(axes, points(where(hidden, measure="projection_difference_shuffled")), pen(_SHUFFLED))
    _series(axes, hidden, "projection_difference", pen(_HIDDEN), 2)
    _series(axes, where(rows, part="mlp"), "projection_difference", pen(_MLP), 3)


def _delta(axes: Any, pen: Renderer, rows: Sequence[Row]) -> None:
    hidden = where(rows, part="hidden")
    boxes(axes, points(where(hidden, measure="delta_cosine_held_out_shuffled")), pen(_SHUFFLED))
    _series(axes, hidden, "delta_cosine_held_out", pen(_HIDDEN), 2)
    _series(axes, where(rows, part="mlp"), "delta_cosine_held_out", pen(_MLP), 3)


def _bias(axes: Any, pen: Renderer, rows: Sequence[Row]) -> None:
    axes.axhline(0, color="#8c8c8c", linewidth=0.8)
    _series(axes, where(rows, part="hidden"), "bias_correlation", pen(_HIDDEN), 2)
    _series(axes, where(rows, part="mlp"), "bias_correlation", pen(_MLP), 3)


def _probe(axes: Any, pen: Renderer, rows: Sequence[Row]) -> None:
    _series(axes, rows, "probe_accuracy", pen(BilingualText("探针", "probe")), 4)
    _series(
        axes,
        rows,
        "probe_permuted",
        pen(BilingualText("标签随机的探针", "probe on permuted labels")),
        5,
    )
    axes.axhline(0.5, color="#5a5a5a", linewidth=1, linestyle="--", label=pen(_GUESS))
    axes.set_ylim(-0.03, 1.05)


_GUESS = BilingualText("瞎猜", "a guess")


def _stable(axes: Any, pen: Renderer, rows: Sequence[Row]) -> None:
    hidden = where(rows, part="hidden")
    _series(
        axes,
        hidden,
        "split_half_cosine",
        pen(BilingualText("两半事实之间", "between halves of the facts")),
        6,
    )
    _series(
        axes,
        hidden,
        "vector_cosine_below",
        pen(BilingualText("与下一层之间", "with the layer below")),
        0,
    )


_PANELS = {
    "raw": _raw,
    "difference": _difference,
    "delta": _delta,
    "bias": _bias,
    "probe": _probe,
    "stable": _stable,
}


def in_the_plane(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Facts as points: a row of panels a method, a column a layer."""
    for model in unique(tables["language_points.csv"], "model"):
        rows = [row for row in where(tables["language_points.csv"], model=model) if row["x"]]
        methods = [name for name in _METHODS if where(rows, method=name)]
        layers = unique(rows, "layer")
        if not methods:
            continue
        title = f"{pen(PLANE.title)} · {model}"
        figure, panels = grid(
            pen, title, [_METHODS[name] for name in methods], len(layers), height=2.9
        )
        for axes_row, method in zip(panels, methods, strict=True):
            for axes, layer in zip(axes_row, layers, strict=True):
                mine = where(rows, method=method, layer=layer)
                for lang, style in (("zh", 1), ("en", 0)):
                    xs, ys = (
                        [float(row[name]) for row in where(mine, lang=lang)] for name in ("x", "y")
                    )
                    scatter(axes, xs, ys, pen.language(lang), style)
                axes.set_title(f"{pen(LAYER)} {layer}")
                _plane_axes(axes, pen, method)
        legend(figure, panels)
        yield model, figure


def _plane_axes(axes: Any, pen: Renderer, method: str) -> None:
    if method == "pca":
        axes.set_xlabel(pen(BilingualText("第一主成分", "first component")))
        axes.set_ylabel(pen(BilingualText("第二主成分", "second component")))
    else:
        axes.set_xlabel(f"{_METHODS[method]} 1")
        axes.set_ylabel(f"{_METHODS[method]} 2")


LAYERS = Spec(
    "language_layers",
    "language",
    ("language_layers.csv",),
    BilingualText("语言向量，按层", "The language vector, by layer"),
    BilingualText(
        "主语最后一个词元处的状态。语言向量：同一批事实的中文均值减英文均值，取单位长度。差向量：一条事实"
        "的中文状态减英文状态，与其余事实的语言向量相比。斜线框是随机交换语言后的区间。竖线是区间。",
        "States at the subject’s last token. The language vector: mean Chinese less mean English "
        "state of the same facts, made unit. Delta: a fact’s Chinese less its English state, "
        "against the vector of all other facts. Hatched boxes: the languages of facts swapped by "
        "chance. Bars are intervals.",
    ),
    by_layer,
    "Figures 5–8",
)
PLANE = Spec(
    "language_points",
    "language",
    ("language_points.csv",),
    BilingualText("MLP 输出在平面上", "MLP outputs in the plane"),
    BilingualText(
        "每条事实两个点：中文（三角）与英文（圆）。PCA 保持距离，t-SNE 与 UMAP 只保持邻近关系。",
        "Two points a fact: Chinese (triangle) and English (circle). PCA keeps distances, t-SNE "
        "and UMAP only who is near whom.",
    ),
    in_the_plane,
    "Figures 5–8",
)
LANGUAGE_FIGURES = (LAYERS, PLANE)
