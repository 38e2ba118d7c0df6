"""Figures of the geometry of edits: from ``geometry.csv``, ``factors.csv``, ``transfer.csv``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import BilingualText
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
from clm_data.eval.figures.style import (
    COLOURS,
    LAYER,
    MARKERS,
    Renderer,
    Spec,
    batch_words,
    boxes,
    grid,
    legend,
    line,
    log_ticks,
    points,
    reference,
    whole_ticks,
)
from clm_data.eval.paper_ranges import reported_range
from clm_data.eval.tables import variant_name

MEASURES = {
    "cosine": BilingualText("余弦", "cosine"),
    "relative_error": BilingualText("相对误差", "relative error"),
    "angle_left_mean": BilingualText("左主角，平均（度）", "left principal angle, mean (degrees)"),
    "angle_left_max": BilingualText(
        "左主角，最大（度）", "left principal angle, largest (degrees)"
    ),
    "angle_right_mean": BilingualText(
        "右主角，平均（度）", "right principal angle, mean (degrees)"
    ),
    "angle_right_max": BilingualText(
        "右主角，最大（度）", "right principal angle, largest (degrees)"
    ),
    "jaccard_rows": BilingualText("杰卡德系数，行神经元", "Jaccard, row neurons"),
    "jaccard_columns": BilingualText("杰卡德系数，列神经元", "Jaccard, column neurons"),
}
NULL = BilingualText("随机：同谱随机矩阵的区间", "null: random matrices of the same spectra")
PAPER = BilingualText("论文中的范围", "range in the paper")
_CONTROLS = {
    "disjoint": (
        BilingualText("对照：同语言、不同事实", "control: one language, other facts"),
        "-",
        2.2,
    ),
    "split": (
        BilingualText("对照：同批两半（偏低）", "control: halves of one batch (too low)"),
        ":",
        1.4,
    ),
}
"""By where a control comes from: its name, stroke and width."""
_INDEPENDENCE = (
    "cosine", "angle_left_mean", "angle_left_max", "angle_right_mean", "jaccard_rows",
    "jaccard_columns",
)  # fmt: skip
_ADDITIVITY = ("cosine", "relative_error", "jaccard_rows", "jaccard_columns")
_BY_BATCH = (
    ("zh-en", "cosine"),
    ("zh-en", "angle_left_mean"),
    ("zh-en", "jaccard_rows"),
    ("sum-mix", "cosine"),
    ("sum-mix", "relative_error"),
    ("sum-mix", "jaccard_rows"),
)
_PARTS = {
    "residuals": BilingualText("残差（写入什么）", "residuals (what is written)"),
    "keys": BilingualText("键（在何处读取）", "keys (where it is read)"),
    "raw-keys": BilingualText("求解前的键", "keys before the solve"),
    "contributions": BilingualText("每条的贡献（两者之积）", "contributions (their product)"),
}
_PAIRINGS = {
    "same-fact": BilingualText("同一事实，中文与英文", "same fact, zh with en"),
    "other-fact": BilingualText("不同事实，中文与英文", "other facts, zh with en"),
    "other-fact-zh": BilingualText("不同事实，中文之间", "other facts, zh with zh"),
    "other-fact-en": BilingualText("不同事实，英文之间", "other facts, en with en"),
}
_FEATURES = {
    "contribution_cosine": BilingualText("贡献的余弦", "cosine of contributions"),
    "residual_cosine": BilingualText("残差的余弦", "cosine of residuals"),
    "key_cosine": BilingualText("键的余弦", "cosine of keys"),
    "size": BilingualText("贡献的大小", "size of the contribution"),
    "overlap_left": BilingualText("落在对方左子空间", "within the other's left subspace"),
    "overlap_right": BilingualText("落在对方右子空间", "within the other's right subspace"),
}


def _comparison(rows: Sequence[Row], wanted: str) -> list[Row]:
    return where(rows, comparison=wanted, batch="all")


def _by_model(tables: Tables, file: str, comparison: str) -> Iterator[tuple[str, list[Row]]]:
    """Rows over all batches of one model, where the comparison is there."""
    for model in unique(tables[file], "model"):
        rows = where(tables[file], model=model, batch="all")
        if where(rows, comparison=comparison):
            yield model, rows


def _panels(
    pen: Renderer,
    model: str,
    rows: Sequence[Row],
    title: BilingualText,
    comparison: str,
    shown: Sequence[str],
) -> Any:
    """Measures of a comparison by layer, a line a batch size, a row of panels a variant."""
    known = [one for one in variants(rows) if _comparison(of_variant(rows, one), comparison)]
    names = [variant_name(one) for one in known]
    figure, panels = grid(pen, f"{pen(title)} · {model}", names, len(shown))
    for axes_row, variant in zip(panels, known, strict=True):
        mine = of_variant(rows, variant)
        for axes, measure in zip(axes_row, shown, strict=True):
            _panel(axes, pen, where(mine, measure=measure), comparison, measure)
    legend(figure, panels)
    return figure


def _panel(axes: Any, pen: Renderer, rows: Sequence[Row], comparison: str, measure: str) -> None:
    stated = reported_range(comparison, measure)
    if stated is not None:
        reference(axes, stated.low, stated.high, pen(PAPER))
    sizes = unique(_comparison(rows, comparison), "batch_size")
    slot = 0.8 / max(len(sizes), 1)
    for style, size in enumerate(sizes):
        mine = where(rows, batch_size=size)
        shift = slot * (style - (len(sizes) - 1) / 2)
        null = points(_comparison(mine, f"null-{comparison}"))
        boxes(axes, null, pen(NULL), shift=shift, width=0.9 * slot)
        if comparison == "zh-en":
            _control(axes, pen, mine, shift, slot)
        series = points(_comparison(mine, comparison))
        line(axes, series, batch_words(pen, size), style, shift=shift)
    axes.set_title(pen(MEASURES[measure]))
    axes.set_xlabel(pen(LAYER))
    whole_ticks(axes, [point.x for point in points(_comparison(rows, comparison))])


def _control(axes: Any, pen: Renderer, rows: Sequence[Row], shift: float, slot: float) -> None:
    """Two sets of facts in one language: two batches, or where there is one, its halves."""
    half = 0.3 * slot
    for kind, (words, stroke, width) in _CONTROLS.items():
        sides = (points(_comparison(rows, f"{kind}-{lang}")) for lang in ("zh", "en"))
        found = [point for side in sides for point in side]
        for point in found:
            axes.plot(
                [point.x + shift - half, point.x + shift + half],
                [point.y] * 2,
                color="black",
                linestyle=stroke,
                linewidth=width,
                label=pen(words),
            )
        if found:
            return


def independence(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Zh against en, by layer."""
    for model, rows in _by_model(tables, "geometry.csv", "zh-en"):
        yield model, _panels(pen, model, rows, INDEPENDENCE.title, "zh-en", _INDEPENDENCE)


