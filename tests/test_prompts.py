"""Prompts are complete, versioned and hashed; a broken template is a one-line error."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from clm_data.domain import Bilingual, Domain, load_domains
from clm_data.errors import ConfigError
from clm_data.parse import parse_objects
from clm_data.prompts import TEMPLATES, Prompts
from clm_data.records import FACT_FIELDS, Language
from clm_data.resources import resource


@pytest.fixture(scope="module")
def domains() -> dict[str, Domain]:
    return load_domains(resource("domains.yaml"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped folder that a test may change."""
    return Path(shutil.copytree(resource("prompts"), tmp_path / "prompts"))


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_first_message_has_all_instructions_of_each_domain(
    domains: dict[str, Domain], lang: Language
) -> None:
    prompts = Prompts(resource("prompts"), lang)
    for domain in domains.values():
        topic = domain.ask_for[-1]
        text = prompts.first(domain, topic, 7, ["鲁迅", "老\n舍"]).text
        assert domain.id in text
        assert (domain.zh if lang == "zh" else domain.en) in text
        assert topic.text(lang) in text
        assert all(item.text(lang) in text for item in domain.avoid)
        assert "\n- 鲁迅\n- 老 舍\n" in text
        assert "{{" not in text
        assert "{%" not in text
        assert "\n\n\n" not in text
        addition = resource("prompts", "domains", f"{domain.id}.md").read_text(encoding="utf-8")
        assert addition.strip() in text
        shown = [item for item in parse_objects(text) if set(item) == {"zh", "en"}]
        assert [set(item["zh"]) for item in shown if isinstance(item["zh"], dict)] == [
            set(FACT_FIELDS)
        ] * 2


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_the_first_message_names_each_field_and_limit(
    domains: dict[str, Domain], lang: Language
) -> None:
    text = Prompts(resource("prompts"), lang).first(*_physics(domains), 5).text
    for part in (*FACT_FIELDS, "80", "240", "JSON", "5"):
        assert part in text


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_used_subjects_are_listed_if_there_are_any(
    domains: dict[str, Domain], lang: Language
) -> None:
    prompts = Prompts(resource("prompts"), lang)
    plain = prompts.first(*_physics(domains), 5)
    used = prompts.first(*_physics(domains), 5, ["牛顿"])
    assert "- 牛顿" not in plain.text
    assert plain.hash != used.hash


def test_later_messages_have_the_count_and_the_problems() -> None:
    for lang in ("zh", "en"):
        prompts = Prompts(resource("prompts"), lang)
        assert "4" in prompts.more(4).text
        text = prompts.correct(["鲁迅：题干泄露了答案", "老舍：文字过长"], 3).text
        assert "- 鲁迅：题干泄露了答案\n- 老舍：文字过长\n" in text
        assert "3" in text


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_a_correction_lists_used_subjects_if_there_are_any(lang: Language) -> None:
    prompts = Prompts(resource("prompts"), lang)
    plain, used = (
        prompts.correct(["x"], 3, subjects).text for subjects in ([], ["鲁迅", "老\n舍"])
    )
    assert "\n- 鲁迅\n- 老 舍\n\n" in used
    added = used.replace("- 鲁迅\n- 老 舍\n", "")
    assert len(added.splitlines()) == len(plain.splitlines()) + 2
    assert "\n\n\n" not in plain + used


def test_a_rendered_prompt_has_its_hash_and_template_version(
    domains: dict[str, Domain], folder: Path
) -> None:
    template = folder / "generate.zh.md.j2"
    source = template.read_text(encoding="utf-8")
    template.write_text(source.replace("version: 1", "version: 2-mine"), encoding="utf-8")
    prompts = Prompts(folder)
    rendered = prompts.first(*_physics(domains), 5)
    assert rendered.hash == hashlib.sha256(rendered.text.encode()).hexdigest()
    assert rendered.version == prompts.versions["generate"] == "2-mine"
    assert "version" not in rendered.text
    assert rendered.hash == Prompts(resource("prompts")).first(*_physics(domains), 5).hash


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("generate", "{# version: 1 #}\n{{ nobody }}", "nobody"),
        ("more", "{# version: 1 #}\n{% if %}", "line 2"),
        ("correct", "no version", "version"),
        ("more", None, "missing"),
    ],
)
def test_a_broken_template_is_a_one_line_error(
    domains: dict[str, Domain], folder: Path, name: str, source: str | None, says: str
) -> None:
    file = folder / f"{name}.zh.md.j2"
    if source is None:
        file.unlink()
    else:
        file.write_text(source, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        Prompts(folder).first(*_physics(domains), 5)
    assert says in str(error.value)
    assert file.name in str(error.value)
    assert "\n" not in str(error.value)


def test_only_shipped_domains_need_a_file_with_instructions(
    domains: dict[str, Domain], folder: Path
) -> None:
    (folder / "domains" / "physics.md").unlink()
    with pytest.raises(ConfigError, match=r"physics\.md is missing"):
        Prompts(folder).first(*_physics(domains), 5)
    own = domains["physics"].model_copy(update={"id": "tea_tasting"})
    assert "本领域须知" not in Prompts(folder).first(own, own.ask_for[0], 5).text


def test_english_instructions_are_preferred_in_english_prompts(
    domains: dict[str, Domain], folder: Path
) -> None:
    (folder / "domains" / "physics.en.md").write_text("Name the unit in full.", encoding="utf-8")
    assert "Name the unit in full." in Prompts(folder, "en").first(*_physics(domains), 5).text
    assert "Name the unit" not in Prompts(folder, "zh").first(*_physics(domains), 5).text


def test_all_templates_exist_in_both_languages_and_have_versions() -> None:
    for lang in ("zh", "en"):
        assert set(Prompts(resource("prompts"), lang).versions) == set(TEMPLATES)


def test_the_shipped_domains_match_the_paper(domains: dict[str, Domain]) -> None:
    quotas = {name: domain.quota for name, domain in domains.items()}
    assert len(quotas) == 24
    assert sum(quotas.values()) == 1010
    assert next(iter(quotas)) == "chinese_literature"
    assert quotas["chinese_literature"] == 102 == max(quotas.values())
    assert quotas["modern_chinese_history"] == 8 == min(quotas.values())
    for domain in domains.values():
        assert len(domain.examples) == 2
        assert json.dumps([e.model_dump() for e in domain.examples], ensure_ascii=False)
        assert len({topic.zh for topic in domain.ask_for}) == len(domain.ask_for)


def _physics(domains: dict[str, Domain]) -> tuple[Domain, Bilingual]:
    return domains["physics"], domains["physics"].ask_for[0]
