"""The plan of a sweep: its cells with their hyperparameters and keys, and which are finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from clm_data.errors import ClmDataError, ConfigError
from clm_data.eval import results
from clm_data.eval.dataset import EvalSet
from clm_data.eval.easyedit import METHODS as EASYEDIT_METHODS
from clm_data.eval.easyedit import RELEASE_METHODS
from clm_data.eval.easyedit.found import EasyEdit, find_easyedit
from clm_data.eval.editors import method_class, params_for
from clm_data.eval.editors.base import EditorParams
from clm_data.eval.editors.known_models import params_for_config
from clm_data.eval.editors.retrieval import Pair, side
from clm_data.eval.model.tiny import TinyConfig, tiny_key
from clm_data.eval.protocols import get_protocol
from clm_data.eval.recipe import ModelSpec, Recipe
from clm_data.eval.results import CellResult, Setting
from clm_data.eval.sweep.cell import failed_cell, has_deltas
from clm_data.eval.sweep.corpus import tiny_corpus
from clm_data.eval.sweep.identity import (
    corpus_identity,
    encoder_identity,
    model_config,
    model_identity,
)
from clm_data.eval.sweep.overrides import params_json, with_overrides
from clm_data.eval.sweep.training_rows import training_rows
from clm_data.records import LANGUAGES, digest


@dataclass(frozen=True)
class PlannedCell:
    """A cell that can be computed.

    Attributes:
        spec: The model.
        setting: The cell's place in the grid.
        params: The method's hyperparameters, with the recipe's changes.
        model_identity: JSON that identifies the model's weights: file hashes or a commit.
        key: sha256 of everything that affects the numbers.
        baseline: sha256 of everything that affects the answers of the unedited model.
        corpus: Text for second moments, as `corpus_texts` takes it.
        easyedit: EasyEdit's environment if that computes the cell.
    """

    spec: ModelSpec
    setting: Setting
    params: EditorParams
    model_identity: Any
    key: str
    baseline: str
    corpus: str
    easyedit: EasyEdit | None = None


def plan_cells(
    recipe: Recipe,
    dataset: EvalSet,
    tiny_config: TinyConfig,
    easyedit: Callable[[], EasyEdit] = find_easyedit,
) -> list[PlannedCell | CellResult]:
    """The cells of a recipe, in its order.

    Args:
        recipe: The grid.
        dataset: The whole dataset; the recipe may use only its first records.
        tiny_config: Size and training of the tiny model.
        easyedit: Finds EasyEdit's environment; called if a cell needs it.

    Returns:
        For each cell its plan, or a failed result if it cannot be computed: an unknown method,
        protocol or hyperparameter, or a model that does not exist.

    Raises:
        InputFileError: The dataset has fewer records than the recipe asks for.
    """
    used = dataset.first(recipe.facts)
    identify = cache(model_identity)  # hashing a model's files can take minutes
    encoder_files = cache(encoder_identity)
    find = cache(easyedit)

    @cache
    def training() -> str:
        return digest(_texts(training_rows(dataset.records, used.records)))

    @cache
    def corpus_for(protocol: str, tiny: bool) -> str:
        if recipe.corpus != "auto":
            return recipe.corpus
        if not tiny:
            return "bank"
        return tiny_corpus(get_protocol(protocol), used.records, tiny_config, recipe.corpus_texts)

    @cache
    def config(name: str, revision: str | None) -> tuple[str, Mapping[str, Any]]:
        return name, model_config(name, revision)

    @cache
    def depth(name: str, revision: str | None) -> int | None:
        try:
            found = model_config(name, revision)
        except ClmDataError:
            return None  # the model may still load; its layers are checked then
        layers = found.get("num_hidden_layers", found.get("n_layer"))
        return layers if isinstance(layers, int) else None

    def plan(spec: ModelSpec, setting: Setting) -> PlannedCell:
        changes = recipe.params.get(setting.method, {})
        _check_tiny(spec)
        at = (spec.name, spec.revision)
        name = spec.params or ("tiny" if spec.is_tiny else params_for_config(*config(*at)))
        params = with_overrides(params_for(setting.method, name), setting.layers, changes)
        _check_layers(spec, params, tiny_config.layers if spec.is_tiny else depth(*at))
        get_protocol(setting.protocol)
        corpus = corpus_for(setting.protocol, spec.is_tiny) if params.moment_layers else "none"
        engine = None
        if setting.backend == "easyeditor":
            engine = _easyedit_for(spec, setting, find)
        identity = tiny_key(used.records, tiny_config) if spec.is_tiny else identify(*at)
        if spec.layout is not None:
            identity = [identity, asdict(spec.layout)]
        short = recipe.corpus == "auto" and spec.is_tiny and corpus == "bank"
        named = corpus if short else corpus_identity(recipe.corpus)
        about = {
            "version": results.VERSION,
            "setting": setting.model_dump(mode="json", exclude={"model"}),
            "params": params_json(params),
            "model": identity,
            "dtype": spec.dtype,
            "tokenizer": spec.tokenizer and identify(spec.tokenizer),
            "records": used.key,
            "corpus": [named, recipe.corpus_texts, dataset.key],
            **recipe.model_dump(
                include={"max_batches", "generate", "checkpoints", "seed", "resamples"}
            ),
        }
        if engine is not None:
            about["easyedit"] = engine.as_json()
        if hasattr(method_class(setting.method), "fit"):
            about["training"] = training()
            encoder = getattr(params, "encoder", None)
            about["encoder"] = encoder and encoder_files(encoder)
        names = ("version", "model", "dtype", "tokenizer", "records", "generate")
        baseline = {"protocol": setting.protocol, **{name: about[name] for name in names}}
        key = digest(about)
        return PlannedCell(spec, setting, params, identity, key, digest(baseline), corpus, engine)

    planned: list[PlannedCell | CellResult] = []
    for spec, setting in recipe.settings(len(used.records)):
        try:
            planned.append(plan(spec, setting))
        except ClmDataError as error:
            planned.append(failed_cell("", setting, error))
    return planned


def _check_tiny(spec: ModelSpec) -> None:
    """Check that the tiny model, which is trained here, has neither a revision nor a layout.

    Raises:
        ConfigError: It has one.
    """
    if spec.is_tiny and (spec.revision or spec.layout):
        raise ConfigError("the tiny model is trained here; leave out --revision and --layout")


def _easyedit_for(spec: ModelSpec, setting: Setting, find: Callable[[], EasyEdit]) -> EasyEdit:
    """The environment that computes a cell.

    Raises:
        ConfigError: There is none, it lacks the method, or EasyEdit cannot compute such a cell.
    """
    if spec.revision or spec.layout:
        raise ConfigError(
            "EasyEdit loads models from the main branch, and knows the names of their parts "
            "itself; leave out --revision and --layout"
        )
    if setting.protocol != "easyedit":
        raise ConfigError(
            f"EasyEdit edits with its own protocol, not with {setting.protocol}; add --protocol "
            "easyedit"
        )
    found = find()
    known = EASYEDIT_METHODS if found.checkout else RELEASE_METHODS
    if setting.method not in known:
        instead = ""
        if setting.method in EASYEDIT_METHODS:
            instead = f"; a checkout of it computes {setting.method}"
        raise ConfigError(
            f"EasyEdit {found.version} computes {', '.join(known)} here, not {setting.method}"
            f"{instead}"
        )
    return found


def _texts(rows: Sequence[Pair]) -> list[list[dict[str, Any]]]:
    """The content of some facts, for the key of a cell."""
    return [[side(row, lang).model_dump() for lang in LANGUAGES] for row in rows]


def _check_layers(spec: ModelSpec, params: EditorParams, depth: int | None) -> None:
    """Check that a model has the layers to edit; a model of unknown depth passes.

    Raises:
        ConfigError: It lacks one.
    """
    for layer in params.edited_layers:
        if depth is not None and not 0 <= layer < depth:
            raise ConfigError(
                f"{spec.shown} has layers 0 to {depth - 1}, not {layer}; choose others with "
                "--layers"
            )


def finished_cell(out: Path, cell: PlannedCell, deltas_folder: Path | None) -> CellResult | None:
    """The result of a cell that an earlier run computed.

    Args:
        out: Folder of the results.
        cell: The cell.
        deltas_folder: If given, a cell whose weight changes there are missing or damaged counts as
            not computed.

    Returns:
        The result under the model's present label; None if the cell has to be computed. A result of
        an earlier version, which has no key of the answers before the edit, gets the cell's.
    """
    result = results.read_cell(out, cell.key)
    if result is None or result.status != "done":
        return None
    if deltas_folder is not None and not has_deltas(deltas_folder, result):
        return None
    return result.model_copy(update={"setting": cell.setting, "baseline": cell.baseline})
