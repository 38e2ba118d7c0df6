"""Recipes: the grid of a sweep, read from YAML or built from arguments."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clm_data.errors import ConfigError, UnknownNameError
from clm_data.eval.editors import METHODS
from clm_data.eval.model.layout import ModelLayout
from clm_data.eval.omitted import OmitsDefaults
from clm_data.eval.results import Backend, EditLanguage, Mode, Setting
from clm_data.files import read_yaml
from clm_data.resources import resource


class ModelSpec(OmitsDefaults):
    """A model of a recipe."""

    OMITTED: ClassVar[tuple[str, ...]] = ("revision", "layout")

    name: str
    """Hub id, folder, `gguf:FILE`, or `tiny`, a small model that is trained on the dataset."""
    label: str | None = None
    """Name in tables; default: the last part of `name`, and `@revision` if there is one."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; default: its main branch."""
    layout: ModelLayout | None = None
    """Names of the model's parts, as in :class:`ModelLayout`, if `clm-data` does not know them."""
    params: str | None = None
    """Name of the hyperparameters (`llama-3-8b`); default: by the model's config."""
    tokenizer: str | None = None
    """Folder or Hub id; default: the model's own tokenizer."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    """Default: the first GPU, otherwise the CPU."""
    device_map: str | None = None
    """`auto` spreads the layers over several GPUs."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model or its tokenizer."""
    tokens_per_batch: Annotated[int, Field(ge=64)] | Literal["auto"] = "auto"
    """Maximum tokens per forward pass, which bounds memory; `auto`: as many as fit in half of a
    GPU's free memory, 4096 on a CPU."""

    @field_validator("tokens_per_batch", mode="wrap")
    @classmethod
    def _one_reason(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """One message, where both parts of the union would have one."""
        try:
            return validate(value)
        except ValidationError as error:
            reason = "must be a whole number of at least 64, or auto"
            raise PydanticCustomError("tokens_per_batch", reason) from error

    @property
    def shown(self) -> str:
        """The label, or the last part of the name."""
        last = self.name.rstrip("/").rpartition("/")[2] or self.name
        return self.label or (f"{last}@{self.revision}" if self.revision else last)

    @property
    def is_tiny(self) -> bool:
        """Whether this is the small model that is trained on the dataset."""
        return self.name == "tiny"


class Recipe(OmitsDefaults):
    """A grid of cells: one for every combination of the listed values."""

    OMITTED: ClassVar[tuple[str, ...]] = ("backends",)
    title: str = "Evaluation"
    about: str = ""
    """What the sweep shows and what it needs, in a few sentences."""
    models: tuple[ModelSpec, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field(("memit",), min_length=1)
    languages: tuple[EditLanguage, ...] = Field(("zh", "en", "mix"), min_length=1)
    batch_sizes: tuple[Annotated[int, Field(ge=1)] | Literal["all"], ...] = Field(
        ("all",), min_length=1
    )
    """Facts per edit; `all`: the whole dataset."""
    layers: tuple[tuple[int, ...] | None, ...] = Field((None,), min_length=1)
    """Edited layers; null: those of the hyperparameters."""
    modes: tuple[Mode, ...] = Field(("batch",), min_length=1)
    protocols: tuple[str, ...] = Field(("native",), min_length=1)
    """Default: `native`; `easyedit` if `backends` has `easyeditor`, which edits with no other."""
    backends: tuple[Backend, ...] = Field(("clm-data",), min_length=1)
    """What computes the edits: `clm-data`, or `easyeditor`, EasyEdit in its own environment."""
    facts: int | None = Field(None, ge=1)
    """Use only the first N records; null: all."""
    max_batches: int | None = Field(None, ge=1)
    """Edit only the first N batches of each cell; null: all. The paper edits one."""
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Changes to the hyperparameters, by method. Those of the target values are in the group
    `values`."""
    corpus: str = "auto"
    """Text for second moments: `bank`, `dataset`, a file, or `hub:ID`; `auto` is the bank, and for
    the tiny model its records if they have enough text."""
    corpus_texts: int = Field(100_000, ge=1)
    """Maximum number of texts per language."""
    generate: bool = True
    """Whether to generate free continuations as well, for `exact_match`."""
    checkpoints: int = Field(10, ge=0)
    """Number of measurements during a sequential run."""
    seed: int = Field(42, ge=0, lt=2**64)
    """Random seed of contexts and bootstrap."""
    resamples: int = Field(1000, ge=0)
    """Number of bootstrap resamples."""

    @model_validator(mode="before")
    @classmethod
    def _protocol_of_easyedit(cls, value: Any) -> Any:
        if isinstance(value, dict) and "easyeditor" in (value.get("backends") or ()):
            return {"protocols": ("easyedit",), **value}
        return value

    @model_validator(mode="after")
    def _labels_differ(self) -> Recipe:
        labels = [model.shown for model in self.models]
        if len(set(labels)) < len(labels):
            raise ValueError("two models have the same label; give them different labels")
        return self

    @model_validator(mode="after")
    def _params_of_methods(self) -> Recipe:
        unknown = sorted(self.params.keys() - METHODS.keys())
        if unknown:
            raise ValueError(f"params of {unknown[0]}, which is not one of {', '.join(METHODS)}")
        return self

    def settings(self, records: int) -> list[tuple[ModelSpec, Setting]]:
        """The cells, grouped by model.

        Args:
            records: Number of records in the dataset.
        """
        grid = product(
            self.models, self.protocols, self.modes, self.methods,
            self.layers, self.batch_sizes, self.languages, self.backends,
        )  # fmt: skip
        cells: dict[Setting, ModelSpec] = {}
        for model, protocol, mode, method, layers, size, language, backend in grid:
            facts = 1 if mode == "single" else records if size == "all" else size
            setting = Setting(
                model=model.shown,
                method=method,
                language=language,
                batch_size=facts,
                layers=layers,
                mode=mode,
                protocol=protocol,
                backend=backend,
            )
            cells.setdefault(setting, model)
        return [(model, setting) for setting, model in cells.items()]


def read_recipe(name: str) -> Recipe:
    """Read a bundled recipe or a file.

    Args:
        name: Name of a bundled recipe (`table1`), or a file that ends in `.yaml` or `.yml`.

    Raises:
        ConfigError: The file does not exist, or a field is invalid; the message names it.
        UnknownNameError: There is no bundled recipe of that name.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        folder = resource("eval", "recipes")
        path = folder / f"{name}.yaml"
        if not path.is_file():
            raise UnknownNameError("recipe", name, bundled_recipes())
    return parse_recipe(read_yaml(path, ConfigError), str(path))


def bundled_recipes() -> list[str]:
    """Names of the bundled recipes."""
    return sorted(file.stem for file in resource("eval", "recipes").glob("*.yaml"))


def parse_recipe(value: Any, source: str) -> Recipe:
    """Validate plain data as a recipe.

    Args:
        value: A mapping, as read from YAML.
        source: Where it comes from, for error messages.

    Raises:
        ConfigError: A field is invalid; the message names it.
    """
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the recipe"
        raise ConfigError(f"{source}: {field}: {first['msg']}") from error
