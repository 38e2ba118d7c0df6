"""Makes candidates of rows: pairs the rows of both languages and drops repetitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.records import (
    LANGUAGES,
    Candidate,
    Language,
    LooseFact,
    LooseProbe,
    Origin,
    Problem,
    Rejection,
    StageResult,
    canonical_json,
    content_id,
    digest,
)
from clm_data.sources.fields import Fields
from clm_data.sources.files import SourceFile
from clm_data.sources.formats import FORMATS
from clm_data.sources.readers import ParsedRow, Reader, han_share, plain_reader, written_in
from clm_data.text import number_as_text


@dataclass(frozen=True)
class Unit:
    """Files that are read together: one file, or the Chinese and English files of one dataset."""

    first: SourceFile
    english: SourceFile | None = None

    @property
    def origin(self) -> Origin:
        """The origin of the candidates in the unit."""
        files = [self.first] if self.english is None else [self.first, self.english]
        licences = {file.licence for file in files}
        return Origin(
            kind="import",
            name=" + ".join(file.name for file in files),
            licence=licences.pop() if len(licences) == 1 else None,
        )


Rows = tuple[tuple[SourceFile, int], ...]
"""Rows that were read together, each as its file and its number, counted from 1."""


@dataclass(frozen=True)
class Item:
    """What one row, or two rows that belong together, gave."""

    rows: Rows
    found: Candidate | Rejection
    is_used: bool
    """False if it repeats what another file has."""


def candidates_of(files: Sequence[SourceFile]) -> StageResult[Candidate]:
    """Make candidates of the rows of all files.

    Published Chinese and English files with the same sequence of ``case_id`` are paired row by row,
    and so are the alternating rows of the mixed layout. Facts that appear in two files give one
    candidate, and a row in one language is dropped if another file has it in both. Repetitions
    *within* a file are kept. A row that is not an object or has a value of a wrong type becomes an
    ``unreadable-answer`` rejection with the row's number. Numbers become text as in the answers of
    models (:func:`clm_data.text.number_as_text`).

    Returns:
        Candidates and rejections in the order of files and rows. Ids are
        :func:`clm_data.records.content_id`, so repetitions have equal ids until
        :func:`clm_data.records.unique_ids` changes them.
    """
    used = [item.found for item in items_of(files) if item.is_used]
    return StageResult(
        tuple(found for found in used if isinstance(found, Candidate)),
        tuple(found for found in used if isinstance(found, Rejection)),
    )


def items_of(files: Sequence[SourceFile]) -> list[Item]:
    """What the rows of all files gave, in the order of files and rows, repetitions included."""
    items = [
        _Read(number, rows, found)
        for number, unit in enumerate(units_of(files))
        for rows, found in _read_unit(unit)
    ]
    used = set(_without_partial_copies(list(_without_repetitions(items))))
    return [Item(item.rows, item.found, item in used) for item in items]


def units_of(files: Sequence[SourceFile]) -> list[Unit]:
    """Pair Chinese and English files with equal ``case_id`` sequences; others stay single."""
    halves = {"clm-bench-zh", "clm-bench-en"}
    ids = {file.sha256: case_ids(file.rows) for file in files if file.format in halves}
    units: list[Unit] = []
    taken: set[str] = set()
    for file in files:
        if file.sha256 in taken:
            continue
        other = next(
            (
                other
                for other in files
                if {file.format, other.format} == halves
                and other.sha256 not in taken
                and ids[other.sha256] == ids[file.sha256]
            ),
            None,
        )
        taken.add(file.sha256)
        if other is None:
            units.append(Unit(file))
            continue
        taken.add(other.sha256)
        units.append(Unit(file, other) if file.format == "clm-bench-zh" else Unit(other, file))
    return units


def pair_alternating(rows: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pair the Chinese and English rows of the mixed layout.

    Returns:
        (Chinese row, English row) pairs, with None for a missing row. A row that is not an object
        gives (row, None).
    """
    pairs: list[tuple[Any, Any]] = []
    position = 0
    while position < len(rows):
        row = rows[position]
        if _are_pair(row, rows[position + 1] if position + 1 < len(rows) else None):
            pairs.append((row, rows[position + 1]))
            position += 2
            continue
        english = isinstance(row, dict) and written_in(row.get("prompt")) == "en"
        pairs.append((None, row) if english else (row, None))
        position += 1
    return pairs


def case_ids(rows: Sequence[Any]) -> list[str]:
    """Ids as JSON, so that 1 and "1" are different; 1.0 is 1."""
    ids = (row.get("case_id") if isinstance(row, dict) else "not an object" for row in rows)
    return [
        canonical_json(int(id_) if isinstance(id_, float) and id_.is_integer() else id_)
        for id_ in ids
    ]


def _are_pair(left: Any, right: Any) -> bool:
    if not isinstance(left, dict) or not isinstance(right, dict):
        return False
    shares = han_share(left.get("prompt")), han_share(right.get("prompt"))
    in_order = shares[0] > shares[1] or shares == (0.0, 0.0)
    return in_order and case_ids([left]) == case_ids([right])


def _read_unit(unit: Unit) -> Iterator[tuple[Rows, Candidate | Rejection]]:
    origin = unit.origin
    number = 1
    for content, parts in _rows_of(unit):
        if unit.english is not None:
            rows: Rows = ((unit.first, number), (unit.english, number))
        else:
            rows = tuple((unit.first, number + offset) for offset in range(len(parts)))
        try:
            yield rows, _candidate(parts, origin)
        except ValueError as error:
            reason = f"row {number}: {error}"
            yield rows, _rejection(f"{origin.name}#{number}", reason, content)
        number = rows[-1][1] + 1


