"""The result of a deduplication: rows, counts, and reports as JSON, a table or a web page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple

from clm_data.dedup.files.options import DedupOptions
from clm_data.dedup.files.policies import Selection, TextColumn
from clm_data.dedup.files.semantic import SemanticDuplicate
from clm_data.dedup.files.tables import Table
from clm_data.dedup.files.texts import SEPARATOR
from clm_data.tabular import Tabular


class RemovedRow(NamedTuple):
    """A removed row and the kept row it duplicates.

    Attributes:
        row: The row.
        position: Its position in the source, from 0.
        duplicate_of: Position of the most similar of the rows kept before it.
        ratio: Their similarity, 0 to 1.
        field: The field, or the joined fields ("zh + en"), in which they are similar.
    """

    row: dict[str, Any]
    position: int
    duplicate_of: int
    ratio: float
    field: str

    @property
    def reason(self) -> str:
        """Why the row was removed, as one line of text."""
        return f"similarity {self.ratio:.4f} to row {self.duplicate_of} in {self.field}"


@dataclass(frozen=True, repr=False)
class DedupReport(Tabular):
    """The result of :func:`clm_data.dedup.files.run.deduplicate`; ``str()`` gives one line.

    Attributes:
        options: What was compared, and how rows were chosen.
        table: The source of the rows.
        columns: The texts that were compared.
        selection: Which rows are kept, removed and flagged, by position.
        semantic: Pairs of semantic duplicates among the kept rows, if requested.
        subjects_left_out: Number of subjects with too many rows to compare embeddings.
    """

    options: DedupOptions
    table: Table
    columns: tuple[TextColumn, ...]
    selection: Selection
    semantic: tuple[SemanticDuplicate, ...] = ()
    subjects_left_out: int = 0

    @cached_property
    def kept(self) -> Sequence[dict[str, Any]]:
        """The kept rows in source order.

        A list of dicts; for a `datasets.Dataset` or a Hub dataset, a Dataset. Files are read again
        on first access.
        """
        return self.table.select(self.selection.keep)

    @cached_property
    def removed(self) -> list[RemovedRow]:
        """The removed rows in source order; files are read again on first access."""
        rows = self.table.select([not keep for keep in self.selection.keep])
        return [
            RemovedRow(
                row,
                removal.row,
                removal.duplicate_of.row,
                removal.duplicate_of.ratio,
                self.options.column_name(removal.duplicate_of.column),
            )
            for row, removal in zip(rows, self.selection.removed, strict=True)
        ]

    def summary(self) -> dict[str, Any]:
        """Options and counts."""
        rows = len(self.selection.keep)
        options = {
            "file": self.options.source,
            "fields": list(self.options.fields),
            "threshold": self.options.threshold,
            "policy": self.options.policy,
            "each_field": self.options.each_field,
            "normalised": self.options.normalize,
            "score": self.options.score,
            "subject": self.options.subject,
        }
        counts: dict[str, Any] = {
            "rows": rows,
            "kept": rows - len(self.selection.removed),
            "removed": len(self.selection.removed),
            "flagged_rows": len(self.selection.flagged),
            "flagged_pairs": self.selection.flagged_pairs,
            "not_compared": self.not_compared,
        }
        if self.options.semantic is not None:
            options["semantic"] = self.options.semantic
            options["semantic_threshold"] = self.options.semantic_threshold
            counts["semantic_twins"] = len(self.semantic)
            counts["subjects_left_out"] = self.subjects_left_out
        return options | counts

    def table_title(self) -> str:
        """The summary as one line."""
        return str(self)

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each removed row, with the compared text of both; the source is not read."""
        return [
            {
                "row": removal.row,
                "duplicate_of": removal.duplicate_of.row,
                "ratio": removal.duplicate_of.ratio,
                "field": self.options.column_name(removal.duplicate_of.column),
                "text": " | ".join(self.texts(removal.row)),
                "kept_text": " | ".join(self.texts(removal.duplicate_of.row)),
            }
            for removal in self.selection.removed
        ]

    def __str__(self) -> str:
        found = self.summary()
        line = f"{found['rows']} rows: {found['kept']} kept, {found['removed']} removed"
        if self.options.subject is not None and self.selection.flagged:
            line += f", {found['flagged_rows']} flagged for review"
        if self.options.semantic is not None:
            line += f", {len(self.semantic)} pairs of semantic duplicates"
            if self.subjects_left_out:
                line += f" ({self.subjects_left_out} subjects with too many rows skipped)"
        if found["not_compared"]:
            line += f"; {found['not_compared']} without text kept and not compared"
        return line

    def __repr__(self) -> str:
        return f"<DedupReport {self}>"

    @property
    def not_compared(self) -> int:
        """Number of rows without any text; they are kept."""
        ids = zip(*(column.ids for column in self.columns), strict=True)
        return sum(max(each) < 0 for each in ids)

    def texts(self, row: int) -> list[str]:
        """The compared texts of the row at a position, one per field."""
        if self.options.each_field:
            return [column.text(row) for column in self.columns]
        joined = self.columns[0].text(row)
        return joined.split(SEPARATOR) if len(self.options.fields) > 1 else [joined]

    def write(self, target: Path | IO[str], format: str) -> None:
        """Write a report to a file or an open text stream.

        The JSON report is complete. The table and the web page show the first
        :data:`~clm_data.dedup.files.render.MAX_SHOWN` items. Rows are numbered from 1.

        Args:
            target: Where to write.
            format: ``json``, ``html`` or ``table``.

        Raises:
            OSError: The target cannot be written.
        """
        from clm_data.dedup.files.render import write_report

        if not isinstance(target, Path):
            write_report(self, target, format)
            return
        with target.open("w", encoding="utf-8", newline="\n") as file:
            write_report(self, file, format)
