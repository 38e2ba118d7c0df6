"""A sweep: every cell of a recipe, each written as it ends, so that a stopped sweep goes on."""

from __future__ import annotations

import gc
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clm_data.errors import ClmDataError, InputFileError, MissingExtraError
from clm_data.eval import results, tables
from clm_data.eval.cells import Bench, params_json, run_cell, with_overrides
from clm_data.eval.contexts import Contexts, contexts_for
from clm_data.eval.corpus import corpus_texts
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.covariance import Moments, second_moments
from clm_data.eval.measure import Before, Meter
from clm_data.eval.metrics import Bootstrap
from clm_data.eval.models import LoadedModel, load_model
from clm_data.eval.protocols import protocol_named
from clm_data.eval.recipe import ModelSpec, Recipe
from clm_data.eval.results import CellResult, Results, Setting
from clm_data.eval.tiny import TinyConfig, tiny_key, tiny_model
from clm_data.records import LANGUAGES, digest

Say = Callable[[str], None]
"""Takes a line for people."""


@dataclass(frozen=True)
class Places:
    """Where a sweep reads and writes.

    Attributes:
        out: Folder of the results.
        cache: Folder of trained tiny models and second moments.
        save_deltas: Whether to keep the weight changes, in ``out/deltas``.
    """

    out: Path
    cache: Path
    save_deltas: bool = False


def default_cache(environ: Mapping[str, str] = os.environ) -> Path:
    """``CLM_DATA_CACHE``, or ``clm-data`` in the user's cache folder."""
    if environ.get("CLM_DATA_CACHE"):
        return Path(environ["CLM_DATA_CACHE"])
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clm-data"


def run(
    recipe: Recipe,
    dataset: EvalSet,
    places: Places,
    *,
    say: Say = lambda _: None,
    tiny_config: TinyConfig | None = None,
) -> Results:
    """Compute the cells of a recipe that are not there yet, and write results and tables.

    A cell that fails is recorded with its reason and the next one goes on; a later run tries it
    again.

    Args:
        recipe: The grid.
        dataset: The records, whole; the recipe may want only the first of them.
        places: Where to read and write.
        say: Told what goes on, with the time left.
        tiny_config: Size and training of the tiny model.

    Raises:
        InputFileError: The dataset has fewer records than the recipe wants, or ``out`` cannot be
            written.
        MissingExtraError: torch is not installed.
    """
    _check_extra()
    sweep = _Sweep(recipe, dataset, places, say, tiny_config or TinyConfig())
    try:
        places.out.mkdir(parents=True, exist_ok=True)
        cells = sweep.cells()
        found = Results(
            title=recipe.title,
            dataset=Path(dataset.name).name,
            dataset_key=sweep.used.key,
            records=len(sweep.used.records),
            seed=recipe.seed,
            cells=tuple(cells),
        )
        results.write_results(places.out, found)
        tables.write_tables(places.out, found)
    except OSError as error:
        raise InputFileError(
            f"{places.out}: cannot be written ({error.strerror or error}); name another with --out"
        ) from error
    return found


def _check_extra() -> None:
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torch", "eval") from error


