"""Workspaces and their settings.

A workspace is a folder with ``clm.yaml`` (settings) and ``clm.db`` (the store, unless the setting
``store`` names another one). A flag overrides the environment (``CLM_DATA_*``), which overrides
``clm.yaml``, which overrides the default. API keys are not settings: they come from the environment
and are never written.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field, ValidationError

from clm_data.domain import Domain, FromYaml, load_domains
from clm_data.drafts import draft_folder
from clm_data.errors import ConfigError, UnknownNameError
from clm_data.files import atomic_file, read_yaml
from clm_data.records import Frozen
from clm_data.resources import resource

if TYPE_CHECKING:
    from clm_data.store import Store

CONFIG_NAME = "clm.yaml"
STORE_NAME = "clm.db"
_TOP_LEVEL_ENV = ("store", "provider", "model", "base_url")


class PriceSettings(FromYaml):
    """Price of a model per million tokens, for models whose price is not known."""

    prompt: float = Field(ge=0, allow_inf_nan=False)
    """Price of a million tokens sent."""
    completion: float = Field(ge=0, allow_inf_nan=False)
    """Price of a million tokens received, reasoning included."""
    currency: str = Field("USD", min_length=1)


class GenerationSettings(FromYaml):
    """How chat models are queried."""

    entries_per_turn: int = Field(5, ge=1, le=50)
    turns: int = Field(3, ge=1, le=20)
    """Turns per dialogue, including corrections."""
    dialogues_at_once: int = Field(4, ge=1, le=64)
    """Dialogues planned together for one domain. Each starts from a different topic."""
    concurrency: int = Field(16, ge=1, le=512)
    """Maximum number of concurrent requests, over all domains."""
    timeout: float = Field(600.0, gt=0)
    """Seconds to wait for an answer."""
    attempts: int = Field(6, ge=1, le=50)
    """Maximum number of tries for a request that fails with a transient error."""
    max_pause: float = Field(600.0, ge=0)
    """Longest pause (seconds) that an endpoint may ask for; the run stops if it asks for more."""
    max_tokens: int | None = Field(None, ge=1)
    """Maximum tokens of an answer, reasoning included. If it is set, an answer that is cut off is
    asked for again with twice as many, at most twice. None: the endpoint's own limit."""
    price: PriceSettings | None = None
    """Price of the model: ``{prompt: 0.5, completion: 2, currency: USD}`` per million tokens.
    None: the price that this version knows, if any."""
    dry_waves: int = Field(2, ge=1, le=10)
    """Stop a domain after this many consecutive batches of dialogues with no new entries."""


class DedupSettings(FromYaml):
    """What counts as a near-duplicate."""

    threshold: float = Field(0.9, ge=0.5, le=1.0)
    """An entry that is *more* similar than this to an earlier one is removed."""
    field: str = Field("zh.prompt", pattern=r"^(zh|en)\.(prompt|rephrase_prompt)$")
    policy: Literal["keep-first", "by-subject"] = "keep-first"
    """``by-subject`` keeps near-duplicates with different subjects and warns reviewers of them."""


class LocalitySettings(FromYaml):
    """Source of the locality probes."""

    source: str = "bank"
    """``bank``, a file, or ``hub:ID``."""
    seed: int = 42
    repeat: bool = False
    """Reuse probes if there are fewer probes than entries."""
    encoding: str | None = Field(None, exclude_if=lambda value: value is None)
    """Encoding of the source's files. None: found if it is certain."""


class DatasetSettings(FromYaml):
    """Facts for the dataset card that cannot be computed."""

    name: str = Field("clm-counterfactuals", min_length=1)
    title: str = "Chinese-first bilingual counterfactuals"
    licence: str = "unknown"
    """License under which you publish the dataset (Hub identifier)."""
    seed: int = 42


class Settings(FromYaml):
    """All settings of ``clm.yaml``."""

    store: str = f"sqlite:///{STORE_NAME}"
    """SQLAlchemy URL. A relative SQLite path is relative to the workspace."""
    provider: str = "deepseek"
    model: str | None = None
    """None for the provider's default."""
    base_url: str | None = None
    """None for the provider's own URL."""
    generation: GenerationSettings = GenerationSettings()
    dedup: DedupSettings = DedupSettings()
    locality: LocalitySettings = LocalitySettings()
    dataset: DatasetSettings = DatasetSettings()


