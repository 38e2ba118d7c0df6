"""Evaluating editing methods on a dataset: what `clm-data eval-baselines` does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from clm_data.errors import ConfigError
from clm_data.eval.dataset import DatasetSource, load_dataset
from clm_data.eval.easyedit.found import find_easyedit
from clm_data.eval.environment import require_eval_extra
from clm_data.eval.model.layout import ModelLayout
from clm_data.eval.recipe import Recipe, parse_recipe, read_recipe
from clm_data.eval.results import Backend, EditLanguage, Mode, Results
from clm_data.eval.sweep.runner import run_sweep
from clm_data.files import read_yaml
from clm_data.log import Log, silent


def evaluate(
    dataset: DatasetSource,
    *,
    recipe: str | Path | Recipe | None = None,
    model: str | Sequence[str] | None = None,
    methods: str | Sequence[str] | None = None,
    languages: EditLanguage | Sequence[str] | None = None,
    batch_sizes: int | str | Sequence[int | str] | None = None,
    layers: Sequence[int] | Sequence[Sequence[int | str]] | None = None,
    mode: Mode | Sequence[str] | None = None,
    protocol: str | Sequence[str] | None = None,
    backend: Backend | Sequence[str] | None = None,
    easyedit_python: str | Path | None = None,
    facts: int | None = None,
    params: str | None = None,
    tokenizer: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    device_map: str | None = None,
    trust_remote_code: bool | None = None,
    revision: str | None = None,
    layout: str | Path | Mapping[str, Any] | ModelLayout | None = None,
    tokens_per_batch: int | Literal["auto"] | None = None,
    corpus: str | None = None,
    seed: int | None = None,
    out: str | Path = "eval_results",
    cache: str | Path | None = None,
    save_deltas: bool = False,
    log: Log = silent,
) -> Results:
    """Edit models with the facts of a dataset, and measure both languages before and after.

    Every combination of model, method, language, batch size, layers, mode and protocol is one
    cell. Each finished cell is written to `out`, so an interrupted evaluation resumes where it
    stopped. A cell that fails is recorded with its reason; check `Results.failed`.

    Example:
        >>> results = evaluate("clm_demo/dataset", model="tiny", methods=["memit", "pmet"])
        >>> results.cells[0].after["zh_reliability"].mean

    Args:
        dataset: A folder made by `clm-data build`, a dataset file, an id on the Hub
            (`OWNER/NAME`), a `datasets.Dataset`, or a list of records or of rows in any layout
            that `clm-data import` reads.
        recipe: Name of a bundled recipe (`table1`), a YAML file, or a :class:`Recipe`. All
            arguments below override it; those left out keep its values.
        model: One or more models: a Hub id, a folder, `gguf:FILE`, or `tiny`, a small model that
            is trained on the dataset. They replace the models of the recipe.
        methods: Any of `memit`, `alphaedit`, `langedit`, `pmet`, `rome`, `ft`, `ft-m`, `locft-bf`,
            `lora`, `ultraedit`, `grace`, `wise`, `ice-oracle`, `ice-retrieved`, `ike`; default
            `memit`.
        languages: Languages of the edits: any of `zh`, `en`, `mix`; default all three.
        batch_sizes: Facts per edit: numbers, or `all` for the whole dataset; default `all`.
        layers: Layers to edit, or several such lists to compare; default those of the
            hyperparameters.
        mode: `batch`, `sequential` or `single`; default `batch`.
        protocol: `native`, `easyedit` or `chat`, which is `native` in the chat template of an
            instruct model; default `native`, or `easyedit` with `easyeditor`.
        backend: What computes the edits: `clm-data`, `easyeditor` (EasyEdit in an environment of
            its own), or both; default `clm-data`.
        easyedit_python: Interpreter of EasyEdit's environment; default `EASYEDIT_PYTHON`.
        facts: Use only the first N facts; default all.
        params: Name of the hyperparameters, such as `llama-3-8b`; default by the model's
            config.
        tokenizer: Folder or Hub id of a tokenizer; default the model's own.
        dtype: `auto`, `float32`, `bfloat16` or `float16`; default `auto`.
        device: Device, such as `cuda:0`; default the first GPU, otherwise the CPU.
        device_map: `auto` spreads the layers over several GPUs.
        trust_remote_code: Run Python code that comes with the model or its tokenizer; default no.
        revision: Branch, tag or commit of a model on the Hub; default its main branch.
        layout: Names of the model's parts, or a YAML file with them, for a model whose parts are
            not known; see `eval/README.md`.
        tokens_per_batch: Maximum tokens per forward pass, which bounds memory; default `auto`: as
            many as fit in half of a GPU's free memory, 4096 on a CPU.
        corpus: Text for second moments: `auto`, `bank`, `dataset`, a file, or `hub:ID`; default
            `auto`.
        seed: Random seed of contexts and bootstrap; default 42.
        out: Folder of the results.
        cache: Folder of trained tiny models and second moments; default `CLM_DATA_CACHE`, or
            `clm-data` in the user's cache folder.
        save_deltas: Whether to save the weight changes, which `clm-data analyze` needs.
        log: Called with progress messages.

    Returns:
        All cells, finished and failed. The same data is in `out/results.json`, and as tables in
        `out/table.md`, `table.csv` and `table.tex`.

    Raises:
        MissingExtraError: The extra `eval` is not installed.
        ConfigError: Neither a model nor a recipe is given, or a value is invalid.
        UnknownNameError: There is no such recipe.
        InputFileError: The dataset cannot be read or has too few records, or `out` cannot be
            written.
    """
    require_eval_extra()
    options = {
        "methods": methods,
        "languages": languages,
        "batch_sizes": batch_sizes,
        "layers": layers,
        "mode": mode,
        "protocol": protocol,
        "backend": backend,
        "facts": facts,
        "corpus": corpus,
        "seed": seed,
        "params": params,
        "tokenizer": tokenizer,
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "trust_remote_code": trust_remote_code,
        "revision": revision,
        "layout": layout,
        "tokens_per_batch": tokens_per_batch,
    }
    chosen = chosen_recipe(recipe, listed(model), options)
    loaded = load_dataset(dataset)
    if loaded.left_out:
        log(f"skipped {loaded.left_out} rows that lack a text in one of the languages")
    found = run_sweep(
        chosen,
        loaded,
        out=Path(out),
        cache=None if cache is None else Path(cache),
        save_deltas=save_deltas,
        easyedit=partial(find_easyedit, easyedit_python),
        log=log,
    )
    return found.model_copy(update={"skipped_rows": loaded.left_out})


def _layout(layout: str | Path | Mapping[str, Any] | ModelLayout | None) -> Any:
    """A given layout, or the content of its file.

    Raises:
        ConfigError: The file cannot be read, or has a wrong field.
    """
    if not isinstance(layout, str | Path):
        return layout
    try:
        return TypeAdapter(ModelLayout).validate_python(read_yaml(Path(layout), ConfigError))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the layout"
        raise ConfigError(f"{layout}: {field}: {first['msg']}") from error


_LISTS = {
    "methods": "methods",
    "languages": "languages",
    "batch_sizes": "batch_sizes",
    "mode": "modes",
    "protocol": "protocols",
    "backend": "backends",
}
"""Arguments of `evaluate` that are one value or several: the field of the recipe."""


def chosen_recipe(
    recipe: str | Path | Recipe | None, models: list[Any] | None, options: Mapping[str, Any]
) -> Recipe:
    """A recipe with the given values in place of its own.

    Args:
        recipe: The recipe; None starts from the defaults.
        models: Names; None keeps the recipe's models.
        options: Arguments of :func:`evaluate` by name; None keeps the recipe's value.

    Raises:
        ConfigError: Neither a model nor a recipe is given, or a value or name is invalid.
        UnknownNameError: There is no such recipe.
    """
    if recipe is None and not models:
        raise ConfigError("no model given; specify one (`tiny` needs no download) or a recipe")
    if recipe is None:
        base: dict[str, Any] = {}
    else:
        read = recipe if isinstance(recipe, Recipe) else read_recipe(str(recipe))
        base = read.model_dump()
    given = {name: value for name, value in options.items() if value is not None}
    base |= {field: listed(given.pop(name)) for name, field in _LISTS.items() if name in given}
    base |= {name: given.pop(name) for name in ("facts", "corpus", "seed") if name in given}
    if "layers" in given:
        base["layers"] = _layers(given.pop("layers"))
    if models:
        base["models"] = [{"name": name} for name in models]
    if "layout" in given:
        given["layout"] = _layout(given["layout"])
    base["models"] = [{**one, **given} for one in base["models"]]
    source = str(recipe) if isinstance(recipe, (str, Path)) else "evaluation"
    return parse_recipe(base, source)


def listed(value: Any) -> list[Any] | None:
    """One value or several, as a list."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return [_plain(value)]
    return [_plain(one) for one in value]


def _plain(value: Any) -> Any:
    """Paths as text, and numbers of numpy as numbers of Python."""
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _layers(layers: Iterable[Any] | None) -> list[Any] | None:
    """One list of layers or several, as a list of lists; None in it: the default layers."""
    if layers is None:
        return None
    given = listed(layers) or []
    if given and all(isinstance(layer, int) for layer in given):
        return [given]
    return [None if one is None else listed(one) for one in given]
