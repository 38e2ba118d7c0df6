"""The dataset that was evaluated, as the chapters of the report read it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clm_data.auditing import ProblemSummary, audit
from clm_data.dataset_stats import Stats, stage_position, statistics
from clm_data.domain import Domain
from clm_data.errors import InputFileError
from clm_data.eval.dataset import EvalSet, load_dataset
from clm_data.manifest import Manifest, read_manifest
from clm_data.records import Candidate, LooseFact, LooseProbe, Record

_REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class DatasetContents:
    """A dataset and what its folder says about it.

    Attributes:
        source: Folder, file or Hub id, as given.
        dataset: All records.
        stats: Counts over the records.
        problems: What the validation rules find in the records.
        rejected: Number of items that the build dropped, by stage and code.
        manifest: None if the folder has no manifest that can be read.
    """

    source: str
    dataset: EvalSet
    stats: Stats
    problems: tuple[ProblemSummary, ...]
    rejected: Mapping[tuple[str, str], int]
    manifest: Manifest | None

    def records(self) -> dict[str, Record]:
        """The records by id."""
        return {record.id: record for record in self.dataset.records}


def read_contents(source: str, domains: Mapping[str, Domain]) -> DatasetContents:
    """Read a dataset, and the manifest and rejections in its folder if there are any.

    Args:
        source: Folder, file or Hub id.
        domains: Domains by id; they are counted if some record belongs to one of them.

    Raises:
        InputFileError: There are no records, or a file is damaged.
    """
    dataset, folder = load_dataset(source), Path(source)
    known = any(record.domain in domains for record in dataset.records)
    return DatasetContents(
        source,
        dataset,
        statistics(dataset.records, [], (), dict(domains) if known else None),
        audit(map(_candidate, dataset.records)).problems,
        _rejected(folder / _REJECTED),
        _manifest(folder),
    )


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder)
    except InputFileError:  # missing or of another version; the page says so
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


def _rejected(file: Path) -> dict[tuple[str, str], int]:
    if not file.is_file():
        return {}
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        counts = Counter((str(row["stage"]), str(row["code"])) for row in rows)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputFileError(
            f"{file}: not written by clm-data build ({error}); build again"
        ) from error
    return dict(sorted(counts.items(), key=lambda entry: (stage_position(entry[0][0]), entry)))
