"""The files that a sweep writes: one JSON file per cell, and their summary.

    OUT/results.json                 all cells without their facts; equal runs give equal bytes
    OUT/cells/KEY.json               one cell (:class:`CellResult`)
    OUT/before/KEY.json              the unedited model's answers (:class:`BaselineResult`);
                                     each cell gives the key of its own (`baseline`)
    OUT/deltas/KEY-*.safetensors     weight changes, if asked for
    OUT/table.md, .csv, .tex         tables in the paper's layout

Values are shares between 0 and 1; printed tables show percent. The measures are defined in
`docs/reference/metrics.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, ValidationError

from clm_data.errors import InputFileError
from clm_data.eval.intervals import Bootstrap, Interval, mean_interval
from clm_data.eval.metrics import PAPER_MEASURES, PARTS, trans_interval
from clm_data.eval.omitted import OmitsDefaults
from clm_data.files import atomic_file
from clm_data.records import LANGUAGES, Frozen, Language
from clm_data.tabular import Tabular

VERSION = 3
"""Version of the file format and of the metrics; cells of another version are recomputed."""
EditLanguage = Literal["zh", "en", "mix"]
Mode = Literal["batch", "sequential", "single"]
Backend = Literal["clm-data", "easyeditor"]
"""What computes the edits: this package, or EasyEdit in an environment of its own."""

EASYEDIT = "EasyEdit"
"""Its name in tables."""

Measures = dict[str, float | None]
"""Measures of one fact in one language, by name; None if the answer has no tokens of its own."""
Continuation = dict[Language, str]
"""Greedy continuations of a fact's prompts; empty if no text was generated."""
Summary = dict[str, Interval | None]
"""By name (`zh_reliability`, `en_score`, `trans`, ...); None if no fact has a value."""


class Setting(OmitsDefaults):
    """The place of a cell in the grid."""

    OMITTED: ClassVar[tuple[str, ...]] = ("backend",)

    model: str
    """Label of the model in tables."""
    method: str
    language: EditLanguage
    """Language of the edits; `mix` edits each fact in both languages."""
    batch_size: int = Field(ge=1)
    """Facts per edit."""
    layers: tuple[int, ...] | None = None
    """Edited layers; None: those of the hyperparameters."""
    mode: Mode = "batch"
    """`batch`: each batch edits the original model; `sequential`: each batch is edited on top of
    the earlier ones; `single`: each fact edits the original model."""
    protocol: str = "native"
    """`native`, `easyedit` or `chat`."""
    backend: Backend = "clm-data"
    """What computes the edits; not written if it is `clm-data`."""

    @property
    def engine_method(self) -> str:
        """The method, and EasyEdit if that computes it: `memit (EasyEdit)`."""
        return self.method if self.backend == "clm-data" else f"{self.method} ({EASYEDIT})"

    @property
    def label(self) -> str:
        """Short text for progress and error messages."""
        layers = "" if self.layers is None else f" layers {','.join(map(str, self.layers))}"
        other: list[str] = [self.mode] if self.mode != "batch" else []
        other += [self.protocol] if self.protocol != "native" else []
        other += [self.backend] if self.backend != "clm-data" else []
        words = [self.model, self.method, self.language, f"batch {self.batch_size}", *other]
        return " ".join(words) + layers


class Refusal(Frozen):
    """An edit that a method could not make."""

    id: str
    """Id of the record and language of the edit, such as `zh-0001:en`."""
    reason: str


class BaselineResult(Frozen):
    """The unedited model's answers to the questions about one record."""

    id: str
    zh: Measures
    en: Measures
    continuation: Continuation = Field(
        default_factory=dict, validation_alias=AliasChoices("continuation", "said")
    )

    def measures(self, lang: Language) -> Measures:
        """The measures in one language."""
        return self.zh if lang == "zh" else self.en

    def by_language(self) -> dict[Language, Measures]:
        """The measures by language."""
        return {"zh": self.zh, "en": self.en}


class FactResult(BaselineResult):
    """The edited model's answers to the questions about one record."""

    domain: str | None
    batch: int
    """Number of the batch that edited the record, from 0."""


class Checkpoint(Frozen):
    """A measurement during a sequential run."""

    edited: int
    """Number of facts edited so far; all of them are measured."""
    after: Summary


class MomentText(Frozen):
    """How much text second moments were estimated from."""

    tokens: int
    width: int
    """Their dimension, the inner width of the MLP."""
    ridge: float = 0.0
    """What was added to the diagonal so that they can be inverted, over its mean, in the layer
    where it is largest."""

    @property
    def problem(self) -> str | None:
        """Why the second moments are not to be trusted, with the remedy; None if they are."""
        if self.tokens < self.width:
            found = f"{self.tokens} tokens for {self.width} dimensions"
        elif self.ridge:
            found = f"a ridge of {self.ridge:.0e} was added"
        else:
            return None
        return (
            f"the second moments are singular ({found}), so these numbers say little about the "
            "method; use more text with --corpus, such as bank"
        )


