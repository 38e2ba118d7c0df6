"""The chapter on the dataset: how much, of what, how good, and where it comes from."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clm_data.auditing import ProblemSummary, audit
from clm_data.codes import CODES
from clm_data.dataset_stats import Stats, stage_position, statistics
from clm_data.errors import InputFileError
from clm_data.eval.bilingual import bundled_domains
from clm_data.eval.dataset import EvalSet, load_dataset
from clm_data.eval.report.chapters.provenance import provenance
from clm_data.eval.report.parts import (
    NONE,
    BilingualText,
    Missing,
    Part,
    Section,
    Table,
    Text,
    columns,
    percent,
)
from clm_data.eval.results import Results
from clm_data.manifest import Manifest, read_manifest
from clm_data.records import Candidate, LooseFact, LooseProbe, Record

_REJECTED = "rejected.jsonl"
_REVIEW = {
    "accepted": BilingualText("审校通过", "accepted as it is"),
    "fixed": BilingualText("修改后通过", "accepted after a correction"),
    "unreviewed": BilingualText("未审校", "unreviewed"),
}


@dataclass(frozen=True)
class Found:
    """A dataset as it was read.

    Attributes:
        source: As it was named.
        whole: All of its records.
        stats: Counts over them.
        problems: What the rules find in them now.
        rejected: (stage, code) and how often, from ``rejected.jsonl``.
        manifest: None where the folder has none that can be read.
    """

    source: str
    whole: EvalSet
    stats: Stats
    problems: tuple[ProblemSummary, ...]
    rejected: tuple[tuple[tuple[str, str], int], ...]
    manifest: Manifest | None

    def records(self) -> dict[str, Record]:
        """By id."""
        return {record.id: record for record in self.whole.records}


def read(source: str) -> Found:
    """Read a dataset with its manifest and what was rejected, where they are there.

    Raises:
        InputFileError: It holds no records, or a file in it is broken.
    """
    whole, folder = load_dataset(source), Path(source)
    domains = bundled_domains()
    wanted = domains if any(r.domain in domains for r in whole.records) else None
    return Found(
        source,
        whole,
        statistics(whole.records, [], (), wanted),
        audit(map(_candidate, whole.records)).problems,
        _rejected(folder / _REJECTED),
        _manifest_of(folder),
    )


def _manifest_of(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except InputFileError:  # not there, or of another version: the page says so
        return None


def _candidate(record: Record) -> Candidate:
    return Candidate(
        id=record.id,
        domain=record.domain,
        origin=record.origin,
        zh=LooseFact(**record.zh.model_dump()),
        en=LooseFact(**record.en.model_dump()),
        zh_probe=LooseProbe(**record.zh_probe.model_dump()),
        en_probe=LooseProbe(**record.en_probe.model_dump()),
    )


def _rejected(file: Path) -> tuple[tuple[tuple[str, str], int], ...]:
    if not file.is_file():
        return ()
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        counts = Counter((str(row["stage"]), str(row["code"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(f"{file}: not what clm-data build writes: {error}") from error
    return tuple(sorted(counts.items(), key=lambda one: (stage_position(one[0][0]), one)))


def section(found: Found | None, results: Results, command: str) -> Section:
    """The chapter.

    Args:
        found: The dataset; None where none was given.
        results: Which records were evaluated.
        command: What makes the page with a dataset.
    """
    title = BilingualText("数据集", "Dataset")
    if found is None:
        what = BilingualText(
            f"没有给出数据集文件夹（结果中的名称：{results.dataset}），因此没有领域、长度、来源等内容。",
            f"No dataset folder was given (the results call it {results.dataset}), so nothing is "
            "said of domains, lengths and provenance.",
        )
        return Section("dataset", title, (Missing(what, command),))
    parts: list[Part] = [
        *_overview(found, results.dataset_key, results.records),
        _domains(found.stats),
        _lengths(found.stats),
        *_review(found.stats),
        *_problems(found),
        *provenance(found.stats, found.manifest),
    ]
    return Section("dataset", title, tuple(parts))


def _overview(found: Found, key: str, evaluated: int) -> list[Part]:
    stats = found.stats
    same = len(found.whole.records) >= evaluated and found.whole.first(evaluated).key == key
    words = BilingualText(
        "数据集「{name}」共 {records} 条，中英文各一份，涉及 {domains} 个领域。",
        "The dataset “{name}” has {records} records, each in Chinese and English, in {domains} "
        "domains.",
    )
    values = {
        "name": Path(found.source).name or found.source,
        "records": str(stats.records),
        "domains": str(sum(domain.records > 0 for domain in stats.domains)),
    }
    which = {"evaluated": str(evaluated), "key": key}
    match = (
        BilingualText(
            "评测用的正是其中前 {evaluated} 条（sha256 {key}）。",
            "Exactly its first {evaluated} records were evaluated (sha256 {key}).",
        )
        if same
        else BilingualText(
            "评测用的是另一份数据：{evaluated} 条，sha256 {key}。本章与结果并不对应。",
            "Other records were evaluated: {evaluated} of them, sha256 {key}. This chapter and "
            "the results do not belong together.",
        )
    )
    return [Text(words, values), Text(match, which, "good" if same else "bad")]


def _domains(stats: Stats) -> Table:
    rows = [
        (
            domain.zh,
            domain.en,
            str(domain.records),
            percent(domain.records / stats.records if stats.records else None),
            NONE if domain.quota is None else str(domain.quota),
            str(domain.accepted + domain.fixed),
        )
        for domain in sorted(stats.domains, key=lambda one: -one.records)
    ]
    return Table(
        "dataset_domains",
        BilingualText("各领域的条目", "Records by domain"),
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


def _lengths(stats: Stats) -> Table:
    rows = [
        (one.lang, one.field, str(one.min), f"{one.median:g}", str(one.max))
        for one in stats.lengths
    ]
    return Table(
        "dataset_lengths",
        BilingualText("各字段的长度（字符）", "Lengths of the fields, in characters"),
        columns(
            ("lang", "语言", "language", False),
            ("field", "字段", "field", False),
            ("min", "最短", "shortest"),
            ("median", "中位数", "median"),
            ("max", "最长", "longest"),
        ),
        tuple(rows),
        plain=frozenset({"lang", "field"}),
    )


def _review(stats: Stats) -> list[Part]:
    counts = {
        "accepted": stats.accepted,
        "fixed": stats.fixed,
        "unreviewed": stats.unreviewed,
    }
    rows = [
        (_REVIEW[name].zh, _REVIEW[name].en, str(count), percent(_share(count, stats.records)))
        for name, count in counts.items()
    ]
    table = Table(
        "dataset_review",
        BilingualText("人工审校", "Review by people"),
        columns(
            ("zh", "状态", "status (Chinese)", False),
            ("en", "状态（英文）", "status", False),
            ("records", "条目", "records"),
            ("share", "占比（%）", "share, %"),
        ),
        tuple(rows),
    )
    unknown = BilingualText(
        "审校者之间的一致性未知：数据集只记录每条的最终审校状态。",
        "Agreement between reviewers is not known: a dataset records the outcome of each review "
        "only.",
    )
    return [table, Text(unknown, mark="note")]


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _problems(found: Found) -> list[Part]:
    rows = [
        (
            one.code,
            one.severity,
            one.lang or NONE,
            one.field or NONE,
            str(one.count),
            CODES[one.code].zh,
            CODES[one.code].en,
        )
        for one in found.problems
    ]
    table = Table(
        "dataset_problems",
        BilingualText("规则在数据集中发现的问题", "What the rules find in the dataset"),
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
        plain=frozenset({"code", "field"}),
    )
    clean = Text(BilingualText("规则没有发现问题。", "The rules find no problem."), mark="good")
    rejected = Table(
        "dataset_rejected",
        BilingualText("构建时被剔除的内容", "What the build left out"),
        columns(
            ("stage", "阶段", "stage", False),
            ("code", "原因", "reason", False),
            ("count", "数量", "count"),
            ("zh", "含义", "meaning (Chinese)", False),
            ("en", "含义（英文）", "meaning", False),
        ),
        tuple(
            (stage, code, str(count), *_meaning(code)) for (stage, code), count in found.rejected
        ),
        plain=frozenset({"stage", "code"}),
    )
    return [table if rows else clean, *([rejected] if rejected.rows else [])]


def _meaning(code: str) -> tuple[str, str]:
    return (CODES[code].zh, CODES[code].en) if code in CODES else (NONE, NONE)
