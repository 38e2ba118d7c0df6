"""Figures of how edits change neurons: ``neurons.csv``, ``activation_cdf.csv`` and others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from clm_data.eval.bilingual import (
    LANGUAGE_NAMES,
    NEURON_SETS,
    BilingualText,
    batch_of,
    edited_in,
)
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
from clm_data.eval.figures.layout import add_legend, few_ticks, log_ticks, panel_grid
from clm_data.eval.figures.marks import draw_scatter
from clm_data.eval.figures.style import (
    COLORS,
    EDITING_LANGUAGES,
    GRAY,
    LANGUAGE_STYLE,
    LINE_STYLES,
    FigureSpec,
    joined,
    layer_name,
)
from clm_data.eval.tables import variant_name
from clm_data.records import Language

_EDITED_AND_PROMPTED = (("zh", "zh"), ("zh", "en"), ("en", "en"), ("en", "zh"))
_DISTRIBUTIONS = {
    ("actual", "zh"): BilingualText("MLP 输出的变化，中文题干", "MLP outputs, Chinese prompts"),
    ("actual", "en"): BilingualText("MLP 输出的变化，英文题干", "MLP outputs, English prompts"),
    ("weight_rows", ""): BilingualText("权重的最大变化，输出维度", "weights, output dimensions"),
    ("weight_columns", ""): BilingualText("权重的最大变化，MLP 神经元", "weights, MLP neurons"),
}
"""Panels by the columns ``kind`` and ``lang``."""
_FEW_NEURONS = 1000
"""With fewer neurons, histograms have bins three times as wide."""


def last_edited_layers(
    lang: Language, tables: Tables, file: str
) -> Iterator[tuple[str, list[str], list[list[Row]]]]:
    """Each model with headings and rows of its variants, at the last edited layer.

    The rows of a variant are those of its largest batch size.
    """
    for model in unique(tables[file], "model"):
        rows = where(tables[file], model=model)
        known = variants(rows)
        found = [_last_layer(largest_batch(of_variant(rows, one))) for one in known]
        headings = [
            joined(
                lang,
                variant_name(one),
                batch_of(of_one[0]["batch_size"]).text(lang),
                layer_name(of_one[0]["layer"]).text(lang),
            )
            for one, of_one in zip(known, found, strict=True)
        ]
        yield model, headings, found


def _last_layer(rows: Sequence[Row]) -> list[Row]:
    return where(rows, layer=unique(rows, "layer")[-1])


def _distribution_panels(
    tables: Tables, lang: Language, spec: FigureSpec
) -> Iterator[tuple[str, Any, list[tuple[Any, list[Row]]]]]:
    """Each model with an empty figure, and its panels with the rows to draw in them."""
    for model, headings, groups in last_edited_layers(lang, tables, spec.sources[0]):
        title = spec.heading(lang, model)
        figure, panels = panel_grid(title, headings, len(_DISTRIBUTIONS), width=4.4, columns=2)
        filled = []
        for axes_of_group, rows in zip(panels, groups, strict=True):
            series = zip(axes_of_group, _DISTRIBUTIONS.items(), strict=True)
            for axes, ((kind, prompts), name) in series:
                axes.set_title(name.text(lang), fontsize=9)
                filled.append((axes, where(rows, kind=kind, lang=prompts)))
        yield model, figure, filled


def _draw_histograms(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Histograms of the mean change of each neuron."""
    for model, figure, panels in _distribution_panels(tables, lang, CHANGES):
        for axes, rows in panels:
            for edit in EDITING_LANGUAGES:
                _draw_histogram(axes, lang, where(rows, edit=edit), edit)
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylim(bottom=0)
            log_ticks(axes.yaxis, _powers_of_ten(axes.get_ylim()[1]))
            axes.set_xlabel(BilingualText("变化", "change").text(lang))
            axes.set_ylabel(BilingualText("神经元数", "neurons").text(lang))
        add_legend(figure, [[axes for axes, _ in panels]])
        yield model, figure


def _powers_of_ten(top: float) -> list[float]:
    return [0.0, *(10.0**power for power in range(8) if 10.0**power <= top)]


def _draw_histogram(axes: Any, lang: Language, rows: Sequence[Row], edit: str) -> None:
    if not rows:
        return
    bins = sorted((float(row["low"]), float(row["high"]), int(row["count"])) for row in rows)
    if sum(count for _, _, count in bins) < _FEW_NEURONS:
        bins = _merge_bins(bins)
    style = LANGUAGE_STYLE[edit]
    axes.stairs(
        [count for _, _, count in bins],
        [*(low for low, _, _ in bins), bins[-1][1]],
        color=COLORS[style],
        linestyle=LINE_STYLES[style],
        linewidth=1.5,
        label=edited_in(edit).text(lang),
    )


