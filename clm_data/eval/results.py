"""What a sweep leaves behind: one JSON file a cell, and their summary.

    OUT/results.json        every cell without its single facts; equal runs give equal bytes
    OUT/cells/KEY.json      one cell (:class:`CellResult`)
    OUT/before/MODEL-PROTOCOL.json   the unedited model's answers
    OUT/deltas/KEY-*.safetensors   on request
    OUT/table.md .csv .tex

Shares are between 0 and 1 here; tables show percent. Fields: ``docs/reference/metrics.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from clm_data.errors import InputFileError
from clm_data.eval.intervals import Bootstrap, Interval, mean_interval
from clm_data.eval.metrics import PARTS, trans_interval
from clm_data.files import atomic_file
from clm_data.records import LANGUAGES, Frozen, Language

VERSION = 2
"""Of the file format and of what is measured; a cell of another version is computed again."""
EditLanguage = Literal["zh", "en", "mix"]
Mode = Literal["batch", "sequential", "single"]

Measures = dict[str, float | None]
"""By name, of one fact in one language; None where an answer could not be placed."""
Said = dict[Language, str]
"""How a model goes on from the prompts of one fact; empty where it was not let to."""


class Setting(Frozen):
    """One cell of the grid: what was edited into which model, and how."""

    model: str
    """As in tables."""
    method: str
    language: EditLanguage
    """Language of the edits; ``mix``: each fact in both."""
    batch_size: int = Field(ge=1)
    """Facts edited at once."""
    layers: tuple[int, ...] | None = None
    """Edited layers; None: the hyperparameters' own."""
    mode: Mode = "batch"
    """``batch``: disjoint batches, each from the original model; ``sequential``: each on top of
    those before; ``single``: fact by fact from the original model."""
    protocol: str = "native"
    """``native`` or ``easyedit``."""

    @property
    def label(self) -> str:
        """For progress and messages."""
        layers = "" if self.layers is None else f" layers {','.join(map(str, self.layers))}"
        other: list[str] = [self.mode] if self.mode != "batch" else []
        other += [self.protocol] if self.protocol != "native" else []
        words = [self.model, self.method, self.language, f"batch {self.batch_size}", *other]
        return " ".join(words) + layers


Summary = dict[str, Interval | None]
"""By ``zh_reliability``, ``en_score``, ``trans`` ...; None where no fact has a value."""


class Refusal(Frozen):
    """A fact that could not be edited, and why."""

    id: str
    reason: str


class FactResult(Frozen):
    """One fact in one cell."""

    id: str
    domain: str | None
    batch: int
    """From 0."""
    zh: Measures
    """After the edit."""
    en: Measures
    said: Said = Field(default_factory=dict)
    """After the edit."""

    def measures(self, lang: Language) -> Measures:
        """Of one language."""
        return self.zh if lang == "zh" else self.en


class Checkpoint(Frozen):
    """A sequential run on its way."""

    edited: int
    """Facts edited so far; all of them are measured."""
    after: Summary


class CellResult(Frozen):
    """One cell, done or failed."""

    version: int = VERSION
    key: str
    """sha256 of everything that bears on the numbers."""
    setting: Setting
    status: Literal["done", "failed"]
    error: str | None = None
    """Why it failed, in one line."""
    facts: int = 0
    """Facts that were measured."""
    batches: int = 0
    left_out: int = 0
    """Facts at the end that fill no whole batch."""
    refused: tuple[Refusal, ...] = ()
    """Measured all the same, as they were not edited."""
    params: dict[str, Any] = Field(default_factory=dict)
    contexts: dict[str, Any] | None = None
    """The texts put before prompts, and their seed."""
    moments: str | None = None
    """Key of the second moments."""
    before: Summary = Field(default_factory=dict)
    """The unedited model on the same facts."""
    after: Summary = Field(default_factory=dict)
    domains: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """Means after the edit by domain (``unknown`` where a record names none), and ``facts``."""
    along: tuple[Checkpoint, ...] = ()
    items: tuple[FactResult, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    """By phase; no part of ``results.json``."""


class Results(Frozen):
    """``results.json``: a whole sweep."""

    version: int = VERSION
    title: str
    dataset: str
    dataset_key: str
    """sha256 of the records."""
    records: int
    seed: int
    recipe: dict[str, Any] = Field(default_factory=dict)
    """What was asked for, as a recipe: with it and the dataset the sweep can be run again."""
    cells: tuple[CellResult, ...]
    """In the order of the recipe; without ``items`` and ``seconds``."""

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """Cells that could not be computed."""
        return tuple(cell for cell in self.cells if cell.status == "failed")


def summarize(facts: Sequence[Mapping[Language, Measures]], bootstrap: Bootstrap) -> Summary:
    """Means with intervals over facts: every measure by language, scores and ``trans``."""
    out: Summary = {}
    for lang in LANGUAGES:
        for name in dict.fromkeys(name for fact in facts for name in fact[lang]):
            out[f"{lang}_{name}"] = mean_interval(
                _known([fact[lang].get(name) for fact in facts]), bootstrap
            )
        whole = [_known([fact[lang].get(part) for part in PARTS]) for fact in facts]
        scores = [sum(parts) / len(PARTS) for parts in whole if len(parts) == len(PARTS)]
        if scores:
            out[f"{lang}_score"] = mean_interval(scores, bootstrap)
    pairs = [_known([fact[lang].get("reliability") for lang in LANGUAGES]) for fact in facts]
    complete = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]
    out["trans"] = trans_interval(complete, bootstrap)
    return out


def by_domain(items: Sequence[FactResult]) -> dict[str, dict[str, float | None]]:
    """Means by domain, without intervals."""
    domains = sorted({item.domain or "unknown" for item in items})
    out: dict[str, dict[str, float | None]] = {}
    for domain in domains:
        facts = [as_pair(item) for item in items if (item.domain or "unknown") == domain]
        means = summarize(facts, Bootstrap(resamples=0))
        out[domain] = {
            "facts": len(facts),
            **{name: None if one is None else one.mean for name, one in means.items()},
        }
    return out


def as_pair(item: FactResult) -> dict[Language, Measures]:
    """A fact's measures by language."""
    return {"zh": item.zh, "en": item.en}


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def write_json(path: Path, value: Any) -> None:
    """Write a file whole: a reader sees the old one, or none, or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, overwrite=True) as draft:
        draft.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_cell(folder: Path, cell: CellResult) -> None:
    """Write ``cells/KEY.json``."""
    write_json(folder / "cells" / f"{cell.key}.json", cell.model_dump(mode="json"))


def read_cell(folder: Path, key: str) -> CellResult | None:
    """A cell that was written; None where there is none, or none that can be read."""
    try:
        text = (folder / "cells" / f"{key}.json").read_text(encoding="utf-8")
        return CellResult.model_validate_json(text)
    except (OSError, ValidationError):
        return None


def write_results(folder: Path, results: Results) -> None:
    """Write ``results.json``."""
    left_out = {"cells": {"__all__": {"items", "seconds"}}}
    write_json(folder / "results.json", results.model_dump(mode="json", exclude=left_out))


def read_results(path: Path) -> Results:
    """Read ``results.json``, given as the file or its folder.

    Raises:
        InputFileError: Not there, or not one of ours.
    """
    file = path / "results.json" if path.is_dir() else path
    try:
        return Results.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputFileError(
            f"{file}: no results of clm-data eval-baselines ({reason}); give the folder "
            "that was named with --out"
        ) from error