class CellResult(OmitsDefaults):
    """A finished or failed cell."""

    OMITTED: ClassVar[tuple[str, ...]] = ("engine", "moment_text")
    version: int = VERSION
    key: str
    """sha256 of everything that affects the numbers."""
    setting: Setting
    status: Literal["done", "failed"]
    error: str | None = None
    """The reason of a failure, in one line."""
    facts: int = 0
    """Number of measured facts."""
    batches: int = 0
    left_out: int = 0
    """Number of facts that were not measured: those after the last batch."""
    arrived: float | None = None
    """Share of the wanted change that the solves let through, as a mean over the batches: 1 is all
    of it. None for methods without such a solve, and in results of earlier versions."""
    refused: tuple[Refusal, ...] = ()
    """Edits that could not be made; their facts are measured like all others."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Hyperparameters of the method."""
    contexts: dict[str, Any] | None = None
    """Texts put before prompts while editing, and their seed."""
    moments: str | None = None
    """Key of the second moments."""
    moment_text: MomentText | None = None
    """How much text they are the mean of. None for methods without them, and in results of earlier
    versions."""
    baseline: str | None = None
    """Key of the unedited model's answers: sha256 of everything that affects them. None in
    results of earlier versions."""
    before: Summary = Field(default_factory=dict)
    """The unedited model on the measured facts."""
    after: Summary = Field(default_factory=dict)
    """The edited model on the same facts."""
    domains: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """Means after the edit and number of `facts`, by domain (`unknown` if a record has none)."""
    checkpoints: tuple[Checkpoint, ...] = Field(
        default=(), validation_alias=AliasChoices("checkpoints", "along")
    )
    """Measurements during a sequential run."""
    items: tuple[FactResult, ...] = ()
    """The measured facts; not in `results.json`."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Seconds by phase; not in `results.json`."""
    engine: dict[str, str] | None = None
    """Versions of what computed the edits if that is not this package: packages, and the hash of
    EasyEdit's code as `source`."""

    @property
    def engine_version(self) -> str:
        """EasyEdit with its version, such as `EasyEdit 0.0.1.dev0`; empty for our own edits."""
        if self.setting.backend == "clm-data":
            return ""
        engine = self.engine or {}
        version = engine.get("easyeditor") or f"checkout {engine.get('source', '')}"
        return f"{EASYEDIT} {version}".strip() if self.engine else EASYEDIT


class WeightDifference(Frozen):
    """How EasyEdit's change of a weight differs from ours; norms are over all batches."""

    relative: float
    """The Frobenius norm of EasyEdit's change minus ours, over that of ours."""
    cosine: float
    """The cosine of the two changes, as vectors."""


class Results(OmitsDefaults, Tabular):
    """All cells of a sweep, the latest command into its folder: the content of `results.json`."""

    OMITTED: ClassVar[tuple[str, ...]] = ("differences",)
    version: int = VERSION
    title: str
    dataset: str
    dataset_key: str
    """sha256 of the records."""
    records: int
    seed: int
    recipe: dict[str, Any] = Field(default_factory=dict)
    """The recipe; with it and the dataset the sweep can be repeated."""
    cells: tuple[CellResult, ...]
    """In the order of the recipe."""
    differences: dict[str, dict[str, WeightDifference]] = Field(default_factory=dict)
    """By key of EasyEdit's cell and parameter path: its weight changes compared with ours of the
    same setting. Written only if both are saved."""
    skipped_rows: int = Field(default=0, exclude=True)
    """Rows of the dataset that lack a text in one of the languages; not in `results.json`."""

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """The failed cells."""
        return tuple(cell for cell in self.cells if cell.status == "failed")

    @property
    def losses(self) -> tuple[str, ...]:
        """What is missing from the numbers, one line each: facts that were not edited or measured.

        Facts that a recipe leaves out by `max_batches` are not losses.
        """
        lines = []
        if self.skipped_rows:
            lines.append(f"{self.skipped_rows} rows of the dataset lack a text in a language")
        by_choice = self.recipe.get("max_batches") is not None
        for cell in self.cells:
            if cell.status == "done":
                lines += [f"{cell.setting.label}: {line}" for line in _losses_of(cell, by_choice)]
        return tuple(lines)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Cells whose numbers say little about the method, a line each with the remedy.

        Their second moments are singular, or their solve lets little of the change through.
        """
        return (*self._singular_moments, *self._little_let_through)

    @property
    def _singular_moments(self) -> tuple[str, ...]:
        return tuple(
            f"{cell.setting.label}: {problem}"
            for cell in self.cells
            if cell.moment_text is not None and (problem := cell.moment_text.problem)
        )

    @property
    def _little_let_through(self) -> tuple[str, ...]:
        return tuple(
            f"{cell.setting.label}: the solve lets only {100 * cell.arrived:.0f} % of the wanted "
            "change through; " + _REMEDIES.get(cell.setting.method, "check the hyperparameters")
            for cell in self.cells
            if cell.arrived is not None and cell.arrived < LITTLE
        )

    def table_title(self) -> str:
        """Title and number of cells."""
        return f"{self.title}: {len(self.cells)} cells, {len(self.failed)} failed"

    def table_rows(self) -> list[dict[str, Any]]:
        """One row per cell: its setting, the paper's measures after the edit, and its error."""
        rows = []
        for cell in self.cells:
            intervals = {name: cell.after.get(name) for name in PAPER_MEASURES}
            means = {name: None if one is None else one.mean for name, one in intervals.items()}
            rows.append({**cell.setting.model_dump(), **means, "error": cell.error})
        return rows