def _merge_bins(bins: Sequence[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Merge each three neighboring bins into one."""
    groups = [bins[i : i + 3] for i in range(0, len(bins), 3)]
    return [(group[0][0], group[-1][1], sum(count for _, _, count in group)) for group in groups]


def _draw_cumulative(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Cumulative distributions of the absolute change of each neuron."""
    for model, figure, panels in _distribution_panels(tables, lang, CUMULATIVE):
        for axes, rows in panels:
            for edit in EDITING_LANGUAGES:
                _draw_cdf(axes, lang, where(rows, edit=edit), edit)
            axes.set_xlabel(BilingualText("变化的绝对值", "absolute change").text(lang))
            axes.set_ylabel(BilingualText("累积比例", "share of neurons").text(lang))
            axes.set_ylim(-0.02, 1.02)
        add_legend(figure, [[axes for axes, _ in panels]])
        yield model, figure


def _draw_cdf(axes: Any, lang: Language, rows: Sequence[Row], edit: str) -> None:
    steps = sorted((float(row["share"]), float(row["value"])) for row in rows)
    if steps:
        style = LANGUAGE_STYLE[edit]
        axes.plot(
            [value for _, value in steps],
            [share for share, _ in steps],
            color=COLORS[style],
            linestyle=LINE_STYLES[style],
            label=edited_in(edit).text(lang),
        )


def _draw_actual_expected(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """The mean measured change of each neuron against the one expected from the weight change."""
    for model, headings, groups in last_edited_layers(lang, tables, "neuron_points.csv"):
        title = ACTUAL_EXPECTED.heading(lang, model)
        count = len(_EDITED_AND_PROMPTED)
        figure, panels = panel_grid(title, headings, count, height=3.4, width=4.2, columns=2)
        correlations = where(tables["activation.csv"], model=model, measure="neuron_correlation")
        for axes_of_group, rows in zip(panels, groups, strict=True):
            pairs = zip(axes_of_group, _EDITED_AND_PROMPTED, strict=True)
            for axes, (edit, prompted) in pairs:
                here = where(rows, edit=edit, lang=prompted)
                _draw_against(axes, lang, here, edit)
                name = LANGUAGE_NAMES[prompted]
                prompts = BilingualText(f"{name.zh}题干", f"{name.en} prompts")
                heading = joined(lang, edited_in(edit).text(lang), prompts.text(lang))
                axes.set_title(heading, fontsize=9)
                correlation = _value_at(correlations, here)
                if correlation:
                    place = {"transform": axes.transAxes, "va": "top", "fontsize": 9}
                    axes.text(0.03, 0.97, f"r = {float(correlation):.2f}", **place)
        add_legend(figure, panels)
        yield model, figure


def _value_at(rows: Sequence[Row], of: Sequence[Row]) -> str:
    """The value in ``rows`` of the cell, layer and languages that the rows ``of`` have."""
    columns = ("method", "protocol", "mode", "layers", "batch_size", "layer", "edit", "lang")
    if not of:
        return ""
    found = where(rows, **{name: of[0][name] for name in columns if name in of[0]})
    return found[0]["value"] if found else ""


def _draw_against(axes: Any, lang: Language, rows: Sequence[Row], edit: str) -> None:
    xs = [float(row["expected"]) for row in rows]
    ys = [float(row["actual"]) for row in rows]
    draw_scatter(axes, xs, ys, edited_in(edit).text(lang), LANGUAGE_STYLE[edit])
    if xs:
        reach = max(map(abs, (*xs, *ys))) * 1.05 or 1
        ends = [-reach, reach]
        label = BilingualText("实际 = 预期", "actual = expected").text(lang)
        axes.plot(ends, ends, color=GRAY, linestyle="--", linewidth=1, label=label)
    few_ticks(axes)
    axes.set_xlabel(BilingualText("预期变化", "expected change").text(lang))
    axes.set_ylabel(BilingualText("实际变化", "actual change").text(lang))


def _draw_overlap(tables: Tables, lang: Language) -> Iterator[tuple[str, Any]]:
    """Overlap of the neurons that edits in each language change most."""
    for model, headings, groups in last_edited_layers(lang, tables, "venn.csv"):
        title = OVERLAP.heading(lang, model)
        count = len(NEURON_SETS)
        figure, panels = panel_grid(title, headings, count, height=2.9, width=2.4, columns=4)
        for axes_of_group, rows in zip(panels, groups, strict=True):
            for axes, (kind, name) in zip(axes_of_group, NEURON_SETS.items(), strict=True):
                _draw_circles(axes, lang, where(rows, kind=kind), name.text(lang))
        add_legend(figure, panels)
        yield model, figure


_CENTERS = {"zh": (-0.5, 0.35), "en": (0.5, 0.35), "mix": (0.0, -0.5)}
_REGIONS = {
    "zh": (-0.95, 0.55),
    "en": (0.95, 0.55),
    "mix": (0.0, -1.05),
    "zh+en": (0.0, 0.72),
    "zh+mix": (-0.58, -0.32),
    "en+mix": (0.58, -0.32),
    "zh+en+mix": (0.0, 0.1),
}
"""Where the count of each region of the diagram is written."""


def _draw_circles(axes: Any, lang: Language, rows: Sequence[Row], title: str) -> None:
    from matplotlib.patches import Circle

    for edit, center in _CENTERS.items():
        style = LANGUAGE_STYLE[edit]
        circle = Circle(
            center,
            0.9,
            fill=False,
            edgecolor=COLORS[style],
            linestyle=LINE_STYLES[style],
            linewidth=2,
            label=edited_in(edit).text(lang),
        )
        axes.add_patch(circle)
    for row in rows:
        x, y = _REGIONS[row["region"]]
        axes.text(x, y, row["count"], ha="center", va="bottom", fontsize=10)
        chance = f"({float(row['by_chance']):.1f})"
        axes.text(x, y, chance, ha="center", va="top", fontsize=7, color="#444444")
    total = f"{rows[0]['set_size']} / {rows[0]['neurons']}" if rows else ""
    axes.set_title(title, fontsize=9)
    axes.text(0, -1.55, total, ha="center", va="top", fontsize=9)
    axes.set_xlim(-1.5, 1.5)
    axes.set_ylim(-1.85, 1.35)
    axes.set_aspect("equal")
    axes.axis("off")


CHANGES = FigureSpec(
    "neuron_changes",
    "language",
    ("neurons.csv",),
    BilingualText("神经元变化的分布", "Distribution of neuron changes"),
    BilingualText(
        "每个神经元平均变化的直方图，纵轴为对数刻度。图中为最大的批大小和最后一个被编辑的层。",
        "Histograms of the mean change of each neuron, counts on a logarithmic scale. Largest "
        "batch size and last edited layer.",
    ),
    _draw_histograms,
    PAPER_FIGURES,
)
CUMULATIVE = FigureSpec(
    "neuron_cdf",
    "language",
    ("activation_cdf.csv",),
    BilingualText("神经元变化的累积分布", "Cumulative distribution of neuron changes"),
    BilingualText(
        "变化的绝对值不超过横轴取值的神经元所占的比例。曲线越靠左，变化越小。",
        "Share of neurons whose absolute change is at most the value on the x axis. Curves further "
        "to the left mean smaller changes.",
    ),
    _draw_cumulative,
    PAPER_FIGURES,
)
ACTUAL_EXPECTED = FigureSpec(
    "actual_expected",
    "language",
    ("neuron_points.csv", "activation.csv"),
    BilingualText("激活的实际变化与预期变化", "Actual and expected changes of activation"),
    BilingualText(
        "每个点为 MLP 输出的一个维度。横轴为预期变化，即权重改变与编辑前的键之积；纵轴为编辑后实测"
        "的变化。偏离虚线，说明下层的编辑也改变了键。r 为所有维度上的相关系数。",
        "Each point is a dimension of the MLP output. Expected: the weight change times the key "
        "of the unedited model. Actual: the change measured after the edit. Points off the dashed "
        "line indicate that edits of lower layers also changed the key. r is the correlation over "
        "all dimensions.",
    ),
    _draw_actual_expected,
    PAPER_FIGURES,
)
OVERLAP = FigureSpec(
    "neuron_venn",
    "language",
    ("venn.csv",),
    BilingualText("变化最大的神经元的重合", "Overlap of the neurons that change most"),
    BilingualText(
        "三种语言设置的编辑各取变化最大的 5% 神经元，图中为其重合数；括号内为随机选取时的期望。每"
        "图下方为集合大小与神经元总数。圆的面积不表示数量。",
        "Overlap of the 5% of neurons that edits in Chinese, in English and in both languages "
        "change most, with the number expected by chance in parentheses. Below each diagram: size "
        "of a set and number of neurons. Areas are not to scale.",
    ),
    _draw_overlap,
    PAPER_FIGURES,
)
NEURON_FIGURES = (CHANGES, CUMULATIVE, ACTUAL_EXPECTED, OVERLAP)
