"""Deduplicate rows: the function behind `clm-data dedup`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.dedup.files.open_table import open_table
from clm_data.dedup.files.options import DedupOptions
from clm_data.dedup.files.policies import BY_SUBJECT, NO_ID, select_rows
from clm_data.dedup.files.report import DedupReport, report_format
from clm_data.dedup.files.semantic import Embed, find_semantic_duplicates, open_embedder
from clm_data.dedup.files.tables import ENDINGS, Table
from clm_data.dedup.files.texts import RowTexts, read_texts
from clm_data.dedup.join.all_pairs import Progress
from clm_data.errors import ConfigError, UserError
from clm_data.files import atomic_file

if TYPE_CHECKING:
    from datasets.arrow_dataset import Dataset

StepProgress = Callable[[str, int, int], None]
"""Called with the step (reading, comparing, embedding, writing), the amount done and the total."""


def deduplicate(
    source: str | Path | Iterable[dict[str, Any]] | Dataset,
    field: str | Iterable[str],
    *,
    threshold: float = 0.9,
    policy: str = "keep-first",
    score: str | None = None,
    subject: str | None = None,
    each_field: bool = False,
    normalize: bool = False,
    out: str | Path | None = None,
    report: str | Path | None = None,
    force: bool = False,
    format: str | None = None,
    split: str | None = None,
    encoding: str | None = None,
    semantic: str | Embed | None = None,
    semantic_threshold: float = 0.85,
    provider: str | None = None,
    base_url: str | None = None,
    progress: StepProgress | None = None,
) -> DedupReport:
    """Remove near-duplicate rows. The search is exact: it finds every pair above the threshold.

    Args:
        source: A JSONL, JSON, CSV or Parquet file, ``hub:ID[/CONFIG]``, an iterable of dicts, or
            a `datasets.Dataset`. It is not modified.
        field: Column or columns to compare; ``zh.prompt`` is a path into objects.
        threshold: In [0, 1). Rows are near-duplicates if their normalized Indel similarity is
            strictly above it.
        policy: ``keep-first``; ``keep-best``, the row with the highest ``score``; or
            ``by-subject``, which only removes near-duplicates with the same ``subject``.
        score: Column of numbers.
        subject: Column of texts.
        each_field: Compare each field on its own instead of their concatenation.
        normalize: Compare texts in NFKC with whitespace collapsed.
        out: File for the kept rows, in the format of the source. Lists are written as JSONL,
            Datasets as Parquet.
        report: File for the report: JSON (.json), a web page (.html) or a table.
        force: Overwrite ``out`` and ``report``.
        format: Format of a file (jsonl, json, csv, parquet) if it cannot be inferred from the name.
        split: Split of a Hub dataset.
        encoding: Encoding of a CSV file; default: found if it is certain.
        semantic: Embedding model, or a function from texts to vectors. Reports kept rows with the
            same subject and similar meaning.
        semantic_threshold: Minimum cosine of semantic duplicates.
        provider: Provider of the embedding model. If omitted, it runs on this machine.
        base_url: OpenAI-compatible endpoint of the embedding model.
        progress: Called with the step, the amount done and the total.

    Returns:
        A report with ``kept`` and ``removed`` rows; together they make up all rows.

    Raises:
        UserError: An option, the source or an output is unusable. No file is written.
    """
    model = getattr(semantic, "__name__", "function") if callable(semantic) else semantic
    options = DedupOptions(
        source=str(source) if isinstance(source, str | Path) else type(source).__name__,
        fields=(field,)
        if isinstance(field, str) or not isinstance(field, Iterable)
        else tuple(field),
        threshold=threshold,
        policy=policy,
        each_field=each_field,
        normalize=normalize,
        score=score,
        subject=subject,
        semantic=model,
        semantic_threshold=semantic_threshold if model else None,
    )
    options.check()
    embed = semantic if callable(semantic) else open_embedder(semantic, provider, base_url)
    table = open_table(source, format, split, encoding)
    outputs = _Outputs(Path(out) if out else None, Path(report) if report else None, force)
    outputs.check(table)
    return _deduplicate(table, options, outputs, embed, progress or (lambda *_: None))


@dataclass(frozen=True)
class _Outputs:
    """Where to write, None for not at all, and whether to overwrite existing files."""

    rows: Path | None
    report: Path | None
    force: bool

    def check(self, table: Table) -> None:
        """Raise ConfigError if a file is the input, both are the same, or the ending is wrong."""
        if self.rows is not None:
            ending = self.rows.suffix.lower()
            named = next((name for name, endings in ENDINGS.items() if ending in endings), None)
            if named not in (None, table.format):
                usual = ENDINGS[table.format][0]
                raise ConfigError(
                    f"{self.rows}: the rows are written as {table.format}; use a *{usual} file"
                )
        paths = [path for path in (self.rows, self.report) if path is not None]
        if len({path.expanduser().resolve() for path in paths}) < len(paths):
            raise ConfigError("--out and --report are the same file; use two files")
        for path in paths:
            if table.path is not None and _is_same(path, table.path):
                raise ConfigError(
                    f"{path} is the input, which is never modified; choose another file"
                )


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _deduplicate(
    table: Table,
    options: DedupOptions,
    outputs: _Outputs,
    embed: Embed | None,
    progress: StepProgress,
) -> DedupReport:
    """Deduplicate a table; its outputs appear together at the end, or not at all."""
    with ExitStack() as files:
        rows_file, report_file = (
            path and files.enter_context(atomic_file(path, overwrite=outputs.force))
            for path in (outputs.rows, outputs.report)
        )
        texts = read_texts(table, options, _step(progress, "reading"))
        selection = select_rows(
            texts.columns,
            options.threshold,
            scores=texts.scores if options.score else None,
            subjects=texts.subjects if options.policy == BY_SUBJECT else None,
            progress=_step(progress, "comparing"),
        )
        report = DedupReport(options, table, tuple(texts.columns), selection)
        if embed is not None:
            step = _step(progress, "embedding")
            semantic, left_out = find_semantic_duplicates(
                _rows_to_embed(report, texts), embed, options.semantic_threshold or 0.0, step
            )
            report = replace(report, semantic=tuple(semantic), subjects_left_out=left_out)
        if outputs.rows and rows_file:
            with _writing(outputs.rows):
                table.write(selection.keep, rows_file, _step(progress, "writing"))
        if outputs.report and report_file:
            with _writing(outputs.report):
                report.write(report_file, report_format(outputs.report))
    return report


def _rows_to_embed(report: DedupReport, texts: RowTexts) -> list[tuple[int, int, str]]:
    """(row, subject id, text) of the kept rows that have a subject and a text."""
    return [
        (row, texts.subjects[row], text)
        for row, keep in enumerate(report.selection.keep)
        if keep
        and texts.subjects[row] != NO_ID
        and (text := " ".join(filter(None, report.texts(row))))
    ]


def _step(progress: StepProgress, name: str) -> Progress:
    return lambda done, total: progress(name, done, total)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError about ``path``."""
    try:
        yield
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise UserError(f"{path}: cannot be written: {reason}; nothing was written") from error
