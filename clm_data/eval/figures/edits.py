"""Figures of what edits do to states, neuron by neuron; from the tables of ``analyse_edits``."""

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
from clm_data.eval.figures.style import (
    COLOURS,
    LANGUAGE_STYLE,
    LAYER,
    STROKES,
    Renderer,
    Spec,
    batch_words,
    few_ticks,
    grid,
    legend,
    log_ticks,
    scatter,
)
from clm_data.eval.tables import variant_name

_EDITS = ("zh", "en", "mix")
_PAIRS = (("zh", "zh"), ("zh", "en"), ("en", "en"), ("en", "zh"))
"""(edited in, seen from)."""
_SERIES = {
    ("actual", "zh"): BilingualText(
        "MLP 输出的变化，中文提示", "change of MLP outputs, zh prompts"
    ),
    ("actual", "en"): BilingualText(
        "MLP 输出的变化，英文提示", "change of MLP outputs, en prompts"
    ),
    ("weight_rows", ""): BilingualText(
        "权重最大变化，行神经元", "largest weight change, row neurons"
    ),
    ("weight_columns", ""): BilingualText(
        "权重最大变化，列神经元", "largest weight change, column neurons"
    ),
}
_VENN = {
    "weight_rows": BilingualText("权重，行神经元", "weights, row neurons"),
    "weight_columns": BilingualText("权重，列神经元", "weights, column neurons"),
    "actual": BilingualText("MLP 输出，实际", "MLP outputs, actual"),
    "expected": BilingualText("MLP 输出，预期", "MLP outputs, expected"),
}

_FEW = 1000
"""Neurons; of fewer, histograms have wider bins."""


def largest_places(
    pen: Renderer, tables: Tables, file: str
) -> Iterator[tuple[str, list[str], list[list[Row]]]]:
    """(model, names of variants, their rows: largest batch size, last edited layer)."""
    for model in unique(tables[file], "model"):
        rows = where(tables[file], model=model)
        known = variants(rows)
        found = [_last(largest_batch(of_variant(rows, one))) for one in known]
        names = [
            f"{variant_name(one)}, {batch_words(pen, mine[0]['batch_size'])}, "
            f"{pen(LAYER)} {mine[0]['layer']}"
            for one, mine in zip(known, found, strict=True)
        ]
        yield model, names, found


def _last(rows: Sequence[Row]) -> list[Row]:
    return where(rows, layer=unique(rows, "layer")[-1])


def _by_series(
    tables: Tables, pen: Renderer, file: str, title: BilingualText
) -> Iterator[tuple[str, Any, list[tuple[Any, list[Row]]]]]:
    """(model, figure, panels with their rows): a panel a series of a table, to be filled."""
    for model, names, groups in largest_places(pen, tables, file):
        figure, panels = grid(
            pen, f"{pen(title)} · {model}", names, len(_SERIES), width=4.4, most=2
        )
        filled = []
        for axes_row, rows in zip(panels, groups, strict=True):
            for axes, ((kind, lang), words) in zip(axes_row, _SERIES.items(), strict=True):
                axes.set_title(pen(words), fontsize=9)
                filled.append((axes, where(rows, kind=kind, lang=lang)))
        yield model, figure, filled


