"""Examples of transfers and failures, with what the model said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from clm_data.domain import Domain
from clm_data.eval.bilingual import domain_title
from clm_data.eval.metrics import exact_match
from clm_data.eval.report.chapters.evaluation import OTHER, Evaluation, hit
from clm_data.eval.report.parts import (
    NONE,
    BilingualText,
    Example,
    Examples,
    Missing,
    Part,
    Side,
    percent,
)
from clm_data.eval.results import CellResult, FactResult
from clm_data.records import LANGUAGES, Language, Record

GROUPS = {
    "transferred": BilingualText(
        "迁移成功：另一种语言也改了", "Transferred: the other language changed, too"
    ),
    "stayed": BilingualText(
        "没有迁移：只有被编辑的语言改了", "Not transferred: only the edited language changed"
    ),
    "failed": BilingualText(
        "编辑失败：被编辑的语言也没改", "Failed: not even the edited language changed"
    ),
}
_PER_GROUP = 2
_LONGEST = 120
"""Characters of an answer that are shown."""


def parts(evaluation: Evaluation, records: Mapping[str, Record]) -> list[Part]:
    """Examples of each model's first cells that were edited in one language.

    Args:
        evaluation: The results.
        records: By id; empty where the dataset is not at hand, then there are no prompts.
    """
    cells = list(_chosen(evaluation.done))
    if not cells:
        words = BilingualText(
            "没有只用一种语言编辑的实验，因此没有迁移的例子。",
            "No cell was edited in one language alone, so there are no examples of transfer.",
        )
        return [Missing(words, "clm-data eval-baselines --languages zh,en ...")]
    found = [one for cell in cells for one in _of_cell(evaluation, cell, records)]
    if not any(side.after for one in found for side in one.sides):
        words = BilingualText(
            "结果中没有保存模型的回答（评测时没有自由生成，或由旧版本产生）。",
            "The model's answers are not in the results (free generation was off, or an older "
            "version made them).",
        )
        return [Missing(words, "clm-data eval-baselines ... --out NEW_FOLDER")]
    return [
        Examples(title, tuple(mine))
        for group, title in GROUPS.items()
        if (mine := [one for one in found if one.group == group])
    ]


def _chosen(done: Sequence[CellResult]) -> Iterable[CellResult]:
    seen: set[tuple[str, str]] = set()
    for cell in done:
        key = (cell.setting.model, cell.setting.language)
        if cell.setting.language != "mix" and cell.items and key not in seen:
            seen.add(key)
            yield cell


def _of_cell(
    evaluation: Evaluation, cell: CellResult, records: Mapping[str, Record]
) -> Iterable[Example]:
    edited = cell.setting.language
    if edited == "mix":
        return
    baseline = evaluation.baseline(cell)
    groups: dict[str, list[FactResult]] = {name: [] for name in GROUPS}
    for item in cell.items:
        said = baseline[item.id].continuation if item.id in baseline else {}
        group = _group(item, edited, said, records.get(item.id))
        if group is not None:
            groups[group].append(item)
    for name, items in groups.items():
        for item in _varied(items):
            said = baseline[item.id].continuation if item.id in baseline else {}
            yield _example(name, cell, edited, item, said, records.get(item.id), evaluation.domains)


def _group(
    item: FactResult, edited: Language, said: Mapping[Language, str], record: Record | None
) -> str | None:
    """Which group a fact is an example of; None where it shows nothing."""
    own, other = hit(item, edited), hit(item, OTHER[edited])
    if own is None or other is None:
        return None
    if not own:
        return "failed"
    lang = OTHER[edited]
    if other and record is not None and said.get(lang):
        knew = exact_match(said[lang], record.fact(lang).target_new, lang)
        return None if knew else "transferred"
    return "transferred" if other else "stayed"


def _varied(items: Sequence[FactResult]) -> list[FactResult]:
    """The first few, of different domains as far as there are."""
    by_domain: dict[str | None, FactResult] = {}
    for item in items:
        by_domain.setdefault(item.domain, item)
    first = list(by_domain.values())
    rest = [one for one in items if one not in first]
    return [*first, *rest][:_PER_GROUP]


def _example(
    group: str,
    cell: CellResult,
    edited: Language,
    item: FactResult,
    said: Mapping[Language, str],
    record: Record | None,
    domains: Mapping[str, Domain],
) -> Example:
    sides = []
    for lang in LANGUAGES:
        fact = None if record is None else record.fact(lang)
        answer = item.continuation.get(lang, "")
        sides.append(
            Side(
                lang,
                lang == edited,
                fact.prompt if fact else NONE,
                fact.ground_truth if fact else NONE,
                fact.target_new if fact else NONE,
                _short(said.get(lang, "")),
                _short(answer),
                _verdict(answer, item, lang, record),
                percent(item.measures(lang).get("reliability")),
            )
        )
    return Example(
        group, cell.setting.label, item.id, domain_title(item.domain, domains), tuple(sides)
    )


def _verdict(answer: str, item: FactResult, lang: Language, record: Record | None) -> str:
    if hit(item, lang):
        return "new"
    if record is not None and exact_match(answer, record.fact(lang).ground_truth, lang):
        return "old"
    return "other"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"