def additivity(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Zh + en against mix, by layer."""
    for model, rows in _by_model(tables, "geometry.csv", "sum-mix"):
        yield model, _panels(pen, model, rows, ADDITIVITY.title, "sum-mix", _ADDITIVITY)


def by_batch_size(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Measures by batch size, a line a layer; only where there are several sizes."""
    for model, rows in _by_model(tables, "geometry.csv", "zh-en"):
        known = [
            one
            for one in variants(rows)
            if len(unique(_comparison(of_variant(rows, one), "zh-en"), "batch_size")) > 1
        ]
        if not known:
            continue
        shown = [pair for pair in _BY_BATCH if where(rows, comparison=pair[0])]
        names = [variant_name(one) for one in known]
        figure, panels = grid(pen, f"{pen(BATCHES.title)} · {model}", names, len(shown))
        for axes_row, variant in zip(panels, known, strict=True):
            mine = of_variant(rows, variant)
            for axes, (comparison, measure) in zip(axes_row, shown, strict=True):
                _batch_panel(axes, pen, where(mine, measure=measure), comparison, measure)
        legend(figure, panels)
        yield model, figure


def _batch_panel(
    axes: Any, pen: Renderer, rows: Sequence[Row], comparison: str, measure: str
) -> None:
    stated = reported_range(comparison, measure)
    if stated is not None:
        reference(axes, stated.low, stated.high, pen(PAPER))
    for style, layer in enumerate(unique(rows, "layer")):
        mine = where(_comparison(rows, comparison), layer=layer)
        line(axes, points(mine, x="batch_size"), f"{pen(LAYER)} {layer}", style)
    axes.set_xscale("log")
    log_ticks(axes.xaxis, [float(size) for size in unique(rows, "batch_size")])
    axes.set_xlabel(pen(BilingualText("批大小（条）", "batch size (facts)")))
    what = (
        BilingualText("中文对英文", "zh and en")
        if comparison == "zh-en"
        else BilingualText("和对混合", "sum and mix")
    )
    axes.set_title(f"{pen(what)}\n{pen(MEASURES[measure])}")


def parts(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Residuals and keys, by layer; the largest batch size of each variant."""
    for model in unique(tables["factors.csv"], "model"):
        rows = where(tables["factors.csv"], model=model)
        known = variants(rows)
        shown = [part for part in _PARTS if where(rows, part=part)]
        mine = [largest_batch(of_variant(rows, one)) for one in known]
        names = [
            f"{variant_name(one)}, {batch_words(pen, found[0]['batch_size'])}"
            for one, found in zip(known, mine, strict=True)
        ]
        title = f"{pen(PARTS.title)} · {model}"
        figure, panels = grid(pen, title, names, len(shown) + 1)
        for axes_row, found in zip(panels, mine, strict=True):
            for axes, part in zip(axes_row, shown, strict=False):
                _part_panel(axes, pen, where(found, part=part), pen(_PARTS[part]))
            _whole_panel(axes_row[-1], pen, where(found, pairing="whole"))
        legend(figure, panels)
        yield model, figure


def _part_panel(axes: Any, pen: Renderer, rows: Sequence[Row], title: str) -> None:
    if not rows:
        axes.axis("off")
        return
    for style, (pairing, words) in enumerate(_PAIRINGS.items()):
        line(axes, points(where(rows, pairing=pairing)), pen(words), style)
    axes.axhline(0, color="#8c8c8c", linewidth=0.8)
    axes.set_title(title)
    axes.set_ylabel(pen(BilingualText("平均余弦", "mean cosine")))
    axes.set_xlabel(pen(LAYER))
    whole_ticks(axes, [float(row["layer"]) for row in rows])


def _whole_panel(axes: Any, pen: Renderer, rows: Sequence[Row]) -> None:
    shown = {
        "residuals": BilingualText("只换残差的语言", "only residuals differ"),
        "keys": BilingualText("只换键的语言", "only keys differ"),
        "contributions": BilingualText("两者都换", "both differ"),
    }
    for style, (part, words) in enumerate(shown.items(), 4):
        line(axes, points(where(rows, part=part)), pen(words), style)
    axes.axhline(0, color="#8c8c8c", linewidth=0.8)
    axes.set_title(pen(BilingualText("整个改变", "whole changes")))
    axes.set_ylabel(pen(MEASURES["cosine"]))
    axes.set_xlabel(pen(LAYER))
    whole_ticks(axes, [float(row["layer"]) for row in rows])


def transfer(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Transferred against other facts: AUC by feature, a mark a layer."""
    for model in unique(tables["transfer.csv"], "model"):
        rows = [row for row in where(tables["transfer.csv"], model=model) if row["p_holm"]]
        known = [
            (variant, criterion)
            for variant in variants(rows)
            for criterion in unique(of_variant(rows, variant), "criterion")
        ]
        if not known:
            continue
        mine = [
            largest_batch(where(of_variant(rows, variant), criterion=criterion))
            for variant, criterion in known
        ]
        names = [
            f"{variant_name(variant)}, {batch_words(pen, found[0]['batch_size'])}, "
            f"{pen(_CRITERIA[criterion])}"
            for (variant, criterion), found in zip(known, mine, strict=True)
        ]
        title = f"{pen(TRANSFER.title)} · {model}"
        figure, panels = grid(pen, title, names, 2, height=2.7, width=4.6)
        for axes_row, found in zip(panels, mine, strict=True):
            for axes, lang in zip(axes_row, ("zh", "en"), strict=True):
                _transfer_panel(axes, pen, where(found, language=lang), lang)
        legend(figure, panels)
        yield model, figure


_CRITERIA = {
    "exact": BilingualText("判据：新答案逐词元居首", "taken over: every new token first"),
    "prefers": BilingualText("判据：更倾向新答案", "taken over: new answer likelier"),
}


def _transfer_panel(axes: Any, pen: Renderer, rows: Sequence[Row], lang: str) -> None:
    where_to = pen(BilingualText("编辑", "edited in")) + " " + pen.language(lang)
    if not rows:
        axes.axis("off")
        axes.set_title(f"{where_to}\n{pen(_NONE)}")
        return
    features = [name for name in _FEATURES if where(rows, measure=name)]
    layers = unique(rows, "layer")
    for style, layer in enumerate(layers):
        for row in where(rows, layer=layer):
            place = features.index(row["measure"]) + 0.14 * (style - (len(layers) - 1) / 2)
            p = float_or_none(row["p_holm"])
            colour = COLOURS[style % len(COLOURS)]
            axes.plot(
                [float(row["auc"])],
                [place],
                marker=MARKERS[style % len(MARKERS)],
                color=colour,
                markerfacecolor=colour if p is not None and p < 0.05 else "white",
                linestyle="none",
                label=f"{pen(LAYER)} {layer}",
            )
    axes.axvline(0.5, color="#5a5a5a", linewidth=1, linestyle="--")
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(features)), [pen(_FEATURES[name]) for name in features])
    axes.set_ylim(len(features) - 0.5, -0.5)
    axes.set_xlabel("AUC")
    counts = f"{rows[0]['transferred']} : {rows[0]['stayed']}"
    axes.set_title(
        f"{where_to}\n{pen(BilingualText('迁移 : 未迁移 = ', 'transferred : stayed = '))}{counts}"
    )


