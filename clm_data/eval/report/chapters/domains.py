"""Tables of reliability by domain, for the chapter on the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from clm_data.eval.bilingual import (
    LANGUAGE_NAMES,
    BilingualText,
    batch_of,
    domain_title,
    edited_in,
)
from clm_data.eval.report.evaluation import Evaluation, cell_fields
from clm_data.eval.report.parts import NO_VALUE, Column, Table, columns, percent
from clm_data.eval.results import CellResult
from clm_data.records import LANGUAGES


def domain_tables(evaluation: Evaluation) -> list[Table]:
    """A table for each model, method, batch size and note; all but the first are collapsed."""
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in evaluation.done:
        model, method, _, batch_size, note = cell_fields(cell)
        groups.setdefault((model, method, batch_size, note), []).append(cell)
    return [
        _domain_table(evaluation, group, cells, number)
        for number, (group, cells) in enumerate(groups.items(), 1)
    ]


def _domain_table(
    evaluation: Evaluation, group: tuple[str, ...], cells: Sequence[CellResult], number: int
) -> Table:
    model, method, batch_size, note = group
    size = batch_of(batch_size)
    suffix = "" if note == NO_VALUE else f", {note}"
    return Table(
        f"evaluation_domains_{number}",
        BilingualText(
            f"各领域的可靠性（%）：{model}，{method}，{size.zh}{suffix}",
            f"Reliability by domain, in percent: {model}, {method}, {size.en}{suffix}",
        ),
        (
            *columns(
                ("domain_zh", "领域", "domain (Chinese)", False),
                ("domain_en", "领域（英文）", "domain", False),
                ("facts", "事实数", "facts"),
            ),
            *(_column(cell.setting.language, lang) for cell in cells for lang in LANGUAGES),
        ),
        tuple(
            _row(evaluation, domain, cells)
            for domain in dict.fromkeys(name for cell in cells for name in cell.domains)
        ),
        collapsed=number > 1,
    )


def _row(evaluation: Evaluation, domain: str, cells: Sequence[CellResult]) -> tuple[str, ...]:
    title = domain_title(domain, evaluation.domains)
    means = [cell.domains.get(domain, {}) for cell in cells]
    facts = max((of_cell.get("facts") or 0 for of_cell in means), default=0)
    values = [
        percent(of_cell.get(f"{lang}_reliability")) for of_cell in means for lang in LANGUAGES
    ]
    return (title.zh, title.en, f"{facts:.0f}", *values)


def _column(edit: str, lang: str) -> Column:
    edited, name = edited_in(edit), LANGUAGE_NAMES[lang]
    title = BilingualText(
        f"{LANGUAGE_NAMES[edit].zh}编辑，{name.zh}测量", f"{edited.en}, measured in {name.en}"
    )
    return Column(f"edit_{edit}_{lang}_rel", title)
