"""Prompts for chat models, rendered from versioned Jinja templates in a folder.

``generate.{lang}.md.j2`` opens a dialogue, ``more.{lang}.md.j2`` asks for more entries,
``correct.{lang}.md.j2`` asks for corrections, and ``domains/{id}.md`` adds instructions for one
domain (English prompts prefer ``domains/{id}.en.md``). The first line of a template states its
version: ``{# version: 1 #}``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from clm_data.domain import Bilingual, Domain
from clm_data.errors import ConfigError
from clm_data.languages import LANGUAGE_INFO
from clm_data.records import Language
from clm_data.resources import resource

TEMPLATES = ("generate", "more", "correct")

_VERSION = re.compile(r"\A\{#-?\s*version:\s*(\S+)\s*-?#\}")


@dataclass(frozen=True)
class Rendered:
    """A rendered prompt.

    Attributes:
        text: The message.
        hash: sha256 (hex) of ``text``.
        version: Version of the template.
    """

    text: str
    hash: str
    version: str


class Prompts:
    """The templates of one folder in one language.

    Args:
        folder: A folder with the files of the shipped ``prompts/``.
        lang: Language of the prompts. Entries are bilingual either way.

    Raises:
        ConfigError: A template is missing, does not state a version, or is not valid Jinja.
    """

    def __init__(self, folder: Path, lang: Language = "zh") -> None:
        self.folder = folder
        self.lang = lang
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=False,
        )
        sources = {name: _source(folder / f"{name}.{lang}.md.j2") for name in TEMPLATES}
        self.versions: Mapping[str, str] = {
            name: _version(self._file(name), source) for name, source in sources.items()
        }
        self._templates = {
            name: _compile(environment, self._file(name), source)
            for name, source in sources.items()
        }

    def first(
        self, domain: Domain, topic: Bilingual, count: int, used: Sequence[str] = ()
    ) -> Rendered:
        """The message that opens a dialogue.

        Args:
            domain: Domain of the entries.
            topic: One of the domain's ``ask_for``.
            count: Number of entries to ask for.
            used: Subjects that already have an entry. Line breaks in them are removed.

        Raises:
            ConfigError: The template uses an unknown variable, or the file with the domain's
                instructions is missing.
        """
        topics = list(domain.ask_for)
        examples = [example.model_dump() for example in domain.examples]
        return self._render(
            "generate",
            domain=domain,
            topic=topic.text(self.lang),
            number=topics.index(topic) + 1 if topic in topics else 1,
            count=count,
            used=[" ".join(subject.split()) for subject in used],
            addition=self._addition(domain.id),
            examples=json.dumps(examples, ensure_ascii=False, indent=2),
            **LANGUAGE_INFO,
        )

    def more(self, count: int) -> Rendered:
        """The message that asks for ``count`` more entries in the same dialogue."""
        return self._render("more", count=count)

    def correct(self, problems: Sequence[str], count: int, used: Sequence[str] = ()) -> Rendered:
        """The message that asks for corrections.

        Args:
            problems: Descriptions, one line each.
            count: Number of entries to ask for, corrected and new ones together.
            used: As for :meth:`first`.
        """
        lines = [" ".join(subject.split()) for subject in used]
        return self._render("correct", problems=list(problems), count=count, used=lines)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.{self.lang}.md.j2"

    def _render(self, name: str, **values: Any) -> Rendered:
        try:
            text = self._templates[name].render(values).strip() + "\n"
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(f"{self._file(name)}: {_one_line(error)}") from error
        return Rendered(text, hashlib.sha256(text.encode()).hexdigest(), self.versions[name])

    def _addition(self, domain_id: str) -> str:
        """Instructions for one domain; only the shipped domains must have some."""
        names = (
            [f"{domain_id}.md"] if self.lang == "zh" else [f"{domain_id}.en.md", f"{domain_id}.md"]
        )
        for name in names:
            file = self.folder / "domains" / name
            if file.is_file():
                return _source(file).strip()
        if resource("prompts", "domains").joinpath(f"{domain_id}.md").is_file():
            file = self.folder / "domains" / f"{domain_id}.md"
            raise ConfigError(f"{file} is missing; copy the shipped file or create an empty one")
        return ""


def _source(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"prompt template {file} is missing; copy the shipped file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as UTF-8 text: {_one_line(error)}") from error


def _version(file: Path, source: str) -> str:
    found = _VERSION.match(source)
    if found is None:
        raise ConfigError(f"{file}: the first line must state a version: {{# version: 1 #}}")
    return found[1]


def _compile(environment: jinja2.Environment, file: Path, source: str) -> jinja2.Template:
    try:
        return environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{file}, line {error.lineno}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
