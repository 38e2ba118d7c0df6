"""Read what is compared: texts, scores and subjects of every row of a table."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

from clm_data.dedup.files.options import DedupOptions
from clm_data.dedup.files.policies import NO_ID, TextColumn
from clm_data.dedup.files.tables import MISSING, Table
from clm_data.dedup.join.all_pairs import Progress
from clm_data.errors import InputFileError
from clm_data.languages import normalize_text

SEPARATOR = "\x1f"
"""Joins the texts of fields that are compared as one."""
MAX_CELL_LENGTH = 100_000
"""Characters; comparing two texts of this length takes seconds."""


@dataclass
class RowTexts:
    """The parts of a table that deduplication needs.

    Attributes:
        columns: The texts to compare; one column, or one per field with ``each_field``.
        rows: Number of rows.
        scores: Score of each row; empty without a score column.
        subjects: Id of the subject of each row, :data:`~clm_data.dedup.files.policies.NO_ID` if it
            has none; empty without a subject column.
    """

    columns: list[TextColumn]
    rows: int = 0
    scores: array[float] = field(default_factory=lambda: array("d"))
    subjects: array[int] = field(default_factory=lambda: array("q"))
    _subject_ids: dict[str, int] = field(default_factory=dict)

    def add_subject(self, subject: str | None) -> None:
        """Append the subject of the next row."""
        ids = self._subject_ids
        self.subjects.append(NO_ID if subject is None else ids.setdefault(subject, len(ids)))


def read_texts(table: Table, options: DedupOptions, progress: Progress) -> RowTexts:
    """Read the texts, scores and subjects of all rows.

    Raises:
        InputFileError: The table is malformed, a cell has the wrong type or is too long, a file has
            no rows, or no row has one of the columns.
    """
    count = len(options.fields)
    extra = [name for name in (options.score, options.subject) if name is not None]
    names = [*options.fields, *extra]
    texts = RowTexts([TextColumn() for _ in range(count if options.each_field else 1)])
    found = [False] * len(names)
    for location, cells in table.read(names, progress):
        texts.rows += 1
        for index, cell in enumerate(cells):
            found[index] = found[index] or cell is not MISSING
        fields = [
            _text(cell, location, name, options.normalize)
            for cell, name in zip(cells, options.fields, strict=False)
        ]
        for column, text in zip(texts.columns, _joined(fields, options, location), strict=True):
            column.add(text)
        rest = iter(cells[count:])
        if options.score is not None:
            texts.scores.append(_score(next(rest), location, options.score))
        if options.subject is not None:
            subject = _text(next(rest), location, options.subject, options.normalize)
            texts.add_subject(subject)
    if not texts.rows and table.path is not None:
        raise InputFileError(f"{table.name}: the file has no rows")
    for name, in_some_row in zip(names, found, strict=True):
        if texts.rows and not in_some_row:
            raise InputFileError(f"{table.name}: no row has the column '{name}'; check the name")
    return texts


def _joined(
    fields: Sequence[str | None], options: DedupOptions, location: str
) -> Sequence[str | None]:
    """The texts of a row, one per column of :class:`RowTexts`."""
    if options.each_field or len(fields) == 1:
        return fields
    for text, name in zip(fields, options.fields, strict=True):
        if text is not None and SEPARATOR in text:
            raise InputFileError(
                f"{location}: '{name}' contains U+001F, the separator of joined fields; remove it, "
                "or add --each-field"
            )
    has_text = any(text is not None for text in fields)
    return [SEPARATOR.join(text or "" for text in fields) if has_text else None]


def _text(cell: Any, location: str, name: str, normalize: bool) -> str | None:
    """The text of a cell; None if it is missing, null, NaN (as in pandas) or whitespace."""
    if cell is MISSING or cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if not isinstance(cell, str):
        fix = "choose another column or fix the row"
        if isinstance(cell, dict) and cell:
            fix = f"select a field of it, such as {name}.{next(iter(cell))}"
        raise InputFileError(f"{location}: '{name}' is {_kind(cell)}, not text; {fix}")
    if len(cell) > MAX_CELL_LENGTH:
        raise InputFileError(
            f"{location}: '{name}' has {len(cell):,} characters, over the limit of "
            f"{MAX_CELL_LENGTH:,}; remove the row"
        )
    text = normalize_text(cell) if normalize else cell
    return text if text and not text.isspace() else None


def _kind(cell: Any) -> str:
    kinds = ((bool, "true or false"), ((int, float, Decimal), "a number"), (dict, "an object"))
    return next(
        (name for kind, name in kinds if isinstance(cell, kind)), f"a {type(cell).__name__}"
    )


def _score(cell: Any, location: str, name: str) -> float:
    """A score; minus infinity if missing, empty or NaN."""
    if cell is MISSING or cell is None or (isinstance(cell, str) and not cell.strip()):
        return -math.inf
    try:
        if isinstance(cell, bool) or not isinstance(cell, (Real, str, Decimal)):
            raise ValueError(cell)
        score = float(cell)
    except (ValueError, OverflowError) as error:
        shown = f"'{str(cell)[:40]}'" if isinstance(cell, str) else _kind(cell)
        raise InputFileError(
            f"{location}: the score '{name}' is {shown}, not a number; fix the row"
        ) from error
    return -math.inf if math.isnan(score) else score
