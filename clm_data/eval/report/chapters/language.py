"""The chapter on language vectors and on what edits do to hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clm_data.eval.bilingual import NEURON_SETS, BilingualText
from clm_data.eval.csv_tables import Row, Tables, float_or_none, unique, where
from clm_data.eval.report.chapters.geometry import VARIANT_COLUMNS, by_variant
from clm_data.eval.report.parts import (
    NO_VALUE,
    Column,
    Figure,
    MissingPart,
    Part,
    Section,
    Table,
    columns,
    decimals,
)

_MISSING = BilingualText(
    "没有语言向量的表。它们需要模型与数据集。",
    "There are no tables of language vectors. They need the model and the dataset.",
)
_VECTOR_MEASURES = {
    "projection_difference": BilingualText("投影之差", "projection difference"),
    "separation": BilingualText("分离度（标准差）", "separation, standard deviations"),
    "delta_cosine_held_out": BilingualText("差向量的余弦", "cosine of differences"),
    "delta_cosine_held_out_shuffled": BilingualText(
        "差向量的余弦，随机基线", "cosine of differences, null"
    ),
    "bias_correlation": BilingualText("两种语言投影的相关系数", "correlation of projections"),
    "split_half_cosine": BilingualText("两半事实之间的余弦", "cosine between halves"),
    "classifier_accuracy": BilingualText("线性分类器正确率", "classifier accuracy"),
    "classifier_permuted": BilingualText(
        "分类器正确率，标签随机", "classifier accuracy, permuted labels"
    ),
}
_SELECTIVITY_MEASURES = {
    "own_change": BilingualText("编辑语言的变化", "change, edited language"),
    "other_change": BilingualText("另一语言的变化", "change, other language"),
    "selectivity": BilingualText("选择性", "selectivity"),
    "bias_selectivity_correlation": BilingualText(
        "与语言偏向的相关系数", "correlation with language bias"
    ),
}
_ACTIVATION_MEASURES = {
    "cosine": BilingualText("余弦相似度", "cosine similarity"),
    "relative_error": BilingualText("相对误差", "relative error"),
    "actual_change": BilingualText("实际变化", "actual change"),
    "expected_change": BilingualText("预期变化", "expected change"),
    "neuron_correlation": BilingualText("各维度的相关系数", "correlation over dimensions"),
}


def language_section(tables: Tables, figures: Sequence[Figure], command: str) -> Section:
    """Language vectors.

    Args:
        tables: Tables of the analysis by file name.
        figures: Figures of the chapter.
        command: Command that runs the analysis.
    """
    known = any(tables.get(name) for name in ("language_layers.csv", "language_points.csv"))
    missing = [] if known else [MissingPart(_MISSING, command)]
    parts = (*missing, *figures, *language_parts(tables))
    return Section("language", BilingualText("语言向量", "Language vectors"), parts)


def language_parts(tables: Tables) -> list[Part]:
    """Summaries of the tables that exist."""
    summaries = {
        "language_layers.csv": _vectors,
        "selectivity.csv": _selectivity,
        "activation.csv": _activation,
        "venn.csv": _overlap,
    }
    return [make(tables[name]) for name, make in summaries.items() if tables.get(name)]


def _by_measure(rows: Sequence[Row]) -> dict[str, float | None]:
    return {row["measure"]: float_or_none(row["value"]) for row in rows}


def _vectors(rows: Sequence[Row]) -> Table:
    hidden = where(rows, part="hidden")
    return Table(
        "language_summary",
        BilingualText("隐藏状态的语言向量，按层", "Language vectors of hidden states, by layer"),
        (
            *columns(("model", "模型", "model", False), ("layer", "层", "layer")),
            *(Column(name, title) for name, title in _VECTOR_MEASURES.items()),
        ),
        tuple(
            (model, layer, *(decimals(values.get(name)) for name in _VECTOR_MEASURES))
            for model in unique(rows, "model")
            for layer in unique(where(hidden, model=model), "layer")
            for values in [_by_measure(where(hidden, model=model, layer=layer))]
        ),
    )


def _selectivity(rows: Sequence[Row]) -> Table:
    return Table(
        "selectivity_summary",
        BilingualText("编辑选择性，按层", "Edit selectivity, by layer"),
        (
            *VARIANT_COLUMNS,
            *columns(("edit", "编辑语言", "edited in", False), ("layer", "层", "layer")),
            *(Column(name, title) for name, title in _SELECTIVITY_MEASURES.items()),
        ),
        tuple(
            (*variant, edit, layer, *(decimals(values.get(name)) for name in _SELECTIVITY_MEASURES))
            for variant, of_one in by_variant(rows)
            for edit in unique(of_one, "edit")
            for layer in unique(where(of_one, edit=edit), "layer")
            for values in [_by_measure(where(of_one, edit=edit, layer=layer))]
        ),
        collapsed=True,
    )


def _activation(rows: Sequence[Row]) -> Table:
    names = list(dict.fromkeys(row["measure"] for row in rows))
    return Table(
        "activation_summary",
        BilingualText("激活的实际变化与预期变化", "Actual and expected changes of activation"),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("edit", "编辑语言", "edited in", False),
                ("lang", "题干语言", "prompts in", False),
                ("layer", "层", "layer"),
            ),
            *(Column(name, _ACTIVATION_MEASURES[name]) for name in names),
        ),
        tuple(_activation_rows(rows, names)),
        collapsed=True,
    )


def _activation_rows(rows: Sequence[Row], names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for variant, of_one in by_variant(rows):
        places = sorted({(row["edit"], row["lang"], int(row["layer"])) for row in of_one})
        for edit, lang, layer in places:
            values = _by_measure(where(of_one, edit=edit, lang=lang, layer=str(layer)))
            numbers = [decimals(values.get(name)) for name in names]
            yield (*variant, edit, lang or NO_VALUE, str(layer), *numbers)


def _overlap(rows: Sequence[Row]) -> Table:
    return Table(
        "venn_summary",
        BilingualText(
            "中文编辑与英文编辑共有的变化最大的神经元",
            "Neurons among the most changed by both Chinese and English edits",
        ),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("layer", "层", "layer"),
                ("kind_zh", "排序依据", "ranked by (Chinese)", False),
                ("kind_en", "排序依据（英文）", "ranked by", False),
                ("both", "共有", "shared"),
                ("by_chance", "随机期望", "expected by chance"),
                ("set_size", "集合大小", "set size"),
                ("neurons", "神经元总数", "neurons"),
            ),
        ),
        tuple(_overlap_rows(rows)),
        collapsed=True,
    )


def _overlap_rows(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for variant, of_one in by_variant(rows):
        for kind, name in NEURON_SETS.items():
            of_kind = where(of_one, kind=kind)
            for layer in unique(of_kind, "layer"):
                regions = {row["region"]: row for row in where(of_kind, layer=layer)}
                shared = [regions[one] for one in ("zh+en", "zh+en+mix") if one in regions]
                if shared:
                    count = sum(int(row["count"]) for row in shared)
                    chance = sum(float(row["by_chance"]) for row in shared)
                    sizes = (shared[0]["set_size"], shared[0]["neurons"])
                    yield (*variant, layer, name.zh, name.en, str(count), f"{chance:.1f}", *sizes)