class _Sweep:
    """One run over a grid."""

    def __init__(
        self, recipe: Recipe, dataset: EvalSet, places: Places, say: Say, tiny_config: TinyConfig
    ) -> None:
        self.recipe, self.whole, self.places, self.say = recipe, dataset, places, say
        self.tiny_config = tiny_config
        self.used = dataset.first(recipe.facts)
        self.clock = _Clock()

    def cells(self) -> list[CellResult]:
        """Every cell, in the recipe's order."""
        grid = self.recipe.settings(len(self.used.records))
        planned = [self._planned(spec, setting) for spec, setting in grid]
        done: dict[int, CellResult] = {}
        for index, plan in enumerate(planned):
            old = None if isinstance(plan, CellResult) else self._finished(plan.key)
            if isinstance(plan, CellResult):
                done[index] = plan
                self.say(f"failed: {plan.setting.label}: {plan.error}")
            elif old is not None:
                done[index] = old
        if done:
            ready = sum(cell.status == "done" for cell in done.values())
            self.say(f"{ready} of {len(planned)} cells are there already")
        todo = [(i, p) for i, p in enumerate(planned) if i not in done and isinstance(p, _Plan)]
        self.clock.begin(len(todo))
        for spec in dict.fromkeys(plan.spec for _, plan in todo):
            mine = [(i, plan) for i, plan in todo if plan.spec == spec]
            for index, cell in self._model_cells(spec, mine):
                results.write_cell(self.places.out, cell)
                done[index] = cell
        return [done[index] for index in range(len(planned))]

    def _finished(self, key: str) -> CellResult | None:
        cell = results.read_cell(self.places.out, key)
        return cell if cell is not None and cell.status == "done" else None

    def _planned(self, spec: ModelSpec, setting: Setting) -> _Plan | CellResult:
        try:
            params = params_for(setting.method, spec.params_name)
            changes = self.recipe.params.get(setting.method, {})
            params = with_overrides(params, setting.layers, changes)
            protocol_named(setting.protocol)
            what = {
                "version": results.VERSION,
                "setting": setting.model_dump(mode="json", exclude={"model"}),
                "params": params_json(params),
                "model": self._identity(spec),
                "dtype": spec.dtype,
                "tokenizer": spec.tokenizer,
                "records": self.used.key,
                "corpus": self._corpus_identity(),
                **self.recipe.model_dump(
                    include={"max_batches", "generate", "checkpoints", "seed", "resamples"}
                ),
            }
            return _Plan(spec, setting, params, digest(what))
        except ClmDataError as error:
            return _failure("", setting, error)

    def _identity(self, spec: ModelSpec) -> Any:
        if spec.name not in _IDENTITIES_OF:
            return _files_identity(spec)
        return tiny_key(self.whole.records, self.tiny_config)

    def _corpus_identity(self) -> Any:
        corpus = Path(self.recipe.corpus)
        named = hashlib.sha256(corpus.read_bytes()).hexdigest() if corpus.is_file() else str(corpus)
        return [named, self.recipe.corpus_texts, self.whole.key]

    def _model_cells(self, spec: ModelSpec, plans: Sequence[tuple[int, _Plan]]) -> Any:
        try:
            model = self._load(spec)
        except Exception as error:  # one model of several; the others go on
            for index, plan in plans:
                self.clock.tick(1)
                yield index, self._failed(plan, error)
            return
        desk = _Desk(self, spec, model)
        for index, plan in plans:
            yield index, self._one(desk, plan)
        del model, desk
        _free_memory()

    def _one(self, desk: _Desk, plan: _Plan) -> CellResult:
        self.say(f"{self.clock.where()} {plan.setting.label}")
        begin = self.clock.now()
        try:
            cell = desk.compute(plan)
        except Exception as error:  # one cell of many; the others go on
            self.clock.tick(1)
            return self._failed(plan, error)
        self.clock.tick(1)
        self.say(
            f"{self.clock.where()} {plan.setting.label}: {tables.in_words(cell)}, "
            f"{self.clock.now() - begin:.0f} s; {self.clock.left()}"
        )
        return cell

    def _failed(self, plan: _Plan, error: Exception) -> CellResult:
        cell = _failure(plan.key, plan.setting, error)
        self.say(f"{self.clock.where()} failed: {plan.setting.label}: {cell.error}")
        return cell

    def _load(self, spec: ModelSpec) -> LoadedModel:
        name = spec.name
        if name == "tiny":
            records = self.whole.records
            self.say(f"tiny model: knows {len(records)} records in two languages")
            told = self._training
            name = str(tiny_model(records, self.places.cache, self.tiny_config, told))
        self.say(f"loading {spec.shown}")
        loaded = load_model(
            name,
            tokenizer=spec.tokenizer,
            dtype="float32" if spec.name == "tiny" else spec.dtype,
            device=spec.device,
            device_map=spec.device_map,
        )
        return replace(loaded, name=spec.shown)

    def _training(self, step: int, steps: int, loss: float) -> None:
        if step % 40 == 0 or step == steps:
            self.say(f"tiny model: step {step} of {steps}, loss on answers {loss:.3f}")


_IDENTITIES_OF = frozenset({"tiny"})


@dataclass(frozen=True)
class _Plan:
    """A cell to compute."""

    spec: ModelSpec
    setting: Setting
    params: Any
    key: str


