"""The result of a deduplication: rows, counts, and reports as JSON, a table or a web page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from clm_data.dedup.files.options import DedupOptions
from clm_data.dedup.files.page import MAX_SHOWN, RowDiff, render_page, row_diff
from clm_data.dedup.files.policies import (
    Cluster,
    FlaggedRow,
    NearDuplicate,
    Selection,
    TextColumn,
)
from clm_data.dedup.files.semantic import SemanticDuplicate
from clm_data.dedup.files.tables import Table, dump_json
from clm_data.dedup.files.texts import SEPARATOR
from clm_data.tabular import Tabular
from clm_data.text import visible

_FORMATS = {".json": "json", ".html": "html", ".htm": "html"}
_MAX_SHOWN_PER_CLUSTER = 50
_EXCERPT_LENGTH = 120
"""Characters of a text shown in the table."""


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

    def write(self, target: str | Path | IO[str], format: str | None = None) -> None:
        """Write a report to a file or an open text stream.

        The JSON report is complete. The table and the web page show the first
        :data:`~clm_data.dedup.files.page.MAX_SHOWN` items. Rows are numbered from 1.

        Args:
            target: Where to write.
            format: ``json``, ``html`` or ``table``. By the file name if omitted: ``.json``,
                ``.html``, or a table for any other ending and for streams.

        Raises:
            OSError: The target cannot be written.
        """
        if not isinstance(target, str | Path):
            self._write(target, format)
            return
        path = Path(target)
        with path.open("w", encoding="utf-8", newline="\n") as file:
            self._write(file, format or report_format(path))

    def _write(self, file: IO[str], format: str | None) -> None:
        if format == "json":
            file.writelines(self._json())
        elif format == "html":
            file.writelines(self._html())
        else:
            self._table(file)

    def _json(self) -> Iterator[str]:
        """Chunks of JSON with one cluster or flagged row per line."""
        yield dump_json(self.summary(), indent=1)[:-2] + ","
        parts: dict[str, Iterator[dict[str, Any]]] = {
            "clusters": map(self._cluster, self.selection.clusters()),
            "review": map(self._flagged, self.selection.flagged),
        }
        if self.options.semantic is not None:
            parts["semantic"] = map(self._semantic, self.semantic)
        comma = ""
        for name, items in parts.items():
            yield f'{comma}\n "{name}": ['
            comma = ","
            item_comma = "\n  "
            for item in items:
                yield item_comma + dump_json(item)
                item_comma = ",\n  "
            yield "\n ]"
        yield "\n}\n"

    def _row(self, row: int) -> dict[str, Any]:
        return {"row": row + 1, "texts": self.texts(row)}

    def _similarity(self, duplicate: NearDuplicate) -> dict[str, Any]:
        return {
            "ratio": round(duplicate.ratio, 6),
            "field": self.options.column_name(duplicate.column),
        }

    def _cluster(self, cluster: Cluster) -> dict[str, Any]:
        return {
            "representative": self._row(cluster.representative),
            "removed": [
                self._row(each.row) | self._similarity(each.duplicate_of)
                for each in cluster.removed
            ],
        }

    def _flagged(self, flagged: FlaggedRow) -> dict[str, Any]:
        closest = [self._row(each.row) | self._similarity(each) for each in flagged.closest]
        return self._row(flagged.row) | {"twins": flagged.near_duplicates, "closest": closest}

    def _semantic(self, pair: SemanticDuplicate) -> dict[str, Any]:
        return {
            "rows": [self._row(pair.left), self._row(pair.right)],
            "cosine": round(pair.cosine, 6),
        }

    def _table(self, file: IO[str]) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = Console(file=file, width=None if file.isatty() else 120)
        table = Table(title=str(self), title_justify="left")
        for name in ("kept row", "row", "ratio"):
            table.add_column(name, justify="right")
        for name in ("kept text", "text", "result"):
            table.add_column(name, overflow="fold")
        for row, duplicate, result in islice(self._lines(), MAX_SHOWN):
            texts = (self._excerpt(duplicate.row), self._excerpt(row), result)
            numbers = (str(duplicate.row + 1), str(row + 1), f"{duplicate.ratio:.4f}")
            table.add_row(*numbers, *map(escape, texts))
        console.print(table)
        count = len(self.selection.removed) + len(self.selection.flagged) + len(self.semantic)
        if count > MAX_SHOWN:
            console.print(f"showing the first {MAX_SHOWN} of {count}; a JSON report has all")

    def _lines(self) -> Iterator[tuple[int, NearDuplicate, str]]:
        """(row, the row it is similar to, result) for each line of the table."""
        for cluster in self.selection.clusters():
            for removal in cluster.removed:
                yield removal.row, removal.duplicate_of, "removed"
        for flagged in self.selection.flagged:
            others = flagged.near_duplicates - 1
            more = f" (and {others} more)" if others else ""
            yield flagged.row, flagged.closest[0], f"review: different subject{more}"
        for pair in self.semantic:
            yield pair.right, _as_near_duplicate(pair), "semantic duplicate"

    def _excerpt(self, row: int) -> str:
        text = visible(" | ".join(self.texts(row)))
        return text if len(text) <= _EXCERPT_LENGTH else f"{text[: _EXCERPT_LENGTH - 1]}…"

    def _html(self) -> Iterator[str]:
        """Chunks of the web page."""
        clusters = (
            (
                len(cluster.removed),
                [
                    self._row_diff(each.row, each.duplicate_of)
                    for each in cluster.removed[:_MAX_SHOWN_PER_CLUSTER]
                ],
            )
            for cluster in islice(self.selection.clusters(), MAX_SHOWN)
        )
        flagged = (
            (each.near_duplicates, [self._row_diff(each.row, other) for other in each.closest])
            for each in self.selection.flagged[:MAX_SHOWN]
        )
        yield from render_page(
            title=self.options.source,
            headline=str(self),
            counts=self.summary(),
            clusters=clusters,
            flagged=flagged,
            semantic=(
                self._row_diff(pair.right, _as_near_duplicate(pair))
                for pair in self.semantic[:MAX_SHOWN]
            ),
            cluster_count=len({each.duplicate_of.row for each in self.selection.removed}),
        )

    def _row_diff(self, row: int, duplicate: NearDuplicate) -> RowDiff:
        column = self.columns[duplicate.column]
        kept, text = (column.text(each).replace(SEPARATOR, " | ") for each in (duplicate.row, row))
        field = self.options.column_name(duplicate.column)
        return row_diff((duplicate.row, row), (kept, text), duplicate.ratio, field)


def report_format(path: Path) -> str:
    """``json``, ``html`` or ``table``, by the ending of a file name."""
    return _FORMATS.get(path.suffix.lower(), "table")


def _as_near_duplicate(pair: SemanticDuplicate) -> NearDuplicate:
    """The left row of a pair, shown with the texts of the first column."""
    return NearDuplicate(pair.left, pair.cosine, 0)
