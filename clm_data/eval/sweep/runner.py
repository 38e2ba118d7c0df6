"""A sweep: every cell of a recipe, each written as it ends, so that a stopped sweep goes on."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.errors import ClmDataError, InputFileError, MissingExtraError
from clm_data.eval import results, tables
from clm_data.eval.dataset import EvalSet
from clm_data.eval.editors import make_editor, params_for
from clm_data.eval.editors.base import Setup
from clm_data.eval.editors.contexts import Contexts, contexts_for
from clm_data.eval.editors.covariance import Moments, second_moments
from clm_data.eval.editors.value_cache import KeptValues
from clm_data.eval.errors import out_of_memory
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.tiny import TinyConfig, tiny_key
from clm_data.eval.protocols import get_protocol
from clm_data.eval.recipe import ModelSpec, Recipe
from clm_data.eval.results import CellResult, Results, Setting
from clm_data.eval.sweep.cell import EvalContext, deltas_kept, params_json, run_cell, with_overrides
from clm_data.eval.sweep.corpus import corpus_texts
from clm_data.eval.sweep.identity import corpus_identity, model_identity
from clm_data.eval.sweep.measure import Before, Evaluator
from clm_data.eval.sweep.open_model import open_model
from clm_data.eval.sweep.progress import Clock
from clm_data.log import Log, silent
from clm_data.records import LANGUAGES, digest


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

    @property
    def deltas(self) -> Path:
        """Folder of the weight changes."""
        return self.out / "deltas"


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
    log: Log = silent,
    tiny_config: TinyConfig | None = None,
) -> Results:
    """Compute the cells of a recipe that are not there yet, and write results and tables.

    A cell that fails is recorded with its reason and the next one goes on; a later run tries it
    again.

    Args:
        recipe: The grid.
        dataset: The records, whole; the recipe may want only the first of them.
        places: Where to read and write.
        log: Called with progress messages.
        tiny_config: Size and training of the tiny model.

    Raises:
        InputFileError: The dataset is empty or has fewer records than the recipe wants, or ``out``
            cannot be written.
        MissingExtraError: torch is not installed.
    """
    _check_extra()
    if not dataset.records:
        raise InputFileError(f"{dataset.name}: the dataset is empty; give one with records")
    sweep = _Sweep(recipe, dataset, places, log, tiny_config or TinyConfig())
    try:
        places.out.mkdir(parents=True, exist_ok=True)
        cells = sweep.cells()
        found = Results(
            title=recipe.title,
            dataset=Path(dataset.name).name,
            dataset_key=sweep.used.key,
            records=len(sweep.used.records),
            seed=recipe.seed,
            recipe=recipe.model_dump(mode="json"),
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
        self, recipe: Recipe, dataset: EvalSet, places: Places, log: Log, tiny_config: TinyConfig
    ) -> None:
        self.recipe, self.whole, self.places, self.log = recipe, dataset, places, log
        self.tiny_config = tiny_config
        self.used = dataset.first(recipe.facts)
        self.clock = Clock()
        self._identities: dict[str, Any] = {}

    def cells(self) -> list[CellResult]:
        """Every cell, in the recipe's order."""
        grid = self.recipe.settings(len(self.used.records))
        planned = [self._planned(spec, setting) for spec, setting in grid]
        done: dict[int, CellResult] = {}
        for index, plan in enumerate(planned):
            old = None if isinstance(plan, CellResult) else self._finished(plan)
            if isinstance(plan, CellResult):
                done[index] = plan
                self.log(f"failed: {plan.setting.label}: {plan.error}")
            elif old is not None:
                done[index] = old
        ready = sum(cell.status == "done" for cell in done.values())
        if ready:
            self.log(f"{ready} of {len(planned)} cells are there already")
        todo = [(i, p) for i, p in enumerate(planned) if i not in done and isinstance(p, _Plan)]
        self.clock.begin(len(todo))
        for spec in dict.fromkeys(plan.spec for _, plan in todo):
            mine = [(i, plan) for i, plan in todo if plan.spec == spec]
            for index, cell in self._model_cells(spec, mine):
                results.write_cell(self.places.out, cell)
                done[index] = cell
        return [done[index] for index in range(len(planned))]

    def _finished(self, plan: _Plan) -> CellResult | None:
        cell = results.read_cell(self.places.out, plan.key)
        if cell is None or cell.status != "done":
            return None
        if self.places.save_deltas and not deltas_kept(self.places.deltas, cell):
            return None
        return cell.model_copy(update={"setting": plan.setting})  # its label may be another now

    def _planned(self, spec: ModelSpec, setting: Setting) -> _Plan | CellResult:
        try:
            params = params_for(setting.method, spec.params_name)
            changes = self.recipe.params.get(setting.method, {})
            params = with_overrides(params, setting.layers, changes)
            get_protocol(setting.protocol)
            what = {
                "version": results.VERSION,
                "setting": setting.model_dump(mode="json", exclude={"model"}),
                "params": params_json(params),
                "model": self.identity(spec),
                "dtype": spec.dtype,
                "tokenizer": spec.tokenizer and self._named(spec.tokenizer),
                "records": self.used.key,
                "corpus": [
                    corpus_identity(self.recipe.corpus),
                    self.recipe.corpus_texts,
                    self.whole.key,
                ],
                **self.recipe.model_dump(
                    include={"max_batches", "generate", "checkpoints", "seed", "resamples"}
                ),
            }
            return _Plan(spec, setting, params, digest(what))
        except ClmDataError as error:
            return _failure("", setting, error)

    def identity(self, spec: ModelSpec) -> Any:
        """What tells its weights from others."""
        if spec.is_tiny:
            return tiny_key(self.used.records, self.tiny_config)
        return self._named(spec.name)

    def _named(self, name: str) -> Any:
        """What a name stands for; read once, as it may be many gigabytes."""
        if name not in self._identities:
            self._identities[name] = model_identity(name)
        return self._identities[name]

    def _model_cells(
        self, spec: ModelSpec, plans: Sequence[tuple[int, _Plan]]
    ) -> Iterator[tuple[int, CellResult]]:
        try:
            model = open_model(
                spec, self.used.records, self.places.cache, self.tiny_config, self.log
            )
        except Exception as error:  # one model of several; the others go on
            for index, plan in plans:
                yield index, self._failed(plan, error)
            _free_memory()
            return
        desk = ModelWorkbench(self, spec, model)
        for index, plan in plans:
            yield index, self._one(desk, plan)
        del model, desk
        _free_memory()

    def _one(self, desk: ModelWorkbench, plan: _Plan) -> CellResult:
        where, begin = self.clock.where(), self.clock.now()
        self.log(f"{where} {plan.setting.label}")
        cell = None
        try:
            cell = desk.compute(plan)
        except Exception as error:  # one cell of many; the others go on
            failed = self._failed(plan, error)
        if cell is None:  # what the cell held is let go only now that its error is gone
            _free_memory()
            return failed
        self.clock.tick()
        self.log(
            f"{where} {plan.setting.label}: {tables.in_words(cell)}, "
            f"{self.clock.now() - begin:.0f} s; {self.clock.left()}"
        )
        return cell

    def _failed(self, plan: _Plan, error: Exception) -> CellResult:
        cell = _failure(plan.key, plan.setting, error)
        self.log(f"{self.clock.where()} failed: {plan.setting.label}: {cell.error}")
        self.clock.tick()
        return cell

    def batch_done(self, setting: Setting, batch: int, of: int) -> None:
        """Say so, now and then."""
        if self.clock.part(batch / of):
            at = f"{batch} of {of} batches"
            self.log(f"{self.clock.where()} {setting.label}: {at}; {self.clock.left()}")