_NONE = BilingualText("两组不足三条事实", "fewer than three facts in a group")

INDEPENDENCE = Spec(
    "geometry_independence",
    "geometry",
    ("geometry.csv",),
    BilingualText("中文编辑与英文编辑是否无关", "Are edits in Chinese and in English unrelated?"),
    BilingualText(
        "同一批事实的中文与英文权重改变之间的余弦、主角与变化最大神经元的重合，按层。斜线框是同谱随机"
        "矩阵给出的区间；黑色短横是同一语言中两组不同事实的值，点线是同一批的两半（余弦"
        "偏低）；黄色是论文所述的范围。竖线是区间。",
        "Cosine, principal angles and overlap of the neurons that change most, between the weight "
        "changes of the same facts edited in Chinese and in English, by layer. Hatched boxes: what "
        "random matrices of the same spectra give; black dashes: two sets of facts in one "
        "language, dotted where they are halves of one batch, whose cosines come out too low; "
        "yellow: what the paper states. Bars are intervals.",
    ),
    independence,
    "Figure 1",
)
ADDITIVITY = Spec(
    "geometry_additivity",
    "geometry",
    ("geometry.csv",),
    BilingualText("中英两种编辑之和是否等于混合编辑", "Do both edits add up to the mixed one?"),
    BilingualText(
        "中文与英文权重改变之和，对同一批事实混合编辑的改变，按层。斜线框与黄线同上图。",
        "The sum of the Chinese and the English weight change against the change of mixed edits of "
        "the same facts, by layer. Boxes and yellow lines as above.",
    ),
    additivity,
    "Figure 1",
)
BATCHES = Spec(
    "geometry_batch_size",
    "geometry",
    ("geometry.csv",),
    BilingualText("批大小的影响", "What the batch size does"),
    BilingualText(
        "上两图的主要指标随一次编辑的条数变化，每条线一层。黄色是论文所述的范围。",
        "The main measures of the two figures above by the number of facts edited at once, a line "
        "a layer. Yellow: what the paper states.",
    ),
    by_batch_size,
    "Figure 1",
)
PARTS = Spec(
    "geometry_parts",
    "geometry",
    ("factors.csv",),
    BilingualText("不同的是键还是残差", "Is it keys or residuals that differ?"),
    BilingualText(
        "一个改变是各事实的残差与键之积的和。各部分在两种语言之间的平均余弦，与不同事实之间的余弦相比；"
        "最后一列是只换其中一部分的语言时整个改变的余弦。取最大的批。",
        "A change is the sum over facts of residual times key. Mean cosine of either part between "
        "the languages, beside that between different facts; the last column is the cosine of "
        "whole changes of which one part alone differs in language. The largest batch size.",
    ),
    parts,
)
TRANSFER = Spec(
    "geometry_transfer",
    "geometry",
    ("transfer.csv",),
    BilingualText("迁移的事实有何不同", "What is different about facts that transfer?"),
    BilingualText(
        "AUC：随机取一条迁移的与一条未迁移的事实，前者该特征更大的概率；虚线处两组无别。实心：置换检验"
        "经 Holm 校正后显著。两组各须至少三条事实。",
        "AUC: how often a transferred fact has the larger value of the feature than one that "
        "stayed; at the dashed line the groups do not differ. Filled: significant in a permutation "
        "test after Holm’s correction. Groups of fewer than three facts are not compared.",
    ),
    transfer,
)
GEOMETRY_FIGURES = (INDEPENDENCE, ADDITIVITY, BATCHES, PARTS, TRANSFER)
