"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from helpers.commands import COMMANDS
from helpers.paths import ROOT

from clm_data.cli.commands import app
from clm_data.domain import load_domains
from clm_data.llm import PROVIDERS

PAGES = sorted(
    [
        *ROOT.glob("[A-Z]*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("review/*.md"),
        *ROOT.glob("eval/*.md"),
    ]
)
_COMMAND = re.compile(r"^ {4}(clm-data .+)$|`(clm-data [^`]+)`", re.MULTILINE)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["reference/cli.md", "reference/schema.md"])
def test_a_generated_page_is_what_the_code_gives(page: str) -> None:
    rendered = generator().PAGES[page]()
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == rendered, "run: make docs"


def commands_in(page: Path) -> Iterator[str]:
    for match in _COMMAND.finditer(page.read_text(encoding="utf-8")):
        command = (match.group(1) or match.group(2)).split("   ")[0].split(" && ")[0].strip()
        if "|" not in command and "..." not in command and "[" not in command:
            yield command


def words_after_globals(command: str) -> list[str]:
    words = shlex.split(command, comments=True)[1:]
    while words and words[0] in ("--workspace", "-w"):
        words = words[2:]
    return words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_parses(page: Path) -> None:
    for shown in commands_in(page):
        words = words_after_globals(shown)
        name = next((n for n in COMMANDS if words[: len(n.split())] == n.split()), None)
        if name is None:
            groups = typer.main.get_command(app).commands  # type: ignore[attr-defined]
            assert not words or words[0] in groups or words[0].startswith("-"), shown
            continue
        rest = words[len(name.split()) :]
        if rest:  # a bare name in running text is no invocation
            COMMANDS[name].make_context(name, rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_provider_table_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "how-to" / "real-model.md").read_text(encoding="utf-8")
    rows = {
        cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
        for cells in (line.strip("|").split("|") for line in text.splitlines() if "|" in line)
        if cells[0].strip("` ") in PROVIDERS
    }
    assert rows.keys() == PROVIDERS.keys()
    for name, provider in PROVIDERS.items():
        key, model = rows[name]
        assert (provider.key_variable or "none") in key
        if provider.model is not None and name != "offline":
            assert f"`{provider.model}`" == model


def test_the_example_of_a_domain_of_ones_own_loads(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "custom-domain.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "domains.yaml").write_text(example, encoding="utf-8")
    assert list(load_domains(tmp_path / "domains.yaml")) == ["tea_culture"]
