"""The chapter on the evaluation: results of all cells, before and after the edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from clm_data.eval import tables
from clm_data.eval.bilingual import BilingualText
from clm_data.eval.engines import engine_rows
from clm_data.eval.intervals import Bootstrap, mean_interval
from clm_data.eval.metrics import PAPER_MEASURES
from clm_data.eval.report.chapters.domains import domain_tables
from clm_data.eval.report.chapters.examples import example_parts
from clm_data.eval.report.evaluation import (
    CELL_COLUMNS,
    MEASURED_IN,
    OTHER_LANGUAGE,
    VALUE_COLUMNS,
    Evaluation,
    cell_fields,
    gives_new_answer,
)
from clm_data.eval.report.parts import (
    NO_VALUE,
    Figure,
    Paragraph,
    Part,
    Section,
    Table,
    columns,
    decimals,
    percent,
)
from clm_data.eval.results import BaselineResult, CellResult, FactResult, Results, Summary
from clm_data.records import LANGUAGES, Language, Record

_MAX_REFUSED = 20
_FURTHER_MEASURES = (
    ("exact_match", "自由生成命中", "exact match"),
    ("prefers_new", "反事实答案概率更高", "new answer more likely"),
    ("p_new", "反事实答案的概率", "p(new)"),
    ("p_old", "真实答案的概率", "p(old)"),
)
_OUTCOMES = ((True, True), (True, False), (False, True), (False, False))
"""Whether the answer changed in the edited and in the other language, as in the table's columns."""


def evaluation_section(
    evaluation: Evaluation, records: Mapping[str, Record], figures: Sequence[Figure]
) -> Section:
    """The chapter on the results of the sweep.

    Args:
        evaluation: The results.
        records: Records by id; empty without the dataset.
        figures: Figures of the chapter.
    """
    parts = (
        *figures,
        *result_tables(evaluation),
        *domain_tables(evaluation),
        *example_parts(evaluation, records),
    )
    return Section("evaluation", BilingualText("评测", "Evaluation"), parts)


def result_tables(evaluation: Evaluation) -> list[Part]:
    """Tables over all cells."""
    done, results = evaluation.done, evaluation.results
    if not done:
        failed = BilingualText("所有实验均失败。", "All cells failed.")
        return [Paragraph(failed, mark="bad"), *_failed(results)]
    return [
        _overview(results),
        *_engines(results),
        _before_and_after(done),
        _further_measures(done),
        _transfer(evaluation),
        *_refused(done),
        *_failed(results),
    ]


def _overview(results: Results) -> Table:
    """All cells in the layout of the paper's tables."""
    rows = tables.rows_of(results)
    best = tables.best_of(rows)
    first = len(CELL_COLUMNS) - 1
    return Table(
        "evaluation",
        BilingualText("编辑后的结果（%）", "Results after editing, in percent"),
        (*CELL_COLUMNS[:-1], *VALUE_COLUMNS, CELL_COLUMNS[-1]),
        tuple(
            (
                *(row.model, row.method, row.language, str(row.batch_size)),
                *(decimals(row.values.get(name), 2) for name in PAPER_MEASURES),
                row.note or NO_VALUE,
            )
            for row in rows
        ),
        BilingualText(
            "版式与论文的表相同；粗体为同一模型的最佳值。公式见 docs/reference/metrics.md。",
            "Layout of the paper’s tables; the best values of each model are bold. Formulas: "
            "docs/reference/metrics.md.",
        ),
        frozenset(
            (i, first + j)
            for i in range(len(rows))
            for j, name in enumerate(PAPER_MEASURES)
            if best[i, name]
        ),
    )


def _engines(results: Results) -> list[Table]:
    """EasyEdit's cells compared with ours; none without such pairs."""
    rows = engine_rows(results)
    if not rows:
        return []
    table = Table(
        "engines",
        BilingualText("EasyEdit 与 clm-data 的差异", "EasyEdit and clm-data on the same settings"),
        (
            *columns(("cell", "设置", "setting", False)),
            *VALUE_COLUMNS,
            *columns(
                ("relative", "权重变化的相对差", "change of weights, relative difference"),
                ("cosine", "权重变化的余弦", "change of weights, cosine"),
                ("version", "版本", "version", False),
            ),
        ),
        tuple(tables.engine_fields(row) for row in rows),
        BilingualText(
            "指标为 EasyEdit 减去 clm-data（百分点）。权重变化（或码本的键与值）取其中最大的相对差"
            "与最小的余弦，需要 --save-deltas。",
            "Measures: EasyEdit minus clm-data, in percentage points. Changes of weights, or keys "
            "and values of a codebook: the largest relative difference of one, and the smallest "
            "cosine; they need --save-deltas.",
        ),
    )
    return [table]


