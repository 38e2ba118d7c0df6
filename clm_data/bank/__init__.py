"""The bundled bank: original bilingual entries, locality probes, and deliberate defects.

The offline provider answers from it, and locality probes come from it by default. Nothing is
cached: each call reads its file again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError, model_validator

from clm_data.codes import CODES
from clm_data.errors import ConfigError, UnknownNameError
from clm_data.files import read_yaml
from clm_data.records import Fact, Frozen, LooseFact
from clm_data.resources import bank_path

BANK_VERSION = "bank-1"
BANK_LICENSE = "apache-2.0"
"""License of everything in the bank, which is part of this project."""

T = TypeVar("T", bound=Frozen)


class BankEntry(Frozen):
    """A counterfactual whose facts have been checked."""

    zh: Fact
    en: Fact
    basis: str
    """Why ``ground_truth`` is true, in one line."""


class Defect(Frozen):
    """A deliberately wrong reply that must be reported with one code.

    Holds either facts, or raw text that is not an entry.
    """

    domain: str
    code: str
    """A code of :data:`~clm_data.codes.CODES`. With a warning, the fact is true and is kept."""
    zh: LooseFact | None = None
    en: LooseFact | None = None
    raw: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Defect:
        if self.code not in CODES:
            raise UnknownNameError("code", self.code, CODES)
        if (self.raw is None) == (self.zh is None and self.en is None):
            raise ValueError("give either facts or raw text")
        return self


def domain_ids() -> list[str]:
    """Ids of the domains that the bank has entries for, sorted."""
    return sorted(file.stem for file in bank_path("entries").glob("*.yaml"))


def load_domain(domain: str) -> tuple[BankEntry, ...]:
    """The entries of one domain, in file order.

    Raises:
        UnknownNameError: The bank has no entries for the domain.
    """
    if domain not in domain_ids():
        raise UnknownNameError("bank domain", domain, domain_ids())
    return _load(BankEntry, "entries", f"{domain}.yaml")


def load_defects() -> tuple[Defect, ...]:
    """The deliberately wrong replies, in file order."""
    return _load(Defect, "defects.yaml")


def _load(model: type[T], *parts: str) -> tuple[T, ...]:
    rows: Sequence[Any] = read_yaml(bank_path(*parts), ConfigError)
    try:
        return tuple(model.model_validate(row) for row in rows)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"bank file {'/'.join(parts)}: {field}: {first['msg']}") from error
