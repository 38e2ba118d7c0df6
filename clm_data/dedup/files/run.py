"""Deduplicate a file: read its texts, decide, look for semantic twins, write what stays."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from clm_data.dedup.files.policies import (
    BY_SUBJECT,
    KEEP_BEST,
    POLICIES,
    UNKNOWN,
    View,
    decide,
)
from clm_data.dedup.files.report import SEPARATOR, Report, Settings
from clm_data.dedup.files.semantic import Embed, SemanticTwin, semantic_twins
from clm_data.dedup.files.text_tables import ENDINGS, HUB_PREFIX, MISSING, Table
from clm_data.errors import ConfigError, InputFileError, UnknownNameError, UserError
from clm_data.files import atomic_file
from clm_data.languages import normalize_text

LONGEST_CELL = 100_000
"""Characters; comparing two texts of that length takes seconds."""
REPORT_FORMS = {".json": "json", ".html": "html", ".htm": "html"}

Progress = Callable[[str, int, int], None]
"""Told of a step (reading, comparing, embedding, writing), how much of how much is done."""


@dataclass(frozen=True)
class Outputs:
    """Where results go.

    Attributes:
        out: The rows that stay, in the format of the table.
        report: A report; its form follows from the ending.
        force: Replace files that are there already.
    """

    out: Path
    report: Path | None = None
    force: bool = False


def deduplicate_table(
    table: Table,
    settings: Settings,
    outputs: Outputs,
    *,
    embed: Embed | None = None,
    progress: Progress = lambda *_: None,
) -> Report:
    """Write the rows that a policy keeps, and a report; the files appear together, or not at all.

    Args:
        table: What to read, twice.
        settings: Checked first.
        outputs: Checked before anything is read.
        embed: Embeds texts, where semantic twins are asked for.
        progress: Told how far it is.

    Raises:
        UserError: Settings, table or outputs are not usable. No file is written then.
    """
    check(settings)
    _check_outputs(table, outputs)
    with ExitStack() as files:
        out = files.enter_context(atomic_file(outputs.out, overwrite=outputs.force))
        page = outputs.report and files.enter_context(
            atomic_file(outputs.report, overwrite=outputs.force)
        )
        texts = _read(table, settings, progress)
        outcome = decide(
            texts.views,
            settings.threshold,
            scores=texts.scores if settings.score else None,
            subjects=texts.subjects if settings.policy == BY_SUBJECT else None,
            progress=lambda done, whole: progress("comparing", done, whole),
        )
        report = Report(settings, tuple(texts.views), outcome)
        if embed is not None:
            report = _with_semantic(report, texts, embed, progress)
        _write(outputs.out, lambda: table.write(outcome.stays, out, _step(progress, "writing")))
        if outputs.report is not None and page is not None:
            form = REPORT_FORMS.get(outputs.report.suffix.lower(), "table")
            _write(outputs.report, lambda: report.write(page, form))
    return report


def check(settings: Settings) -> None:
    """Whether the settings go together.

    Raises:
        UserError: They do not; says how to mend it.
    """
    if settings.policy not in POLICIES:
        raise UnknownNameError("policy", settings.policy, POLICIES)
    if not settings.fields:
        raise ConfigError("name a column with --field")
    if len(set(settings.fields)) < len(settings.fields):
        raise ConfigError("a column is named twice with --field; name each once")
    if not 0 <= settings.threshold < 1:
        raise ConfigError(
            f"--threshold {settings.threshold:g}: nothing is more similar than 1; give a number "
            "below it, for equal texts only 0.9999"
        )
    if (settings.policy == KEEP_BEST) != (settings.score is not None):
        raise ConfigError(f"--policy {KEEP_BEST} and --score COLUMN go together; give both or none")
    if settings.policy == BY_SUBJECT and settings.subject is None:
        raise ConfigError(f"--policy {BY_SUBJECT} needs --subject COLUMN")
    if settings.semantic is not None and settings.subject is None:
        raise ConfigError("--semantic compares rows of one subject; add --subject COLUMN")
    if settings.subject is not None and settings.policy != BY_SUBJECT and not settings.semantic:
        raise ConfigError(f"--subject goes with --policy {BY_SUBJECT} or with --semantic")


def _check_outputs(table: Table, outputs: Outputs) -> None:
    of_format = next(
        (name for name, ends in ENDINGS.items() if outputs.out.suffix.lower() in ends), None
    )
    if of_format not in (None, table.format):
        usual = ENDINGS[table.format][0]
        raise ConfigError(
            f"{outputs.out}: rows come out as {table.format}, as they stand; name it *{usual}"
        )
    named = [path for path in (outputs.out, outputs.report) if path is not None]
    real = [path.expanduser().resolve() for path in named]
    if len(set(real)) < len(real):
        raise ConfigError("--out and --report name the same file; name two")
    for path in named:
        if not table.name.startswith(HUB_PREFIX) and _is_same(path, Path(table.name)):
            raise ConfigError(f"{path} is the input, which is never written to; name another file")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


@dataclass
class _Texts:
    """What is held of a table: texts, scores and subjects."""

    views: list[View]
    scores: array[float] = field(default_factory=lambda: array("d"))
    subjects: array[int] = field(default_factory=lambda: array("q"))
    known: dict[str, int] = field(default_factory=dict)

    def add_subject(self, subject: str | None) -> None:
        number = UNKNOWN if subject is None else self.known.setdefault(subject, len(self.known))
        self.subjects.append(number)


def _read(table: Table, settings: Settings, progress: Progress) -> _Texts:
    count = len(settings.fields)
    extra = [name for name in (settings.score, settings.subject) if name is not None]
    names = [*settings.fields, *extra]
    texts = _Texts([View() for _ in range(count if settings.each_field else 1)])
    seen = [False] * len(names)
    rows = 0
    for place, cells in table.read(names, _step(progress, "reading")):
        rows += 1
        for index, cell in enumerate(cells):
            seen[index] = seen[index] or cell is not MISSING
        found = [
            _text(cell, place, name, settings.normalised)
            for cell, name in zip(cells, settings.fields, strict=False)
        ]
        for view, text in zip(texts.views, _compared(found, settings, place), strict=True):
            view.add(text)
        rest = iter(cells[count:])
        if settings.score is not None:
            texts.scores.append(_score(next(rest), place, settings.score))
        if settings.subject is not None:
            subject = _text(next(rest), place, settings.subject, settings.normalised)
            texts.add_subject(subject)
    if not rows:
        raise InputFileError(f"{table.name}: the file holds no rows")
    for name, has_it in zip(names, seen, strict=True):
        if not has_it:
            raise InputFileError(f"{table.name}: no row has the column '{name}'; check the name")
    return texts


def _compared(found: Sequence[str | None], settings: Settings, place: str) -> Sequence[str | None]:
    """The texts of a row by view."""
    if settings.each_field or len(found) == 1:
        return found
    for text, name in zip(found, settings.fields, strict=True):
        if text is not None and SEPARATOR in text:
            raise InputFileError(
                f"{place}: '{name}' holds U+001F, which separates joined fields; remove it, or add "
                "--each-field"
            )
    given = any(text is not None for text in found)
    return [SEPARATOR.join(text or "" for text in found) if given else None]


def _text(cell: Any, place: str, name: str, normalised: bool) -> str | None:
    """The text of a cell; None where it is missing, null or blank."""
    if cell is MISSING or cell is None:
        return None
    if not isinstance(cell, str):
        mend = "name another column or mend the row"
        if isinstance(cell, dict) and cell:
            mend = f"reach into it: {name}.{next(iter(cell))}"
        raise InputFileError(f"{place}: '{name}' is {_kind(cell)}, not a text; {mend}")
    if len(cell) > LONGEST_CELL:
        raise InputFileError(
            f"{place}: '{name}' has {len(cell):,} characters, more than the {LONGEST_CELL:,} that "
            "can be compared; take the row out"
        )
    text = normalize_text(cell) if normalised else cell
    return text if text and not text.isspace() else None


def _kind(cell: Any) -> str:
    kinds = ((bool, "true or false"), ((int, float, Decimal), "a number"), (dict, "an object"))
    return next(
        (name for kind, name in kinds if isinstance(cell, kind)), f"a {type(cell).__name__}"
    )


def _score(cell: Any, place: str, name: str) -> float:
    """A score; the lowest there is where none is given."""
    if cell is MISSING or cell is None or (isinstance(cell, str) and not cell.strip()):
        return -math.inf
    try:
        if isinstance(cell, bool) or not isinstance(cell, (int, float, str, Decimal)):
            raise ValueError(cell)
        score = float(cell)
    except (ValueError, OverflowError) as error:
        shown = f"'{str(cell)[:40]}'" if isinstance(cell, str) else _kind(cell)
        raise InputFileError(
            f"{place}: the score '{name}' is {shown}, not a number; mend the row"
        ) from error
    return -math.inf if math.isnan(score) else score


def _with_semantic(report: Report, texts: _Texts, embed: Embed, progress: Progress) -> Report:
    rows = [
        (row, texts.subjects[row], text)
        for row, stays in enumerate(report.outcome.stays)
        if stays
        and texts.subjects[row] != UNKNOWN
        and (text := " ".join(filter(None, report.texts(row))))
    ]
    threshold = report.settings.semantic_threshold or 0.0
    step = _step(progress, "embedding")
    found: tuple[list[SemanticTwin], int] = semantic_twins(rows, embed, threshold, step)
    return Report(report.settings, report.views, report.outcome, tuple(found[0]), found[1])


def _step(progress: Progress, name: str) -> Callable[[int, int], None]:
    return lambda done, whole: progress(name, done, whole)


def _write(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise UserError(f"{path}: cannot be written: {reason}; nothing was written") from error