Parts = list[tuple[Reader, Any]]
"""The rows of one candidate, each with its reader."""


def _rows_of(unit: Unit) -> Iterator[tuple[Any, Parts]]:
    """Yield, for each candidate, the content for a possible rejection, and the parts."""
    read = FORMATS[unit.first.format].read
    pairs: Iterable[tuple[Any, Any]]
    if unit.english is not None:
        pairs = zip(unit.first.rows, unit.english.rows, strict=True)
        read_english = FORMATS[unit.english.format].read
    elif unit.first.format == "clm-bench-mix":
        # Within a pair, position decides the language, since the script of a bad row may mislead.
        pairs = pair_alternating(unit.first.rows)
        read_english = plain_reader("en")
    else:
        pairs = ((row, None) for row in unit.first.rows)
        read_english = read
    for zh, en in pairs:
        if zh is not None and en is not None:
            yield {"zh": zh, "en": en}, [(plain_reader("zh"), zh), (read_english, en)]
        else:
            row = en if zh is None else zh
            yield row, [(read, row)]


def _candidate(parts: Parts, origin: Origin) -> Candidate:
    """Make a candidate of one or two rows.

    Raises:
        ValueError: A row is not an object, or a value has a wrong type.
    """
    rows = [read(Fields(_object(row))) for read, row in parts]
    facts = {lang: _loose_fact(row, lang) for row in rows for lang in row.facts}
    probes = {lang: _loose_probe(row, lang) for row in rows for lang in row.probes}
    first = rows[0]
    domain = _text(first.domain, "domain")
    content: dict[str, Any] = {
        "domain": domain,
        **{lang: facts[lang].model_dump() if lang in facts else None for lang in LANGUAGES},
    }
    return Candidate(
        id=content_id(content),
        domain=domain,
        origin=origin,
        zh=facts.get("zh"),
        en=facts.get("en"),
        zh_probe=probes.get("zh"),
        en_probe=probes.get("en"),
        case_id=_case_id(first.case_id),
        accepted={
            lang: texts
            for row in rows
            for lang, others in row.accepted.items()
            if (texts := tuple(_text(other, f"{lang}.ground_truth") or "" for other in others))
        },
    )


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {_excerpt(row)}")
    return row


def _loose_fact(row: ParsedRow, lang: Language) -> LooseFact:
    return LooseFact(**_texts(row.facts[lang], lang))


def _loose_probe(row: ParsedRow, lang: Language) -> LooseProbe | None:
    texts = _texts(row.probes[lang], lang)
    return LooseProbe(**texts) if any(text is not None for text in texts.values()) else None


def _texts(values: dict[str, Any], lang: Language) -> dict[str, str | None]:
    return {name: _text(value, f"{lang}.{name}") for name, value in values.items()}


def _text(value: Any, name: str) -> str | None:
    """A text or number as text; None stays None.

    Raises:
        ValueError: The value is something else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = number_as_text(value) or value
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{name}: expected text, found {_excerpt(value)}")


def _case_id(value: Any) -> int | str | None:
    """An id, unaltered; pandas writes whole numbers as 1.0 where another row has none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise ValueError(f"case_id: expected a whole number or text, found {_excerpt(value)}")


def _excerpt(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _rejection(label: str, reason: str, content: Any) -> Rejection:
    return Rejection(
        stage="parse",
        id=label,
        domain=None,
        problems=(Problem(code="unreadable-answer", message=reason),),
        content=content,
    )


@dataclass(frozen=True, eq=False)
class _Read:
    """What rows gave, with the number of their unit."""

    unit: int
    rows: Rows
    found: Candidate | Rejection


def _without_repetitions(items: Iterable[_Read]) -> Iterator[_Read]:
    """Leave out repetitions: an item appears as often as in the unit that has it most often."""
    seen: Counter[str] = Counter()
    in_unit: Counter[tuple[int, str]] = Counter()
    for item in items:
        found = item.found
        key = found.id if isinstance(found, Candidate) else digest(found.content)
        in_unit[item.unit, key] += 1
        if in_unit[item.unit, key] > seen[key]:
            seen[key] += 1
            yield item


def _without_partial_copies(items: Sequence[_Read]) -> Iterator[_Read]:
    """Leave out candidates in one language that *another* unit has in both."""
    complete: dict[tuple[Language, LooseFact], Counter[int]] = {}
    for item in items:
        if isinstance(item.found, Candidate) and _is_bilingual(item.found):
            for key in _sides(item.found):
                complete.setdefault(key, Counter())[item.unit] += 1
    for item in items:
        found = item.found
        sides = _sides(found) if isinstance(found, Candidate) and not _is_bilingual(found) else []
        counts = complete.get(sides[0], Counter()) if sides else Counter[int]()
        other = next((u for u, left in counts.items() if u != item.unit and left > 0), None)
        if other is None:
            yield item
        else:
            counts[other] -= 1


def _is_bilingual(candidate: Candidate) -> bool:
    return candidate.zh is not None and candidate.en is not None


def _sides(candidate: Candidate) -> list[tuple[Language, LooseFact]]:
    facts = ((lang, candidate.fact(lang)) for lang in LANGUAGES)
    return [(lang, fact) for lang, fact in facts if fact is not None]
