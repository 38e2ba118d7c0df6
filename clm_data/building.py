"""Builds the dataset folder from the store.

The same store, domains and settings give the same bytes. An earlier folder is replaced only when
the new one is complete.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from clm_data import json_schema, layouts
from clm_data.assemble import Assembly, assemble
from clm_data.card import render_card
from clm_data.chart import draw_domains
from clm_data.codes import CODES
from clm_data.config import Workspace
from clm_data.dataset_stats import STAGES, Stats, statistics
from clm_data.dedup import have_different_subjects
from clm_data.domain import Domain
from clm_data.errors import UserError
from clm_data.exporting import clm_bench
from clm_data.files import atomic_folder, sha256_file
from clm_data.locality import attach, read_probes
from clm_data.manifest import (
    MANIFEST_NAME,
    Manifest,
    content_settings,
    file_hashes,
    other_files,
    package_versions,
)
from clm_data.prompts import Prompts
from clm_data.records import Entry, Record, Rejection, StageResult
from clm_data.review.decisions import DISPUTE
from clm_data.store import Source
from clm_data.tabular import Tabular
from clm_data.text import show_command
from clm_data.version import __version__

REJECTED_NAME = "rejected.jsonl"
CHART_NAME = "domains.png"


@dataclass(frozen=True)
class Collected:
    """The records of a workspace and the intermediate results of the stages."""

    records: tuple[Record, ...]
    rejected: tuple[Rejection, ...]
    """Rejections of all stages."""
    stages: dict[str, dict[str, int]]
    """Counts ``in``, ``kept`` and ``rejected`` by stage."""
    assembly: Assembly
    domains: dict[str, Domain]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class BuildReport(Tabular):
    """Result of a build."""

    folder: Path
    stats: Stats
    stages: dict[str, dict[str, int]]
    rejected: int
    other_subjects: int = 0
    """Entries removed as near-duplicates of an entry that has another subject."""

    def as_json(self) -> dict[str, Any]:
        """The JSON value that ``clm-data build --json`` prints."""
        return {
            "folder": str(self.folder),
            "stages": self.stages,
            "stats": self.stats.as_json(),
            "near_duplicates_with_other_subjects": self.other_subjects,
        }

    def table_title(self) -> str:
        """Records written, and where."""
        return f"{self.stats.records} records in {self.folder}"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each stage: in, kept, rejected."""
        return [{"stage": name, **counts} for name, counts in self.stages.items()]

    def summary(self) -> list[str]:
        """Summary for the terminal, as lines."""
        flow = (
            f"  {name:13} {n['in']:5} in {n['kept']:5} kept {n['rejected']:5} rejected"
            for name, n in self.stages.items()
        )
        reviewed = self.stats.accepted + self.stats.fixed
        reasons = [
            f"  reasons: {self.folder / REJECTED_NAME}; clm-data show ID shows one with what was "
            "asked, answered and decided"
        ]
        return [
            *flow,
            *(reasons if self.rejected else []),
            *self._disputes(),
            *self._other_subjects(),
            f"{self.stats.records} records in {self.folder}; {reviewed} reviewed",
        ]

    def _disputes(self) -> list[str]:
        disputes = sum(each.count for each in self.stats.rejected if each.code == DISPUTE)
        if not disputes:
            return []
        word = "entry is" if disputes == 1 else "entries are"
        return [f"{disputes} {word} left out: reviewers disagree; see clm-data review export"]

    def _other_subjects(self) -> list[str]:
        if not self.other_subjects:
            return []
        return [
            f"  {self.other_subjects} of the near-duplicates left out have another subject than "
            "the entry they resemble, so they may be distinct facts; to keep them with a warning "
            "for reviewers, set dedup.policy: by-subject in clm.yaml"
        ]


def collect_records(workspace: Workspace) -> StageResult[Record]:
    """The records of a workspace, with all rejections and warnings."""
    collected = collect(workspace)
    return StageResult(collected.records, collected.rejected, collected.assembly.warnings)


