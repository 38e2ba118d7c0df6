"""Figures of keys and residuals and of transfer: ``factors.csv`` and ``transfer.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import (
    FACTOR_PAIRINGS,
    FACTOR_PARTS,
    GEOMETRY_MEASURES,
    TRANSFER_CRITERIA,
    TRANSFER_FEATURES,
    BilingualText,
    batch_of,
    edited_in,
)
from clm_data.eval.csv_tables import (
    Row,
    Tables,
    float_or_none,
    largest_batch,
    of_variant,
    unique,
    variants,
    where,
)
from clm_data.eval.figures.layout import add_legend, integer_ticks, panel_grid
from clm_data.eval.figures.marks import data_points, draw_line
from clm_data.eval.figures.style import COLORS, GRAY, LAYER, MARKERS, FigureSpec, joined, layer_name
from clm_data.eval.tables import variant_name
from clm_data.records import LANGUAGES, Language

_EXCHANGED = {
    "residuals": BilingualText("仅残差的语言不同", "only residuals differ in language"),
    "keys": BilingualText("仅键的语言不同", "only keys differ in language"),
    "contributions": BilingualText("两者的语言都不同", "both differ in language"),
}
_CRITERION = BilingualText("判据：", "criterion: ")
_MEAN_COSINE = BilingualText("平均余弦", "mean cosine")
_TOO_FEW = BilingualText("有一组不足三条事实", "fewer than three facts in a group")
_SIGNIFICANT = 0.05
_ZERO_LINE = {"color": "#8c8c8c", "linewidth": 0.8}


def _draw_parts(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Cosines of residuals and keys by layer, for the largest batch size of each variant."""
    for model in unique(tables["factors.csv"], "model"):
        rows = where(tables["factors.csv"], model=model)
        shown = [part for part in FACTOR_PARTS if where(rows, part=part)]
        known = variants(rows)
        largest = [largest_batch(of_variant(rows, one)) for one in known]
        headings = [
            joined(lang, variant_name(one), batch_of(found[0]["batch_size"]).text(lang))
            for one, found in zip(known, largest, strict=True)
        ]
        title = PARTS.heading(lang, model)
        figure, groups = panel_grid(title, headings, len(shown) + 1)
        for group, found in zip(groups, largest, strict=True):
            for axes, part in zip(group, shown, strict=False):
                _draw_part(axes, lang, where(found, part=part), part)
            _draw_exchanged(group[-1], lang, where(found, pairing="whole"))
        add_legend(figure, groups)
        yield model, figure


def _draw_part(axes: Any, lang: Language, rows: Sequence[Row], part: str) -> None:
    if not rows:
        axes.axis("off")
        return
    pairings = [name for name in FACTOR_PAIRINGS if name != "whole"]
    for style, pairing in enumerate(pairings):
        points = data_points(where(rows, pairing=pairing))
        draw_line(axes, points, FACTOR_PAIRINGS[pairing].text(lang), style)
    axes.axhline(0, **_ZERO_LINE)
    axes.set_title(FACTOR_PARTS[part].text(lang))
    axes.set_ylabel(_MEAN_COSINE.text(lang))
    axes.set_xlabel(LAYER.text(lang))
    integer_ticks(axes, [float(row["layer"]) for row in rows])


def _draw_exchanged(axes: Any, lang: Language, rows: Sequence[Row]) -> None:
    """Draw the cosine of whole weight changes in which only one part differs in language."""
    for style, (part, name) in enumerate(_EXCHANGED.items(), 4):
        draw_line(axes, data_points(where(rows, part=part)), name.text(lang), style)
    axes.axhline(0, **_ZERO_LINE)
    axes.set_title(FACTOR_PAIRINGS["whole"].text(lang))
    axes.set_ylabel(GEOMETRY_MEASURES["cosine"].text(lang))
    axes.set_xlabel(LAYER.text(lang))
    integer_ticks(axes, [float(row["layer"]) for row in rows])


