"""The chapter at the top: what came out, in a few sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clm_data.eval.csv_tables import Row, Tables, float_or_none, unique, where
from clm_data.eval.report.chapters.evaluation import OTHER, Evaluation
from clm_data.eval.report.parts import BilingualText, Part, Section, Text, decimals, percent
from clm_data.eval.results import CellResult
from clm_data.eval.tables import METHOD_NAMES
from clm_data.records import LANGUAGES

_LANGUAGE = {"zh": BilingualText("中文", "Chinese"), "en": BilingualText("英文", "English")}


def section(evaluation: Evaluation, tables: Tables) -> Section:
    """What came out."""
    results = evaluation.results
    cells = len(results.cells)
    begin = BilingualText(
        "{records} 条事实，{cells} 项实验，其中 {failed} 项失败。以下为百分数；方括号内是区间。",
        "{records} facts, {cells} cells, of which {failed} failed. In percent; intervals in "
        "brackets.",
    )
    counts = {
        "records": str(results.records),
        "cells": str(cells),
        "failed": str(len(results.failed)),
    }
    parts: list[Part] = [Text(begin, counts), *_edits(evaluation), *_geometry(tables)]
    return Section("summary", BilingualText("结论概要", "In short"), tuple(parts))


def _edits(evaluation: Evaluation) -> Iterator[Text]:
    for cell in evaluation.done:
        if cell.setting.language != "mix" and _is_last(cell, evaluation.done):
            yield from _one(cell)


def _is_last(cell: CellResult, cells: tuple[CellResult, ...]) -> bool:
    """Whether no later cell has the same model, method and language."""
    setting = cell.setting
    same = [
        one
        for one in cells
        if (one.setting.model, one.setting.method, one.setting.language)
        == (setting.model, setting.method, setting.language)
    ]
    return same[-1] is cell


def _one(cell: CellResult) -> Iterator[Text]:
    lang = cell.setting.language
    if lang == "mix":
        return
    other = OTHER[lang]
    own, theirs = (cell.after.get(f"{one}_reliability") for one in (lang, other))
    was = cell.before.get(f"{other}_reliability")
    if own is None or theirs is None:
        return
    words = BilingualText(
        f"{{model}}，{{method}}，用{_LANGUAGE[lang].zh}编辑（每批 {{batch}} 条）："
        f"{_LANGUAGE[lang].zh}可靠性 {{own}} [{{own_low}}, {{own_high}}]；"
        f"{_LANGUAGE[other].zh} {{other}} [{{other_low}}, {{other_high}}]，编辑前 {{was}}。",
        f"{{model}}, {{method}}, edited in {_LANGUAGE[lang].en} (batch of {{batch}}): reliability "
        f"in {_LANGUAGE[lang].en} {{own}} [{{own_low}}, {{own_high}}]; in {_LANGUAGE[other].en} "
        "{other} [{other_low}, {other_high}], before the edit {was}.",
    )
    values = {
        "model": cell.setting.model,
        "method": METHOD_NAMES.get(cell.setting.method, cell.setting.method),
        "batch": str(cell.setting.batch_size),
        "own": percent(own.mean),
        "own_low": percent(own.low),
        "own_high": percent(own.high),
        "other": percent(theirs.mean),
        "other_low": percent(theirs.low),
        "other_high": percent(theirs.high),
        "was": percent(was.mean if was else None),
    }
    yield Text(words, values)


def _geometry(tables: Tables) -> Iterator[Text]:
    rows = where(tables.get("geometry.csv", ()), batch="all", measure="cosine")
    for model in unique(rows, "model"):
        mine = where(rows, model=model)
        for comparison, words in _COSINES.items():
            values = [float_or_none(row["value"]) for row in where(mine, comparison=comparison)]
            null = where(mine, comparison=f"null-{comparison}")
            known = [value for value in values if value is not None]
            if not known:
                continue
            ends = [float_or_none(row[end]) for row in null for end in ("low", "high")]
            chance = [abs(end) for end in ends if end is not None]
            shown = {
                "model": model,
                "low": decimals(min(known)),
                "high": decimals(max(known)),
                "chance": decimals(max(chance, default=None)),
            }
            yield Text(words, shown)
            if comparison == "zh-en":
                yield from _control(model, mine)


def _control(model: str, rows: Sequence[Row]) -> Iterator[Text]:
    """What facts that have nothing in common but their language give."""
    mine = [row for lang in LANGUAGES for row in where(rows, comparison=f"disjoint-{lang}")]
    known = [value for row in mine if (value := float_or_none(row["value"])) is not None]
    if known:
        shown = {"model": model, "low": decimals(min(known)), "high": decimals(max(known))}
        yield Text(_OTHER_FACTS, shown)


_OTHER_FACTS = BilingualText(
    "{model}：同一语言中两批不同事实的权重改变，余弦为 {low} 至 {high}：以此衡量上一行。",
    "{model}: cosine of the weight changes of two batches of other facts in one language {low} to "
    "{high}: the measure for the line above.",
)


_COSINES = {
    "zh-en": BilingualText(
        "{model}：中文与英文权重改变的余弦为 {low} 至 {high}；随机矩阵不超过 {chance}。",
        "{model}: cosine of the Chinese and the English weight changes {low} to {high}; random "
        "matrices stay within {chance}.",
    ),
    "sum-mix": BilingualText(
        "{model}：中英之和与混合编辑的余弦为 {low} 至 {high}；随机矩阵不超过 {chance}。",
        "{model}: cosine of the sum of both with the mixed edit {low} to {high}; random matrices "
        "stay within {chance}.",
    ),
}
