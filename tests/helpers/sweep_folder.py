"""An example of what a sweep and its analysis write, without running a model."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from clm_data.eval import baselines, results
from clm_data.eval.analysis.geometry import transfer
from clm_data.eval.analysis.language import edited_tables
from clm_data.eval.analysis.run import COLUMNS
from clm_data.eval.csv_tables import write_rows
from clm_data.eval.dataset import load_dataset
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import (
    BaselineResult,
    CellResult,
    Checkpoint,
    EditLanguage,
    FactResult,
    Refusal,
    Results,
    Setting,
    by_domain,
    summarize,
)
from clm_data.records import LANGUAGES, Language, Record
from helpers.example_records import example_records
from helpers.saved_folders import dataset_folder

BOOTSTRAP = Bootstrap(resamples=20)
BASELINE = "b" * 64
"""Key of the answers before the edit."""
EDITS: tuple[EditLanguage, ...] = ("zh", "en", "mix")
MEASURES = ("reliability", "generality", "locality", "p_new", "p_old", "prefers_new", "exact_match")


def write_example_dataset(folder: Path, count: int = 12) -> Path:
    """Write a dataset as the published JSON files."""
    return dataset_folder(folder, example_records(count))


def write_example_sweep(
    folder: Path, dataset: Path, *, sizes: Sequence[int] = (4, 12), generation: bool = True
) -> Results:
    """Write the results of MEMIT in three languages, a failed cell and a sequential run.

    Args:
        folder: Where to write them.
        dataset: Folder of the dataset.
        sizes: Batch sizes.
        generation: Whether the results contain generated answers.
    """
    evaluated = load_dataset(str(dataset))
    rng = random.Random(7)
    cells = [
        _cell(evaluated.records, edit, size, rng, generation)
        for edit, size in product(EDITS, sizes)
    ]
    first = cells[0]
    failed = first.model_copy(
        update={
            "key": "failed",
            "setting": first.setting.model_copy(update={"method": "rome"}),
            "status": "failed",
            "error": "out of memory",
            **{"before": {}, "after": {}, "domains": {}, "items": ()},
        }
    )
    checkpoints = tuple(Checkpoint(edited=n, after=first.after) for n in (4, 8, 12))
    setting = first.setting.model_copy(update={"mode": "sequential"})
    sequential = first.model_copy(
        update={"key": "sequential", "setting": setting, "checkpoints": checkpoints}
    )
    recipe = Recipe.model_validate({"title": "Example", "models": [{"name": "tiny"}]})
    written = Results(
        title="Example",
        dataset="set",
        dataset_key=evaluated.key,
        records=len(evaluated.records),
        seed=3,
        recipe=recipe.model_dump(mode="json"),
        cells=(*cells, failed, sequential),
    )
    _write(folder, written, evaluated.records, rng)
    return written


def _write(folder: Path, written: Results, records: Sequence[Record], rng: random.Random) -> None:
    results.write_results(folder, written)
    for cell in written.cells:
        results.write_cell(folder, cell)
    baseline = [
        BaselineResult(
            id=record.id,
            **{lang: _measures(0.1, rng) for lang in LANGUAGES},
            continuation=_continuation(record, None),
        )
        for record in records
    ]
    baselines.write_baseline(folder, BASELINE, baseline)


def _measures(probability: float, rng: random.Random) -> dict[str, float | None]:
    """Measures of a fact whose edit succeeds with a probability."""
    success = float(rng.random() < probability)
    return {name: success if name != "locality" else 0.75 for name in MEASURES}


def _continuation(record: Record, new: Mapping[Language, bool] | None) -> dict[Language, str]:
    def answer(lang: Language) -> str:
        fact = record.fact(lang)
        return fact.target_new if new and new[lang] else fact.ground_truth

    return {lang: f"{answer(lang)}<b>\u200b" for lang in LANGUAGES}


def _cell(
    records: Sequence[Record], edit: EditLanguage, size: int, rng: random.Random, generation: bool
) -> CellResult:
    items = []
    for number, record in enumerate(records):
        edited = {lang: edit in (lang, "mix") for lang in LANGUAGES}
        both = {lang: _measures(0.9 if edited[lang] else 0.3, rng) for lang in LANGUAGES}
        new = {lang: both[lang]["exact_match"] == 1 for lang in LANGUAGES}
        items.append(
            FactResult(
                id=record.id,
                domain=("festivals_and_customs", "rivers")[number % 2],
                batch=number // size,
                continuation=_continuation(record, new) if generation else {},
                **both,
            )
        )
    measures = [item.by_language() for item in items]
    before: list[Any] = [{lang: _measures(0.1, rng) for lang in LANGUAGES} for _ in records]
    return CellResult(
        key=f"{edit}-{size}",
        setting=Setting(model="tiny", method="memit", language=edit, batch_size=size),
        status="done",
        facts=len(records),
        batches=len(records) // size,
        refused=(Refusal(id=f"{records[0].id}:zh", reason="no place"),) if edit == "zh" else (),
        params={"layers": [1, 2], "values": {"lr": 0.5}},
        contexts={"seed": 42, "zh": ["今天"], "en": ["Today"]},
        moments="abc123",
        baseline=BASELINE,
        before=summarize(before, BOOTSTRAP),
        after=summarize(measures, BOOTSTRAP),
        domains=by_domain(items),
        items=tuple(items),
    )


def write_example_analysis(folder: Path, *, only: Sequence[str] | None = None) -> None:
    """Write the tables of an analysis.

    Args:
        folder: Where to write them.
        only: File names of the tables to write; None: all.
    """
    rng = random.Random(5)
    tables = {
        "geometry": _geometry(rng),
        "factors": _factors(rng),
        "transfer": _transfer(rng),
        "language_layers": _layers(rng),
        "language_points": _points(rng),
        **{name: _edited_rows(name, rng) for name in edited_tables.COLUMNS},
    }
    for name, rows in tables.items():
        if only is None or f"{name}.csv" in only:
            write_rows(folder / f"{name}.csv", list(rows), COLUMNS[name])


Row = dict[str, Any]


def _variant(size: int) -> Row:
    variant = {"model": "tiny", "method": "memit", "protocol": "native", "mode": "batch"}
    return {**variant, "layers": "", "batch_size": size}


def _value(low: float, high: float, rng: random.Random) -> Row:
    value = rng.uniform(low, high)
    half = (high - low) / 10
    return {"value": value, "low": value - half, "high": value + half}


_RANGES = {
    "cosine": (0.0, 0.05),
    "relative_error": (0.1, 0.3),
    "jaccard_rows": (0.1, 0.9),
    "jaccard_columns": (0.1, 0.9),
    **{
        f"angle_{side}_{which}": (60, 85) for side in ("left", "right") for which in ("mean", "max")
    },
}


def _geometry(rng: random.Random) -> Iterator[Row]:
    kinds = ("zh-en", "null-zh-en", "sum-mix", "null-sum-mix", "disjoint-zh", "disjoint-en")
    for size, layer, kind, (name, ends) in product((4, 12), (1, 2), kinds, _RANGES.items()):
        place = {"batch": "all", "layer": layer, "comparison": kind, "measure": name}
        yield _variant(size) | place | _value(*ends, rng) | {"interval": "facts", "facts": 12}


def _factors(rng: random.Random) -> Iterator[Row]:
    pairings = ("same-fact", "other-fact", "other-fact-zh", "other-fact-en", "whole")
    parts = ("residuals", "keys", "contributions")
    for size, layer, part, pairing in product((4, 12), (1, 2), parts, pairings):
        place = {"layer": layer, "part": part, "pairing": pairing}
        yield _variant(size) | place | _value(-0.1, 0.4, rng) | {"interval": "facts", "facts": 12}


def _transfer(rng: random.Random) -> Iterator[Row]:
    empty = dict.fromkeys(transfer.COLUMNS[6:])
    counts = {"transferred": 4, "stayed": 7}
    for lang, criterion in product(LANGUAGES, ("exact", "prefers")):
        place = {"language": lang, "criterion": criterion, "layer": None, "measure": "facts"}
        yield _variant(12) | empty | place | counts
        for layer, name in product((1, 2), transfer.FEATURES):
            numbers = {key: rng.random() for key in transfer.COLUMNS[6:]}
            yield _variant(12) | place | counts | numbers | {"layer": layer, "measure": name}


_LAYER_MEASURES = (
    "projection_zh", "projection_en", "projection_difference", "projection_difference_shuffled",
    "delta_cosine_held_out", "delta_cosine_held_out_shuffled", "bias_correlation", "separation",
    "split_half_cosine", "vector_cosine_below", "classifier_accuracy", "classifier_permuted",
)  # fmt: skip


def _layers(rng: random.Random) -> Iterator[Row]:
    for part, layer, name in product(("hidden", "mlp"), range(4), _LAYER_MEASURES):
        about = {"model": "tiny", "part": part, "layer": layer, "measure": name, "count": 12}
        yield about | _value(0.2, 0.9, rng)


def _points(rng: random.Random) -> Iterator[Row]:
    for layer, method, lang, number in product((0, 3), ("pca", "tsne"), LANGUAGES, range(12)):
        place = {"model": "tiny", "layer": layer, "method": method, "id": f"f{number}"}
        side = 1 if lang == "zh" else -1
        position = {"x": side + rng.gauss(0, 0.3), "y": rng.gauss(0, 1)}
        yield {**place, "lang": lang, **position, "note": ""}
    umap = {"model": "tiny", "layer": 0, "method": "umap", "id": "", "lang": ""}
    yield {**umap, "x": None, "y": None, "note": "umap-learn is not installed"}


def _edited_rows(name: str, rng: random.Random) -> Iterator[Row]:
    place = _variant(12) | {"layer": 2}
    sides = list(product(EDITS, LANGUAGES))
    if name == "activation":
        for (edit, lang), measure in product(sides, ("cosine", "neuron_correlation")):
            about = {"edit": edit, "lang": lang, "measure": measure, "count": 12}
            yield place | about | _value(0.5, 0.9, rng)
    elif name == "neuron_points":
        for (edit, lang), neuron in product(sides, range(30)):
            x = rng.gauss(0, 1)
            values = {"expected": x, "actual": x + rng.gauss(0, 0.2)}
            yield place | {"edit": edit, "lang": lang, "neuron": neuron} | values
    elif name == "venn":
        regions = ("zh", "en", "mix", "zh+en", "zh+mix", "en+mix", "zh+en+mix")
        for kind, region in product(("weight_rows", "weight_columns", "actual"), regions):
            sizes = {"by_chance": 1.25, "set_size": 5, "neurons": 96}
            yield place | {"kind": kind, "region": region, "count": rng.randrange(9)} | sizes
    elif name == "selectivity":
        names = ("own_change", "other_change", "selectivity", "bias_selectivity_correlation")
        for edit, layer, measure in product(LANGUAGES, (1, 2, 3), names):
            about = {"layer": layer, "edit": edit, "measure": measure, "count": 12}
            yield place | about | _value(0.1, 0.9, rng)
    elif name == "selectivity_points":
        for edit, number in product(LANGUAGES, range(12)):
            values = {"bias": rng.uniform(1, 9), "selectivity": rng.uniform(-1, 1)}
            yield place | {"edit": edit, "id": f"f{number}"} | values
    else:
        kinds = [*product(sides, ("actual",)), *product(product(EDITS, [None]), _WEIGHTS)]
        for (edit, lang), kind in kinds:
            about = {"edit": edit, "lang": lang, "kind": kind}
            for step in range(11):
                yield place | about | _step(name, step, rng)


_WEIGHTS = ("weight_rows", "weight_columns")


def _step(name: str, step: int, rng: random.Random) -> Row:
    if name == "activation_cdf":
        return {"share": step / 10, "value": step / 7}
    return {"low": step - 5.5, "high": step - 4.5, "count": rng.randrange(200)}
