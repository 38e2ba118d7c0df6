"""What a report is made of: sections of texts, tables, pictures and examples, in two languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from clm_data.eval.bilingual import BilingualText
from clm_data.records import LANGUAGES, Language


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: As in CSV.
        title: Heading.
        numeric: Whether it stands on the right.
    """

    key: str
    title: BilingualText
    numeric: bool = True

    @property
    def lang(self) -> Language | None:
        """The language it is written in, where another column says the same in the other."""
        return next(
            (one for one in LANGUAGES if self.key == one or self.key.endswith(f"_{one}")), None
        )


@dataclass(frozen=True)
class Table:
    """A table; the page, the CSV and the LaTeX file show the same cells.

    Attributes:
        name: File stem.
        title: What it shows.
        columns: With units where there are any.
        rows: As printed.
        note: What one must know to read it.
        best: (row, column) of the cells that are set off.
        shown: How many rows the page shows; None: all. The files have every row.
        plain: Columns whose text is code: hashes, commands, names of settings.
        folded: Whether the page shows it only when opened.
    """

    kind: ClassVar[str] = "table"
    name: str
    title: BilingualText
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: BilingualText | None = None
    best: frozenset[tuple[int, int]] = frozenset()
    shown: int | None = None
    plain: frozenset[str] = frozenset()
    folded: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.name}: a row has not {len(self.columns)} cells")

    @property
    def filled(self) -> tuple[int, ...]:
        """Numbers of the columns in which any row has something; the page leaves out others."""
        return tuple(
            i for i in range(len(self.columns)) if any(row[i] != NONE for row in self.rows)
        )

    @property
    def visible(self) -> tuple[tuple[str, ...], ...]:
        """The rows that the page shows."""
        return self.rows if self.shown is None else self.rows[: self.shown]


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
        words: With ``{name}`` where a value goes.
        values: As printed; they are in ``statements.csv``, too.
        mark: ``good``, ``bad`` or ``note``: shown as a sign beside it.
    """

    kind: ClassVar[str] = "text"
    words: BilingualText
    values: Mapping[str, str] = field(default_factory=dict)
    mark: str | None = None

    @property
    def filled(self) -> BilingualText:
        """With its values."""
        made = {lang: self.words.text(lang).format_map(dict(self.values)) for lang in LANGUAGES}
        return BilingualText(**made)


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: File stem.
        title: What it shows.
        caption: How to read it.
        sources: Names of the CSV files it is drawn from.
        data: By language: the picture as a ``data:`` address.
        paper: The figure of the paper it answers to.
    """

    kind: ClassVar[str] = "picture"
    name: str
    title: BilingualText
    caption: BilingualText
    sources: tuple[str, ...]
    data: Mapping[Language, str]
    paper: str = ""


@dataclass(frozen=True)
class Missing:
    """Something that cannot be shown, and how to make it.

    Attributes:
        what: What is missing.
        command: What to run; empty where nothing helps.
    """

    kind: ClassVar[str] = "missing"
    what: BilingualText
    command: str = ""


@dataclass(frozen=True)
class Side:
    """One language of an example.

    Attributes:
        lang: Which.
        edited: Whether the fact was edited in it.
        prompt: The question; empty where the dataset is not at hand.
        truth: The true answer.
        new: The answer edited in.
        before: What the model said before the edit.
        after: And after it.
        verdict: ``new``, ``old`` or ``other``: what ``after`` is.
        reliability: Share of the new answer's tokens, in percent, as printed.
    """

    lang: Language
    edited: bool
    prompt: str
    truth: str
    new: str
    before: str
    after: str
    verdict: str
    reliability: str


@dataclass(frozen=True)
class Example:
    """One fact in one cell.

    Attributes:
        group: ``transferred``, ``stayed`` or ``failed``.
        cell: Label of the cell.
        id: Of the record.
        domain: Of the record.
        sides: Chinese first.
    """

    group: str
    cell: str
    id: str
    domain: BilingualText
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class Examples:
    """Some facts with the model's answers."""

    kind: ClassVar[str] = "examples"
    title: BilingualText
    examples: tuple[Example, ...]


Part = Table | Text | Picture | Missing | Examples


@dataclass(frozen=True)
class Section:
    """A chapter of the page.

    Attributes:
        id: Its anchor.
        title: Its heading.
        parts: In order.
    """

    id: str
    title: BilingualText
    parts: tuple[Part, ...]


def columns(*given: tuple[str, str, str] | tuple[str, str, str, bool]) -> tuple[Column, ...]:
    """Columns from (key, Chinese, English[, numeric])."""
    return tuple(Column(one[0], BilingualText(one[1], one[2]), *one[3:]) for one in given)


def tables_of(sections: Sequence[Section]) -> list[Table]:
    """Every table of some sections, in order."""
    return [part for section in sections for part in section.parts if isinstance(part, Table)]


def percent(share: float | None, digits: int = 1) -> str:
    """A share as percent, without the sign; «–» for None."""
    return NONE if share is None else f"{100 * share:.{digits}f}"


def decimals(value: float | None, digits: int = 3) -> str:
    """A number, zero without a sign; «–» for None."""
    return NONE if value is None else f"{value:z.{digits}f}"


NONE = "–"

__all__ = [
    "NONE",
    "BilingualText",
    "Column",
    "Example",
    "Examples",
    "Missing",
    "Part",
    "Picture",
    "Section",
    "Side",
    "Table",
    "Text",
    "columns",
    "decimals",
    "percent",
    "tables_of",
]
