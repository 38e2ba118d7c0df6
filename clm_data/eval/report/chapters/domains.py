"""Tables of the evaluation by domain, and the long ones that figures are drawn from."""

from __future__ import annotations

from collections.abc import Sequence

from clm_data.eval import tables
from clm_data.eval.intervals import Interval
from clm_data.eval.report.chapters.dataset import domain_words
from clm_data.eval.report.chapters.evaluation import CELL, NUMBER_COLUMNS, Evaluation, lead
from clm_data.eval.report.parts import NONE, Column, Table, Words, columns, percent
from clm_data.eval.results import CellResult
from clm_data.records import LANGUAGES

_SIDES = {"zh": "中文", "en": "英文"}


def by_domain(evaluation: Evaluation) -> list[Table]:
    """A table of all cells, for programs, and one to read for each method and batch size."""
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in evaluation.done:
        model, method, _, batch, note = lead(cell)
        groups.setdefault((model, method, batch, note), []).append(cell)
    made = [
        _domain_table(evaluation, name, cells, number)
        for number, (name, cells) in enumerate(groups.items(), 1)
    ]
    return [_domain_list(evaluation), *made]


def _domain_list(evaluation: Evaluation) -> Table:
    """Every cell and domain, one a row: for programs, not shown."""
    rows = []
    for cell in evaluation.done:
        for name, means in cell.domains.items():
            words = domain_words(name, evaluation.domains)
            values = [percent(means.get(one), 2) for one in tables.NUMBERS]
            facts = means.get("facts")
            rows.append((*lead(cell), name, words.zh, words.en, f"{facts or 0:.0f}", *values))
    return Table(
        "evaluation_domains",
        Words("各领域，所有实验", "By domain, all cells"),
        (
            *CELL,
            *columns(
                ("domain", "领域代号", "domain id", False),
                ("domain_zh", "领域", "domain (Chinese)", False),
                ("domain_en", "领域（英文）", "domain", False),
                ("facts", "条目", "facts"),
            ),
            *NUMBER_COLUMNS,
        ),
        tuple(rows),
        shown=0,
    )


def _domain_table(
    evaluation: Evaluation, name: tuple[str, ...], cells: Sequence[CellResult], number: int
) -> Table:
    domains = list(dict.fromkeys(name for cell in cells for name in cell.domains))
    rows = []
    for domain in domains:
        words = domain_words(domain, evaluation.domains)
        means = [cell.domains.get(domain, {}) for cell in cells]
        facts = max((one.get("facts") or 0 for one in means), default=0)
        values = [percent(one.get(f"{lang}_reliability")) for one in means for lang in LANGUAGES]
        rows.append((words.zh, words.en, f"{facts:.0f}", *values))
    edits = [cell.setting.language for cell in cells]
    measured = [
        Column(
            f"edit_{edit}_{lang}_rel", Words(f"编辑 {edit}：{_SIDES[lang]}", f"edit {edit}: {lang}")
        )
        for edit in edits
        for lang in LANGUAGES
    ]
    model, method, batch, note = name
    about = f"{model} {method}, {batch}" + ("" if note == NONE else f", {note}")
    return Table(
        f"evaluation_domains_{number}",
        Words(f"各领域的可靠性，百分数：{about}", f"Reliability by domain, in percent: {about}"),
        (
            *columns(
                ("domain_zh", "领域", "domain (Chinese)", False),
                ("domain_en", "领域（英文）", "domain", False),
                ("facts", "条目", "facts"),
            ),
            *measured,
        ),
        tuple(rows),
        folded=number > 1,
    )


def long_table(evaluation: Evaluation) -> Table:
    """Every mean with its interval, one a row: what figures are drawn from; not shown."""
    rows = [
        (
            *lead(cell),
            when,
            name,
            f"{one.mean:.6g}",
            f"{one.low:.6g}",
            f"{one.high:.6g}",
            str(one.count),
        )
        for cell in evaluation.done
        for when, summary in (("before", cell.before), ("after", cell.after))
        for name, one in summary.items()
        if one is not None
    ]
    return Table(
        "evaluation_long",
        Words("所有均值与区间", "Every mean with its interval"),
        (
            *CELL,
            *columns(
                ("when", "时间", "when", False),
                ("measure", "指标", "measure", False),
                ("mean", "均值", "mean"),
                ("low", "下限", "low"),
                ("high", "上限", "high"),
                ("facts", "条目", "facts"),
            ),
        ),
        tuple(rows),
        shown=0,
    )


def along_table(evaluation: Evaluation) -> Table:
    """Measurements along sequential runs; not shown."""
    rows = [
        (
            *lead(cell),
            str(stop.edited),
            name,
            f"{one.mean:.6g}",
            f"{one.low:.6g}",
            f"{one.high:.6g}",
        )
        for cell in evaluation.done
        for stop in cell.along
        for name, one in stop.after.items()
        if one is not None
    ]
    return Table(
        "evaluation_along",
        Words("逐次编辑的过程", "Along sequential runs"),
        (
            *CELL,
            *columns(
                ("edited", "已编辑", "edited so far"),
                ("measure", "指标", "measure", False),
                ("mean", "均值", "mean"),
                ("low", "下限", "low"),
                ("high", "上限", "high"),
            ),
        ),
        tuple(rows),
        shown=0,
    )


def _ends(one: Interval) -> tuple[str, str, str]:
    return f"{one.mean:.6g}", f"{one.low:.6g}", f"{one.high:.6g}"
