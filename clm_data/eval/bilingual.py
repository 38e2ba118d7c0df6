"""Texts of the figures and the report, in Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clm_data.domain import Domain, load_domains
from clm_data.records import Language
from clm_data.resources import resource


@dataclass(frozen=True)
class BilingualText:
    """A text in both languages."""

    zh: str
    en: str

    def text(self, lang: Language) -> str:
        """The text in one language."""
        return self.zh if lang == "zh" else self.en


LANGUAGE_NAMES = {
    "zh": BilingualText("中文", "Chinese"),
    "en": BilingualText("英文", "English"),
    "mix": BilingualText("混合", "mix"),
}
"""Editing languages, as in legends and headings."""


def bundled_domains() -> dict[str, Domain]:
    """The domains that ship with the package, by id."""
    return load_domains(resource("domains.yaml"))


def domain_title(name: str | None, domains: Mapping[str, Domain]) -> BilingualText:
    """A domain's title; its id if it is not among the given domains."""
    if name is None or name == "unknown":
        return BilingualText("未注明", "not stated")
    domain = domains.get(name)
    return BilingualText(name, name) if domain is None else BilingualText(domain.zh, domain.en)
