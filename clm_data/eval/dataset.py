"""Loading the records to evaluate on: a built dataset, a file, a dataset on the Hub, or rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from clm_data import layouts, sources
from clm_data.errors import InputFileError
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
from clm_data.sources.files import SourceFile, rows_in_memory
from clm_data.tabular import Tabular

_PARALLEL = Path("parallel") / "test.parquet"
_IN_MEMORY = "in-memory dataset"


@dataclass(frozen=True)
class EvalSet(Tabular):
    """Records to evaluate on.

    Attributes:
        name: The folder, file or repository they come from.
        records: Complete in both languages, in the order of the source.
        left_out: Number of rows that lack a text in one of the languages.
    """

    name: str
    records: tuple[Record, ...]
    left_out: int = 0

    @property
    def key(self) -> str:
        """sha256 of ids, domains and all texts that affect a result."""
        return digest([_texts(record) for record in self.records])

    def table_title(self) -> str:
        """Source and number of records."""
        return f"{self.name}: {len(self.records)} records"

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each record, with its texts as `zh_prompt`, `en_prompt` and so on."""
        return [
            {
                "id": record.id,
                "domain": record.domain,
                **{
                    f"{lang}_{name}": text
                    for lang in LANGUAGES
                    for part in (record.fact(lang), record.probe(lang))
                    for name, text in part.model_dump().items()
                },
            }
            for record in self.records
        ]

    def first(self, count: int | None) -> EvalSet:
        """The first records; None keeps all.

        Raises:
            InputFileError: There are fewer than `count`.
        """
        if count is None:
            return self
        if count > len(self.records):
            raise InputFileError(
                f"{self.name} has {len(self.records)} complete records, fewer than {count}; "
                "lower --facts"
            )
        return EvalSet(self.name, self.records[:count], self.left_out)


DatasetSource: TypeAlias = str | Path | EvalSet | Iterable[Record] | Iterable[Any]
"""Where the records come from; see :func:`load_dataset`."""


def load_dataset(source: DatasetSource) -> EvalSet:
    """Load the records that are complete in both languages.

    Args:
        source: One of

            - a folder made by `clm-data build`, or with the published JSON files;
            - a file in a format that `clm-data import` reads;
            - a dataset on the Hub, `OWNER/NAME`;
            - records, or rows (mappings) in the layout of such a file: a list, a
              `datasets.Dataset`, or any other iterable;
            - an :class:`EvalSet`, which is returned as it is.

    Raises:
        InputFileError: The source does not exist, cannot be read, or has no record that is complete
            in both languages.
    """
    if isinstance(source, EvalSet):
        return source
    loaded = _from_path(str(source)) if isinstance(source, (str, Path)) else _from_rows(source)
    if not loaded.records:
        raise InputFileError(
            f"{loaded.name}: no record with prompt, subject, answers, rephrasing and probe in both "
            "languages; use a dataset made by `clm-data build`"
        )
    return loaded


def _from_path(source: str) -> EvalSet:
    path = Path(source)
    if not path.exists():
        path = _from_hub(source)
    if path.is_file():
        return _from_files([path], path.name)
    if (path / _PARALLEL).is_file():
        return _from_parquet(path / _PARALLEL, source)
    pair = [path / name for name in (layouts.ZH_FILE, layouts.EN_FILE)]
    return _from_files([file for file in pair if file.is_file()], source)


def _from_rows(source: Iterable[Any]) -> EvalSet:
    if not isinstance(source, Iterable):
        raise InputFileError(
            f"a dataset cannot be read from a {type(source).__name__}; pass a path or rows"
        )
    rows = list(source)
    if all(isinstance(row, Record) for row in rows):
        return EvalSet(_IN_MEMORY, tuple(rows))
    for row in rows:
        if not isinstance(row, Mapping):
            raise InputFileError(
                f"{_IN_MEMORY}: expected records or mappings, found {type(row).__name__}; pass the "
                "rows of one split"
            )
    plain = [dict(row) for row in rows]
    try:
        if all(_is_parallel_row(row) for row in plain):
            return EvalSet(_IN_MEMORY, tuple(_of_row(row) for row in plain))
        if all(row.keys() == Record.model_fields.keys() for row in plain):
            return EvalSet(_IN_MEMORY, tuple(Record.model_validate(row) for row in plain))
    except ValidationError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputFileError(f"{_IN_MEMORY}: not clm-data records: {reason}") from error
    raw = rows_in_memory(plain, _IN_MEMORY)
    return _from_sources([sources.read_file(raw)], _IN_MEMORY)


def _is_parallel_row(row: Mapping[str, Any]) -> bool:
    """Whether a row is of the configuration `parallel` of a built dataset."""
    sides = [row.get(lang) for lang in LANGUAGES]
    complete = all(isinstance(side, Mapping) and "loc" in side for side in sides)
    return complete and all(name in row for name in _ROW_FIELDS)


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
            f"{source}: neither a local folder nor a readable dataset on the Hub: {reason}"
        ) from error


def _from_parquet(file: Path, name: str) -> EvalSet:
    from pyarrow import parquet
    from pyarrow.lib import ArrowException

    try:
        read: Any = parquet.read_table
        rows: list[dict[str, Any]] = read(file).to_pylist()
        return EvalSet(name, tuple(_of_row(row) for row in rows))
    except (OSError, ArrowException, KeyError, TypeError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputFileError(
            f"{file}: not the parallel rows of a dataset made by `clm-data build`: {reason}"
        ) from error


_ROW_FIELDS = ("id", "case_id", "domain", "review", "origin")


def _of_row(row: Mapping[str, Any]) -> Record:
    texts: dict[str, Any] = {}
    for lang in LANGUAGES:
        texts[lang] = {name: row[lang][name] for name in FACT_FIELDS}
        texts[f"{lang}_probe"] = {name: row[lang][name] for name in PROBE_FIELDS}
    about = {name: row[name] for name in _ROW_FIELDS}
    return Record.model_validate({**about, **texts})


def _from_files(files: Sequence[Path], name: str) -> EvalSet:
    if not files:
        raise InputFileError(f"{name}: no dataset found; use a folder made by `clm-data build`")
    return _from_sources([sources.read_file(file) for file in files], name)


def _from_sources(files: Sequence[SourceFile], name: str) -> EvalSet:
    return _of_candidates(name, unique_ids(sources.candidates_of(files).kept))


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
