"""The chapter on the evaluation: tables of all cells, before and after, by domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from clm_data.domain import Domain
from clm_data.eval import tables
from clm_data.eval.intervals import Bootstrap, mean_interval
from clm_data.eval.metrics import PAPER_MEASURES, PARTS
from clm_data.eval.report.parts import (
    NONE,
    BilingualText,
    Column,
    Part,
    Table,
    Text,
    columns,
    decimals,
    percent,
)
from clm_data.eval.results import (
    BaselineResult,
    CellResult,
    FactResult,
    Results,
    Summary,
    read_baseline,
    read_cell,
)
from clm_data.records import LANGUAGES, Language

OTHER: dict[Language, Language] = {"zh": "en", "en": "zh"}
CELL = columns(
    ("model", "模型", "model", False),
    ("method", "方法", "method", False),
    ("edit", "编辑语言", "edited in", False),
    ("batch_size", "批大小", "batch"),
    ("note", "备注", "note", False),
)
"""The columns that name a cell."""
_MEASURES = {
    "reliability": BilingualText("可靠性", "reliability"),
    "generality": BilingualText("泛化性", "generality"),
    "locality": BilingualText("局部性", "locality"),
}
_REFUSED_SHOWN = 20


def _number_columns() -> tuple[Column, ...]:
    sides = {"zh": BilingualText("中文", "zh"), "en": BilingualText("英文", "en")}
    scores = [
        Column(f"{lang}_score", BilingualText(f"{sides[lang].zh}总分", f"{lang} score"))
        for lang in LANGUAGES
    ]
    measured = [
        Column(
            f"{lang}_{part}",
            BilingualText(sides[lang].zh + _MEASURES[part].zh, f"{lang} {_MEASURES[part].en}"),
        )
        for lang in LANGUAGES
        for part in PARTS
    ]
    return (*scores, *measured, Column("trans", BilingualText("迁移比", "trans")))


NUMBER_COLUMNS = _number_columns()
"""The columns of a row in the paper's layout."""


@dataclass(frozen=True)
class Evaluation:
    """Results with what is kept beside them.

    Attributes:
        folder: Of the results.
        results: Their summary.
        domains: For their names.
    """

    folder: Path
    results: Results
    domains: Mapping[str, Domain] = field(default_factory=dict)

    @cached_property
    def done(self) -> tuple[CellResult, ...]:
        """The cells that were computed, with their facts where they are still there."""
        cells = [cell for cell in self.results.cells if cell.status == "done"]
        return tuple(read_cell(self.folder, cell.key) or cell for cell in cells)

    def baseline(self, cell: CellResult) -> dict[str, BaselineResult]:
        """The unedited model's answers by record; empty if they were not saved."""
        return read_baseline(self.folder, cell.setting)


def lead(cell: CellResult) -> tuple[str, ...]:
    """The cells of :data:`CELL`."""
    row = tables.row_of(cell)
    return (row.model, row.method, row.language, str(row.batch_size), row.note or NONE)


def parts(evaluation: Evaluation) -> list[Part]:
    """Tables of the evaluation."""
    done = evaluation.done
    if not done:
        words = BilingualText("没有一项实验算完。", "Not one cell was computed.")
        return [Text(words, mark="bad"), *_failed(evaluation.results)]
    return [
        _paper_layout(evaluation.results),
        _before_after(done),
        _beyond(done),
        _transfer(evaluation),
        *_refused(done),
        *_failed(evaluation.results),
    ]


def _paper_layout(results: Results) -> Table:
    rows = tables.rows_of(results)
    best = tables.best_of(rows)
    first = len(CELL) - 1
    return Table(
        "evaluation",
        BilingualText("总表：编辑之后，百分数", "All cells after the edit, in percent"),
        (*CELL[:-1], *NUMBER_COLUMNS, CELL[-1]),
        tuple(
            (
                *(row.model, row.method, row.language, str(row.batch_size)),
                *(decimals(row.values.get(name), 2) for name in PAPER_MEASURES),
                row.note or NONE,
            )
            for row in rows
        ),
        BilingualText(
            "与论文的表同一版式；粗体为同一模型中的最佳值。公式见 docs/reference/metrics.md。",
            "The paper's layout; the best of each model is bold. "
            "Formulas: docs/reference/metrics.md.",
        ),
        frozenset(
            (i, first + j)
            for i in range(len(rows))
            for j, name in enumerate(PAPER_MEASURES)
            if best[i, name]
        ),
    )


def _before_after(done: Sequence[CellResult]) -> Table:
    rows = []
    for cell in done:
        for lang in LANGUAGES:
            after = cell.after.get(f"{lang}_reliability")
            rows.append(
                (
                    *lead(cell),
                    lang,
                    _mean(cell.before, f"{lang}_truth"),
                    _mean(cell.before, f"{lang}_reliability"),
                    _mean(cell.after, f"{lang}_reliability"),
                    percent(None if after is None else after.low),
                    percent(None if after is None else after.high),
                    _mean(cell.before, f"{lang}_generality"),
                    _mean(cell.after, f"{lang}_generality"),
                    _mean(cell.after, f"{lang}_locality"),
                    str(after.count if after else 0),
                )
            )
    return Table(
        "before_after",
        BilingualText(
            "编辑前后，按语言，百分数", "Before and after the edit, by language, in percent"
        ),
        (
            *CELL,
            *columns(
                ("lang", "测量语言", "measured in", False),
                ("known_before", "编辑前答对原事实", "true answer known before"),
                ("reliability_before", "可靠性，前", "reliability, before"),
                ("reliability_after", "可靠性，后", "reliability, after"),
                ("reliability_low", "区间下限", "interval, low"),
                ("reliability_high", "区间上限", "interval, high"),
                ("generality_before", "泛化性，前", "generality, before"),
                ("generality_after", "泛化性，后", "generality, after"),
                ("locality_after", "局部性，后", "locality, after"),
                ("facts", "条目", "facts"),
            ),
        ),
        tuple(rows),
        BilingualText(
            "区间由对条目重抽样得到（自助法）。局部性按定义在编辑前为全部一致。",
            "Intervals are from drawing the facts anew (bootstrap). Before the edit locality is "
            "whole by definition.",
        ),
    )