LITTLE = 0.5
"""Share of the wanted change below which a result says more about the solve than about the model:
docs/decisions/043."""
_LOWER_WEIGHT = (
    "the second moment outweighs the edits: lower moment_weight in a recipe (`params`), or compute "
    "it from more text with --corpus"
)
_REMEDIES = {
    "memit": _LOWER_WEIGHT,
    "pmet": _LOWER_WEIGHT,
    "alphaedit": "raise threshold or lower ridge in a recipe (`params`)",
}


def _losses_of(cell: CellResult, by_choice: bool) -> Iterator[str]:
    """What is missing from the numbers of a cell.

    Args:
        cell: A finished cell.
        by_choice: Whether the recipe limits the number of batches.
    """
    if cell.left_out and not by_choice:
        total = cell.facts + cell.left_out
        yield (
            f"{cell.left_out} of {total} facts left out, because batches of "
            f"{cell.setting.batch_size} do not divide {total}"
        )
    if cell.refused:
        first = cell.refused[0]
        yield f"{len(cell.refused)} edits refused, such as {first.id}: {first.reason}"
    for lang in LANGUAGES:
        found = cell.after.get(f"{lang}_reliability")
        missing = cell.facts - (0 if found is None else found.count)
        if missing > 0 and cell.after:
            yield (
                f"{missing} of {cell.facts} facts have no {lang} reliability, because the answer "
                "has no tokens of its own"
            )


def summarize(facts: Sequence[Mapping[Language, Measures]], bootstrap: Bootstrap) -> Summary:
    """Means over facts with intervals: every measure by language, the scores, and `trans`.

    Args:
        facts: Measures by language, one entry per fact. A fact without a value does not count.
        bootstrap: Settings of the intervals.
    """
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
    """Means and number of facts by domain."""
    domains = sorted({item.domain or "unknown" for item in items})
    out: dict[str, dict[str, float | None]] = {}
    for domain in domains:
        facts = [item.by_language() for item in items if (item.domain or "unknown") == domain]
        means = summarize(facts, Bootstrap(resamples=0))
        out[domain] = {
            "facts": len(facts),
            **{name: None if one is None else one.mean for name, one in means.items()},
        }
    return out


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically: a reader finds the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=1)
    with atomic_file(path, overwrite=True) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def write_cell(folder: Path, cell: CellResult) -> None:
    """Write `cells/KEY.json`."""
    write_json(folder / "cells" / f"{cell.key}.json", cell.model_dump(mode="json"))


def read_cell(folder: Path, key: str) -> CellResult | None:
    """Read `cells/KEY.json`; None if it does not exist or is damaged."""
    try:
        text = (folder / "cells" / f"{key}.json").read_text(encoding="utf-8")
        return CellResult.model_validate_json(text)
    except (OSError, ValidationError):
        return None


def saved_cells(folder: Path) -> set[str]:
    """Keys of the files in `cells/`."""
    return {file.stem for file in (folder / "cells").glob("*.json")}


def write_results(folder: Path, results: Results) -> None:
    """Write `results.json`."""
    left_out = {"cells": {"__all__": {"items", "seconds"}}}
    write_json(folder / "results.json", results.model_dump(mode="json", exclude=left_out))


def read_results(path: Path) -> Results:
    """Read `results.json`.

    Args:
        path: The file, or the folder of the results.

    Raises:
        InputFileError: The file does not exist, or `eval-baselines` did not write it.
    """
    file = path / "results.json" if path.is_dir() else path
    try:
        return Results.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        if isinstance(error, ValidationError) and error.errors()[0]["type"] == "json_invalid":
            raise InputFileError(
                f"{file} is damaged (no valid JSON); run eval-baselines again into its folder, "
                "which writes it anew from the finished cells"
            ) from error
        reason = getattr(error, "strerror", None) or str(error).strip().splitlines()[0]
        raise InputFileError(
            f"{file}: no results of clm-data eval-baselines ({reason}); use the folder that was "
            "given with --out"
        ) from error