def collect(workspace: Workspace, *, reviewed_only: bool = False) -> Collected:
    """Run all stages over the store.

    Args:
        workspace: The workspace.
        reviewed_only: Leave out entries that no reviewer accepted or fixed.

    Raises:
        UserError: The store, the domains or the probes cannot be read.
    """
    settings = workspace.settings
    domains = workspace.domains()
    with workspace.open_store() as store:
        assembly = assemble(store, domains, settings)
        sources = tuple(store.sources())
    entries = [
        entry for entry in assembly.entries if not reviewed_only or entry.id in assembly.status
    ]
    located = attach(
        entries,
        read_probes(settings.locality.source, workspace.path, settings.locality.encoding),
        seed=settings.locality.seed,
        repeat=settings.locality.repeat,
        status=assembly.status,
    )
    return Collected(
        records=located.kept,
        rejected=(*assembly.rejected, *located.rejected),
        stages=_stage_counts(assembly, len(entries), located),
        assembly=assembly,
        domains=domains,
        sources=sources,
    )


def _stage_counts(
    assembly: Assembly, taken: int, located: StageResult[Record]
) -> dict[str, dict[str, int]]:
    """Counts ``in``, ``kept`` and ``rejected`` by stage.

    Rejections of the stage ``locality`` are probes, not entries, so that stage keeps every entry.
    Entries left out by ``reviewed_only`` are counted as rejected but have no :class:`Rejection`.
    """
    left = Counter[str](rejection.stage for rejection in assembly.rejected)
    count = len(assembly.candidates) + left["parse"]
    stages: dict[str, dict[str, int]] = {}
    for stage in STAGES[: STAGES.index("reviewed-only")]:
        lost = left[stage]
        stages[stage] = {"in": count, "kept": count - lost, "rejected": lost}
        count -= lost
    if taken != count:
        stages["reviewed-only"] = {"in": count, "kept": taken, "rejected": count - taken}
    stages["locality"] = {
        "in": taken,
        "kept": len(located.kept),
        "rejected": taken - len(located.kept),
    }
    return stages


def build(workspace: Workspace, out: Path, *, reviewed_only: bool = False) -> BuildReport:
    """Build the dataset and write it to a folder.

    The folder contains Parquet files for ``parallel``, ``zh``, ``en`` and ``mix`` (split ``test``),
    the three published JSON layouts, ``rejected.jsonl``, ``domains.png``, the card (``README.md``)
    and ``manifest.json``.

    Args:
        workspace: The workspace.
        out: Folder to write. An earlier build is replaced if no file was added or changed in it.
        reviewed_only: Leave out entries that no reviewer accepted or fixed.

    Raises:
        UserError: There are no valid entries, or ``out`` contains other files.
    """
    collected = collect(workspace, reviewed_only=reviewed_only)
    manifest = Manifest(
        clm_data=__version__,
        packages=package_versions(),
        settings=content_settings(workspace.settings),
        domains_sha256=sha256_file(workspace.domains_file),
        prompt_versions=Prompts(workspace.prompts_folder).versions,
        prompt_hashes=_prompt_hashes(collected.records),
        sources=[_source_row(source) for source in collected.sources],
        stages=collected.stages,
        reviewed=dict(sorted(Counter(record.review for record in collected.records).items())),
        reviewed_only=reviewed_only,
        files={},
    )
    if not collected.records:
        reason = _why_empty(collected, reviewed_only)
        raise UserError(reason + _write_rejected_only(collected, manifest, out))
    stats = statistics(
        collected.records, collected.rejected, collected.assembly.warnings, collected.domains
    )
    with atomic_folder(out, other_files) as folder:
        _write_records(folder, collected.records)
        _write_jsonl(folder / REJECTED_NAME, map(rejection_row, collected.rejected))
        draw_domains(stats, folder / CHART_NAME)
        card = render_card(stats, workspace.settings.dataset, manifest)
        (folder / "README.md").write_text(card, encoding="utf-8")
        manifest.model_copy(update={"files": file_hashes(folder)}).write(folder)
    return BuildReport(
        out, stats, collected.stages, len(collected.rejected), _other_subjects(collected, workspace)
    )