def _beyond(done: Sequence[CellResult]) -> Table:
    names = ("exact_match", "prefers_new", "p_new", "p_old")
    rows = [
        (
            *lead(cell),
            lang,
            *(
                _mean(part, f"{lang}_{name}")
                for name in names
                for part in (cell.before, cell.after)
            ),
        )
        for cell in done
        for lang in LANGUAGES
    ]
    titles = (
        ("exact_match", "自由生成命中", "exact match"),
        ("prefers_new", "更倾向新答案", "prefers the new answer"),
        ("p_new", "新答案概率", "p(new)"),
        ("p_old", "原答案概率", "p(old)"),
    )
    both = [
        one
        for key, zh, en in titles
        for one in columns(
            (f"{key}_before", f"{zh}，前", f"{en}, before"),
            (f"{key}_after", f"{zh}，后", f"{en}, after"),
        )
    ]
    return Table(
        "beyond_the_paper",
        BilingualText("论文之外的指标，百分数", "Measures beyond the paper's, in percent"),
        (*CELL, *columns(("lang", "测量语言", "measured in", False)), *both),
        tuple(rows),
    )


def hit(item: FactResult, lang: Language) -> bool | None:
    """Whether the model gives the new answer: freely where it was let to, else token by token."""
    measures = item.measures(lang)
    exact = measures.get("exact_match")
    if exact is not None:
        return exact == 1
    reliability = measures.get("reliability")
    return None if reliability is None else reliability == 1


def _transfer(evaluation: Evaluation) -> Table:
    rows = []
    for cell in evaluation.done:
        edited = cell.setting.language
        if edited == "mix" or not cell.items:
            continue
        other, baseline = OTHER[edited], evaluation.baseline(cell)
        gains = list(_gains(cell.items, baseline, other))
        gain = mean_interval(gains, Bootstrap(seed=evaluation.results.seed))
        pairs = [(hit(item, edited), hit(item, other)) for item in cell.items]
        counts = [sum(pair == want for pair in pairs) for want in _OUTCOMES]
        rows.append(
            (
                *lead(cell),
                percent(None if gain is None else gain.mean),
                percent(None if gain is None else gain.low),
                percent(None if gain is None else gain.high),
                *map(str, counts),
            )
        )
    return Table(
        "transfer_between_languages",
        BilingualText(
            "一种语言的编辑在另一种语言中留下什么",
            "What an edit in one language leaves in the other",
        ),
        (
            *CELL,
            *columns(
                ("gain", "另一语言可靠性增量（百分点）", "reliability gained in the other, points"),
                ("gain_low", "区间下限", "interval, low"),
                ("gain_high", "区间上限", "interval, high"),
                ("both", "两种语言都改", "changed in both"),
                ("edited_only", "只在编辑语言中改", "changed in the edited one only"),
                ("other_only", "只在另一语言中改", "changed in the other only"),
                ("neither", "都没改", "changed in neither"),
            ),
        ),
        tuple(rows),
        BilingualText(
            "「改」指模型自由生成时说出新答案；未做自由生成时，指新答案的每个词元都居首位。",
            "“Changed”: left alone, the model says the new answer; where it was not left alone, "
            "every token of the new answer comes first.",
        ),
    )


_OUTCOMES = ((True, True), (True, False), (False, True), (False, False))


def _gains(
    items: Iterable[FactResult], baseline: Mapping[str, BaselineResult], lang: Language
) -> Iterable[float]:
    for item in items:
        if item.id not in baseline:
            continue
        before = baseline[item.id].measures(lang).get("reliability")
        after = item.measures(lang).get("reliability")
        if before is not None and after is not None:
            yield after - before


def _refused(done: Sequence[CellResult]) -> list[Part]:
    rows = [(*lead(cell), one.id, one.reason) for cell in done for one in cell.refused]
    if not rows:
        return []
    return [
        Table(
            "refused",
            BilingualText("无法编辑的条目", "Facts that could not be edited"),
            (*CELL, *columns(("id", "条目", "fact", False), ("reason", "原因", "why", False))),
            tuple(rows),
            shown=_REFUSED_SHOWN,
        )
    ]


def _failed(results: Results) -> list[Part]:
    rows = [(cell.setting.label, cell.error or NONE) for cell in results.failed]
    if not rows:
        return []
    return [
        Table(
            "failed_cells",
            BilingualText("失败的实验", "Cells that failed"),
            columns(("cell", "实验", "cell", False), ("error", "原因", "why", False)),
            tuple(rows),
        )
    ]


def _mean(summary: Summary, name: str) -> str:
    found = summary.get(name)
    return percent(None if found is None else found.mean)
