"""Reading the records to evaluate on: a built dataset, a file or a dataset on the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clm_data import layouts, sources
from clm_data.errors import InputFileError, MissingExtraError
from clm_data.records import (
    FACT_FIELDS,
    LANGUAGES,
    PROBE_FIELDS,
    Candidate,
    Fact,
    Origin,
    Probe,
    Record,
    digest,
    unique_ids,
)

_PARALLEL = Path("parallel") / "test.parquet"


@dataclass(frozen=True)
class EvalSet:
    """Records to evaluate on.

    Attributes:
        name: The folder, file or repository they come from.
        records: Whole in both languages, in the order of the source.
        left_out: Rows that lack a text in one language.
    """

    name: str
    records: tuple[Record, ...]
    left_out: int = 0

    @property
    def key(self) -> str:
        """sha256 of every text that bears on a result, and of the domains."""
        return digest([_texts(record) for record in self.records])

    def first(self, count: int | None) -> EvalSet:
        """The first records only; None keeps all.

        Raises:
            InputFileError: There are fewer.
        """
        if count is None:
            return self
        if count > len(self.records):
            raise InputFileError(
                f"{self.name} has {len(self.records)} whole records, {count} are wanted; "
                "lower --facts"
            )
        return EvalSet(self.name, self.records[:count], self.left_out)


def load_dataset(source: str) -> EvalSet:
    """Read a dataset.

    Args:
        source: A folder that `clm-data build` made or that holds the published JSON files, one
            file in a format that `clm-data import` reads, or a dataset on the Hub, ``OWNER/NAME``.

    Raises:
        InputFileError: Nothing there, unreadable, or without a record in both languages.
    """
    path = Path(source)
    if not path.exists():
        path = _from_hub(source)
    if path.is_file():
        read = _from_files([path], path.name)
    elif (path / _PARALLEL).is_file():
        read = _from_parquet(path / _PARALLEL, source)
    else:
        pair = [path / name for name in (layouts.ZH_FILE, layouts.EN_FILE)]
        read = _from_files([file for file in pair if file.is_file()], source)
    if not read.records:
        raise InputFileError(
            f"{source}: no record with prompt, subject, answers, rephrasing and probe in both "
            "languages; give a folder made by `clm-data build`"
        )
    return read


def _from_hub(source: str) -> Path:
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputFileError(f"{source}: no such file or folder; check the name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [_PARALLEL.as_posix(), *layouts.PUBLISHED_FILES]
    try:
        return Path(snapshot_download(source, repo_type="dataset", allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputFileError(
            f"{source}: neither a folder here nor a readable dataset on the Hub: {reason}"
        ) from error


def _from_parquet(file: Path, name: str) -> EvalSet:
    try:
        from pyarrow import parquet
        from pyarrow.lib import ArrowException
    except ImportError as error:
        raise MissingExtraError("pyarrow", "eval") from error
    try:
        read: Any = parquet.read_table
        rows: list[dict[str, Any]] = read(file).to_pylist()
        return EvalSet(name, tuple(_of_row(row) for row in rows))
    except (OSError, ArrowException, KeyError, TypeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputFileError(
            f"{file}: not the parallel rows of clm-data build: {reason}"
        ) from error


def _of_row(row: dict[str, Any]) -> Record:
    texts: dict[str, Any] = {}
    for lang in LANGUAGES:
        texts[lang] = {name: row[lang][name] for name in FACT_FIELDS}
        texts[f"{lang}_probe"] = {name: row[lang][name] for name in PROBE_FIELDS}
    about = {name: row[name] for name in ("id", "case_id", "domain", "review", "origin")}
    return Record.model_validate({**about, **texts})


def _from_files(files: Sequence[Path], name: str) -> EvalSet:
    if not files:
        raise InputFileError(f"{name}: no dataset in there; give a folder made by `clm-data build`")
    candidates = unique_ids(sources.candidates_of([sources.read_file(f) for f in files]).kept)
    return _of_candidates(name, candidates)


def _of_candidates(name: str, candidates: Iterable[Candidate]) -> EvalSet:
    records: list[Record] = []
    left_out = 0
    for candidate in candidates:
        record = _of_candidate(candidate, len(records) + 1)
        if record is None:
            left_out += 1
        else:
            records.append(record)
    return EvalSet(name, tuple(records), left_out)


def _of_candidate(candidate: Candidate, number: int) -> Record | None:
    parts: dict[str, Any] = {}
    for lang in LANGUAGES:
        fact, probe = candidate.fact(lang), candidate.probe(lang)
        if fact is None or probe is None:
            return None
        try:
            parts[lang] = Fact.model_validate(fact.model_dump())
            parts[f"{lang}_probe"] = Probe.model_validate(probe.model_dump())
        except ValidationError:
            return None
    return Record(
        id=candidate.id,
        case_id=number,
        domain=candidate.domain,
        review="unreviewed",
        origin=Origin(kind="import", name=candidate.origin.name),
        **parts,
    )


def _texts(record: Record) -> list[Any]:
    parts = [part for lang in LANGUAGES for part in (record.fact(lang), record.probe(lang))]
    return [record.id, record.domain, *(part.model_dump() for part in parts)]
