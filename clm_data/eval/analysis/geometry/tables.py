"""The geometry of edits: how changes of one language lie to those of the other.

Reads what ``eval-baselines --save-deltas`` wrote, one weight at a time, and gives three tables;
``docs/reference/geometry.md`` says what every number is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clm_data.eval.analysis.geometry import factors, transfer
from clm_data.eval.analysis.geometry.measures import Change, GeometryError, compare, total
from clm_data.eval.analysis.geometry.null import null_values
from clm_data.eval.analysis.geometry.resample import (
    DEFAULT,
    Estimate,
    Settings,
    of_draws,
    over_batches,
    over_facts,
)
from clm_data.eval.analysis.geometry.saved_edits import ABOUT, Group, about, find_edits
from clm_data.eval.csv_tables import ResultRow, write_rows
from clm_data.eval.results import EditLanguage
from clm_data.log import Log, silent

Row = ResultRow
COLUMNS = ("batch", "layer", "comparison", "measure", "value", "low", "high", "interval", "facts")
"""Of ``geometry.csv``, after those of the group."""
MANY_BATCHES = 5
"""With so many, intervals over batches make those of angles and neurons over facts needless."""
FEWEST_TO_SPLIT = 4
"""Facts that a batch must have to be split in halves."""


@dataclass(frozen=True)
class GeometryTables:
    """What an analysis found; rows have the columns that :func:`write` gives its files.

    Attributes:
        geometry: Measures between changes.
        factors: Residuals and keys of the languages.
        transfer: Facts that reached the other language against those that did not.
        skipped: What could not be analysed, and why.
    """

    geometry: tuple[Row, ...]
    factors: tuple[Row, ...]
    transfer: tuple[Row, ...]
    skipped: tuple[Row, ...]


def analyse(folder: Path, settings: Settings = DEFAULT, *, log: Log = silent) -> GeometryTables:
    """Compare the saved changes of a results folder.

    Args:
        folder: What ``eval-baselines --save-deltas`` wrote.
        settings: How.
        log: Called with progress messages.

    Raises:
        InputFileError: No results, or no saved changes among them.
        GeometryError: A measure came out beyond its range; says where.
    """
    found = find_edits(folder, k=settings.k, batches=settings.batches)
    geometry: list[Row] = []
    parts: list[Row] = []
    reached: list[Row] = []
    for group in found.groups:
        name = " ".join(str(value) for value in group.about.values() if value != "")
        log(f"geometry of {name}")
        try:
            geometry += group_rows(group, settings)
            for layer in group.layers():
                parts += factors.factor_rows(group, layer, settings)
            reached += transfer.transfer_rows(folder, group, settings)
        except GeometryError as error:
            raise GeometryError(f"{name}: {error}") from error
    skipped = [
        {**about(setting), "language": setting.language, "reason": reason}
        for setting, reason in found.skipped
    ]
    return GeometryTables(tuple(geometry), tuple(parts), tuple(reached), tuple(skipped))


def write(folder: Path, tables: GeometryTables) -> list[Path]:
    """Write ``geometry.csv``, ``factors.csv``, ``transfer.csv`` and ``geometry_skipped.csv``.

    Args:
        folder: Of the tables, such as ``OUT/analysis``; made where it is missing.
        tables: What was found.

    Returns:
        The files.
    """
    files = {
        "geometry.csv": (tables.geometry, COLUMNS),
        "factors.csv": (tables.factors, factors.COLUMNS),
        "transfer.csv": (tables.transfer, transfer.COLUMNS),
        "geometry_skipped.csv": (tables.skipped, ("language", "reason")),
    }
    for name, (rows, columns) in files.items():
        write_rows(folder / name, rows, (*ABOUT, *columns))
    return [folder / name for name in files]


@dataclass(frozen=True)
class Compared:
    """A comparison of one batch.

    Attributes:
        comparison: Its name.
        facts: Facts behind the first change.
        measures: By name.
    """

    comparison: str
    facts: int
    measures: dict[str, Estimate]


def group_rows(group: Group, settings: Settings) -> list[Row]:
    """Rows of ``geometry.csv`` for one group: every batch, and their mean as batch ``all``."""
    rows: list[Row] = []
    few = settings if group.count < MANY_BATCHES else replace(settings, heavy_resamples=0)
    for layer in group.layers():
        gathered: dict[str, list[Compared]] = {}
        for batch in range(group.count):
            for found in batch_comparisons(group, layer, batch, few):
                gathered.setdefault(found.comparison, []).append(found)
                rows += _rows(group, layer, group.label(batch), found)
        if group.setting.mode != "sequential":
            for many in gathered.values():
                rows += _rows(group, layer, "all", _together(many, settings))
    return rows


def batch_comparisons(
    group: Group, layer: int, batch: int, settings: Settings
) -> Iterator[Compared]:
    """Every comparison that begins with one batch."""
    here = {lang: files[batch] for lang, files in group.batches.items()}
    zh, en = here["zh"].change(layer), here["en"].change(layer)
    shared = len(set(here["zh"].facts) & set(here["en"].facts))
    yield from _with_null("zh-en", zh, en, shared, settings)
    yield from split_comparisons(zh, en, settings)
    both = mix = None
    if "mix" in here:
        both, mix = total(zh, en), here["mix"].change(layer)
        yield from _with_null("sum-mix", both, mix, shared, settings)
    if batch % 2 == 0 and batch + 1 < group.count:
        later = {lang: files[batch + 1] for lang, files in group.batches.items()}
        pairs: list[tuple[str, EditLanguage, Change]]
        pairs = [("zh", "zh", zh), ("en", "en", en), ("zh-en", "en", zh)]
        if both is not None and mix is not None:
            pairs += [("mix", "mix", mix), ("sum-mix", "mix", both)]
        for name, lang, change in pairs:
            other = later[lang].change(layer)
            yield _plain(f"disjoint-{name}", change, other, shared, settings)


def _with_null(
    name: str, first: Change, second: Change, facts: int, settings: Settings
) -> Iterator[Compared]:
    values = compare(first, second, settings.share)
    yield Compared(name, facts, over_facts(first, second, values, settings))
    null = null_values(first, second, settings)
    if null:
        yield Compared(f"null-{name}", facts, null)


def _plain(name: str, first: Change, second: Change, facts: int, settings: Settings) -> Compared:
    values = compare(first, second, settings.share)
    return Compared(name, facts, {measure: Estimate(value) for measure, value in values.items()})


def split_comparisons(zh: Change, en: Change, settings: Settings) -> Iterator[Compared]:
    """One half of a batch's facts against the other half: within a language, and across.

    Both halves come from one solve, so this is a weaker null than two batches are.
    """
    facts = sorted(set(zh.facts) & set(en.facts))
    if not (zh.by_fact and en.by_fact) or len(facts) < FEWEST_TO_SPLIT:
        return
    rng = settings.rng("split", len(facts))
    half = len(facts) // 2
    pairs = {"split-zh": (zh, zh), "split-en": (en, en), "split-zh-en": (zh, en)}
    drawn: dict[str, list[dict[str, float | None]]] = {name: [] for name in pairs}
    for _ in range(settings.splits):
        order = [facts[i] for i in rng.permutation(len(facts))]
        for name, (first, second) in pairs.items():
            halves = first.only(order[:half]), second.only(order[half:])
            drawn[name].append(compare(*halves, settings.share))
    for name, values in drawn.items():
        yield Compared(name, half, of_draws(values, settings))


def _together(found: Sequence[Compared], settings: Settings) -> Compared:
    """The mean over batches; one batch keeps its own intervals."""
    if len(found) == 1:
        return found[0]
    out = {}
    for name in found[0].measures:
        known = [e for one in found if (e := one.measures[name]).value is not None]
        out[name] = _mean(known, settings) if known else Estimate(None)
    return Compared(found[0].comparison, sum(one.facts for one in found), out)


def _mean(estimates: Sequence[Estimate], settings: Settings) -> Estimate:
    """Over batches; the range of draws stays that of one batch, on average."""
    values = [e.value for e in estimates if e.value is not None]
    if estimates[0].interval != "draws":
        return over_batches(values, settings)
    ends = [[e.low for e in estimates], [e.high for e in estimates]]
    low, high = (sum(v for v in end if v is not None) / len(end) for end in ends)
    return Estimate(sum(values) / len(values), low, high, "draws")


def _rows(group: Group, layer: int, batch: int | str, found: Compared) -> list[Row]:
    return [
        {
            **group.about,
            "batch": batch,
            "layer": layer,
            "comparison": found.comparison,
            "measure": measure,
            **vars(estimate),
            "facts": found.facts,
        }
        for measure, estimate in found.measures.items()
    ]