@dataclass(frozen=True)
class _Plan:
    """A cell to compute."""

    spec: ModelSpec
    setting: Setting
    params: Any
    key: str


class ModelWorkbench:
    """A loaded model with what its cells share; each part is made when first needed."""

    def __init__(self, sweep: _Sweep, spec: ModelSpec, model: LoadedModel) -> None:
        self.sweep, self.spec, self.model = sweep, spec, model
        self._benches: dict[str, EvalContext] = {}
        self._contexts: dict[str, Contexts] = {}
        self._moments: dict[tuple[str, tuple[int, ...]], Moments] = {}
        about = [sweep.identity(spec), spec.dtype]
        self._kept = KeptValues(about, sweep.places.out / "values")

    def compute(self, plan: _Plan) -> CellResult:
        """Run a cell."""
        recipe, places, name = self.sweep.recipe, self.sweep.places, plan.setting.protocol
        contexts = self._context(name)
        moments = self._moment(name, plan.params)
        protocol = get_protocol(name)
        setup = Setup(protocol, contexts, moments, self.spec.tokens_per_batch, self._kept)
        editor = make_editor(plan.setting.method, plan.params, setup)
        cell = run_cell(
            self._bench(name),
            editor,
            plan.setting,
            plan.key,
            max_batches=recipe.max_batches,
            checkpoints=recipe.checkpoints,
            save_deltas=places.deltas if places.save_deltas else None,
            tick=lambda batch, of: self.sweep.batch_done(plan.setting, batch, of),
        )
        about = {
            "params": params_json(plan.params),
            "contexts": contexts.as_json(),
            "moments": moments.key if moments is not None else None,
        }
        return cell.model_copy(update=about)

    def _bench(self, name: str) -> EvalContext:
        if name not in self._benches:
            recipe, records = self.sweep.recipe, self.sweep.used.records
            meter = Evaluator(get_protocol(name), recipe.generate, self.spec.tokens_per_batch)
            self.sweep.log(f"measuring {self.spec.shown} before edits ({name})")
            before = meter.before(self.model, records)
            bootstrap = Bootstrap(recipe.resamples, seed=recipe.seed)
            self._benches[name] = EvalContext(self.model, records, meter, before, bootstrap)
            self._write_before(name, before)
        return self._benches[name]

    def _write_before(self, name: str, before: Before) -> None:
        file = self.sweep.places.out / "before" / f"{self.spec.shown}-{name}.json"
        ids = [record.id for record in self.sweep.used.records]
        answers = zip(ids, before.measures, before.said, strict=True)
        rows = [{"id": one, **both, "said": said} for one, both, said in answers]
        results.write_json(file, rows)

    def _context(self, name: str) -> Contexts:
        if name not in self._contexts:
            protocol, seed = get_protocol(name), self.sweep.recipe.seed
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
            recipe, tiny = self.sweep.recipe, self.spec.is_tiny
            texts = corpus_texts(
                recipe.corpus,
                get_protocol(name),
                (self.sweep.used if tiny else self.sweep.whole).records,
                tiny=tiny,
                most=recipe.corpus_texts,
            )
            count = sum(map(len, texts.values()))
            self.sweep.log(f"second moments of layers {list(layers)} from {count} texts")
            self._moments[name, layers] = second_moments(
                self.model,
                texts,
                layers,
                cache=self.sweep.places.cache,
                tokens_per_batch=self.spec.tokens_per_batch,
            )
        return self._moments[name, layers]


def _failure(key: str, setting: Setting, error: Exception) -> CellResult:
    text = " ".join(str(error).split())
    if out_of_memory(error):
        text = "out of memory; lower tokens_per_batch"
    elif not isinstance(error, ClmDataError):
        text = f"{type(error).__name__}: {text}"
    return CellResult(key=key, setting=setting, status="failed", error=text)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
