"""From rows to candidates: which rows belong together, and what was said twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from clm_data.sources.files import SourceFile
from clm_data.sources.formats import FORMATS, Reading, han_share, plain_reader, written_in

Reader = Callable[[Mapping[str, Any]], Reading]


@dataclass(frozen=True)
class Unit:
    """Files that are read together: one, or the Chinese and the English half of one dataset."""

    first: SourceFile
    english: SourceFile | None = None

    @property
    def origin(self) -> Origin:
        """The origin of what the unit holds."""
        files = [self.first] if self.english is None else [self.first, self.english]
        licences = {file.licence for file in files}
        return Origin(
            kind="import",
            name=" + ".join(file.name for file in files),
            licence=licences.pop() if len(licences) == 1 else None,
        )


def candidates_of(files: Sequence[SourceFile]) -> StageResult[Candidate]:
    """The candidates of some files taken together.

    Published Chinese and English files with the same sequence of ``case_id`` are paired, as are the
    alternating rows of the mixed layout. What stands in two files is one candidate, by its facts,
    and a one-language row that another file has with its other half is not a candidate of its own;
    repetitions *within* a file stay. A row that is no object, or has a value of a wrong type,
    becomes a rejection ``unreadable-answer``.

    Returns:
        In the order of files and rows. Ids are :func:`clm_data.records.content_id`, so repetitions
        have equal ids until :func:`clm_data.records.unique_ids` tells them apart.
    """
    items = list(_once(_read_unit(unit) for unit in units_of(files)))
    kept = _without_halves([item for item in items if isinstance(item, Candidate)])
    return StageResult(tuple(kept), tuple(item for item in items if isinstance(item, Rejection)))


def units_of(files: Sequence[SourceFile]) -> list[Unit]:
    """Pair Chinese files with English ones of equal ``case_id`` sequences; others stand alone."""
    halves = {"clm-bench-zh", "clm-bench-en"}
    ids = {file.sha256: _case_ids(file.rows) for file in files if file.format in halves}
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
    """Chinese and English halves of the mixed layout.

    Returns:
        (Chinese row, English row); None for the half that is not there, and (row, None) for what is
        no object.
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


def _case_ids(rows: Sequence[Any]) -> list[str]:
    """Ids with their type: 1 and "1" are two ids."""
    return [
        canonical_json(row.get("case_id")) if isinstance(row, dict) else "not an object"
        for row in rows
    ]


def _are_pair(left: Any, right: Any) -> bool:
    if not isinstance(left, dict) or not isinstance(right, dict):
        return False
    shares = han_share(left.get("prompt")), han_share(right.get("prompt"))
    in_order = shares[0] > shares[1] or shares == (0.0, 0.0)
    return in_order and _case_ids([left]) == _case_ids([right])


def _read_unit(unit: Unit) -> Iterator[Candidate | Rejection]:
    origin = unit.origin
    for number, (content, parts) in enumerate(_rows_of(unit), 1):
        try:
            yield _candidate(parts, origin)
        except ValueError as error:
            yield _rejection(f"{origin.name}#{number}", str(error), content)


Parts = list[tuple[Reader, Any]]
"""Rows of one candidate, each with what reads it."""


def _rows_of(unit: Unit) -> Iterator[tuple[Any, Parts]]:
    """Candidate by candidate: what to show where it cannot be read, and its parts."""
    read = FORMATS[unit.first.format].read
    pairs: Iterable[tuple[Any, Any]]
    if unit.english is not None:
        pairs = zip(unit.first.rows, unit.english.rows, strict=True)
        read_english = FORMATS[unit.english.format].read
    elif unit.first.format == "clm-bench-mix":
        # Within a pair the place decides the language, not the script of a defective row.
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
    """The candidate that one or two rows make.

    Raises:
        ValueError: A row is no object, or a value is of a wrong type.
    """
    readings = [read(_object(row)) for read, row in parts]
    facts = {lang: _loose_fact(reading, lang) for reading in readings for lang in reading.facts}
    probes = {lang: _loose_probe(reading, lang) for reading in readings for lang in reading.probes}
    first = readings[0]
    domain = _checked(first.domain, (str,), "domain")
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
        case_id=_checked(first.case_id, (int, str), "case_id"),
    )


def _object(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {_shown(row)}")
    return row


def _loose_fact(reading: Reading, lang: Language) -> LooseFact:
    return LooseFact(**_texts(reading.facts[lang], lang))


def _loose_probe(reading: Reading, lang: Language) -> LooseProbe | None:
    texts = _texts(reading.probes[lang], lang)
    return LooseProbe(**texts) if any(text is not None for text in texts.values()) else None


def _texts(values: dict[str, Any], lang: Language) -> dict[str, str | None]:
    return {name: _checked(value, (str,), f"{lang}.{name}") for name, value in values.items()}


def _checked(value: Any, types: tuple[type, ...], name: str) -> Any:
    if value is None or (isinstance(value, types) and not isinstance(value, bool)):
        return value
    expected = "text" if types == (str,) else "a whole number or text"
    raise ValueError(f"{name}: expected {expected}, found {_shown(value)}")


def _shown(value: Any) -> str:
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


def _once(units: Iterable[Iterable[Candidate | Rejection]]) -> Iterator[Candidate | Rejection]:
    """What several units hold is given once, or as often as the unit has it that has it most."""
    seen: Counter[str] = Counter()
    for unit in units:
        here: Counter[str] = Counter()
        for item in unit:
            key = item.id if isinstance(item, Candidate) else digest(item.content)
            here[key] += 1
            if here[key] > seen[key]:
                seen[key] = here[key]
                yield item


def _without_halves(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Leave out one-language candidates that stand whole in another unit."""
    whole = Counter(
        key for candidate in candidates for key in _sides(candidate) if _is_whole(candidate)
    )
    kept = []
    for candidate in candidates:
        sides = _sides(candidate)
        if not _is_whole(candidate) and sides and whole[sides[0]] > 0:
            whole[sides[0]] -= 1
        else:
            kept.append(candidate)
    return kept


def _is_whole(candidate: Candidate) -> bool:
    return candidate.zh is not None and candidate.en is not None


def _sides(candidate: Candidate) -> list[tuple[Language, LooseFact]]:
    facts = ((lang, candidate.fact(lang)) for lang in LANGUAGES)
    return [(lang, fact) for lang, fact in facts if fact is not None]