class TemporaryFolder:
    """A new folder that is deleted when nothing refers to this object any longer."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="clm-data-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def __deepcopy__(self, memo: Any) -> TemporaryFolder:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # another process does not delete the folder


@dataclass(frozen=True)
class Workspace:
    """A workspace folder and its settings."""

    path: Path
    settings: Settings
    temporary: TemporaryFolder | None = field(default=None, compare=False, repr=False)
    """Keeps a temporary folder as long as a workspace or a copy with other settings uses it."""

    @property
    def store_url(self) -> str:
        """The store's URL with a relative SQLite path made absolute.

        Raises:
            ConfigError: The store is an in-memory database, which would lose paid answers.
        """
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        given = self.settings.store
        try:
            url = make_url(given)
        except (ArgumentError, ValueError):
            return given  # Store reports what is wrong with it
        if url.get_backend_name() != "sqlite":
            return given
        name = url.database or ":memory:"
        if name == ":memory:":
            raise ConfigError(
                f"setting 'store': '{given}' is in memory; use a file: sqlite:///{STORE_NAME}"
            )
        if name.startswith("file:") or Path(name).is_absolute():
            return given
        # Rendered, not joined: a folder name may contain characters with a meaning in URLs.
        place = url.set(database=str((self.path / name).resolve()))
        return place.render_as_string(hide_password=False)

    @property
    def domains_file(self) -> Path:
        """``domains.yaml`` of the workspace if it has one, else the shipped file."""
        own = self.path / "domains.yaml"
        return own if own.is_file() else resource("domains.yaml")

    @property
    def prompts_folder(self) -> Path:
        """``prompts/`` of the workspace if it has one, else the shipped folder."""
        own = self.path / "prompts"
        return own if own.is_dir() else resource("prompts")

    def with_settings(self, **changes: Any) -> Workspace:
        """The workspace with some top-level settings replaced; `clm.yaml` is not changed.

        Raises:
            ConfigError: A setting is wrong.
        """
        values = self.settings.model_dump() | changes
        return replace(self, settings=parse_settings(values, str(self.path / CONFIG_NAME)))

    def use_locality(self, locality: LocalitySettings) -> None:
        """Save the source of the probes in `clm.yaml`, and use it from now on.

        Raises:
            ConfigError: `clm.yaml` cannot be edited.
        """
        save_locality(self.path, locality)
        changed = self.settings.model_copy(update={"locality": locality})
        object.__setattr__(self, "settings", changed)

    def domains(self) -> dict[str, Domain]:
        """Read the domains by id, in file order.

        Raises:
            ConfigError: The domain file is unreadable or wrong.
        """
        return load_domains(self.domains_file)

    def open_store(self, *, create: bool = False) -> Store:
        """Open the store; close it or use it in a ``with`` block.

        Args:
            create: Create it if it does not exist. A file of 0 bytes is a store that was lost.

        Raises:
            ConfigError: The store is an in-memory database.
            StoreError: It cannot be opened, has another schema version, or does not exist.
        """
        from clm_data.store import Store, is_emptied

        return Store(self.store_url, create=create and not is_emptied(self.store_url))


def open_workspace(
    path: Path | None = None,
    *,
    create: bool = False,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Workspace:
    """Open the workspace in a folder.

    Args:
        path: The folder. Defaults to ``CLM_DATA_WORKSPACE``, then to the current folder.
        create: Write a default ``clm.yaml`` if it is missing.
        overrides: Top-level settings that take precedence. None values are ignored.
        environ: Environment variables.

    Raises:
        ConfigError: The folder is not a workspace, or a setting is wrong.
    """
    folder = path or Path(environ.get("CLM_DATA_WORKSPACE") or ".")
    file = folder / CONFIG_NAME
    if not file.is_file():
        if not create:
            where = "the current folder" if folder == Path() else str(folder)
            raise ConfigError(
                f"no {CONFIG_NAME} in {where}; create a workspace with: clm-data init {folder}"
            )
        write_default_config(folder)
    values = _read_yaml(file)
    values |= {
        name: environ[f"CLM_DATA_{name.upper()}"]
        for name in _TOP_LEVEL_ENV
        if environ.get(f"CLM_DATA_{name.upper()}")
    }
    values |= {name: value for name, value in (overrides or {}).items() if value is not None}
    return Workspace(folder, parse_settings(values, str(file)))


def parse_settings(values: Mapping[str, Any], where: str) -> Settings:
    """Validate settings.

    Args:
        values: As read from YAML.
        where: Name of the source, for error messages.

    Raises:
        ConfigError: A setting is unknown or has a wrong value.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: {_unknown_setting(name)}") from error
        raise ConfigError(f"{where}: setting '{name}': {first['msg']}") from error


