"""The first chapter: the main results in a few sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clm_data.eval.bilingual import LANGUAGE_NAMES, BilingualText
from clm_data.eval.csv_tables import Row, Tables, float_or_none, unique, where
from clm_data.eval.report.evaluation import OTHER_LANGUAGE, Evaluation
from clm_data.eval.report.parts import Paragraph, Part, Section, decimals, percent
from clm_data.eval.results import CellResult
from clm_data.eval.tables import method_title
from clm_data.records import LANGUAGES, Language

_ABOUT = BilingualText("{about}", "{about}")
"""What the recipe says about itself, in its own language."""
_COUNTS = BilingualText(
    "共 {records} 条事实、{cells} 项实验（失败 {failed} 项）。可靠性以百分比表示，方括号内为自助法"
    "置信区间。",
    "{records} facts and {cells} cells, {failed} of which failed. Reliability is in percent, with "
    "bootstrap intervals in brackets.",
)
_COSINES = {
    "zh-en": BilingualText(
        "{model}：同一批事实的中文编辑与英文编辑，权重改变的余弦相似度为 {low} 至 {high}"
        "（所有方法、批大小和层）；随机矩阵不超过 ±{chance}。",
        "{model}: over all methods, batch sizes and layers, the cosine similarity between the "
        "weight changes of Chinese and English edits of the same facts is {low} to {high}; random "
        "matrices stay within ±{chance}.",
    ),
    "sum-mix": BilingualText(
        "{model}：中文与英文编辑的权重改变之和，与双语编辑的权重改变之间，余弦相似度为 {low} 至 "
        "{high}；随机矩阵不超过 ±{chance}。",
        "{model}: the cosine similarity between the sum of both weight changes and the weight "
        "change of editing in both languages is {low} to {high}; random matrices stay within ±"
        "{chance}.",
    ),
}
_CONTROL = BilingualText(
    "{model}：作为对照，同一语言中两批不同事实的权重改变，余弦相似度为 {low} 至 {high}。",
    "{model}: for comparison, the cosine similarity between the weight changes of two batches of "
    "different facts in the same language is {low} to {high}.",
)


def summary_section(evaluation: Evaluation, tables: Tables) -> Section:
    """The main results.

    Args:
        evaluation: The results.
        tables: Tables of the analysis by file name.
    """
    results = evaluation.results
    counts = {
        "records": str(results.records),
        "cells": str(len(results.cells)),
        "failed": str(len(results.failed)),
    }
    about = " ".join(str(results.recipe.get("about", "")).split())
    parts: list[Part] = [
        *([Paragraph(_ABOUT, {"about": about})] if about else []),
        Paragraph(_COUNTS, counts),
        *_reliability(evaluation.done),
        *_geometry(tables),
    ]
    return Section("summary", BilingualText("主要结果", "Summary"), tuple(parts))


def _reliability(cells: Sequence[CellResult]) -> Iterator[Paragraph]:
    """The last cell of each model, method and editing language, without mixed edits."""
    last = {
        (cell.setting.model, cell.setting.engine_method, cell.setting.language): cell
        for cell in cells
    }
    for cell in cells:
        setting = cell.setting
        edited = setting.language
        if edited != "mix" and last[setting.model, setting.engine_method, edited] is cell:
            yield from _reliability_of(cell, edited)


def _reliability_of(cell: CellResult, edited: Language) -> Iterator[Paragraph]:
    other = OTHER_LANGUAGE[edited]
    here, there = (cell.after.get(f"{lang}_reliability") for lang in (edited, other))
    before = cell.before.get(f"{other}_reliability")
    if here is None or there is None:
        return
    names, others = LANGUAGE_NAMES[edited], LANGUAGE_NAMES[other]
    template = BilingualText(
        f"{{model}}，{{method}}，{names.zh}编辑，每批 {{batch}} 条：{names.zh}可靠性 {{own}} "
        f"[{{own_low}}, {{own_high}}]；{others.zh}可靠性 {{other}} [{{other_low}}, {{other_high}}]"
        "（编辑前 {was}）。",
        f"{{model}}, {{method}}, edited in {names.en}, batch size {{batch}}: reliability {{own}} "
        f"[{{own_low}}, {{own_high}}] in {names.en} and {{other}} [{{other_low}}, {{other_high}}] "
        f"in {others.en} ({{was}} before the edit).",
    )
    values = {
        "model": cell.setting.model,
        "method": method_title(cell.setting.engine_method),
        "batch": str(cell.setting.batch_size),
        "own": percent(here.mean),
        "own_low": percent(here.low),
        "own_high": percent(here.high),
        "other": percent(there.mean),
        "other_low": percent(there.low),
        "other_high": percent(there.high),
        "was": percent(before.mean if before else None),
    }
    yield Paragraph(template, values)


def _geometry(tables: Tables) -> Iterator[Paragraph]:
    cosines = where(tables.get("geometry.csv", ()), batch="all", measure="cosine")
    for model in unique(cosines, "model"):
        rows = where(cosines, model=model)
        for comparison, template in _COSINES.items():
            values = _values(where(rows, comparison=comparison))
            if not values:
                continue
            null = where(rows, comparison=f"null-{comparison}")
            ends = [float_or_none(row[end]) for row in null for end in ("low", "high")]
            chance = max((abs(end) for end in ends if end is not None), default=None)
            shown = {
                "model": model,
                "low": decimals(min(values)),
                "high": decimals(max(values)),
                "chance": decimals(chance),
            }
            yield Paragraph(template, shown)
            if comparison == "zh-en":
                yield from _control(model, rows)


def _control(model: str, rows: Sequence[Row]) -> Iterator[Paragraph]:
    values = [
        value for lang in LANGUAGES for value in _values(where(rows, comparison=f"disjoint-{lang}"))
    ]
    if values:
        shown = {"model": model, "low": decimals(min(values)), "high": decimals(max(values))}
        yield Paragraph(_CONTROL, shown)


def _values(rows: Sequence[Row]) -> list[float]:
    return [value for row in rows if (value := float_or_none(row["value"])) is not None]
