"""What the report consists of: sections of paragraphs, tables, figures and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from clm_data.eval.bilingual import BilingualText
from clm_data.records import LANGUAGES, Language

NO_VALUE = "–"
"""Shown in place of a missing value; an empty cell in CSV files."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Name in the CSV file.
        title: Heading on the page.
        numeric: Whether it is aligned to the right.
    """

    key: str
    title: BilingualText
    numeric: bool = True

    @property
    def lang(self) -> Language | None:
        """The language of its texts if another column has the same in the other language."""
        return next(
            (lang for lang in LANGUAGES if self.key == lang or self.key.endswith(f"_{lang}")), None
        )


@dataclass(frozen=True)
class Table:
    """A table; the page, the CSV file and the LaTeX file have the same cells.

    Attributes:
        name: Base name of its files.
        title: Heading.
        columns: Columns, with units in their titles.
        rows: Formatted cells.
        explanation: What is needed to read it.
        best: Cells set in bold, as (row, column).
        max_rows: Number of rows on the page; None: all. The files have every row.
        code: Keys of the columns that contain code: hashes, commands, names of settings.
        collapsed: Whether the page shows it only when opened.
    """

    kind: ClassVar[str] = "table"
    name: str
    title: BilingualText
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    explanation: BilingualText | None = None
    best: frozenset[tuple[int, int]] = frozenset()
    max_rows: int | None = None
    code: frozenset[str] = frozenset()
    collapsed: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.name}: a row does not have {len(self.columns)} cells")

    @property
    def filled_columns(self) -> tuple[int, ...]:
        """Indices of the columns in which some row has a value; the page omits the others."""
        return tuple(
            i for i in range(len(self.columns)) if any(row[i] != NO_VALUE for row in self.rows)
        )

    @property
    def shown_rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows on the page."""
        return self.rows if self.max_rows is None else self.rows[: self.max_rows]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph.

    Attributes:
        template: Text with ``{name}`` in place of each value.
        values: Formatted values by name; ``statements.csv`` contains them as well.
        mark: Sign in front of it: a check mark, a cross or a triangle.
    """

    kind: ClassVar[str] = "paragraph"
    template: BilingualText
    values: Mapping[str, str] = field(default_factory=dict)
    mark: Literal["good", "bad", "note"] | None = None

    @property
    def text(self) -> BilingualText:
        """The text with its values."""
        zh, en = (self.template.text(lang).format_map(dict(self.values)) for lang in LANGUAGES)
        return BilingualText(zh, en)


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: Base name of its files.
        title: Heading.
        caption: How to read it.
        sources: Names of the CSV files it is drawn from.
        data: Image by language, as a ``data:`` URL.
        paper: Number of the corresponding figure in the paper, if there is one.
    """

    kind: ClassVar[str] = "figure"
    name: str
    title: BilingualText
    caption: BilingualText
    sources: tuple[str, ...]
    data: Mapping[Language, str]
    paper: str = ""


@dataclass(frozen=True)
class MissingPart:
    """Something that cannot be shown.

    Attributes:
        what: What is missing and why.
        command: The command that produces it; empty if there is none.
    """

    kind: ClassVar[str] = "missing"
    what: BilingualText
    command: str = ""


@dataclass(frozen=True)
class ExampleSide:
    """One language of an example.

    Attributes:
        lang: The language.
        edited: Whether the fact was edited in it.
        prompt: Prompt of the fact; :data:`NO_VALUE` without the dataset, as are both answers.
        true_answer: ``ground_truth`` of the fact.
        new_answer: ``target_new`` of the fact.
        before: The unedited model's answer.
        after: The edited model's answer.
        verdict: What the answer after the edit is: the new answer, the true answer or neither.
        reliability: Share of the new answer's tokens, in percent.
    """

    lang: Language
    edited: bool
    prompt: str
    true_answer: str
    new_answer: str
    before: str
    after: str
    verdict: Literal["new", "old", "other"]
    reliability: str


@dataclass(frozen=True)
class Example:
    """A fact and the model's answers before and after an edit.

    Attributes:
        group: ``transferred``, ``stayed`` or ``failed``.
        cell: Label of the cell.
        id: Id of the record.
        domain: Domain of the record.
        sides: Chinese, then English.
    """

    group: str
    cell: str
    id: str
    domain: BilingualText
    sides: tuple[ExampleSide, ...]


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of the same outcome."""

    kind: ClassVar[str] = "examples"
    title: BilingualText
    examples: tuple[Example, ...]


Part = Table | Paragraph | Figure | MissingPart | ExampleGroup


@dataclass(frozen=True)
class Section:
    """A chapter of the page.

    Attributes:
        id: Anchor.
        title: Heading.
        parts: Content, in order.
    """

    id: str
    title: BilingualText
    parts: tuple[Part, ...]


def columns(*given: tuple[str, str, str] | tuple[str, str, str, bool]) -> tuple[Column, ...]:
    """Columns from tuples of key, Chinese title, English title and, optionally, ``numeric``."""
    return tuple(Column(one[0], BilingualText(one[1], one[2]), *one[3:]) for one in given)


def tables_of(sections: Sequence[Section]) -> list[Table]:
    """All tables of the sections, in order."""
    return [part for section in sections for part in section.parts if isinstance(part, Table)]


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent, without the sign."""
    return NO_VALUE if share is None else f"{100 * share:.{digits}f}"


def decimals(value: float | None, digits: int = 3) -> str:
    """A number with a fixed number of decimals; a rounded zero has no sign."""
    return NO_VALUE if value is None else f"{value:z.{digits}f}"
