"""Workspaces as objects: copies, other folders, settings saved by a call."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path

import pytest

import clm_data
from clm_data.errors import ConfigError


def test_a_temporary_workspace_lives_as_long_as_a_copy_with_other_settings() -> None:
    workspace = clm_data.init()
    folder = workspace.path
    copies = [workspace.with_settings(provider="offline"), copy.deepcopy(workspace)]
    del workspace
    while copies:
        gc.collect()
        assert folder.is_dir()
        copies.pop()
    gc.collect()
    assert not folder.exists()


def test_an_unpickled_workspace_does_not_delete_the_folder() -> None:
    workspace = clm_data.init()
    again = pickle.loads(pickle.dumps(workspace))
    assert again == workspace
    del again
    gc.collect()
    assert workspace.path.is_dir()


def test_a_workspace_stays_in_its_folder_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    workspace = clm_data.init(".")
    clm_data.generate("physics", count=2, provider="offline", workspace=workspace)
    monkeypatch.chdir(elsewhere)
    assert clm_data.stats(workspace).records == 2
    assert not list(elsewhere.iterdir())


def test_a_build_draws_the_probes_that_were_chosen_for_the_same_workspace(tmp_path: Path) -> None:
    workspace = clm_data.init()
    clm_data.generate("physics", count=4, provider="offline", workspace=workspace)

    def probes(name: str, opened: clm_data.Workspace | Path) -> list[str]:
        report = clm_data.build(tmp_path / name, workspace=opened)
        return [record.zh_probe.loc for record in clm_data.load(report.folder).records]

    before = probes("before", workspace)
    clm_data.attach_probes(seed=7, workspace=workspace)
    after = probes("after", workspace)
    assert after != before
    assert after == probes("by-path", workspace.path)


def test_a_wrong_seed_is_refused_and_not_saved() -> None:
    workspace = clm_data.init()
    clm_data.generate("physics", count=1, provider="offline", workspace=workspace)
    before = (workspace.path / "clm.yaml").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"locality\.seed"):
        clm_data.attach_probes(seed="x", workspace=workspace)  # type: ignore[arg-type]
    assert (workspace.path / "clm.yaml").read_text(encoding="utf-8") == before


def test_domains_are_those_of_the_workspace_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clm_data.init(tmp_path / "own", own_domains=True).path
    file = folder / "domains.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("quota: 102", "quota: 7"), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLM_DATA_WORKSPACE", str(folder))
    assert clm_data.domains()[0].quota == 7


def test_doctor_takes_what_init_returns() -> None:
    workspace = clm_data.init()
    found = {finding.check: finding.detail for finding in clm_data.doctor(workspace)}
    assert found["workspace"] == str(workspace.path)


def test_a_file_in_the_place_of_a_workspace_is_an_error_that_says_so(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    for create in (clm_data.init, clm_data.demo):
        with pytest.raises(ConfigError, match=r"notes\.txt: File exists"):
            create(file)
