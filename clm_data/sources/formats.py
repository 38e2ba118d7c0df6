"""The supported file formats: how to recognize each, and how to read its rows.

Adding a format means adding one entry to :data:`FORMATS`. A format is recognized by all fields that
it needs, in every row; :mod:`clm_data.sources.readers` has the readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.layouts import ENGLISH_PREFIX
from clm_data.records import LANGUAGES
from clm_data.sources.fields import Fields, Row
from clm_data.sources.files import RawFile
from clm_data.sources.readers import (
    Reader,
    column_of,
    language_keys,
    plain_reader,
    read_bi_counterfact,
    read_bi_zsre,
    read_clm_data,
    read_counterfact,
    read_csv,
    read_easyedit,
    read_zsre,
    written_in,
)


@dataclass(frozen=True)
class Format:
    """A layout of rows.

    Attributes:
        title: Description shown to users.
        needs: Fields that every row of the format has; shown when a file is refused.
        matches: Whether a row has the fields of the format.
        read: Reads such a row; raises ValueError if its structure is wrong.
    """

    title: str
    needs: tuple[str, ...]
    matches: Callable[[Row], bool]
    read: Reader


def detect_format(raw: RawFile) -> str:
    """Detect the format of a file's rows.

    Raises:
        InputFileError: No format matches, or rows have different formats. The message lists the
            fields found, and what is missing for the closest format.
    """
    rows = [(number, row) for number, row in enumerate(raw.rows, 1) if isinstance(row, dict)]
    if not rows:
        raise InputFileError(
            f"{raw.name}: no row is a JSON object; known formats: {', '.join(sorted(FORMATS))}"
        )
    first, chosen = next(
        ((number, names[0]) for number, row in rows if (names := _matching(row, raw))), (0, "")
    )
    if not chosen:
        raise InputFileError(f"{raw.name}: {_why_unknown(rows[0][1])}")
    others = [(number, row) for number, row in rows if not FORMATS[chosen].matches(row)]
    for number, row in others:
        names = _matching(row, raw)
        if names and {chosen, names[0]} != {"easyedit", "clm-bench-zh"}:
            raise InputFileError(  # rows of another format would be misread
                f"{raw.name}: row {first} has the fields of {chosen}, row {number} those of "
                f"{names[0]}; put the rows of each format in a file of their own"
            )
    if chosen == "clm-bench-zh" and _has_both_languages([row for _, row in rows]):
        return "clm-bench-mix"
    return chosen


def _matching(row: Row, raw: RawFile) -> list[str]:
    if raw.is_csv:
        return ["csv"] if FORMATS["csv"].matches(row) else []
    return [
        name
        for name, known in FORMATS.items()
        if known.matches(row) and (name != "csv" or _names_a_language(row))
    ]


def _names_a_language(row: Row) -> bool:
    """Whether a column does, such as ``zh_prompt``; else objects are not taken for a table."""
    columns = (column_of(str(name)) for name in row)
    return any(column is not None and column[0] is not None for column in columns)


def _why_unknown(row: Row) -> str:
    """The fields of a row of no known format, and the format that comes closest."""
    fields = list(map(str, row))
    shown = ", ".join(fields[:8]) + (", ..." if len(fields) > 8 else "")
    reason = f"no format has rows with {shown}"
    missing = {
        name: [need for need in known.needs if need not in row]
        for name, known in FORMATS.items()
        if any(need in row for need in known.needs)
    }
    keys = language_keys(fields)
    if len(keys) == 1 and isinstance(row[next(iter(keys.values()))], Mapping):
        (lang,) = keys
        other = "zh" if lang == "en" else "en"
        return f"{reason}; the side in the other language is missing: add an object '{other}'"
    inner = [name for name, value in row.items() if isinstance(value, list) and _head(value)]
    if inner and any(known.matches(_head(row[inner[0]])) for known in FORMATS.values()):
        return f"{reason}; the rows are in '{inner[0]}': save that list as a file of its own"
    fewest = min((len(needs) for needs in missing.values() if needs), default=0)
    closest = [
        f"{name} (also needs {', '.join(needs)})"
        for name, needs in missing.items()
        if len(needs) == fewest > 0
    ]
    if closest:
        return f"{reason}; closest: {', '.join(closest[:3])}"
    return f"{reason}; known formats: {', '.join(sorted(FORMATS))}"


def check_format(raw: RawFile, name: str) -> None:
    """Check that a format given by the user can be the format of the rows.

    Raises:
        UnknownNameError: There is no such format.
        InputFileError: No row has the fields of the format.
    """
    if name not in FORMATS:
        raise UnknownNameError("format", name, FORMATS)
    if not any(isinstance(row, dict) and FORMATS[name].matches(row) for row in raw.rows):
        raise InputFileError(
            f"{raw.name}: no row has the fields of {name} ({FORMATS[name].title}); "
            "omit --format to detect the format"
        )


def unread_fields(rows: Sequence[Any], format: str) -> dict[str, int]:
    """The fields with values that a format does not read, with the number of rows that have each.

    ``rephrase after the first`` stands for the other items of a list. Rows that cannot be read
    are left out: they are reported by themselves.
    """
    counts: dict[str, int] = {}
    for row in rows:
        for name in _unread_in(row, format):
            counts[name] = counts.get(name, 0) + 1
    return counts


def _unread_in(row: Any, format: str) -> Iterator[str]:
    if isinstance(row, dict):
        fields = Fields(row)
        try:
            FORMATS[format].read(fields)
        except ValueError:
            return
        yield from dict.fromkeys(fields.unread())


def _has_both_languages(rows: Sequence[Row]) -> bool:
    prompts = [row["prompt"] for row in rows if isinstance(row.get("prompt"), str)]
    english = sum(written_in(prompt) == "en" for prompt in prompts)
    return 4 * english >= max(1, len(prompts))


def _has(*names: str) -> Callable[[Row], bool]:
    return lambda row: all(name in row for name in names)


def _is_easyedit(row: Row) -> bool:
    """Rows with prompt, target and something that only EasyEdit's sets have.

    CKnowEdit has no ``subject``; it is reported as missing.
    """
    if not _has("prompt", "target_new")(row):
        return False
    own = ("locality", "portability", "locality_prompt", "rephrase", "target_old")
    return any(name in row for name in own) or (
        "subject" in row and isinstance(row.get("ground_truth"), list)
    )


def _both(name: str) -> Callable[[Row], bool]:
    """A check that a row has, for each language, an object with this field."""

    def matches(row: Row) -> bool:
        keys = language_keys(list(map(str, row)))
        sides = [row.get(key) for key in keys.values()]
        return len(sides) == len(LANGUAGES) and all(
            isinstance(side, dict) and name in side for side in sides
        )

    return matches


def _is_counterfact(row: Row) -> bool:
    edits = row.get("requested_rewrite")
    return isinstance(edits, dict) or (isinstance(edits, list) and "prompt" in _head(edits))


def _head(items: list[Any]) -> Mapping[str, Any]:
    return items[0] if items and isinstance(items[0], dict) else {}


def _is_clm_data(row: Row) -> bool:
    keys = language_keys(list(map(str, row))).values()
    sides = [row[key] for key in keys if isinstance(row.get(key), dict)]
    return bool(sides) and all("prompt" in side for side in sides)


def _is_table(row: Row) -> bool:
    """Columns with prompt, target and one more field of a fact in one language, none of a list."""
    fields: dict[str | None, set[str]] = {}
    for name, value in row.items():
        column = column_of(str(name))
        if column is not None and not isinstance(value, dict):
            fields.setdefault(column[0], set()).add(column[1])
    needed = {"prompt", "target_new"}
    return any(needed < names for names in fields.values())


FORMATS: dict[str, Format] = {
    "clm-data": Format("records or entries of clm-data", ("zh", "en"), _is_clm_data, read_clm_data),
    "bi-zsre": Format(
        "Bi-ZsRE and MzsRE: ZsRE under 'en' and 'zh' (or zh-cn, Chinese, ...)",
        ("zh", "en"),
        _both("src"),
        read_bi_zsre,
    ),
    "bi-counterfact": Format(
        "CounterFact under 'en' and 'zh' (or zh-cn, Chinese, ...)",
        ("zh", "en"),
        _both("requested_rewrite"),
        read_bi_counterfact,
    ),
    "counterfact": Format(
        "CounterFact as ROME and MEMIT publish it; MQuAKE rows with one edit",
        ("requested_rewrite",),
        _is_counterfact,
        read_counterfact,
    ),
    "zsre": Format(
        "ZsRE as MEND and EasyEdit use it", ("src", "alt"), _has("src", "alt"), read_zsre
    ),
    "clm-bench-en": Format(
        "CLM-Bench, English fields",
        tuple(f"{ENGLISH_PREFIX}{name}" for name in ("prompt", "subject", "target_new")),
        lambda row: f"{ENGLISH_PREFIX}prompt" in row and "prompt" not in row,
        plain_reader("en", ENGLISH_PREFIX),
    ),
    "easyedit": Format(
        "EasyEdit, KnowEdit and CKnowEdit",
        ("prompt", "target_new", "locality"),
        _is_easyedit,
        read_easyedit,
    ),
    "clm-bench-zh": Format(
        "CLM-Bench, Chinese fields",
        ("prompt", "subject", "target_new"),
        _has("prompt", "subject", "target_new"),
        plain_reader("zh"),
    ),
    "clm-bench-mix": Format(
        "CLM-Bench, both languages alternating",
        ("prompt", "subject", "target_new"),
        _has("prompt", "subject", "target_new"),
        plain_reader(None),
    ),
    "csv": Format(
        "CSV, or objects, with zh_prompt, en_prompt ... or CLM-Bench names",
        ("prompt", "target_new"),
        _is_table,
        read_csv,
    ),
}
"""Formats by name, in the order in which detection tries them."""
