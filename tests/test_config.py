from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.config import Settings, copy_domains, open_workspace, write_default_config
from clm_data.errors import ConfigError


def test_the_file_written_by_init_has_the_default_settings(tmp_path: Path) -> None:
    write_default_config(tmp_path)
    assert open_workspace(tmp_path).settings == Settings()


def test_flags_override_environment_override_file_override_defaults(tmp_path: Path) -> None:
    (tmp_path / "clm.yaml").write_text("provider: vllm\nmodel: from-file\n")
    environ = {"CLM_DATA_MODEL": "from-env", "CLM_DATA_BASE_URL": "http://env"}
    workspace = open_workspace(
        tmp_path, overrides={"base_url": "http://flag", "model": None}, environ=environ
    )
    settings = workspace.settings
    assert settings.provider == "vllm"
    assert settings.model == "from-env"
    assert settings.base_url == "http://flag"
    assert settings.store == Settings().store


def test_the_environment_can_name_the_workspace(tmp_path: Path) -> None:
    write_default_config(tmp_path)
    assert open_workspace(environ={"CLM_DATA_WORKSPACE": str(tmp_path)}).path == tmp_path


def test_a_relative_store_path_is_relative_to_the_workspace(tmp_path: Path) -> None:
    write_default_config(tmp_path)
    assert open_workspace(tmp_path).store_url == f"sqlite:///{tmp_path / 'clm.db'}"


@pytest.mark.parametrize("url", ["sqlite:////abs/clm.db", "postgresql+psycopg://u@h/db"])
def test_other_store_urls_are_not_changed(tmp_path: Path, url: str) -> None:
    (tmp_path / "clm.yaml").write_text(f"store: {url}\n")
    assert open_workspace(tmp_path).store_url == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("dedup: {threshold: 2}", "dedup.threshold"),
        ("nonsense: 1", "nonsense"),
        ("generation: {turns: many}", "generation.turns"),
        ("dedup: {threshold: true}", "'dedup.threshold': expected a number, found true"),
        ("locality: {seed: false}", "'locality.seed': expected a number, found false"),
        ("generation: {max_tokens: true}", "'generation.max_tokens': expected a number"),
        ("- a\n- b", "expected 'name: value'"),
        ("a: [", "cannot be read as YAML"),
        ("provider: a\nprovider: b", "2: cannot be read as YAML: the key 'provider' appears twice"),
    ],
)
def test_the_error_names_the_wrong_setting(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "clm.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"clm\.yaml") as caught:
        open_workspace(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_error_without_a_workspace_says_how_to_create_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clm-data init"):
        open_workspace(tmp_path)


def test_domains_and_prompts_of_the_workspace_replace_the_shipped_ones(tmp_path: Path) -> None:
    write_default_config(tmp_path)
    workspace = open_workspace(tmp_path)
    assert workspace.domains_file.parent != tmp_path
    (tmp_path / "domains.yaml").touch()
    (tmp_path / "prompts").mkdir()
    assert workspace.domains_file == tmp_path / "domains.yaml"
    assert workspace.prompts_folder == tmp_path / "prompts"


def test_copied_domains_are_never_overwritten(tmp_path: Path) -> None:
    write_default_config(tmp_path)
    copy_domains(tmp_path)
    workspace = open_workspace(tmp_path)
    assert len(workspace.domains()) == 24
    assert (workspace.prompts_folder / "domains" / "physics.md").is_file()
    with pytest.raises(ConfigError, match="already"):
        copy_domains(tmp_path)


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "有 空格", "a:b@c"])
def test_the_store_is_in_the_workspace_for_any_folder_name(tmp_path: Path, name: str) -> None:
    write_default_config(tmp_path / name)
    open_workspace(tmp_path / name).open_store(create=True).close()
    assert (tmp_path / name / "clm.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_an_in_memory_store_is_rejected(tmp_path: Path, url: str) -> None:
    (tmp_path / "clm.yaml").write_text(f"store: '{url}'\n")
    with pytest.raises(ConfigError, match="is in memory"):
        _ = open_workspace(tmp_path).store_url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("providr: vllm", "unknown setting 'providr'; did you mean provider?"),
        ("dedup: {treshold: 0.8}", "unknown setting 'dedup.treshold'; did you mean dedup.thresh"),
    ],
)
def test_an_unknown_setting_suggests_similar_names(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "clm.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        open_workspace(tmp_path)
    assert says in str(caught.value)


def test_a_dotted_name_next_to_a_setting_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "clm.yaml").write_text("provider..: custom\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown setting 'provider\.\.'"):
        open_workspace(tmp_path, environ={})