def _before_and_after(cells: Sequence[CellResult]) -> Table:
    return Table(
        "before_after",
        BilingualText("编辑前后对比（%）", "Before and after editing, in percent"),
        (
            *CELL_COLUMNS,
            *MEASURED_IN,
            *columns(
                ("known_before", "编辑前答对真实答案", "true answer known before"),
                ("reliability_before", "可靠性，编辑前", "reliability, before"),
                ("reliability_after", "可靠性，编辑后", "reliability, after"),
                ("reliability_low", "区间下限", "interval, low"),
                ("reliability_high", "区间上限", "interval, high"),
                ("generality_before", "泛化性，编辑前", "generality, before"),
                ("generality_after", "泛化性，编辑后", "generality, after"),
                ("locality_after", "局部性，编辑后", "locality, after"),
                ("facts", "事实数", "facts"),
            ),
        ),
        tuple(_before_and_after_row(cell, lang) for cell in cells for lang in LANGUAGES),
        BilingualText(
            "区间为对事实重抽样得到的自助法置信区间。局部性衡量编辑后的回答与编辑前是否一致，因此"
            "没有编辑前的值。",
            "Intervals are bootstrap intervals over facts. Locality compares the answers with "
            "those before the edit, so it has no value before it.",
        ),
    )


def _before_and_after_row(cell: CellResult, lang: Language) -> tuple[str, ...]:
    after = cell.after.get(f"{lang}_reliability")
    return (
        *cell_fields(cell),
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


def _further_measures(cells: Sequence[CellResult]) -> Table:
    rows = [
        (
            *cell_fields(cell),
            lang,
            *(
                _mean(summary, f"{lang}_{name}")
                for name, _, _ in _FURTHER_MEASURES
                for summary in (cell.before, cell.after)
            ),
        )
        for cell in cells
        for lang in LANGUAGES
    ]
    measures = [
        column
        for name, zh, en in _FURTHER_MEASURES
        for column in columns(
            (f"{name}_before", f"{zh}，编辑前", f"{en}, before"),
            (f"{name}_after", f"{zh}，编辑后", f"{en}, after"),
        )
    ]
    return Table(
        "beyond_the_paper",
        BilingualText("论文以外的指标（%）", "Measures not in the paper, in percent"),
        (*CELL_COLUMNS, *MEASURED_IN, *measures),
        tuple(rows),
    )


def _transfer(evaluation: Evaluation) -> Table:
    return Table(
        "transfer_between_languages",
        BilingualText("编辑对另一种语言的影响", "Effect of edits on the other language"),
        (
            *CELL_COLUMNS,
            *columns(
                (
                    "gain",
                    "另一语言可靠性的增量（百分点）",
                    "gain in reliability, other language, points",
                ),
                ("gain_low", "区间下限", "interval, low"),
                ("gain_high", "区间上限", "interval, high"),
                ("both", "两种语言均改变", "changed in both"),
                ("edited_only", "仅编辑语言改变", "only in the edited language"),
                ("other_only", "仅另一语言改变", "only in the other language"),
                ("neither", "均未改变", "in neither"),
            ),
        ),
        tuple(_transfer_rows(evaluation)),
        BilingualText(
            "“改变”指模型在自由生成中给出反事实答案；未做自由生成时，指反事实答案的每个词元都是概"
            "率最高的词元。",
            "“Changed”: in free generation the model gives the new answer; without free "
            "generation, every token of the new answer is the most likely one.",
        ),
    )


def _transfer_rows(evaluation: Evaluation) -> Iterator[tuple[str, ...]]:
    for cell in evaluation.done:
        edited = cell.setting.language
        if edited == "mix" or not cell.items:
            continue
        other = OTHER_LANGUAGE[edited]
        gains = list(_gains(cell.items, evaluation.baseline(cell), other))
        gain = mean_interval(gains, Bootstrap(seed=evaluation.results.seed))
        outcomes = [
            (gives_new_answer(item, edited), gives_new_answer(item, other)) for item in cell.items
        ]
        yield (
            *cell_fields(cell),
            percent(None if gain is None else gain.mean),
            percent(None if gain is None else gain.low),
            percent(None if gain is None else gain.high),
            *(str(outcomes.count(outcome)) for outcome in _OUTCOMES),
        )


def _gains(
    items: Sequence[FactResult], baseline: Mapping[str, BaselineResult], lang: Language
) -> Iterator[float]:
    """How much the reliability of each fact increased in a language."""
    for item in items:
        after = item.measures(lang).get("reliability")
        unedited = baseline.get(item.id)
        before = None if unedited is None else unedited.measures(lang).get("reliability")
        if after is not None and before is not None:
            yield after - before


def _refused(cells: Sequence[CellResult]) -> list[Part]:
    rows = [
        (*cell_fields(cell), refusal.id, refusal.reason)
        for cell in cells
        for refusal in cell.refused
    ]
    if not rows:
        return []
    table = Table(
        "refused",
        BilingualText("无法完成的编辑", "Edits that could not be made"),
        (
            *CELL_COLUMNS,
            *columns(("id", "条目", "record", False), ("reason", "原因", "reason", False)),
        ),
        tuple(rows),
        max_rows=_MAX_REFUSED,
    )
    return [table]


def _failed(results: Results) -> list[Part]:
    rows = [(cell.setting.label, cell.error or NO_VALUE) for cell in results.failed]
    if not rows:
        return []
    table = Table(
        "failed_cells",
        BilingualText("失败的实验", "Failed cells"),
        columns(("cell", "实验", "cell", False), ("error", "原因", "reason", False)),
        tuple(rows),
    )
    return [table]


def _mean(summary: Summary, name: str) -> str:
    interval = summary.get(name)
    return percent(None if interval is None else interval.mean)
