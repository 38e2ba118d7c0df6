"""Tables of language vectors and of what edits do to states, from the analysis's CSV files."""

from __future__ import annotations

from collections.abc import Sequence

from clm_data.eval.csv_tables import Row, Tables, float_or_none, unique, where
from clm_data.eval.report.chapters.geometry import VARIANT_COLUMNS, groups
from clm_data.eval.report.parts import NONE, BilingualText, Column, Part, Table, columns, decimals

_LAYER_MEASURES = {
    "projection_difference": BilingualText("投影之差", "projection difference"),
    "separation": BilingualText("分离度（标准差）", "separation, standard deviations"),
    "delta_cosine_held_out": BilingualText("差向量余弦", "delta cosine"),
    "delta_cosine_held_out_shuffled": BilingualText("差向量余弦，随机", "delta cosine, chance"),
    "bias_correlation": BilingualText("两种语言投影的相关", "bias correlation"),
    "split_half_cosine": BilingualText("两半事实之间的余弦", "cosine between halves"),
    "classifier_accuracy": BilingualText("分类器正确率", "classifier accuracy"),
    "classifier_permuted": BilingualText("分类器，标签随机", "classifier, permuted labels"),
}
_SELECTIVITY = {
    "own_change": BilingualText("本语言的变化", "change, own language"),
    "other_change": BilingualText("另一语言的变化", "change, other language"),
    "selectivity": BilingualText("选择性", "selectivity"),
    "bias_selectivity_correlation": BilingualText(
        "与语言偏向的相关", "correlation with language bias"
    ),
}
_KINDS = {
    "weight_rows": BilingualText("权重，行神经元", "weights, row neurons"),
    "weight_columns": BilingualText("权重，列神经元", "weights, column neurons"),
    "actual": BilingualText("MLP 输出，实际", "MLP outputs, actual"),
    "expected": BilingualText("MLP 输出，预期", "MLP outputs, expected"),
}


def parts(tables: Tables) -> list[Part]:
    """Tables of the chapter."""
    made = {
        "language_layers.csv": _layers,
        "selectivity.csv": _selectivity,
        "activation.csv": _activation,
        "venn.csv": _venn,
    }
    return [make(tables[name]) for name, make in made.items() if tables.get(name)]


def _layers(rows: Sequence[Row]) -> Table:
    made = []
    for model in unique(rows, "model"):
        mine = where(rows, model=model, part="hidden")
        for layer in unique(mine, "layer"):
            here = {row["measure"]: float_or_none(row["value"]) for row in where(mine, layer=layer)}
            made.append((model, layer, *(decimals(here.get(name)) for name in _LAYER_MEASURES)))
    return Table(
        "language_summary",
        BilingualText("语言向量，隐藏状态，按层", "The language vector of hidden states, by layer"),
        (
            *columns(("model", "模型", "model", False), ("layer", "层", "layer")),
            *(Column(name, words) for name, words in _LAYER_MEASURES.items()),
        ),
        tuple(made),
    )


def _selectivity(rows: Sequence[Row]) -> Table:
    made = []
    for name, mine in groups(rows):
        for edit in unique(mine, "edit"):
            for layer in unique(where(mine, edit=edit), "layer"):
                found = where(mine, edit=edit, layer=layer)
                here = {row["measure"]: float_or_none(row["value"]) for row in found}
                values = [decimals(here.get(measure)) for measure in _SELECTIVITY]
                made.append((*name, edit, layer, *values))
    return Table(
        "selectivity_summary",
        BilingualText("编辑选择性，按层", "Edit selectivity, by layer"),
        (
            *VARIANT_COLUMNS,
            *columns(("edit", "编辑语言", "edited in", False), ("layer", "层", "layer")),
            *(Column(name, words) for name, words in _SELECTIVITY.items()),
        ),
        tuple(made),
        folded=True,
    )


def _activation(rows: Sequence[Row]) -> Table:
    names = list(dict.fromkeys(row["measure"] for row in rows))
    made = []
    for name, mine in groups(rows):
        places = sorted({(row["edit"], row["lang"], int(row["layer"])) for row in mine})
        for edit, lang, layer in places:
            found = where(mine, edit=edit, lang=lang, layer=str(layer))
            here = {row["measure"]: float_or_none(row["value"]) for row in found}
            values = [decimals(here.get(measure)) for measure in names]
            made.append((*name, edit, lang or NONE, str(layer), *values))
    return Table(
        "activation_summary",
        BilingualText("实际与预期的激活变化", "Actual against expected change of activation"),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("edit", "编辑语言", "edited in", False),
                ("lang", "提示语言", "prompts in", False),
                ("layer", "层", "layer"),
            ),
            *(Column(name, BilingualText(name, name.replace("_", " "))) for name in names),
        ),
        tuple(made),
        folded=True,
    )


def _venn(rows: Sequence[Row]) -> Table:
    made = []
    for name, mine in groups(rows):
        for kind, words in _KINDS.items():
            for layer in unique(where(mine, kind=kind), "layer"):
                found = {row["region"]: row for row in where(mine, kind=kind, layer=layer)}
                both = [found[one] for one in ("zh+en", "zh+en+mix") if one in found]
                if not both:
                    continue
                count = sum(int(row["count"]) for row in both)
                chance = sum(float(row["by_chance"]) for row in both)
                sizes = (both[0]["set_size"], both[0]["neurons"])
                made.append((*name, layer, words.zh, words.en, str(count), f"{chance:.1f}", *sizes))
    return Table(
        "venn_summary",
        BilingualText(
            "中文与英文编辑共同改变最大的神经元", "Neurons that edits in zh and en both change most"
        ),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("layer", "层", "layer"),
                ("kind_zh", "依据", "by (Chinese)", False),
                ("kind_en", "依据（英文）", "by", False),
                ("both", "共有", "in both"),
                ("by_chance", "随机期望", "by chance"),
                ("set_size", "集合大小", "size of a set"),
                ("neurons", "神经元总数", "neurons"),
            ),
        ),
        tuple(made),
        folded=True,
    )
