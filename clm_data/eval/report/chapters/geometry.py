"""The chapter on the geometry of edits: summaries of the analysis's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clm_data.eval.bilingual import (
    FACTOR_PAIRINGS,
    FACTOR_PARTS,
    GEOMETRY_MEASURES,
    LANGUAGE_NAMES,
    TRANSFER_CRITERIA,
    TRANSFER_FEATURES,
    BilingualText,
)
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
from clm_data.eval.report.chapters.paper import SOURCE as SOURCE_TEXT
from clm_data.eval.report.parts import (
    NO_VALUE,
    Figure,
    MissingPart,
    Paragraph,
    Part,
    Section,
    Table,
    columns,
    decimals,
)
from clm_data.eval.tables import variant_name

VARIANT_COLUMNS = columns(
    ("model", "模型", "model", False),
    ("variant", "方法", "method", False),
    ("batch_size", "批大小", "batch size"),
)
"""The columns that identify a variant of a method with a batch size."""
_COMPARISONS = {
    "zh-en": BilingualText("中文与英文", "Chinese vs. English"),
    "sum-mix": BilingualText("两者之和与双语编辑", "sum vs. edit in both languages"),
}
_CONTROLS = {
    "disjoint": BilingualText("另一批", "another batch"),
    "split": BilingualText("同批的两半", "halves of a batch"),
}
_UNKNOWN = BilingualText(NO_VALUE, NO_VALUE)
_ABOVE = BilingualText("高于随机基线", "above null")
_BELOW = BilingualText("低于随机基线", "below null")
_WITHIN = BilingualText("在随机基线之内", "within null")
_MIXED = BilingualText("各层不一", "differs by layer")
_YES = BilingualText("是", "yes")
_NO = BilingualText("否", "no")
_COUNTS_ONLY = BilingualText("（仅计数）", "(counts only)")
_MISSING = BilingualText(
    "没有几何分析的表。它们需要用 --save-deltas 保存的权重改变，且包括中文、英文与双语编辑。",
    "There are no tables of the geometry of edits. They need weight changes saved with "
    "--save-deltas, for edits in Chinese, in English and in both languages.",
)
_NONE_COMPARED = BilingualText(
    "没有可以比较的编辑；原因见下表。",
    "No edits could be compared; the table says why.",
)
_EXPLANATION = BilingualText(
    "随机基线：奇异值相同的随机矩阵取值的 95% 区间，取各层的最外端点。真实模型的键与残差集中在少数"
    "方向上，因此超出随机基线并不说明两次编辑有共同之处，还须与对照比较。对照为各层均值：同一语言"
    "中的不同事实，以及另一语言（或双语）中的不同事实。只编辑了一批时，对照为该批的两半，余弦偏低。",
    "Null: 95% range for random matrices with the same singular values, the widest over the "
    "layers. Keys and residuals of a real model lie in few directions, so a value outside the null "
    "does not imply that two edits have anything in common; compare it with the controls. Controls "
    "are means over layers: different facts in the same language, and different facts in the other "
    "language (or in both). If only one batch was edited, they are its halves, and cosines are "
    "biased low.",
)
_MAX_TRANSFER_ROWS = 24


def geometry_section(tables: Tables, figures: Sequence[Figure], command: str) -> Section:
    """The geometry of edits.

    Args:
        tables: Tables of the analysis by file name.
        figures: Figures of the chapter.
        command: Command that runs the analysis.
    """
    missing: list[Part] = []
    if not tables.get("geometry.csv"):
        analyzed = bool(tables.get("geometry_skipped.csv"))
        missing = [Paragraph(_NONE_COMPARED) if analyzed else MissingPart(_MISSING, command)]
    parts = (*missing, *figures, *geometry_parts(tables))
    return Section("geometry", BilingualText("编辑的几何分析", "Geometry of edits"), parts)


def geometry_parts(tables: Tables) -> list[Part]:
    """Summaries of the tables that exist."""
    parts: list[Part] = []
    if rows := where(tables.get("geometry.csv", ()), batch="all"):
        for number, size in enumerate(reversed(unique(rows, "batch_size"))):
            parts.append(_summary(where(rows, batch_size=size), size, number))
        parts.append(Paragraph(SOURCE_TEXT, {"source": SOURCE}))
    summaries = {
        "factors.csv": _factors,
        "transfer.csv": _transfer,
        "geometry_skipped.csv": _skipped,
    }
    parts += [make(tables[name]) for name, make in summaries.items() if tables.get(name)]
    return parts


def by_variant(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str, str], list[Row]]]:
    """The values of :data:`VARIANT_COLUMNS` that occur, each with its rows."""
    for model in unique(rows, "model"):
        of_model = where(rows, model=model)
        for variant in variants(of_model):
            of_one = of_variant(of_model, variant)
            for size in unique(of_one, "batch_size"):
                yield (model, variant_name(variant), size), where(of_one, batch_size=size)


def _summary(rows: Sequence[Row], size: str, number: int) -> Table:
    """Each measure over all layers, for one batch size; only the first table is open."""
    return Table(
        f"geometry_summary_{number}" if number else "geometry_summary",
        BilingualText(
            f"各指标在各层的范围，每批 {size} 条", f"Range over layers, batch size {size}"
        ),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("comparison_zh", "比较", "comparison (Chinese)", False),
                ("comparison_en", "比较（英文）", "comparison", False),
                ("measure_zh", "指标", "measure (Chinese)", False),
                ("measure_en", "指标（英文）", "measure", False),
                ("lowest", "最小", "min."),
                ("highest", "最大", "max."),
                ("null_low", "随机基线下限", "null, low"),
                ("null_high", "随机基线上限", "null, high"),
                ("control", "对照：同一语言", "control, same language"),
                ("control_other", "对照：另一语言", "control, other language"),
                ("control_of_zh", "对照取自", "controls from (Chinese)", False),
                ("control_of_en", "对照取自（英文）", "controls from", False),
                ("verdict_zh", "与随机基线相比", "compared with null (Chinese)", False),
                ("verdict_en", "与随机基线相比（英文）", "compared with null", False),
                ("paper", "论文报告", "paper", False),
                ("like_paper_zh", "与论文一致", "agrees with paper (Chinese)", False),
                ("like_paper_en", "与论文一致（英文）", "agrees with paper", False),
            ),
        ),
        tuple(
            (*variant, *_summary_row(where(of_one, measure=measure), comparison, measure))
            for variant, of_one in by_variant(rows)
            for comparison in _COMPARISONS
            for measure in GEOMETRY_MEASURES
            if where(of_one, measure=measure, comparison=comparison)
        ),
        _EXPLANATION,
        collapsed=number > 0,
    )


def _summary_row(rows: Sequence[Row], comparison: str, measure: str) -> tuple[str, ...]:
    values = _values(where(rows, comparison=comparison))
    null = where(rows, comparison=f"null-{comparison}")
    lows, highs = _values(null, "low"), _values(null, "high")
    same_language = ("zh", "en") if comparison == "zh-en" else ()
    kind, control, other = _controls(rows, same_language, comparison)
    verdict = _compared_with_null(where(rows, comparison=comparison), null)
    reported = reported_range(comparison, measure)
    agrees = _agrees(values, reported)
    compared, measured = _COMPARISONS[comparison], GEOMETRY_MEASURES[measure]
    return (
        *(compared.zh, compared.en, measured.zh, measured.en),
        decimals(min(values, default=None)),
        decimals(max(values, default=None)),
        decimals(min(lows, default=None)),
        decimals(max(highs, default=None)),
        decimals(control),
        decimals(other),
        *(kind.zh, kind.en),
        *(verdict.zh, verdict.en),
        NO_VALUE if reported is None else reported.text,
        *(agrees.zh, agrees.en),
    )


def _values(rows: Sequence[Row], column: str = "value") -> list[float]:
    return [value for row in rows if (value := float_or_none(row[column])) is not None]


def _controls(
    rows: Sequence[Row], same_language: Sequence[str], other: str
) -> tuple[BilingualText, float | None, float | None]:
    """How the controls were chosen, and the means of those in one language and of the others."""
    for kind, name in _CONTROLS.items():
        same, different = (
            [
                value
                for comparison in comparisons
                for value in _values(where(rows, comparison=f"{kind}-{comparison}"))
            ]
            for comparisons in (same_language, (other,))
        )
        if same or different:
            return name, _mean(same), _mean(different)
    return _UNKNOWN, None, None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _compared_with_null(rows: Sequence[Row], null: Sequence[Row]) -> BilingualText:
    """Where the values are relative to the null's range of their layer."""
    ends = {row["layer"]: (float_or_none(row["low"]), float_or_none(row["high"])) for row in null}
    found = set()
    for row in rows:
        value = float_or_none(row["value"])
        low, high = ends.get(row["layer"], (None, None))
        if value is not None and low is not None and high is not None:
            found.add(_BELOW if value < low else _ABOVE if value > high else _WITHIN)
    if not found:
        return _UNKNOWN
    return found.pop() if len(found) == 1 else _MIXED