def distributions(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Histograms of the change by neuron."""
    for model, figure, panels in _by_series(tables, pen, "neurons.csv", NEURONS.title):
        for axes, rows in panels:
            for edit in _EDITS:
                _histogram(axes, pen, where(rows, edit=edit), edit)
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylim(bottom=0)
            log_ticks(axes.yaxis, _powers(axes.get_ylim()[1]))
            axes.set_xlabel(pen(BilingualText("变化", "change")))
            axes.set_ylabel(pen(BilingualText("神经元数", "neurons")))
        legend(figure, [[axes for axes, _ in panels]])
        yield model, figure


def _powers(top: float) -> list[float]:
    return [0.0, *(10.0**power for power in range(8) if 10.0**power <= top)]


def _histogram(axes: Any, pen: Renderer, rows: Sequence[Row], edit: str) -> None:
    if not rows:
        return
    found = sorted((float(row["low"]), float(row["high"]), int(row["count"])) for row in rows)
    if sum(count for _, _, count in found) < _FEW:
        found = _wider(found)
    style = LANGUAGE_STYLE[edit]
    axes.stairs(
        [count for _, _, count in found],
        [*(low for low, _, _ in found), found[-1][1]],
        color=COLOURS[style],
        linestyle=STROKES[style],
        linewidth=1.5,
        label=edited_in(pen, edit),
    )


def _wider(bins: Sequence[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Three bins as one: few neurons in narrow bins are noise."""
    three = [bins[i : i + 3] for i in range(0, len(bins), 3)]
    return [(one[0][0], one[-1][1], sum(count for _, _, count in one)) for one in three]


def edited_in(pen: Renderer, edit: str) -> str:
    """The language of the edits, as in legends."""
    return pen(BilingualText("编辑语言：", "edited in ")) + pen.language(edit)


def cumulative(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Cumulative distributions of the absolute change by neuron."""
    for model, figure, panels in _by_series(tables, pen, "activation_cdf.csv", CDF.title):
        for axes, rows in panels:
            for edit in _EDITS:
                _cdf(axes, pen, where(rows, edit=edit), edit)
            axes.set_xlabel(pen(BilingualText("变化的绝对值", "absolute change")))
            axes.set_ylabel(pen(BilingualText("累积比例", "share of neurons")))
            axes.set_ylim(-0.02, 1.02)
        legend(figure, [[axes for axes, _ in panels]])
        yield model, figure


def _cdf(axes: Any, pen: Renderer, rows: Sequence[Row], edit: str) -> None:
    found = sorted((float(row["share"]), float(row["value"])) for row in rows)
    if found:
        line_style = LANGUAGE_STYLE[edit]
        axes.plot(
            [value for _, value in found],
            [share for share, _ in found],
            color=COLOURS[line_style],
            linestyle=STROKES[line_style],
            label=edited_in(pen, edit),
        )


def actual_expected(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Each neuron's mean change as measured against what the weight change alone makes."""
    for model, names, groups in largest_places(pen, tables, "neuron_points.csv"):
        title = f"{pen(ACTUAL.title)} · {model}"
        figure, panels = grid(pen, title, names, len(_PAIRS), height=3.4, width=4.2, most=2)
        correlations = where(tables["activation.csv"], model=model, measure="neuron_correlation")
        for axes_row, rows in zip(panels, groups, strict=True):
            for axes, (edit, lang) in zip(axes_row, _PAIRS, strict=True):
                mine = where(rows, edit=edit, lang=lang)
                _against(axes, pen, mine, edit)
                seen = pen(BilingualText("提示：", "prompts in ")) + pen.language(lang)
                axes.set_title(f"{edited_in(pen, edit)} · {seen}", fontsize=9)
                found = _same_place(correlations, mine)
                if found:
                    place = {"transform": axes.transAxes, "va": "top", "fontsize": 9}
                    axes.text(0.03, 0.97, f"r = {float(found):.2f}", **place)
        legend(figure, panels)
        yield model, figure


def _same_place(rows: Sequence[Row], mine: Sequence[Row]) -> str:
    """The value in ``rows`` of the same cell, layer and language."""
    keys = ("method", "protocol", "mode", "layers", "batch_size", "layer", "edit", "lang")
    if not mine:
        return ""
    found = where(rows, **{key: mine[0][key] for key in keys if key in mine[0]})
    return found[0]["value"] if found else ""


def _against(axes: Any, pen: Renderer, rows: Sequence[Row], edit: str) -> None:
    xs = [float(row["expected"]) for row in rows]
    ys = [float(row["actual"]) for row in rows]
    scatter(axes, xs, ys, edited_in(pen, edit), LANGUAGE_STYLE[edit])
    if xs:
        reach = max(map(abs, (*xs, *ys))) * 1.05 or 1
        axes.plot([-reach, reach], [-reach, reach], color="#5a5a5a", linestyle="--", linewidth=1,
                  label=pen(BilingualText("实际 = 预期", "actual = expected")))  # fmt: skip
    few_ticks(axes)
    axes.set_xlabel(pen(BilingualText("预期变化", "expected change")))
    axes.set_ylabel(pen(BilingualText("实际变化", "actual change")))


def venn(tables: Tables, pen: Renderer) -> Iterator[tuple[str, Any]]:
    """Overlap of the neurons that each language's edits change most."""
    for model, names, groups in largest_places(pen, tables, "venn.csv"):
        title = f"{pen(VENN.title)} · {model}"
        figure, panels = grid(pen, title, names, len(_VENN), height=2.9, width=2.4, most=4)
        for axes_row, rows in zip(panels, groups, strict=True):
            for axes, (kind, words) in zip(axes_row, _VENN.items(), strict=True):
                _circles(axes, pen, where(rows, kind=kind), pen(words))
        legend(figure, panels)
        yield model, figure


_CENTRES = {"zh": (-0.5, 0.35), "en": (0.5, 0.35), "mix": (0.0, -0.5)}
_REGIONS = {
    "zh": (-0.95, 0.55),
    "en": (0.95, 0.55),
    "mix": (0.0, -1.05),
    "zh+en": (0.0, 0.72),
    "zh+mix": (-0.58, -0.32),
    "en+mix": (0.58, -0.32),
    "zh+en+mix": (0.0, 0.1),
}


def _circles(axes: Any, pen: Renderer, rows: Sequence[Row], title: str) -> None:
    from matplotlib.patches import Circle

    for edit, centre in _CENTRES.items():
        style = LANGUAGE_STYLE[edit]
        axes.add_patch(
            Circle(
                centre,
                0.9,
                fill=False,
                edgecolor=COLOURS[style],
                linestyle=STROKES[style],
                linewidth=2,
                label=edited_in(pen, edit),
            )
        )
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


PAPER_FIGURES = "Figures 5–8"
"""Of the appendix on language vectors."""
NEURONS = Spec(
    "neuron_changes",
    "language",
    ("neurons.csv",),
    BilingualText("编辑改变了哪些神经元", "How edits change the neurons"),
    BilingualText(
        "每个神经元平均变化的直方图（纵轴为对数），取最大的批与最后一个被编辑的层。",
        "Histograms of each neuron’s mean change (logarithmic counts), for the largest batch size "
        "and the last edited layer.",
    ),
    distributions,
    PAPER_FIGURES,
)
CDF = Spec(
    "neuron_cdf",
    "language",
    ("activation_cdf.csv",),
    BilingualText("神经元变化的累积分布", "Cumulative distributions of the neurons’ changes"),
    BilingualText(
        "变化的绝对值不超过横轴之值的神经元所占比例。曲线越靠左，变化越小。",
        "Share of the neurons whose absolute change is at most what the axis says: the further "
        "left a curve, the less has changed.",
    ),
    cumulative,
    PAPER_FIGURES,
)
ACTUAL = Spec(
    "actual_expected",
    "language",
    ("neuron_points.csv", "activation.csv"),
    BilingualText("实际与预期的激活变化", "Actual against expected activation"),
    BilingualText(
        "每点一个神经元：权重改变乘以编辑前的键所预期的输出变化，与编辑后测得的变化。偏离虚线，说明下层的"
        "编辑也改变了键。r 为全部神经元的相关系数。",
        "A point a neuron: the change of output that the weight change makes with the keys from "
        "before the edit, against the change as measured. Off the dashed line, edits of lower "
        "layers changed the keys as well. r: correlation over all neurons.",
    ),
    actual_expected,
    PAPER_FIGURES,
)
VENN = Spec(
    "neuron_venn",
    "language",
    ("venn.csv",),
    BilingualText("变化最大的神经元的重合", "Overlap of the neurons that change most"),
    BilingualText(
        "三种编辑各自变化最大的神经元之间的重合；括号内是随机选取同样多神经元时的期望。图下：每个集合"
        "的大小与神经元总数。圆的面积不代表数量。",
        "Overlap of the neurons that edits in each language change most; in brackets what choosing "
        "as many by chance would give. Under each picture: size of a set and number of neurons. "
        "Areas mean nothing.",
    ),
    venn,
    PAPER_FIGURES,
)
EDIT_FIGURES = (NEURONS, CDF, ACTUAL, VENN)
