"""Checks of the form and the language of one text."""

from __future__ import annotations

import re

from clm_data.languages import (
    HAN,
    LANGUAGE_INFO,
    OTHER_SCRIPT,
    detect,
    has_han,
    has_latin,
    latin_prose,
    without_titles,
)
from clm_data.records import Language

PROMPTS = ("prompt", "rephrase_prompt")

_BLANK_TO_FILL = re.compile(
    r"_{2,}|＿{2,}|[(（]\s*[)）]|\[\s*\]|【\s*】|\{\s*\}|\[MASK\]|<mask>|\.{3,}|…", re.IGNORECASE
)
_FINAL_MARK = re.compile(r"[.。．!！;；:：,，、]$")
_NAME = re.compile(r"[A-Za-zÀ-ɏ]*[A-ZÀ-Þ][A-Za-zÀ-ɏ'’.-]*")


def why_not_cloze(text: str, subject: str, lang: Language) -> str | None:
    """Describe why a prompt is not a cloze, i.e. a statement that the answer completes.

    Titles and the subject are ignored: 《谁动了我的奶酪》 does not make a prompt a question.

    Returns:
        The reason, or None for a cloze.
    """
    info = LANGUAGE_INFO[lang]
    end = text.rstrip()
    plain = without_titles(end.replace(subject, "＊") if subject else end).strip()
    if plain.endswith(tuple(info.question_marks)):
        return "ends in a question mark"
    if _BLANK_TO_FILL.search(plain):
        return "has a blank to fill in"
    if _FINAL_MARK.search(plain) and not info.abbreviations.search(end):
        return f'ends in "{plain[-1]}"'
    asked = info.question.search(plain)
    return f'asks a question ("{asked[0].strip()}")' if asked else None


def foreign_words(text: str, lang: Language) -> str | None:
    """The first words in a script that does not belong in the text; None if there are none."""
    other = OTHER_SCRIPT.search(text)
    if other:
        return other[0]
    if lang == "en":
        han = re.search(f"{HAN.pattern}+", text)
        return han[0] if han else None
    return " ".join(latin_prose(text)) or None


def is_foreign(text: str, field: str, lang: Language) -> bool:
    """Whether a whole text is in another language.

    Prompts and rephrasings are checked by script and by language detection, ignoring names and
    titles. Subjects and answers are too short for detection and are checked by script only.
    """
    scripts = {"zh": has_han(text), "en": has_latin(text)}
    if not scripts[lang]:
        other = scripts["en"] if lang == "zh" else scripts["zh"]
        short_latin = lang == "zh" and field not in PROMPTS
        return OTHER_SCRIPT.search(text) is not None or (other and not short_latin)
    if field not in PROMPTS:
        return False
    plain = _NAME.sub(" ", without_titles(text)) if lang == "zh" else text
    return detect(plain) not in (None, lang)


def is_untranslated(text: str, field: str, lang: Language) -> bool:
    """Whether a text of a probe is not in the language it should be in.

    Many questions contain foreign titles, so a Chinese question counts as translated if it contains
    any Han character. A Chinese answer may also be a name in Latin letters.
    """
    if lang == "en":
        return has_han(text) and (not has_latin(text) or detect(text) != lang)
    if has_han(text) or not has_latin(text):
        return False
    return field == "loc" or bool(latin_prose(text))
