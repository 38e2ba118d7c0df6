"""Tables of the geometry of edits, summed up from the analysis's CSV files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clm_data.eval.bilingual import GEOMETRY_MEASURES
from clm_data.eval.csv_tables import (
    Row,
    Tables,
    float_or_none,
    of_variant,
    unique,
    variants,
    where,
)
from clm_data.eval.paper_ranges import SOURCE, ReportedRange, reported_range
from clm_data.eval.report.parts import NONE, BilingualText, Part, Table, Text, columns, decimals
from clm_data.eval.tables import variant_name

VARIANT_COLUMNS = columns(
    ("model", "模型", "model", False),
    ("variant", "方法", "method", False),
    ("batch_size", "批大小", "batch"),
)
COMPARISONS = {
    "zh-en": BilingualText("中文对英文", "zh against en"),
    "sum-mix": BilingualText("中英之和对混合", "zh + en against mix"),
}
_ABOVE = BilingualText("高于随机", "above chance")
_BELOW = BilingualText("低于随机", "below chance")
_CHANCE = BilingualText("与随机无异", "like chance")
_MIXED = BilingualText("各层不一", "differs by layer")
_LIKE = BilingualText("相同", "yes")
_UNLIKE = BilingualText("不同", "no")
_UNKNOWN = BilingualText(NONE, NONE)
_CONTROLS = {
    "disjoint": BilingualText("另一批", "another batch"),
    "split": BilingualText("同批两半", "halves of one batch"),
}
_TRANSFER_SHOWN = 24


def parts(tables: Tables) -> list[Part]:
    """Tables of the chapter."""
    out: list[Part] = []
    if rows := where(tables.get("geometry.csv", ()), batch="all"):
        for number, size in enumerate(unique(rows, "batch_size")[::-1]):
            out.append(_summary(where(rows, batch_size=size), size, number))
        source = BilingualText("论文数值来源：{source}。", "The paper’s figures: {source}.")
        out.append(Text(source, {"source": SOURCE}))
    if tables.get("factors.csv"):
        out.append(_factors(tables["factors.csv"]))
    if tables.get("transfer.csv"):
        out.append(_transfer(tables["transfer.csv"]))
    if tables.get("geometry_skipped.csv"):
        out.append(_skipped(tables["geometry_skipped.csv"]))
    return out


def groups(rows: Sequence[Row]) -> Iterable[tuple[tuple[str, str, str], list[Row]]]:
    """(model, variant, batch size), and its rows."""
    for model in unique(rows, "model"):
        of_model = where(rows, model=model)
        for variant in variants(of_model):
            mine = of_variant(of_model, variant)
            for size in unique(mine, "batch_size"):
                yield (model, variant_name(variant), size), where(mine, batch_size=size)


def _summary(rows: Sequence[Row], size: str, number: int) -> Table:
    made = [
        (*name, *_line(where(mine, measure=measure), comparison, measure))
        for name, mine in groups(rows)
        for comparison in COMPARISONS
        for measure in GEOMETRY_MEASURES
        if where(mine, measure=measure, comparison=comparison)
    ]
    return Table(
        f"geometry_summary_{number}" if number else "geometry_summary",
        BilingualText(
            f"各指标在所有层上的范围，每批 {size} 条",
            f"Each measure over all layers, batch of {size}",
        ),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("comparison_zh", "比较", "comparison (Chinese)", False),
                ("comparison_en", "比较（英文）", "comparison", False),
                ("measure_zh", "指标", "measure (Chinese)", False),
                ("measure_en", "指标（英文）", "measure", False),
                ("lowest", "最小", "lowest"),
                ("highest", "最大", "highest"),
                ("null_low", "随机下限", "chance, low"),
                ("null_high", "随机上限", "chance, high"),
                ("control", "同语言对照", "control, one language"),
                ("control_other", "异事实对照", "control, other facts"),
                ("control_of_zh", "对照来自", "control from (Chinese)", False),
                ("control_of_en", "对照来自（英文）", "control from", False),
                ("verdict_zh", "与随机相比", "against chance (Chinese)", False),
                ("verdict_en", "与随机相比（英文）", "against chance", False),
                ("paper", "论文", "paper", False),
                ("like_paper_zh", "同论文", "as in the paper (Chinese)", False),
                ("like_paper_en", "同论文（英文）", "as in the paper", False),
            ),
        ),
        tuple(made),
        BilingualText(
            "随机：同谱随机矩阵的区间，跨层取最外；真实模型的键与残差只占少数方向，因此高于随机不等于"
            "有共同之处，须与对照相比。对照为各层平均：同语言的另一组事实；另一语言（或混合）的另一组"
            "事实。只有一批时取同一批的两半，余弦会偏低。",
            "Chance: what random matrices of the same spectra give, the outermost of all layers. "
            "Keys and residuals of a real model lie in few directions, so a value above chance "
            "need not mean anything in common; compare it with the controls. Controls, means over "
            "layers: other facts in the same language; other facts in the other language (or "
            "mixed). Where there is one batch alone they are halves of it, whose cosines come out "
            "too low.",
        ),
        folded=number > 0,
    )


def _line(rows: Sequence[Row], comparison: str, measure: str) -> tuple[str, ...]:
    values = _values(where(rows, comparison=comparison))
    null = where(rows, comparison=f"null-{comparison}")
    lows = [low for row in null if (low := float_or_none(row["low"])) is not None]
    highs = [high for row in null if (high := float_or_none(row["high"])) is not None]
    same = ("zh", "en") if comparison == "zh-en" else ()
    kind, control, other = _controls(rows, same, comparison)
    verdict = _against_null(where(rows, comparison=comparison), null)
    stated = reported_range(comparison, measure)
    like = _like(values, stated)
    words = COMPARISONS[comparison]
    return (
        *(words.zh, words.en, GEOMETRY_MEASURES[measure].zh, GEOMETRY_MEASURES[measure].en),
        decimals(min(values, default=None)),
        decimals(max(values, default=None)),
        decimals(min(lows, default=None)),
        decimals(max(highs, default=None)),
        decimals(control),
        decimals(other),
        *(kind.zh, kind.en),
        *(verdict.zh, verdict.en),
        stated.text if stated else NONE,
        *(like.zh, like.en),
    )


def _values(rows: Sequence[Row]) -> list[float]:
    return [value for row in rows if (value := float_or_none(row["value"])) is not None]


def _controls(
    rows: Sequence[Row], same: Sequence[str], other: str
) -> tuple[BilingualText, float | None, float | None]:
    """Where the controls come from; the mean over ``same``; that over ``other``."""
    for kind, words in _CONTROLS.items():
        one, two = (
            [value for name in names for value in _values(where(rows, comparison=f"{kind}-{name}"))]
            for names in (same, (other,))
        )
        if one or two:
            return words, _mean(one), _mean(two)
    return _UNKNOWN, None, None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _against_null(rows: Sequence[Row], null: Sequence[Row]) -> BilingualText:
    ends = {row["layer"]: (float_or_none(row["low"]), float_or_none(row["high"])) for row in null}
    found = set()
    for row in rows:
        value = float_or_none(row["value"])
        low, high = ends.get(row["layer"], (None, None))
        if value is not None and low is not None and high is not None:
            found.add(_BELOW if value < low else _ABOVE if value > high else _CHANCE)
    if not found:
        return _UNKNOWN
    return found.pop() if len(found) == 1 else _MIXED


def _like(values: Sequence[float], stated: ReportedRange | None) -> BilingualText:
    if stated is None or not values:
        return _UNKNOWN
    fits = {
        (stated.low is None or value >= stated.low)
        and (stated.high is None or value <= stated.high)
        for value in values
    }
    if len(fits) > 1:
        return _MIXED
    return _LIKE if fits == {True} else _UNLIKE


def _factors(rows: Sequence[Row]) -> Table:
    made = []
    for name, mine in groups(rows):
        kinds = sorted({(row["part"], row["pairing"]) for row in mine})
        for part, pairing in kinds:
            values = _values(where(mine, part=part, pairing=pairing))
            if values:
                ends = decimals(min(values)), decimals(max(values))
                made.append((*name, part, pairing, decimals(sum(values) / len(values)), *ends))
    return Table(
        "geometry_parts",
        BilingualText("键与残差：各层的余弦", "Keys and residuals: cosines over the layers"),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("part", "部分", "part", False),
                ("pairing", "比较", "pairing", False),
                ("mean", "各层平均", "mean"),
                ("lowest", "最小", "lowest"),
                ("highest", "最大", "highest"),
            ),
        ),
        tuple(made),
        plain=frozenset({"part", "pairing"}),
        folded=True,
    )


def _transfer(rows: Sequence[Row]) -> Table:
    def rank(row: Row) -> float:
        p = float_or_none(row["p_holm"])
        return 2.0 if p is None else p

    made = []
    for name, mine in groups(rows):
        for row in sorted(mine, key=rank):
            values = [
                decimals(float_or_none(row[key]))
                for key in ("mean_transferred", "mean_stayed", "auc", "p_holm")
            ]
            about = (row["language"], row["criterion"], row["layer"], row["measure"])
            made.append((*name, *about, row["transferred"], row["stayed"], *values))
    return Table(
        "geometry_transfer",
        BilingualText("迁移与未迁移的事实", "Facts that transferred against those that did not"),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("language", "编辑语言", "edited in", False),
                ("criterion", "判据", "criterion", False),
                ("layer", "层", "layer"),
                ("measure", "特征", "feature", False),
                ("transferred", "迁移", "transferred"),
                ("stayed", "未迁移", "stayed"),
                ("mean_transferred", "迁移者平均", "mean, transferred"),
                ("mean_stayed", "未迁移者平均", "mean, stayed"),
                ("auc", "AUC", "AUC"),
                ("p_holm", "校正后的 p", "p, corrected"),
            ),
        ),
        tuple(made),
        shown=_TRANSFER_SHOWN,
        plain=frozenset({"criterion", "measure"}),
        folded=True,
    )


def _skipped(rows: Sequence[Row]) -> Table:
    made = [
        (row["model"], row["method"], row["batch_size"], row["language"], row["reason"])
        for row in rows
    ]
    return Table(
        "geometry_skipped",
        BilingualText("没有分析的实验", "Cells that were not analysed"),
        columns(
            ("model", "模型", "model", False),
            ("method", "方法", "method", False),
            ("batch_size", "批大小", "batch"),
            ("language", "编辑语言", "edited in", False),
            ("reason", "原因", "why", False),
        ),
        tuple(made),
        folded=True,
    )