def _agrees(values: Sequence[float], reported: ReportedRange | None) -> BilingualText:
    """Whether the values of all layers are in the range that the paper reports."""
    if reported is None or not values:
        return _UNKNOWN
    inside = {
        (reported.low is None or value >= reported.low)
        and (reported.high is None or value <= reported.high)
        for value in values
    }
    if len(inside) > 1:
        return _MIXED
    return _YES if inside == {True} else _NO


def _factors(rows: Sequence[Row]) -> Table:
    return Table(
        "geometry_parts",
        BilingualText("键与残差：各层的余弦", "Keys and residuals: cosines over layers"),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("part_zh", "部分", "part (Chinese)", False),
                ("part_en", "部分（英文）", "part", False),
                ("pairing_zh", "比较", "pairs (Chinese)", False),
                ("pairing_en", "比较（英文）", "pairs", False),
                ("mean", "各层均值", "mean"),
                ("lowest", "最小", "min."),
                ("highest", "最大", "max."),
            ),
        ),
        tuple(_factor_rows(rows)),
        collapsed=True,
    )


def _factor_rows(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    for variant, of_one in by_variant(rows):
        for part, part_name in FACTOR_PARTS.items():
            for pairing, pairing_name in FACTOR_PAIRINGS.items():
                values = _values(where(of_one, part=part, pairing=pairing))
                if values:
                    yield (
                        *variant,
                        *(part_name.zh, part_name.en, pairing_name.zh, pairing_name.en),
                        *(decimals(_mean(values)), decimals(min(values)), decimals(max(values))),
                    )


def _transfer(rows: Sequence[Row]) -> Table:
    return Table(
        "geometry_transfer",
        BilingualText("迁移与未迁移的事实", "Facts that transferred and facts that did not"),
        (
            *VARIANT_COLUMNS,
            *columns(
                ("language_zh", "编辑语言", "edited in (Chinese)", False),
                ("language_en", "编辑语言（英文）", "edited in", False),
                ("criterion_zh", "判据", "criterion (Chinese)", False),
                ("criterion_en", "判据（英文）", "criterion", False),
                ("layer", "层", "layer"),
                ("measure_zh", "特征", "feature (Chinese)", False),
                ("measure_en", "特征（英文）", "feature", False),
                ("transferred", "迁移", "transferred"),
                ("stayed", "未迁移", "did not"),
                ("mean_transferred", "迁移者均值", "mean, transferred"),
                ("mean_stayed", "未迁移者均值", "mean, did not"),
                ("auc", "AUC", "AUC"),
                ("p_holm", "p（Holm 校正）", "p (Holm)"),
            ),
        ),
        tuple(
            (*variant, *_transfer_row(row))
            for variant, of_one in by_variant(rows)
            for row in sorted(of_one, key=_p_value)
        ),
        max_rows=_MAX_TRANSFER_ROWS,
        collapsed=True,
    )


def _p_value(row: Row) -> float:
    """The corrected p-value; rows without one come last."""
    p = float_or_none(row["p_holm"])
    return 2.0 if p is None else p


def _transfer_row(row: Row) -> tuple[str, ...]:
    edited = LANGUAGE_NAMES[row["language"]]
    criterion = TRANSFER_CRITERIA[row["criterion"]]
    feature = TRANSFER_FEATURES.get(row["measure"], _COUNTS_ONLY)
    numbers = ("mean_transferred", "mean_stayed", "auc", "p_holm")
    return (
        *(edited.zh, edited.en, criterion.zh, criterion.en),
        row["layer"] or NO_VALUE,
        *(feature.zh, feature.en, row["transferred"], row["stayed"]),
        *(decimals(float_or_none(row[name])) for name in numbers),
    )


def _skipped(rows: Sequence[Row]) -> Table:
    names = ("model", "method", "batch_size", "language", "reason")
    return Table(
        "geometry_skipped",
        BilingualText("未分析的实验", "Cells that were not analyzed"),
        columns(
            ("model", "模型", "model", False),
            ("method", "方法", "method", False),
            ("batch_size", "批大小", "batch size"),
            ("language", "编辑语言", "edited in", False),
            ("reason", "原因", "reason", False),
        ),
        tuple(tuple(row[name] for name in names) for row in rows),
        collapsed=True,
    )
