"""The comparisons between weight changes of a group, by batch and over batches (``geometry.csv``).

``docs/reference/geometry.md`` lists the comparisons and the question that each answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from clm_data.eval.analysis.geometry.low_rank import LowRankMatrix
from clm_data.eval.analysis.geometry.measures import compare
from clm_data.eval.analysis.geometry.null import null_estimates
from clm_data.eval.analysis.geometry.resample import (
    Estimate,
    Values,
    of_draws,
    over_batches,
    over_facts,
    point_estimate,
)
from clm_data.eval.analysis.geometry.saved_edits import EditGroup
from clm_data.eval.analysis.options import GeometryOptions
from clm_data.eval.csv_tables import ResultRow
from clm_data.eval.intervals import Interval
from clm_data.eval.results import EditLanguage

COLUMNS = ("batch", "layer", "comparison", "measure", "value", "low", "high", "interval", "facts")
"""Columns of ``geometry.csv`` after those of the group."""
MANY_BATCHES = 5
"""Batches from which intervals of angles and overlaps are taken over batches only."""
MIN_FACTS_TO_SPLIT = 4
"""Fewest facts of a batch that is split into halves."""


@dataclass(frozen=True)
class Comparison:
    """A comparison between two weight changes.

    Attributes:
        name: Value of the column ``comparison``.
        facts: Number of facts that the comparison is based on.
        measures: Estimates by measure.
    """

    name: str
    facts: int
    measures: dict[str, Estimate]


def group_rows(group: EditGroup, options: GeometryOptions) -> list[ResultRow]:
    """Rows of ``geometry.csv`` for a group: each batch, and the mean over batches as ``all``."""
    rows: list[ResultRow] = []
    by_batch = options if group.count < MANY_BATCHES else replace(options, costly_resamples=0)
    for layer in group.layers():
        by_name: dict[str, list[Comparison]] = {}
        for batch in range(group.count):
            for comparison in batch_comparisons(group, layer, batch, by_batch):
                by_name.setdefault(comparison.name, []).append(comparison)
                rows += _rows(group, layer, group.label(batch), comparison)
        if group.setting.mode != "sequential":
            for comparisons in by_name.values():
                rows += _rows(group, layer, "all", _over_batches(comparisons, options))
    return rows


def batch_comparisons(
    group: EditGroup, layer: int, batch: int, options: GeometryOptions
) -> Iterator[Comparison]:
    """Every comparison of one batch at one layer; ``disjoint`` only for batches 0, 2, 4 ..."""
    here = {lang: files[batch] for lang, files in group.batches.items()}
    zh, en = here["zh"].change(layer), here["en"].change(layer)
    facts = len(set(here["zh"].facts) & set(here["en"].facts))
    yield from _with_null("zh-en", zh, en, facts, options)
    yield from split_comparisons(zh, en, options)
    both = mix = None
    if "mix" in here:
        both, mix = zh + en, here["mix"].change(layer)
        yield from _with_null("sum-mix", both, mix, facts, options)
    if batch % 2 == 0 and batch + 1 < group.count:
        pairs: list[tuple[str, LowRankMatrix, EditLanguage]]
        pairs = [("zh", zh, "zh"), ("en", en, "en"), ("zh-en", zh, "en")]
        if both is not None and mix is not None:
            pairs += [("mix", mix, "mix"), ("sum-mix", both, "mix")]
        for name, change, lang in pairs:
            values = compare(
                change, group.batches[lang][batch + 1].change(layer), options.top_share
            )
            yield Comparison(f"disjoint-{name}", facts, _without_intervals(values))


def _with_null(
    name: str, first: LowRankMatrix, second: LowRankMatrix, facts: int, options: GeometryOptions
) -> Iterator[Comparison]:
    """A comparison with intervals over facts, and the same of random matrices."""
    values = compare(first, second, options.top_share)
    yield Comparison(name, facts, over_facts(first, second, values, options))
    null = null_estimates(first, second, options)
    if null:
        yield Comparison(f"null-{name}", facts, null)


def _without_intervals(values: Values) -> dict[str, Estimate]:
    return {name: point_estimate(value) for name, value in values.items()}


def split_comparisons(
    zh: LowRankMatrix, en: LowRankMatrix, options: GeometryOptions
) -> Iterator[Comparison]:
    """Random halves of a batch's facts against the other half, within and across languages.

    Both halves come from one solve, so this is a weaker control than a disjoint batch.
    """
    facts = sorted(set(zh.facts) & set(en.facts))
    if not (zh.by_fact and en.by_fact) or len(facts) < MIN_FACTS_TO_SPLIT:
        return
    rng = options.rng("split", len(facts))
    half = len(facts) // 2
    pairs = {"split-zh": (zh, zh), "split-en": (en, en), "split-zh-en": (zh, en)}
    drawn: dict[str, list[Values]] = {name: [] for name in pairs}
    for _ in range(options.splits):
        order = [facts[i] for i in rng.permutation(len(facts))]
        for name, (first, second) in pairs.items():
            halves = first.of_facts(order[:half]), second.of_facts(order[half:])
            drawn[name].append(compare(*halves, options.top_share))
    for name, values in drawn.items():
        yield Comparison(name, half, of_draws(values, options.bootstrap))


def _over_batches(comparisons: Sequence[Comparison], options: GeometryOptions) -> Comparison:
    """The mean over batches; a single batch keeps its own intervals."""
    if len(comparisons) == 1:
        return comparisons[0]
    measures = {
        name: _mean([one.measures[name] for one in comparisons], options)
        for name in comparisons[0].measures
    }
    return Comparison(comparisons[0].name, sum(one.facts for one in comparisons), measures)


def _mean(estimates: Sequence[Estimate], options: GeometryOptions) -> Estimate:
    """Mean over batches; ranges of draws are averaged, other intervals are resampled."""
    known = [one for one in estimates if one.interval is not None]
    intervals = [one.interval for one in known if one.interval is not None]
    if not intervals:
        return point_estimate(None)
    if known[0].resampled != "draws":
        return over_batches([one.mean for one in intervals], options)
    count = len(intervals)
    return Estimate(
        Interval(
            sum(one.mean for one in intervals) / count,
            sum(one.low for one in intervals) / count,
            sum(one.high for one in intervals) / count,
            count,
        ),
        "draws",
    )


def _rows(
    group: EditGroup, layer: int, batch: int | str, comparison: Comparison
) -> list[ResultRow]:
    return [
        {
            **group.columns,
            "batch": batch,
            "layer": layer,
            "comparison": comparison.name,
            "measure": measure,
            **estimate.columns(),
            "facts": comparison.facts,
        }
        for measure, estimate in comparison.measures.items()
    ]
