"""A loaded model with everything that its cells share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clm_data.eval import baselines
from clm_data.eval.dataset import EvalSet
from clm_data.eval.easyedit.editor import EasyEditEditor, EasyEditEngine
from clm_data.eval.editors import make_editor
from clm_data.eval.editors.alphaedit import AlphaEditParams
from clm_data.eval.editors.base import Editor, EditorParams, Setup, TrainedEditor
from clm_data.eval.editors.contexts import Contexts, sample_contexts
from clm_data.eval.editors.langedit import LangEditParams
from clm_data.eval.editors.moments import LanguageMoments, Moments, second_moments
from clm_data.eval.editors.value_cache import TargetValueCache
from clm_data.eval.intervals import Bootstrap
from clm_data.eval.model.activations import choose_batch_tokens
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.protocols import get_protocol
from clm_data.eval.recipe import Recipe
from clm_data.eval.results import BaselineResult, CellResult, MomentText
from clm_data.eval.sweep.cell import Progress, run_cell
from clm_data.eval.sweep.corpus import corpus_texts
from clm_data.eval.sweep.measure import Evaluator
from clm_data.eval.sweep.overrides import params_json
from clm_data.eval.sweep.plan import PlannedCell
from clm_data.eval.sweep.training_rows import training_rows
from clm_data.log import Log, silent
from clm_data.records import LANGUAGES, Language


class ModelWorkbench:
    """Computes the cells of one model; contexts, moments, baseline and values are computed once.

    Args:
        model: The unedited model.
        cell: Any cell of the model.
        recipe: Seeds, corpus, batches and checkpoints.
        dataset: The whole dataset; the recipe may use only its first records.
        out: Folder of the results.
        cache: Folder of second moments.
        deltas_folder: Folder for the weight changes; None does not save them.
        log: Called with progress messages.
    """

    def __init__(
        self,
        model: LoadedModel,
        cell: PlannedCell,
        recipe: Recipe,
        dataset: EvalSet,
        *,
        out: Path,
        cache: Path,
        deltas_folder: Path | None = None,
        log: Log = silent,
    ) -> None:
        self.model, self.spec, self.recipe, self.dataset = model, cell.spec, recipe, dataset
        self.records = dataset.first(recipe.facts).records
        self.out, self.cache, self.deltas_folder, self.log = out, cache, deltas_folder, log
        chosen = cell.spec.tokens_per_batch
        self.tokens_per_batch = choose_batch_tokens(model, log) if chosen == "auto" else chosen
        self._values = TargetValueCache([cell.model_identity, self.spec.dtype], out / "values")
        self._evaluators: dict[str, Evaluator] = {}
        self._contexts: dict[str, Contexts] = {}
        self._corpora: dict[str, dict[str, list[str]]] = {}
        self._moments: dict[tuple[str, tuple[int, ...], Language | None], Moments] = {}
        self._language_moments: dict[tuple[str, tuple[int, ...]], LanguageMoments] = {}
        self._engine: EasyEditEngine | None = None

    def compute(self, cell: PlannedCell, progress: Progress | None = None) -> CellResult:
        """Compute a cell.

        Args:
            cell: A cell of this model.
            progress: Called after each batch.

        Raises:
            ClmDataError: The cell cannot be computed.
        """
        protocol = cell.setting.protocol
        contexts = self._contexts_of(protocol)
        moments, language_moments = self._moments_for(cell)
        setup = Setup(
            get_protocol(protocol),
            contexts,
            moments,
            self.tokens_per_batch,
            self._values,
            language_moments,
        )
        result = run_cell(
            self._evaluator(cell),
            self._editor(cell, setup),
            cell.setting,
            cell.key,
            bootstrap=Bootstrap(self.recipe.resamples, seed=self.recipe.seed),
            max_batches=self.recipe.max_batches,
            checkpoints=self.recipe.checkpoints,
            deltas_folder=self.deltas_folder,
            progress=progress,
        )
        provenance = {
            "params": params_json(cell.params),
            "contexts": contexts.as_json(),
            "moments": next((one.key for one in (moments, language_moments) if one), None),
            "moment_text": _moment_text(cell.params, moments, language_moments),
            "baseline": cell.baseline,
            "engine": cell.easyedit and cell.easyedit.as_json(),
        }
        return result.model_copy(update=provenance)

    def close(self) -> None:
        """End EasyEdit's process, if there is one."""
        if self._engine is not None:
            self._engine.close()

    def _editor(self, cell: PlannedCell, setup: Setup) -> Editor[Any]:
        editor = make_editor(cell.setting.method, cell.params, setup)
        if isinstance(editor, TrainedEditor):
            editor = self._fitted(editor)
        if cell.easyedit is None:
            return editor
        if self._engine is None:
            self._engine = EasyEditEngine(cell.easyedit, self.model, self.cache)
        return EasyEditEditor(cell.setting.method, cell.params, setup, self._engine, editor)

    def _fitted(self, editor: Any) -> Editor[Any]:
        """A trained editor after its training."""
        rows = training_rows(self.dataset.records, self.records)
        self.log(f"{editor.name} learns from {len(rows)} facts that are not edited")
        fitted: Editor[Any] = editor.fit(self.model, rows)
        return fitted

    def measure_baseline(self, cell: PlannedCell) -> None:
        """Measure the unedited model with the protocol of a cell, and write its answers."""
        self._evaluator(cell)

    def _evaluator(self, cell: PlannedCell) -> Evaluator:
        """The evaluator of a cell's protocol; on first use its baseline is measured and written."""
        protocol = cell.setting.protocol
        if protocol not in self._evaluators:
            self.log(f"measuring {self.spec.shown} before edits ({protocol})")
            evaluator = Evaluator(
                self.model,
                self.records,
                get_protocol(protocol),
                generate=self.recipe.generate,
                tokens_per_batch=self.tokens_per_batch,
            )
            self._write_baseline(evaluator, cell.baseline)
            self._evaluators[protocol] = evaluator
        return self._evaluators[protocol]

    def _write_baseline(self, evaluator: Evaluator, key: str) -> None:
        answers = [
            BaselineResult(id=record.id, **found.measures, continuation=found.continuation)
            for record, found in zip(self.records, evaluator.baseline, strict=True)
        ]
        baselines.write_baseline(self.out, key, answers)

    def _contexts_of(self, protocol: str) -> Contexts:
        if protocol not in self._contexts:
            self._contexts[protocol] = sample_contexts(
                self.model,
                get_protocol(protocol),
                languages=LANGUAGES,
                seed=self.recipe.seed,
            )
        return self._contexts[protocol]

    def _moments_for(self, cell: PlannedCell) -> tuple[Moments | None, LanguageMoments | None]:
        """The second moments that a method reads: of all text, of each language, or none."""
        protocol, params = cell.setting.protocol, cell.params
        layers = params.moment_layers
        if not layers:
            return None, None
        if not params.moments_by_language:
            return self._moments_of(cell), None
        if (protocol, layers) not in self._language_moments:
            by_language = {
                lang: self._moments_of(cell, lang)
                for lang in LANGUAGES
                if lang in self._texts(cell)
            }
            self._language_moments[protocol, layers] = LanguageMoments(by_language)
        return None, self._language_moments[protocol, layers]

    def _texts(self, cell: PlannedCell) -> dict[str, list[str]]:
        """Text for second moments, by language."""
        protocol = cell.setting.protocol
        if protocol not in self._corpora:
            if (self.recipe.corpus, self.spec.is_tiny, cell.corpus) == ("auto", True, "bank"):
                self.log("the records have too little text for second moments: the bank's is used")
            self._corpora[protocol] = corpus_texts(
                cell.corpus,
                get_protocol(protocol),
                self.records if self.spec.is_tiny else self.dataset.records,
                max_texts=self.recipe.corpus_texts,
            )
        return self._corpora[protocol]

    def _moments_of(self, cell: PlannedCell, language: Language | None = None) -> Moments:
        """Second moments of a cell's layers from the text of one language, or of all."""
        protocol, layers = cell.setting.protocol, cell.params.moment_layers
        if (protocol, layers, language) not in self._moments:
            texts = self._texts(cell)
            if language is not None:
                texts = {language: texts[language]}
            count = sum(map(len, texts.values()))
            kind = f"{language} texts" if language is not None else "texts"
            self.log(f"second moments of layers {list(layers)} from {count} {kind}")
            self._moments[protocol, layers, language] = second_moments(
                self.model,
                texts,
                layers,
                cache=self.cache,
                tokens_per_batch=self.tokens_per_batch,
            )
        return self._moments[protocol, layers, language]


def _moment_text(
    params: EditorParams, moments: Moments | None, languages: LanguageMoments | None
) -> MomentText | None:
    """How much text the second moments of a method were estimated from."""
    if languages is not None and isinstance(params, LangEditParams):
        moments = languages.weighted({"zh": params.zh_weight, "en": params.en_weight})
    if moments is None:
        return None
    width = len(moments.moment(params.moment_layers[0]))
    inverted = not isinstance(params, AlphaEditParams)  # which takes eigenvectors
    ridge = max(map(moments.ridge, params.moment_layers)) if inverted else 0.0
    return MomentText(tokens=moments.tokens, width=width, ridge=ridge)