class _Desk:
    """A loaded model with what its cells share; each part is made when first needed."""

    def __init__(self, sweep: _Sweep, spec: ModelSpec, model: LoadedModel) -> None:
        self.sweep, self.spec, self.model = sweep, spec, model
        self._benches: dict[str, Bench] = {}
        self._contexts: dict[str, Contexts] = {}
        self._moments: dict[tuple[str, tuple[int, ...]], Moments] = {}

    def compute(self, plan: _Plan) -> CellResult:
        """Run a cell."""
        recipe, places, name = self.sweep.recipe, self.sweep.places, plan.setting.protocol
        contexts = self._context(name)
        moments = self._moment(name, plan.params)
        protocol = protocol_named(name)
        setup = Setup(protocol, contexts, moments, self.spec.tokens_per_batch)
        editor = make_editor(plan.setting.method, plan.params, setup)
        cell = run_cell(
            self._bench(name),
            editor,
            plan.setting,
            plan.key,
            max_batches=recipe.max_batches,
            checkpoints=recipe.checkpoints,
            save_deltas=places.out / "deltas" if places.save_deltas else None,
            tick=lambda batch, of: self.sweep.clock.part(batch / of),
        )
        about = {
            "params": params_json(plan.params),
            "contexts": contexts.as_json(),
            "moments": moments.key if moments is not None else None,
        }
        return cell.model_copy(update=about)

    def _bench(self, name: str) -> Bench:
        if name not in self._benches:
            recipe, records = self.sweep.recipe, self.sweep.used.records
            meter = Meter(protocol_named(name), recipe.generate, self.spec.tokens_per_batch)
            self.sweep.say(f"measuring {self.spec.shown} before edits ({name})")
            before = meter.before(self.model, records)
            bootstrap = Bootstrap(recipe.resamples, seed=recipe.seed)
            self._benches[name] = Bench(self.model, records, meter, before, bootstrap)
            self._write_before(name, before)
        return self._benches[name]

    def _write_before(self, name: str, before: Before) -> None:
        file = self.sweep.places.out / "before" / f"{self.spec.shown}-{name}.json"
        ids = [record.id for record in self.sweep.used.records]
        rows = [{"id": one, **both} for one, both in zip(ids, before.measures, strict=True)]
        results.write_json(file, rows)

    def _context(self, name: str) -> Contexts:
        if name not in self._contexts:
            protocol, seed = protocol_named(name), self.sweep.recipe.seed
            made = contexts_for(self.model, protocol, languages=LANGUAGES, seed=seed)
            self._contexts[name] = made
        return self._contexts[name]

    def _moment(self, name: str, params: Any) -> Moments | None:
        layers = tuple(getattr(params, "layers", ()))
        if getattr(params, "use_moments", False):
            layers = (params.layer,)
        if not layers:
            return None
        if (name, layers) not in self._moments:
            recipe = self.sweep.recipe
            texts = corpus_texts(
                recipe.corpus,
                protocol_named(name),
                self.sweep.whole.records,
                tiny=self.spec.name == "tiny",
                most=recipe.corpus_texts,
            )
            count = sum(map(len, texts.values()))
            self.sweep.say(f"second moments of layers {list(layers)} from {count} texts")
            self._moments[name, layers] = second_moments(
                self.model,
                texts,
                layers,
                cache=self.sweep.places.cache,
                tokens_per_batch=self.spec.tokens_per_batch,
            )
        return self._moments[name, layers]


def _failure(key: str, setting: Setting, error: Exception) -> CellResult:
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ClmDataError):
        text = f"{type(error).__name__}: {text}"
    return CellResult(key=key, setting=setting, status="failed", error=text)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _files_identity(spec: ModelSpec) -> Any:
    """What a model's name stands for now: its files' content, or its commit on the Hub."""
    path = Path(spec.name.removeprefix("gguf:"))
    if path.is_file():
        return _file_hash(path)
    if path.is_dir():
        return {file.name: _file_hash(file) for file in sorted(path.iterdir()) if file.is_file()}
    if spec.name.startswith("gguf:"):
        return spec.name
    return [spec.name, _commit(spec.name)]


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["config.json"])).name
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputFileError(
            f"model {name}: neither a folder here nor to be had from the Hub: {first}"
        ) from error


class _Clock:
    """How far a sweep is, and how long it will take."""

    def __init__(self) -> None:
        self._total = 0
        self._done = 0.0
        self._part = 0.0
        self._start = time.monotonic()

    def begin(self, cells: int) -> None:
        """So many cells are to be computed."""
        self._total, self._start = cells, time.monotonic()

    def now(self) -> float:
        """Seconds, from anywhere."""
        return time.monotonic()

    def part(self, share: float) -> None:
        """So much of the present cell is done."""
        self._part = share

    def tick(self, cells: int) -> None:
        """So many more cells are done."""
        self._done, self._part = self._done + cells, 0.0

    def where(self) -> str:
        """The present cell among all."""
        return f"[{min(int(self._done) + 1, self._total)}/{self._total}]"

    def left(self) -> str:
        """Time left, from the mean of the cells so far."""
        done = self._done + self._part
        if done >= self._total or done == 0:
            return "done" if done else "time left unknown"
        seconds = (time.monotonic() - self._start) / done * (self._total - done)
        minutes, rest = divmod(round(seconds), 60)
        return f"about {minutes} min {rest:02d} s left"
