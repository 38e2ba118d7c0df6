"""Examples of facts that transferred, did not transfer or could not be edited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from clm_data.eval.bilingual import BilingualText, domain_title
from clm_data.eval.metrics import exact_match
from clm_data.eval.report.evaluation import OTHER_LANGUAGE, Evaluation, gives_new_answer
from clm_data.eval.report.parts import (
    NO_VALUE,
    Example,
    ExampleGroup,
    ExampleSide,
    MissingPart,
    Part,
    percent,
)
from clm_data.eval.results import CellResult, Continuation, FactResult
from clm_data.records import LANGUAGES, Language, Record

_GROUPS = {
    "transferred": BilingualText(
        "迁移成功：另一种语言也给出反事实答案",
        "Transferred: the other language also gives the new answer",
    ),
    "stayed": BilingualText(
        "未迁移：只有编辑语言给出反事实答案",
        "Not transferred: only the edited language gives the new answer",
    ),
    "failed": BilingualText(
        "编辑失败：编辑语言未给出反事实答案",
        "Failed: the edited language does not give the new answer",
    ),
}
_NO_SINGLE_LANGUAGE = BilingualText(
    "没有只以一种语言编辑的实验，因此没有迁移的例子。",
    "No cell was edited in a single language, so there are no examples of transfer.",
)
_NO_ANSWERS = BilingualText(
    "结果中没有模型的回答：评测时未做自由生成，或结果由旧版本产生。",
    "The results do not contain the model’s answers: free generation was off, or an older version "
    "wrote them.",
)
_PER_GROUP = 2
_MAX_CHARACTERS = 120
"""Longer answers are cut."""


def example_parts(evaluation: Evaluation, records: Mapping[str, Record]) -> list[Part]:
    """Examples from each model's first cell edited in Chinese and first edited in English.

    Args:
        evaluation: The results.
        records: Records by id; without them the examples have no prompts.
    """
    cells = list(_first_cells(evaluation.done))
    if not cells:
        command = "clm-data eval-baselines --languages zh,en ..."
        return [MissingPart(_NO_SINGLE_LANGUAGE, command)]
    examples = [
        example
        for cell, edited in cells
        for example in _examples_of(evaluation, cell, edited, records)
    ]
    if not any(side.after for example in examples for side in example.sides):
        return [MissingPart(_NO_ANSWERS, "clm-data eval-baselines ... --out NEW_FOLDER")]
    return [
        ExampleGroup(title, tuple(of_group))
        for group, title in _GROUPS.items()
        if (of_group := [example for example in examples if example.group == group])
    ]


def _first_cells(done: Sequence[CellResult]) -> Iterator[tuple[CellResult, Language]]:
    """The first cell of each model and single editing language, with that language."""
    seen: set[tuple[str, Language]] = set()
    for cell in done:
        edited = cell.setting.language
        if edited != "mix" and cell.items and (cell.setting.model, edited) not in seen:
            seen.add((cell.setting.model, edited))
            yield cell, edited


def _examples_of(
    evaluation: Evaluation, cell: CellResult, edited: Language, records: Mapping[str, Record]
) -> Iterator[Example]:
    baseline = evaluation.baseline(cell)
    before = {record: answers.continuation for record, answers in baseline.items()}
    groups: dict[str, list[FactResult]] = {name: [] for name in _GROUPS}
    for item in cell.items:
        group = _group(item, edited, before.get(item.id, {}), records.get(item.id))
        if group is not None:
            groups[group].append(item)
    for group, items in groups.items():
        for item in _from_different_domains(items)[:_PER_GROUP]:
            record = records.get(item.id)
            sides = tuple(
                _side(item, lang, lang == edited, before.get(item.id, {}), record)
                for lang in LANGUAGES
            )
            domain = domain_title(item.domain, evaluation.domains)
            yield Example(group, cell.setting.label, item.id, domain, sides)


def _group(
    item: FactResult, edited: Language, before: Continuation, record: Record | None
) -> str | None:
    """The group that a fact is an example of; None if it is not a clear example.

    A fact whose new answer the unedited model already gave in the other language is not.
    """
    other = OTHER_LANGUAGE[edited]
    here, there = gives_new_answer(item, edited), gives_new_answer(item, other)
    if here is None or there is None:
        return None
    if not here:
        return "failed"
    if not there:
        return "stayed"
    if record is not None and before.get(other):
        already = exact_match(before[other], record.fact(other).target_new, other)
        return None if already else "transferred"
    return "transferred"


def _from_different_domains(items: Sequence[FactResult]) -> list[FactResult]:
    """The first fact of each domain, then the others."""
    first: dict[str | None, FactResult] = {}
    for item in items:
        first.setdefault(item.domain, item)
    chosen = list(first.values())
    return [*chosen, *(item for item in items if item not in chosen)]


def _side(
    item: FactResult, lang: Language, edited: bool, before: Continuation, record: Record | None
) -> ExampleSide:
    fact = None if record is None else record.fact(lang)
    answer = item.continuation.get(lang, "")
    return ExampleSide(
        lang,
        edited,
        prompt=fact.prompt if fact else NO_VALUE,
        true_answer=fact.ground_truth if fact else NO_VALUE,
        new_answer=fact.target_new if fact else NO_VALUE,
        before=_shortened(before.get(lang, "")),
        after=_shortened(answer),
        verdict=_verdict(answer, item, lang, record),
        reliability=percent(item.measures(lang).get("reliability")),
    )


def _verdict(
    answer: str, item: FactResult, lang: Language, record: Record | None
) -> Literal["new", "old", "other"]:
    if gives_new_answer(item, lang):
        return "new"
    if record is not None and exact_match(answer, record.fact(lang).ground_truth, lang):
        return "old"
    return "other"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_CHARACTERS else line[:_MAX_CHARACTERS] + "…"