def _draw_transfer(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """AUC of each feature between facts that transferred and those that did not."""
    for model in unique(tables["transfer.csv"], "model"):
        rows = [row for row in where(tables["transfer.csv"], model=model) if row["p_holm"]]
        known = [
            (variant, criterion)
            for variant in variants(rows)
            for criterion in unique(of_variant(rows, variant), "criterion")
        ]
        if not known:
            continue
        largest = [
            largest_batch(where(of_variant(rows, variant), criterion=criterion))
            for variant, criterion in known
        ]
        headings = [
            joined(
                lang,
                variant_name(variant),
                batch_of(found[0]["batch_size"]).text(lang),
                f"{_CRITERION.text(lang)}{TRANSFER_CRITERIA[criterion].text(lang)}",
            )
            for (variant, criterion), found in zip(known, largest, strict=True)
        ]
        title = TRANSFER.heading(lang, model)
        figure, groups = panel_grid(title, headings, 2, height=2.7, width=4.6)
        for group, found in zip(groups, largest, strict=True):
            for axes, edited in zip(group, LANGUAGES, strict=True):
                _draw_transfer_panel(axes, lang, where(found, language=edited), edited)
        add_legend(figure, groups)
        yield model, figure


def _draw_transfer_panel(axes: Any, lang: Language, rows: Sequence[Row], edited: str) -> None:
    heading = edited_in(edited).text(lang)
    if not rows:
        axes.axis("off")
        axes.set_title(f"{heading}\n{_TOO_FEW.text(lang)}")
        return
    features = [name for name in TRANSFER_FEATURES if where(rows, measure=name)]
    layers = unique(rows, "layer")
    for style, layer in enumerate(layers):
        for row in where(rows, layer=layer):
            p = float_or_none(row["p_holm"])
            color = COLORS[style % len(COLORS)]
            axes.plot(
                [float(row["auc"])],
                [features.index(row["measure"]) + 0.14 * (style - (len(layers) - 1) / 2)],
                marker=MARKERS[style % len(MARKERS)],
                color=color,
                markerfacecolor=color if p is not None and p < _SIGNIFICANT else "white",
                linestyle="none",
                label=layer_name(layer).text(lang),
            )
    axes.axvline(0.5, color=GRAY, linewidth=1, linestyle="--")
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(features)), [TRANSFER_FEATURES[name].text(lang) for name in features])
    axes.set_ylim(len(features) - 0.5, -0.5)
    axes.set_xlabel("AUC")
    counts = BilingualText(
        f"迁移 {rows[0]['transferred']} 条，未迁移 {rows[0]['stayed']} 条",
        f"{rows[0]['transferred']} facts transferred, {rows[0]['stayed']} did not",
    )
    axes.set_title(f"{heading}\n{counts.text(lang)}")


PARTS = FigureSpec(
    "geometry_parts",
    "geometry",
    ("factors.csv",),
    BilingualText("语言间的差异来自键还是残差", "Keys and residuals across languages"),
    BilingualText(
        "权重改变是各条事实的残差与键之积的总和。图中为两种语言的残差、键及其乘积之间的平均余弦，"
        "并与不同事实之间的余弦对照；最后一列为仅有一部分的语言不同时，整个权重改变之间的余弦。图"
        "中为最大的批大小。",
        "A weight change is the sum over facts of residual times key. Shown are the mean cosines "
        "between the languages of residuals, of keys and of their products, with those between "
        "different facts for comparison. The last column is the cosine of whole weight changes of "
        "which only one part differs in language. Largest batch size.",
    ),
    _draw_parts,
)
TRANSFER = FigureSpec(
    "geometry_transfer",
    "geometry",
    ("transfer.csv",),
    BilingualText("发生迁移的事实有何不同", "Features of facts that transfer"),
    BilingualText(
        "AUC 为随机抽取的一条迁移事实的特征值大于一条未迁移事实的概率；虚线处两组没有差异。实心标"
        "记：经 Holm 校正的置换检验 p < 0.05。任一组不足三条事实时不作比较。",
        "AUC is the probability that a fact that transferred has a larger value of the feature "
        "than one that did not; at the dashed line the groups do not differ. Filled markers: p < "
        "0.05 in a permutation test with Holm correction. Groups with fewer than three facts are "
        "not compared.",
    ),
    _draw_transfer,
)
FACTOR_FIGURES = (PARTS, TRANSFER)
