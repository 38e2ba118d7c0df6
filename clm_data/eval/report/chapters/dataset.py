"""The chapter on the dataset: size, quality and provenance."""

from __future__ import annotations

from pathlib import Path

from clm_data.codes import CODES
from clm_data.dataset_stats import Stats
from clm_data.eval.bilingual import BilingualText
from clm_data.eval.report.chapters.provenance import provenance_parts
from clm_data.eval.report.dataset import DatasetContents
from clm_data.eval.report.parts import (
    NO_VALUE,
    MissingPart,
    Paragraph,
    Part,
    Section,
    Table,
    columns,
    percent,
)
from clm_data.eval.results import Results

_TITLE = BilingualText("数据集", "Dataset")
_REVIEW_STATUSES = {
    "accepted": BilingualText("审校通过", "accepted"),
    "fixed": BilingualText("修改后通过", "accepted after corrections"),
    "unreviewed": BilingualText("未审校", "unreviewed"),
}
_SIZE = BilingualText(
    "数据集“{name}”共 {records} 条，每条含中英文两个版本，覆盖 {domains} 个领域。",
    "The dataset “{name}” has {records} records, each in Chinese and English, from {domains} "
    "domains.",
)
_SAME_RECORDS = BilingualText(
    "评测使用了其中的前 {evaluated} 条（sha256 {key}）。",
    "The evaluation used its first {evaluated} records (sha256 {key}).",
)
_OTHER_RECORDS = BilingualText(
    "评测使用的是另一份数据（{evaluated} 条，sha256 {key}），本章内容与评测结果不对应。",
    "The evaluation used other records ({evaluated} of them, sha256 {key}); this chapter does not "
    "describe them.",
)
_NO_AGREEMENT = BilingualText(
    "无法给出审校者之间的一致性：数据集只记录每条的最终审校结果。",
    "Agreement between reviewers cannot be computed: a dataset only records the outcome of each "
    "review.",
)
_NO_PROBLEMS = BilingualText("规则检查未发现问题。", "The validation rules find no problems.")


def dataset_section(contents: DatasetContents | None, results: Results, command: str) -> Section:
    """The dataset.

    Args:
        contents: The dataset; None if it was not given.
        results: The results, which say which records were evaluated.
        command: Command that writes the page with a dataset.
    """
    if contents is None:
        reason = BilingualText(
            f"没有给出数据集（结果中的名称：{results.dataset}），因此本页不含其领域、长度、审校与来源。",
            f"No dataset was given, so its domains, lengths, review and provenance are not shown. "
            f"The results call it {results.dataset}.",
        )
        return Section("dataset", _TITLE, (MissingPart(reason, command),))
    parts: list[Part] = [
        *_overview(contents, results),
        _domains(contents.stats),
        _lengths(contents.stats),
        *_review(contents.stats),
        *_problems(contents),
        *provenance_parts(contents.stats, contents.manifest),
    ]
    return Section("dataset", _TITLE, tuple(parts))


def _overview(contents: DatasetContents, results: Results) -> list[Part]:
    stats, dataset = contents.stats, contents.dataset
    enough = len(dataset.records) >= results.records
    same = enough and dataset.first(results.records).key == results.dataset_key
    size = {
        "name": Path(contents.source).name or contents.source,
        "records": str(stats.records),
        "domains": str(sum(domain.records > 0 for domain in stats.domains)),
    }
    evaluated = {"evaluated": str(results.records), "key": results.dataset_key}
    return [
        Paragraph(_SIZE, size),
        Paragraph(_SAME_RECORDS if same else _OTHER_RECORDS, evaluated, "good" if same else "bad"),
    ]


def _domains(stats: Stats) -> Table:
    rows = [
        (
            domain.zh,
            domain.en,
            str(domain.records),
            percent(_share(domain.records, stats.records)),
            NO_VALUE if domain.quota is None else str(domain.quota),
            str(domain.accepted + domain.fixed),
        )
        for domain in sorted(stats.domains, key=lambda domain: -domain.records)
    ]
    return Table(
        "dataset_domains",
        BilingualText("各领域的条目数", "Records by domain"),
        columns(
            ("zh", "领域", "domain (Chinese)", False),
            ("en", "领域（英文）", "domain", False),
            ("records", "条目", "records"),
            ("share", "占比（%）", "share, %"),
            ("quota", "目标", "quota"),
            ("reviewed", "已审校", "reviewed"),
        ),
        tuple(rows),
    )


def _share(count: int, total: int) -> float | None:
    return count / total if total else None


def _lengths(stats: Stats) -> Table:
    rows = [
        (length.lang, length.field, str(length.min), f"{length.median:g}", str(length.max))
        for length in stats.lengths
    ]
    return Table(
        "dataset_lengths",
        BilingualText("各字段的长度（字符）", "Field lengths in characters"),
        columns(
            ("lang", "语言", "language", False),
            ("field", "字段", "field", False),
            ("min", "最短", "shortest"),
            ("median", "中位数", "median"),
            ("max", "最长", "longest"),
        ),
        tuple(rows),
        code=frozenset({"lang", "field"}),
    )


def _review(stats: Stats) -> list[Part]:
    counts = {"accepted": stats.accepted, "fixed": stats.fixed, "unreviewed": stats.unreviewed}
    rows = [
        (name.zh, name.en, str(counts[status]), percent(_share(counts[status], stats.records)))
        for status, name in _REVIEW_STATUSES.items()
    ]
    table = Table(
        "dataset_review",
        BilingualText("人工审校", "Human review"),
        columns(
            ("zh", "状态", "status (Chinese)", False),
            ("en", "状态（英文）", "status", False),
            ("records", "条目", "records"),
            ("share", "占比（%）", "share, %"),
        ),
        tuple(rows),
    )
    return [table, Paragraph(_NO_AGREEMENT, mark="note")]


def _problems(contents: DatasetContents) -> list[Part]:
    rows = [
        (
            problem.code,
            problem.severity,
            problem.lang or NO_VALUE,
            problem.field or NO_VALUE,
            str(problem.count),
            *_meaning(problem.code),
        )
        for problem in contents.problems
    ]
    table = Table(
        "dataset_problems",
        BilingualText("规则检查发现的问题", "Problems that the validation rules find"),
        columns(
            ("code", "代码", "code", False),
            ("severity", "级别", "severity", False),
            ("lang", "语言", "language", False),
            ("field", "字段", "field", False),
            ("count", "条目", "records"),
            ("zh", "含义", "meaning (Chinese)", False),
            ("en", "含义（英文）", "meaning", False),
        ),
        tuple(rows),
        code=frozenset({"code", "field"}),
    )
    found: Part = table if rows else Paragraph(_NO_PROBLEMS, mark="good")
    return [found, *([_rejected(contents)] if contents.rejected else [])]


def _rejected(contents: DatasetContents) -> Table:
    rows = [
        (stage, code, str(count), *_meaning(code))
        for (stage, code), count in contents.rejected.items()
    ]
    return Table(
        "dataset_rejected",
        BilingualText("构建时剔除的内容", "Items dropped by the build"),
        columns(
            ("stage", "阶段", "stage", False),
            ("code", "原因", "reason", False),
            ("count", "数量", "count"),
            ("zh", "含义", "meaning (Chinese)", False),
            ("en", "含义（英文）", "meaning", False),
        ),
        tuple(rows),
        code=frozenset({"stage", "code"}),
    )


def _meaning(code: str) -> tuple[str, str]:
    return (CODES[code].zh, CODES[code].en) if code in CODES else (NO_VALUE, NO_VALUE)
