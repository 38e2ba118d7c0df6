"""The domains of a dataset: topics, quotas, and what to avoid."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from clm_data.errors import ConfigError, UnknownNameError
from clm_data.files import read_yaml
from clm_data.records import Fact, Frozen, Language


class FromYaml(Frozen):
    """A part of a YAML file, where ``true`` is not the number 1."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        expected = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and expected in (int, float, int | None, float | None):
            raise PydanticCustomError("no_number", f"expected a number, found {str(value).lower()}")
        return value


class Bilingual(Frozen):
    """A text in Chinese and English."""

    zh: str = Field(min_length=1)
    en: str = Field(min_length=1)

    def text(self, lang: Language) -> str:
        """The text in one language."""
        return self.zh if lang == "zh" else self.en


class Example(Frozen):
    """A worked example: one counterfactual in two languages."""

    zh: Fact
    en: Fact


class Domain(FromYaml):
    """One domain of ``domains.yaml``."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)
    zh: str = Field(min_length=1)
    en: str = Field(min_length=1)
    quota: int = Field(ge=1)
    """Number of entries to generate."""
    ask_for: tuple[Bilingual, ...] = Field(min_length=1)
    """Topics. Successive dialogues start from different ones."""
    avoid: tuple[Bilingual, ...] = ()
    examples: tuple[Example, ...] = Field(min_length=1)


def load_domains(file: Path) -> dict[str, Domain]:
    """Read a domain file. The order in the file is the order in the dataset.

    Returns:
        Domains by id.

    Raises:
        ConfigError: The file is unreadable, a field is wrong, or an id is used twice.
    """
    rows = read_yaml(file, ConfigError)
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{file}: expected a list of domains")
    domains: dict[str, Domain] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("id", f"number {number}") if isinstance(row, dict) else f"number {number}"
        try:
            domain = Domain.model_validate(row)
        except ValidationError as error:
            raise ConfigError(f"{file}: domain {name}, {_first_problem(error)}") from error
        if domain.id in domains:
            raise ConfigError(f"{file}: domain id '{domain.id}' is used twice; rename one")
        domains[domain.id] = domain
    return domains


def _first_problem(error: ValidationError) -> str:
    """Place and reason of the first problem, with what to do."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "entry"
    if first["type"] == "extra_forbidden":
        inner: type[Frozen] = Domain
        for part in first["loc"][:-1]:
            inner = _PARTS.get(str(part), inner)
        return f"{place}: {UnknownNameError('key', str(first['loc'][-1]), inner.model_fields)}"
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
        return f"{place}: expected text, found {first['input']}; put it in quotation marks"
    return f"{place}: {first['msg']}"


_PARTS: dict[str, type[Frozen]] = {
    "ask_for": Bilingual,
    "avoid": Bilingual,
    "examples": Example,
    "zh": Fact,
    "en": Fact,
}
"""Types of the objects inside a domain, by key."""


def pick(domains: dict[str, Domain], ids: Iterable[str]) -> list[Domain]:
    """The domains with the given ids, in file order.

    Raises:
        UnknownNameError: There is no domain with one of the ids.
    """
    wanted = set(ids)
    for name in sorted(wanted):
        if name not in domains:
            raise UnknownNameError("domain", name, domains)
    return [domain for domain in domains.values() if domain.id in wanted]
