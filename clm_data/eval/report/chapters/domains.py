"""Tables of the evaluation by domain, and the long ones that figures are drawn from."""

from __future__ import annotations

from collections.abc import Sequence

from clm_data.eval.bilingual import domain_title
from clm_data.eval.report.chapters.evaluation import Evaluation, lead
from clm_data.eval.report.parts import NONE, BilingualText, Column, Table, columns, percent
from clm_data.eval.results import CellResult
from clm_data.records import LANGUAGES

_SIDES = {"zh": "中文", "en": "英文"}


def by_domain(evaluation: Evaluation) -> list[Table]:
    """A table of all cells, for programs, and one to read for each method and batch size."""
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in evaluation.done:
        model, method, _, batch, note = lead(cell)
        groups.setdefault((model, method, batch, note), []).append(cell)
    return [
        _domain_table(evaluation, name, cells, number)
        for number, (name, cells) in enumerate(groups.items(), 1)
    ]


def _domain_table(
    evaluation: Evaluation, name: tuple[str, ...], cells: Sequence[CellResult], number: int
) -> Table:
    domains = list(dict.fromkeys(name for cell in cells for name in cell.domains))
    rows = []
    for domain in domains:
        words = domain_title(domain, evaluation.domains)
        means = [cell.domains.get(domain, {}) for cell in cells]
        facts = max((one.get("facts") or 0 for one in means), default=0)
        values = [percent(one.get(f"{lang}_reliability")) for one in means for lang in LANGUAGES]
        rows.append((words.zh, words.en, f"{facts:.0f}", *values))
    edits = [cell.setting.language for cell in cells]
    measured = [
        Column(
            f"edit_{edit}_{lang}_rel",
            BilingualText(f"编辑 {edit}：{_SIDES[lang]}", f"edit {edit}: {lang}"),
        )
        for edit in edits
        for lang in LANGUAGES
    ]
    model, method, batch, note = name
    about = f"{model} {method}, {batch}" + ("" if note == NONE else f", {note}")
    return Table(
        f"evaluation_domains_{number}",
        BilingualText(
            f"各领域的可靠性，百分数：{about}", f"Reliability by domain, in percent: {about}"
        ),
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
