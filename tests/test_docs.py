"""The documentation says what the code does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from helpers.commands import COMMANDS
from helpers.paths import ROOT, docs_script
from helpers.tutorials import blocks_of

import clm_data
from clm_data import json_schema
from clm_data.cli.commands import app
from clm_data.domain import load_domains
from clm_data.eval import results
from clm_data.llm import PROVIDERS
from clm_data.store import SCHEMA_VERSION

DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *ROOT.glob("[A-Z]*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("review/*.md"),
        *ROOT.glob("eval/*.md"),
    ]
)
_COMMAND = re.compile(r"^ {4}(clm-data .+)$|`(clm-data [^`]+)`", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# --- what the pages show


def commands_in(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    shown = [match[1] or match[2] for match in _COMMAND.finditer(text)]
    for block in blocks_of(page):
        if block.language in ("bash", "console"):
            lines = [line.removeprefix("$ ") for line in block.text.splitlines()]
            shown += [line for line in lines if line.startswith("clm-data ")]
    for line in shown:
        command = line.split("   ")[0].split(" && ")[0].strip()
        if "|" not in command and "..." not in command and "[" not in command:
            yield command


def words_after_globals(command: str) -> list[str]:
    words = shlex.split(command, comments=True)[1:]
    while words and words[0] in ("--workspace", "-w"):
        words = words[2:]
    return words


@pytest.mark.parametrize("page", PAGES, ids=page_id)
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


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_that_is_shown_compiles(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python":
            code = block.text.rstrip().removesuffix(",")
            if code.startswith("def ") and code.endswith('"""'):
                code += "\n    ..."
            compile(code, f"{page_id(page)}, line {block.line}", "exec")


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain.lower())).strip("-")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_to_a_page_and_a_heading(page: Path) -> None:
    for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
        if ":" in target or target.startswith("../../actions/"):  # a page of the code host
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            headings = _HEADING.findall(file.read_text(encoding="utf-8"))
            assert anchor in {slug(heading) for heading in headings}, f"{target}#{anchor}"


# --- pages that repeat what the code knows


@pytest.mark.parametrize("page", sorted(docs_script("generate").PAGES))
def test_a_generated_page_is_what_the_code_gives(page: str) -> None:
    rendered = docs_script("generate").PAGES[page]()
    assert (DOCS / page).read_text(encoding="utf-8") == rendered, "run: make docs"


def test_the_provider_table_is_that_of_the_code() -> None:
    rows = {
        cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
        for cells in (
            line.strip("|").split("|")
            for line in read("docs/how-to/real-model.md").splitlines()
            if "|" in line
        )
        if cells[0].strip("` ") in PROVIDERS
    }
    assert rows.keys() == PROVIDERS.keys()
    for name, provider in PROVIDERS.items():
        key, model = rows[name]
        assert (provider.key_variable or "none") in key
        if provider.model is not None and name != "offline":
            assert f"`{provider.model}`" == model


def test_the_example_of_a_custom_domain_loads(tmp_path: Path) -> None:
    text = read("docs/how-to/custom-domain.md")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "domains.yaml").write_text(example, encoding="utf-8")
    assert list(load_domains(tmp_path / "domains.yaml")) == ["tea_culture"]


def test_the_page_of_versions_has_the_versions_of_the_code() -> None:
    shown = re.findall(r"\| `([^`]+)` \|", read("docs/reference/versioning.md"))
    current = [clm_data.__version__, json_schema.VERSION, SCHEMA_VERSION, results.VERSION]
    assert shown == [str(version) for version in current]


def test_the_python_page_has_every_public_name() -> None:
    text = read("docs/reference/python.md")
    names = [name for name in clm_data.__all__ if not name.startswith("_")]
    shown = [
        name for name in names if re.search(rf"^::: clm_data\.{name}$|`[\w.]*\b{name}`", text, re.M)
    ]
    assert shown == names


def test_the_security_page_names_every_key() -> None:
    text = read("SECURITY.md")
    keys = {provider.key_variable for provider in PROVIDERS.values()} - {None}
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == clm_data.__version__
    assert {"message", "title", "authors", "references"} <= citation.keys()


FOR_CONTRIBUTORS = ["CONTRIBUTING.md", *sorted(map(page_id, DOCS.glob("how-to/add-*.md")))]


@pytest.mark.parametrize("page", [page_id(page) for page in PAGES])
def test_files_that_a_page_names_exist(page: str) -> None:
    for path in re.findall(r"`((?:clm_data|tests|docs|review)/[^`\s]*)`", read(page)):
        if not re.search("ID|LANG|mymethod|[*{]", path):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", FOR_CONTRIBUTORS)
def test_names_that_contributors_should_look_up_are_in_their_files(page: str) -> None:
    for name, path in re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", read(page)):
        if "/" in path:
            assert re.search(rf"\b{name}\b", read(path)), f"{name} in {path}"


@pytest.mark.parametrize("page", FOR_CONTRIBUTORS)
def test_names_of_the_code_that_guides_use_exist(page: str) -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in ROOT.glob("clm_data/**/*.py"))
    names = re.findall(r"`(?:self\.setup\.)?([A-Za-z_]\w{3,})(?:\([^`]*\))?`", read(page))
    missing = {name for name in names if not re.search(rf"\b{name}\b", code)}
    assert missing <= {"FUNCTION_OF", "EXAMPLES", "mymethod"}


# --- the site


def menu_pages() -> list[str]:
    """Every page of the site's menu, as a path in the site."""

    def walk(item: Any) -> Iterator[str]:
        if isinstance(item, str):
            yield item
        else:
            for child in item if isinstance(item, list) else item.values():
                yield from walk(child)

    return list(walk(yaml.safe_load(read("mkdocs.yml"))["nav"]))


def test_the_menu_has_every_page_once() -> None:
    pages = [place for place in docs_script("site").page_map().values() if place.endswith(".md")]
    decisions = {page for page in pages if re.match(r"decisions/\d", page)}
    assert sorted(menu_pages()) == sorted(set(pages) - decisions)


def test_links_are_redirected_to_places_in_the_site() -> None:
    site = docs_script("site")
    pages = site.page_map()

    def redirected(text: str, source: str) -> str:
        return site.with_site_links(text, source, pages)  # type: ignore[no-any-return]

    assert redirected("[a](../../eval/README.md#x)", "docs/how-to/dedup.md") == (
        "[a](../reference/recipes.md#x)"
    )
    assert redirected("[b](docs/style.md)", "CONTRIBUTING.md") == "[b](../style.md)"
    assert redirected("[c](../../Makefile)", "docs/how-to/dedup.md") == "c"
    assert redirected("[d](https://example.org)", "CHANGELOG.md") == "[d](https://example.org)"
    code = "```\n[e](../../Makefile)\n```"
    assert redirected(code, "docs/how-to/dedup.md") == code


def test_each_promise_names_a_test_that_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`(?:: `(\w+)`)?", read("docs/reliability.md"))
    assert len(named) > 30
    for file, name in named:
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in read(file), f"{file}::{name}"
