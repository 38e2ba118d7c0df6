"""One cell of a sweep: edit, measure, undo, for each of its batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from clm_data.errors import ConfigError
from clm_data.eval.editors.base import Editor
from clm_data.eval.editors.deltas import Deltas, applied
from clm_data.eval.errors import EditError
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.placement import EditRequest
from clm_data.eval.results import (
    CellResult,
    Checkpoint,
    EditLanguage,
    FactResult,
    Refusal,
    Setting,
    as_pair,
    by_domain,
    summarize,
)
from clm_data.eval.sweep.measure import After, Before, Evaluator
from clm_data.records import LANGUAGES, Language, Record

Tick = Callable[[int, int], None]
"""Batches done, batches in all."""


def requests_for(records: Sequence[Record], language: EditLanguage) -> list[EditRequest]:
    """The edits of some records; ``mix`` has both languages of each, in turn."""
    sides: tuple[Language, ...] = LANGUAGES if language == "mix" else (language,)
    return [
        EditRequest(
            id=f"{record.id}:{lang}",
            lang=lang,
            prompt=record.fact(lang).prompt,
            subject=record.fact(lang).subject,
            target=record.fact(lang).target_new,
        )
        for record in records
        for lang in sides
    ]


def batches_of(records: int, size: int, most: int | None = None) -> list[range]:
    """Disjoint whole batches, in order; what fills none is left out.

    Raises:
        EditError: There is not one.
    """
    if size > records:
        raise EditError(f"a batch of {size} facts from {records} records; lower the batch size")
    count = records // size if most is None else min(most, records // size)
    return [range(i * size, (i + 1) * size) for i in range(count)]


def with_overrides(params: Any, layers: tuple[int, ...] | None, changes: Mapping[str, Any]) -> Any:
    """Hyperparameters with some replaced.

    Args:
        params: The method's own, a frozen dataclass.
        layers: Edited layers; a method that edits one takes the last.
        changes: By name; a nested group as a mapping.

    Raises:
        ConfigError: There is no such hyperparameter, it cannot be that, or no layer is named.
    """
    if layers is not None:
        if not layers:
            raise ConfigError("an empty list of layers; name at least one")
        one = not hasattr(params, "layers")
        params = replace(params, **({"layer": layers[-1]} if one else {"layers": layers}))
    known = {field.name for field in fields(params)}
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(
                f"{type(params).__name__} has no '{name}'; it has {', '.join(sorted(known))}"
            )
        old = getattr(params, name)
        if is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{type(params).__name__}: '{name}' is a group, not {value!r}")
            new = with_overrides(old, None, value)
        else:
            new = _of_type(params, name, value)
        params = replace(params, **{name: new})
    return params


def _of_type(params: Any, name: str, value: Any) -> Any:
    """The value as the hyperparameter is declared: numbers may be texts, tuples lists."""
    try:
        return TypeAdapter(get_type_hints(type(params))[name]).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{type(params).__name__}: '{name}' is {value!r}: {reason}") from error


@dataclass(frozen=True)
class EvalContext:
    """A model with all that stays the same from cell to cell.

    Attributes:
        model: Unedited.
        records: The dataset.
        meter: How it is measured.
        before: Its answers before any edit.
        bootstrap: How intervals are made.
    """

    model: LoadedModel
    records: Sequence[Record]
    meter: Evaluator
    before: Before
    bootstrap: Bootstrap


@dataclass
class _Gathered:
    """What a cell has brought so far."""

    items: list[FactResult]
    refused: list[Refusal]
    along: list[Checkpoint]
    seconds: dict[str, float]

    def add(self, deltas: Deltas, edit: float, measured: float) -> None:
        self.refused += [Refusal(id=one, reason=why) for one, why in deltas.refused]
        parts = {f"edit: {name}": seconds for name, seconds in deltas.seconds.items()}
        for name, seconds in {**parts, "edit": edit, "measure": measured}.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def run_cell(
    bench: EvalContext,
    editor: Editor,
    setting: Setting,
    key: str,
    *,
    max_batches: int | None = None,
    checkpoints: int = 0,
    save_deltas: Path | None = None,
    tick: Tick | None = None,
) -> CellResult:
    """Compute a cell; the model is as before afterwards.

    Args:
        bench: The model and how it is measured.
        editor: The method, ready.
        setting: Which cell.
        key: Its key.
        max_batches: Only the first so many batches.
        checkpoints: Measurements along a sequential run, the last included.
        save_deltas: Folder for the weight changes; None: they are not kept.
        tick: Told after each batch.

    Raises:
        EditError: The edit failed.
    """
    batches = batches_of(len(bench.records), setting.batch_size, max_batches)
    got = _Gathered([], [], [], {})
    if setting.mode == "sequential":
        _sequential(bench, editor, setting, batches, got, checkpoints, save_deltas, key, tick)
    else:
        _independent(bench, editor, setting, batches, got, save_deltas, key, tick)
    measured = [index for batch in batches for index in batch]
    return CellResult(
        key=key,
        setting=setting,
        status="done",
        facts=len(measured),
        batches=len(batches),
        left_out=len(bench.records) - len(measured),
        refused=tuple(got.refused),
        before=summarize([bench.before.measures[i] for i in measured], bench.bootstrap),
        after=summarize([as_pair(item) for item in got.items], bench.bootstrap),
        domains=by_domain(got.items),
        along=tuple(got.along),
        items=tuple(got.items),
        seconds={name: round(value, 3) for name, value in got.seconds.items()},
    )


def _independent(
    bench: EvalContext,
    editor: Editor,
    setting: Setting,
    batches: Sequence[range],
    got: _Gathered,
    save_deltas: Path | None,
    key: str,
    tick: Tick | None,
) -> None:
    for number, batch in enumerate(batches):
        begin = time.perf_counter()
        records = [bench.records[i] for i in batch]
        deltas = editor.edit(bench.model, requests_for(records, setting.language))
        edited = time.perf_counter()
        with applied(bench.model, deltas):
            after = _measure(bench, batch)
        got.items += _items(bench, batch, after, [number] * len(batch))
        got.add(deltas, edited - begin, time.perf_counter() - edited)
        _save(deltas, save_deltas, _delta_name(key, number))
        if tick is not None:
            tick(number + 1, len(batches))


def _sequential(
    bench: EvalContext,
    editor: Editor,
    setting: Setting,
    batches: Sequence[range],
    got: _Gathered,
    checkpoints: int,
    save_deltas: Path | None,
    key: str,
    tick: Tick | None,
) -> None:
    past: Deltas | None = None
    stops = _stops(len(batches), checkpoints)
    for number, batch in enumerate(batches):
        begin = time.perf_counter()
        records = [bench.records[i] for i in batch]
        deltas = editor.edit(bench.model, requests_for(records, setting.language), past=past)
        past = deltas if past is None else past.plus(deltas)
        edited = time.perf_counter()
        last = number + 1 == len(batches)
        if last or number + 1 in stops:
            so_far = range(batch.stop)
            with applied(bench.model, past):
                after = _measure(bench, so_far)
            if number + 1 in stops:
                summary = summarize(after.measures, bench.bootstrap)
                got.along.append(Checkpoint(edited=batch.stop, after=summary))
            if last:
                got.items += _items(bench, so_far, after, [i // setting.batch_size for i in so_far])
        got.add(deltas, edited - begin, time.perf_counter() - edited)
        if tick is not None:
            tick(number + 1, len(batches))
    if past is not None:
        _save(past, save_deltas, _delta_name(key, None))


def _stops(batches: int, checkpoints: int) -> set[int]:
    """After how many batches to measure, evenly spaced."""
    count = min(checkpoints, batches)
    return {round(batches * (i + 1) / count) for i in range(count)}


def _measure(bench: EvalContext, indices: range) -> After:
    records = [bench.records[i] for i in indices]
    return bench.meter.after(bench.model, records, [bench.before.probes[i] for i in indices])


def _items(
    bench: EvalContext, indices: range, after: After, numbers: Sequence[int]
) -> list[FactResult]:
    return [
        FactResult(
            id=bench.records[i].id,
            domain=bench.records[i].domain,
            batch=number,
            zh=both["zh"],
            en=both["en"],
            said=said,
        )
        for i, both, said, number in zip(indices, after.measures, after.said, numbers, strict=True)
    ]


def _save(deltas: Deltas, folder: Path | None, name: str) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        deltas.save(folder / f"{name}.safetensors")


def deltas_kept(folder: Path, cell: CellResult) -> bool:
    """Whether the weight changes of a finished cell are all in a folder."""
    names = [_delta_name(cell.key, None)]
    if cell.setting.mode != "sequential":
        names = [_delta_name(cell.key, number) for number in range(cell.batches)]
    return all((folder / f"{name}.safetensors").is_file() for name in names)


def _delta_name(key: str, batch: int | None) -> str:
    return f"{key}-all" if batch is None else f"{key}-{batch:04d}"


def params_json(params: Any) -> dict[str, Any]:
    """Hyperparameters as JSON."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(params).items()}