def _unknown_setting(name: str) -> str:
    section = name.rpartition(".")[0]
    if section not in Settings.model_fields:  # a name with a dot of its own
        section = name.partition(".")[0] if name.partition(".")[0] in Settings.model_fields else ""
    default = getattr(Settings(), section) if section else Settings()
    if not isinstance(default, Frozen):  # such as `provider.`, next to a setting with one value
        section, default = "", Settings()
    known = [f"{section}.{key}" if section else key for key in type(default).model_fields]
    return str(UnknownNameError("setting", name, known))


def write_default_config(folder: Path) -> Path:
    """Write a ``clm.yaml`` with the most common settings and return its path.

    Raises:
        ConfigError: The folder cannot be created.
    """
    make_folder(folder)
    file = folder / CONFIG_NAME
    defaults = Settings()
    text = (
        "# Settings of this workspace; docs/reference/schema.md lists them all.\n"
        "# Also: siliconflow, openrouter, dashscope, vllm, ollama, custom, offline.\n"
        f"provider: {defaults.provider}\n"
        "dataset:\n"
        f"  name: {defaults.dataset.name}\n"
        f"  title: {defaults.dataset.title}\n"
        f"  licence: {defaults.dataset.licence}\n"
    )
    with atomic_file(file, overwrite=True) as draft:
        draft.write_text(text, encoding="utf-8")
    return file


def make_folder(folder: Path) -> None:
    """Create the folder of a workspace if it is missing.

    Raises:
        ConfigError: It cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: {error.strerror}; check the path, its permissions and the free space"
        ) from error


def save_locality(folder: Path, settings: LocalitySettings) -> None:
    """Write the locality section of ``clm.yaml``, keeping other settings and comments.

    Raises:
        ConfigError: ``clm.yaml`` cannot be read, or has a form that only a person can edit safely.
        InputFileError: It cannot be written.
    """
    file = folder / CONFIG_NAME
    section = {"locality": settings.model_dump()}
    expected = _read_yaml(file) | section
    new = yaml.safe_dump(section, allow_unicode=True, sort_keys=False)
    text = _with_section(file.read_text(encoding="utf-8"), "locality", new)
    with atomic_file(file, overwrite=True) as draft:
        draft.write_text(text, encoding="utf-8")
        try:
            as_expected = _read_yaml(draft) == expected
        except ConfigError:
            as_expected = False
        if not as_expected:
            lines = "; ".join(new.splitlines())
            raise ConfigError(f"{file}: cannot be edited automatically; set it by hand: {lines}")


def _with_section(text: str, name: str, section: str) -> str:
    """YAML text with one top-level section replaced, or appended if it is missing."""
    before: list[str] = []
    after: list[str] = []
    found = inside = False
    for line in text.splitlines(keepends=True):
        if re.match(rf"{name}\s*:", line):
            found = inside = True
        elif not inside or not (line.isspace() or line[0] in " \t"):
            inside = False
            (after if found else before).append(line)
    if before and not before[-1].endswith("\n"):
        before.append("\n")
    return "".join([*before, section, *after])


def copy_domains(folder: Path) -> list[Path]:
    """Copy the shipped ``domains.yaml`` and ``prompts/`` into a workspace for editing, or neither.

    Raises:
        ConfigError: The workspace already has one of them. Nothing is copied.
    """
    targets = [folder / "domains.yaml", folder / "prompts"]
    for target in targets:
        if target.exists():
            raise ConfigError(f"{target} already exists; move it away to get a fresh copy")
    try:
        with draft_folder(targets[1]) as draft:
            shutil.copytree(resource("prompts"), draft, dirs_exist_ok=True)
            with atomic_file(targets[0]) as domains:
                shutil.copyfile(resource("domains.yaml"), domains)
            draft.rename(targets[1])
    except shutil.Error as error:
        source, target, reason = error.args[0][0]
        raise ConfigError(f"{target}: cannot be copied from {source}: {reason}") from error
    return targets


def _read_yaml(file: Path) -> dict[str, Any]:
    values = read_yaml(file, ConfigError)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected 'name: value' lines, found a {type(values).__name__}")
    return values