def _other_subjects(collected: Collected, workspace: Workspace) -> int:
    """Number of entries removed as near-duplicates of an entry that has another subject."""
    kept = {entry.id: entry for entry in collected.assembly.entries}
    return sum(
        problem.code == "near-duplicate"
        and problem.twin in kept
        and have_different_subjects(
            Entry.model_validate(rejection.content),
            kept[problem.twin],
            workspace.settings.dedup.field,
        )
        for rejection in collected.rejected
        if rejection.stage == "deduplicate"
        for problem in rejection.problems
    )


def _why_empty(collected: Collected, reviewed_only: bool) -> str:
    assembly = collected.assembly
    if not assembly.candidates and not assembly.rejected:
        return "the store is empty; fill it with clm-data generate or clm-data import"
    if reviewed_only and assembly.entries:
        return "no entry has been accepted or fixed yet; see clm-data review status"
    codes = Counter(rejection.code for rejection in assembly.rejected).most_common(3)
    reasons = "; ".join(f"{count} {code} ({CODES[code].en})" for code, count in codes)
    unread = sum(rejection.stage == "parse" for rejection in assembly.rejected)
    return (
        f"no entry can be published: {len(assembly.candidates)} entries and {unread} answers or "
        f"rows without one were read, all rejected: {reasons}; see clm-data audit, "
        f"{show_command(assembly.rejected[0].id)}"
    )


def _write_rejected_only(collected: Collected, manifest: Manifest, out: Path) -> str:
    """Write what was rejected, but never in the place of a dataset; returns where, for a message.

    A folder that has only this file has a manifest too, so that the next build may replace it.
    """
    rejected = [rejection_row(each) for each in collected.assembly.rejected]
    if not rejected or collected.assembly.entries:
        return ""
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if out.is_file() or names - {REJECTED_NAME, MANIFEST_NAME}:
        return f" ({out} was left as it is)"
    with atomic_folder(out, other_files) as folder:
        _write_jsonl(folder / REJECTED_NAME, rejected)
        manifest.model_copy(update={"files": file_hashes(folder)}).write(folder)
    return f" and {out / REJECTED_NAME}"


def rejection_row(rejection: Rejection) -> dict[str, Any]:
    """A line of ``rejected.jsonl``: the first problem at the top level, then all problems."""
    first = rejection.problems[0]
    return {
        "stage": rejection.stage,
        "id": rejection.id,
        "domain": rejection.domain,
        "code": first.code,
        "lang": first.lang,
        "field": first.field,
        "message": first.message,
        "problems": [
            {"severity": problem.severity, **problem.model_dump(exclude_none=True)}
            for problem in rejection.problems
        ],
        "content": rejection.content,
    }


def _write_records(folder: Path, records: Sequence[Record]) -> None:
    for record in records:
        json_schema.check("record", record.model_dump(mode="json"), f"record {record.id}")
    for name, configuration in layouts.CONFIGURATIONS.items():
        _write_parquet(folder / name / "test.parquet", configuration(records))
    for name, text in clm_bench(records).items():
        (folder / name).write_text(text, encoding="utf-8")


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    pa: Any = import_module("pyarrow")  # untyped
    parquet: Any = import_module("pyarrow.parquet")
    arrays = {name: _column(pa, [row[name] for row in rows]) for name in rows[0]}
    path.parent.mkdir()
    parquet.write_table(pa.table(arrays), path)


def _column(pa: Any, values: Sequence[Any]) -> Any:
    """A column. Columns with only None are typed as text, so that types do not vary."""
    if isinstance(values[0], Mapping):
        names = list(values[0])
        parts = [_column(pa, [value[name] for value in values]) for name in names]
        return pa.StructArray.from_arrays(parts, names)
    kind = pa.int64() if isinstance(values[0], int) else pa.string()
    return pa.array(values, type=kind)


def _write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _prompt_hashes(records: Sequence[Record]) -> dict[str, int]:
    hashes = (record.origin.prompt_hash for record in records)
    return dict(sorted(Counter(value for value in hashes if value).items()))


def _source_row(source: Source) -> dict[str, Any]:
    return {
        "name": source.name,
        "format": source.format,
        "sha256": source.sha256,
        "licence": source.licence,
    }
