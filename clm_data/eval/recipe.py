"""Recipes: what a sweep computes, as a YAML file or from flags."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from clm_data.errors import ConfigError, UnknownNameError
from clm_data.eval.editors import METHODS
from clm_data.eval.results import EditLanguage, Mode, Setting
from clm_data.files import read_yaml
from clm_data.records import Frozen
from clm_data.resources import resource


class ModelSpec(Frozen):
    """A model of a recipe."""

    name: str
    """Hub id, folder, ``gguf:FILE``, or ``tiny``: a small model trained here on the dataset."""
    label: str | None = None
    """As in tables; the default is the last part of the name."""
    params: str | None = None
    """Whose hyperparameters to take (``llama-3-8b``); the default is told from the name."""
    tokenizer: str | None = None
    """Where it is not the model's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    device_map: str | None = None
    tokens_per_batch: int = Field(4096, ge=64)
    """Bounds memory: tokens run at once."""

    @property
    def shown(self) -> str:
        """The label, or the last part of the name."""
        return self.label or self.name.rstrip("/").rpartition("/")[2] or self.name

    @property
    def is_tiny(self) -> bool:
        """Whether it is the small model that is trained here."""
        return self.name == "tiny"

    @property
    def params_name(self) -> str:
        """Whose hyperparameters to take."""
        return self.params or guess_params(self.name)


class Recipe(Frozen):
    """A grid: every combination of its lists is a cell."""

    title: str = "Evaluation"
    about: str = ""
    """What the sweep shows, and what it takes."""
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field(("memit",), min_length=1)
    languages: tuple[EditLanguage, ...] = Field(("zh", "en", "mix"), min_length=1)
    batch_sizes: tuple[Annotated[int, Field(ge=1)] | Literal["all"], ...] = Field(
        ("all",), min_length=1
    )
    """Facts edited at once; ``all``: every record."""
    layers: tuple[tuple[int, ...] | None, ...] = Field((None,), min_length=1)
    """Edited layers; null: the hyperparameters' own."""
    modes: tuple[Mode, ...] = Field(("batch",), min_length=1)
    protocols: tuple[str, ...] = Field(("native",), min_length=1)
    facts: int | None = Field(None, ge=1)
    """Only the first so many records; null: all."""
    max_batches: int | None = Field(None, ge=1)
    """Only the first so many batches of each cell; null: all. The paper has one."""
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By method: hyperparameters that differ from the model's own. Those of the target values
    stand under ``values``."""
    corpus: str = "auto"
    """Text for second moments: ``auto``, ``bank``, ``dataset``, a file, or ``hub:ID``."""
    corpus_texts: int = Field(100_000, ge=1)
    """Texts of the corpus that count, at most."""
    generate: bool = True
    """Whether to measure free generation, too."""
    checkpoints: int = Field(10, ge=0)
    """Measurements along a sequential run."""
    seed: int = 42
    """Of contexts and bootstrap."""
    resamples: int = Field(1000, ge=0)
    """Of the bootstrap."""

    @model_validator(mode="after")
    def _labels_differ(self) -> Recipe:
        labels = [model.shown for model in self.models]
        if len(set(labels)) < len(labels):
            raise ValueError("two models have one label; give them labels that differ")
        return self

    @model_validator(mode="after")
    def _params_of_methods(self) -> Recipe:
        unknown = sorted(self.params.keys() - METHODS.keys())
        if unknown:
            raise ValueError(f"params of {unknown[0]}, which is none of {', '.join(METHODS)}")
        return self

    def settings(self, records: int) -> list[tuple[ModelSpec, Setting]]:
        """The cells, model by model, for a dataset of so many records."""
        grid = product(
            self.models, self.protocols, self.modes, self.methods,
            self.layers, self.batch_sizes, self.languages,
        )  # fmt: skip
        cells: dict[Setting, ModelSpec] = {}
        for model, protocol, mode, method, layers, size, language in grid:
            facts = 1 if mode == "single" else records if size == "all" else size
            setting = Setting(
                model=model.shown,
                method=method,
                language=language,
                batch_size=facts,
                layers=layers,
                mode=mode,
                protocol=protocol,
            )
            cells.setdefault(setting, model)
        return [(model, setting) for setting, model in cells.items()]


def read_recipe(name: str) -> Recipe:
    """A recipe by the name of a bundled one (``table1``), or from a file.

    Raises:
        ConfigError: No such file, or it is not a recipe; says which field is wrong.
        UnknownNameError: No bundled recipe of that name.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        folder = resource("eval", "recipes")
        path = folder / f"{name}.yaml"
        if not path.is_file():
            raise UnknownNameError("recipe", name, bundled())
    return as_recipe(read_yaml(path, ConfigError), str(path))


def bundled() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.stem for file in resource("eval", "recipes").glob("*.yaml"))


def as_recipe(value: Any, where: str) -> Recipe:
    """A recipe from plain data.

    Raises:
        ConfigError: It is not one; ``where`` opens the message.
    """
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the recipe"
        raise ConfigError(f"{where}: {field}: {first['msg']}") from error


def guess_params(name: str) -> str:
    """The name under which a model's hyperparameters are kept, told from the model's name.

    Raises:
        UnknownNameError: It tells nothing; name one with ``--params``.
    """
    plain = "".join(c for c in name.lower() if c.isalnum())
    for words, known in _KNOWN:
        if all(word in plain for word in words):
            return known
    raise UnknownNameError("model family (name one with --params)", name, _families())


_KNOWN: tuple[tuple[tuple[str, ...], str], ...] = (
    (("tiny",), "tiny"),
    (("smollm2",), "smollm2-135m"),
    (("llama2", "chinese"), "llama2-chinese-7b"),
    (("llama3", "8b"), "llama-3-8b"),
    (("llama31", "8b"), "llama-3-8b"),
    (("qwen2", "7b"), "qwen2-7b"),
    (("mistral", "7b"), "mistral-7b"),
)
"""Words of a model's name, and whose hyperparameters fit it; the first that fits counts."""


def _families() -> Iterable[str]:
    return {known for _, known in _KNOWN}
