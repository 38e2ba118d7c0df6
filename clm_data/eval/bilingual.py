"""Texts of figures and the report in both languages."""

from __future__ import annotations

from dataclasses import dataclass

from clm_data.records import Language


@dataclass(frozen=True)
class Words:
    """A text in both languages."""

    zh: str
    en: str

    def text(self, lang: Language) -> str:
        """In one language."""
        return self.zh if lang == "zh" else self.en


LANGUAGE_NAMES = {
    "zh": Words("中文", "Chinese"),
    "en": Words("英文", "English"),
    "mix": Words("混合", "mix"),
}
