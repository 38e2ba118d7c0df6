"""Pushing with the real client over HTTP to a simulated Hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.example_dataset import COUNT, change_file, write_dataset
from helpers.example_records import example_records
from helpers.hub_server import Hub, running_hub
from huggingface_hub import constants

from clm_data import cli, layouts
from clm_data.errors import CredentialsError, InputFileError, PublishError, UserError
from clm_data.manifest import read_manifest
from clm_data.publish import PushReport, push_to_hub

REPO = "team/facts"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that a build writes."""
    folder = tmp_path_factory.mktemp("built")
    write_dataset(folder)
    return folder


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of the built folder that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "dataset"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A simulated Hub as the client's default endpoint, and no stored token."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield hub


def push(folder: Path, **options: Any) -> PushReport:
    return push_to_hub(folder, REPO, **({"token": "hf_writer"} | options))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def assert_one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_all_files_are_pushed_unchanged(folder: Path, hub: Hub) -> None:
    report = push(folder, tag="v1")
    repo = hub.repos[REPO]
    assert {**repo.files, ".gitattributes": b""} == {**contents(folder), ".gitattributes": b""}
    assert (report.changed, report.commit, report.remote) == (True, repo.head, "absent")
    assert {file.change for file in report.files} == {"new"}
    assert repo.tags == {"v1": repo.head}
    assert not repo.private


def test_parquet_and_png_files_are_stored_with_lfs(folder: Path, hub: Hub) -> None:
    push(folder)
    large = [data for path, data in contents(folder).items() if path.endswith((".parquet", ".png"))]
    assert sorted(hub.large.values()) == sorted(large)


def test_pushing_the_same_content_again_sends_nothing(folder: Path, hub: Hub) -> None:
    first = push(folder, tag="v1")
    hub.requests.clear()
    second = push(folder, tag="v1")
    assert hub.writes == []
    assert (second.changed, second.commit) == (False, first.commit)
    assert {file.change for file in second.files} == {"same"}


def test_only_changed_files_are_sent(folder: Path, hub: Hub) -> None:
    push(folder)
    change_file(folder, "rejected.jsonl", '{"stage": "validate"}\n')
    report = push(folder)
    changed = {file.path for file in report.files if file.change != "same"}
    assert changed == {"rejected.jsonl", "manifest.json"}
    assert hub.repos[REPO].files["rejected.jsonl"] == b'{"stage": "validate"}\n'
    assert len(hub.repos[REPO].commits) == 3


def test_obsolete_files_are_removed_and_files_of_others_are_kept(folder: Path, hub: Hub) -> None:
    push(folder)
    repo = hub.repos[REPO]
    repo.add_commit({**repo.files, "LICENSE": b"text"})
    report = push(folder, rejected=False)
    assert report.removed == ("rejected.jsonl",)
    assert report.left_out == ("rejected.jsonl",)
    assert "rejected.jsonl" not in repo.files
    assert repo.files["LICENSE"] == b"text"
    assert not push(folder, rejected=False).changed


def test_files_that_no_build_wrote_are_not_pushed(folder: Path, hub: Hub) -> None:
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    assert push(folder).left_out == ("notes.txt",)
    assert "notes.txt" not in hub.repos[REPO].files


def test_a_manifest_of_another_program_is_overwritten_and_removes_nothing(
    folder: Path, hub: Hub
) -> None:
    push(folder)
    repo = hub.repos[REPO]
    repo.add_commit({**repo.files, "manifest.json": b'{"files": {"LICENSE": ""}}', "LICENSE": b"x"})
    assert push(folder).removed == ()
    assert repo.files == {
        **contents(folder),
        "LICENSE": b"x",
        ".gitattributes": repo.files[".gitattributes"],
    }


def test_a_private_repository_stays_private(folder: Path, hub: Hub) -> None:
    assert push(folder, private=True).visibility == "private"
    assert hub.repos[REPO].private
    assert push(folder).visibility == "private"


def test_private_is_an_error_if_the_repository_is_public(folder: Path, hub: Hub) -> None:
    push(folder)
    hub.requests.clear()
    with pytest.raises(PublishError) as error:
        push(folder, private=True)
    assert_one_line(error, REPO, "public")
    assert hub.writes == []


def test_a_dry_run_reports_differences_and_sends_nothing(folder: Path, hub: Hub) -> None:
    push(folder)
    change_file(folder, "rejected.jsonl", "")
    hub.requests.clear()
    report = push(folder, dry_run=True)
    assert hub.writes == []
    assert (report.changed, report.commit, report.remote) == (True, None, "present")
    sizes = {file.path: file.size for file in report.files}
    assert sizes == {path: len(data) for path, data in contents(folder).items()}
    hashes = {file.path: file.sha256 for file in report.files}
    assert hashes.items() >= read_manifest(folder).files.items()


def test_a_dry_run_does_not_create_a_repository(folder: Path, hub: Hub) -> None:
    report = push(folder, dry_run=True, private=True, tag="v1")
    assert (report.remote, report.visibility, report.tag) == ("absent", "private", "v1")
    assert (hub.writes, hub.repos) == ([], {})


def test_a_dry_run_works_without_token_and_network(folder: Path, hub: Hub) -> None:
    report = push(folder, dry_run=True, token=None, endpoint=closed_port())
    assert report.remote.startswith("not read: cannot reach http://127.0.0.1")
    assert {file.change for file in report.files} == {"unknown"}
    assert len(report.files) == len(contents(folder))


def test_a_dry_run_without_a_token_says_that_the_repository_may_be_private(
    folder: Path, hub: Hub
) -> None:
    push(folder, private=True)
    assert push(folder, dry_run=True, token=None).remote.startswith("absent, or private")


def test_a_tag_can_be_added_by_a_later_push(folder: Path, hub: Hub) -> None:
    push(folder)
    report = push(folder, tag="v1")
    assert not report.changed
    assert hub.repos[REPO].tags == {"v1": report.commit}


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_tag_of_other_content_is_an_error_before_anything_is_sent(
    folder: Path, hub: Hub, dry_run: bool
) -> None:
    push(folder, tag="v1")
    change_file(folder, "rejected.jsonl", "")
    hub.requests.clear()
    with pytest.raises(PublishError) as error:
        push(folder, tag="v1", dry_run=dry_run)
    assert_one_line(error, "v1", hub.repos[REPO].head[:8])
    assert hub.writes == []


@pytest.mark.parametrize("tag", ["", "v 1", "v1.", "-v1", "a..b", "v1.lock", "a:b", "v1\n"])
def test_a_tag_that_git_refuses_is_an_error_before_anything_is_sent(
    folder: Path, hub: Hub, tag: str
) -> None:
    with pytest.raises(PublishError, match="cannot be the name of a tag") as error:
        push(folder, tag=tag)
    assert_one_line(error)
    assert hub.requests == []


def test_a_manifest_that_names_a_file_elsewhere_is_refused(folder: Path, hub: Hub) -> None:
    secret = folder.parent / "secret.txt"
    secret.write_text("x", encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["../secret.txt"] = hashlib.sha256(b"x").hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputFileError, match="is outside the dataset"):
        push(folder)
    assert hub.writes == []


def test_the_token_is_read_from_the_environment(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    assert push(folder, token=None).changed


def test_a_missing_token_is_a_one_line_error(folder: Path, hub: Hub) -> None:
    with pytest.raises(CredentialsError) as error:
        push(folder, token=None)
    assert_one_line(error, "HF_TOKEN")
    assert hub.requests == []


def test_a_rejected_token_is_a_one_line_error_that_does_not_show_it(folder: Path, hub: Hub) -> None:
    with pytest.raises(CredentialsError) as error:
        push(folder, token="hf_expired")
    assert_one_line(error, "rejected the token")
    assert "hf_expired" not in str(error.value)


def test_no_permission_to_create_a_repository_is_a_one_line_error(folder: Path, hub: Hub) -> None:
    with pytest.raises(PublishError) as error:
        push(folder, token="hf_reader")
    assert_one_line(error, "403", "write permission for team")


def test_no_permission_to_write_is_a_one_line_error(folder: Path, hub: Hub) -> None:
    push(folder)
    change_file(folder, "rejected.jsonl", "")
    with pytest.raises(PublishError) as error:
        push(folder, token="hf_reader")
    assert_one_line(error, "403", "write permission for team")


def test_a_private_repository_of_others_is_a_one_line_error(folder: Path, hub: Hub) -> None:
    push(folder, private=True)
    hub.tokens["hf_reader"] = ("else",)
    with pytest.raises(PublishError) as error:
        push(folder, token="hf_reader")
    assert_one_line(error, "403")


@pytest.mark.parametrize("name", ["facts", "a/b/c", "team/", "team/fa cts", ""])
def test_an_invalid_repository_id_is_a_one_line_error(folder: Path, hub: Hub, name: str) -> None:
    with pytest.raises(PublishError) as error:
        push_to_hub(folder, name, token="hf_writer", dry_run=True)
    assert_one_line(error, "is not a repository")
    assert hub.requests == []


def test_an_unreachable_hub_is_a_one_line_error(folder: Path, hub: Hub) -> None:
    with pytest.raises(PublishError) as error:
        push(folder, endpoint=closed_port())
    assert_one_line(error, "cannot reach http://127.0.0.1", "network")


@pytest.mark.parametrize(
    ("status", "word"),
    [(429, "wait"), (503, "later"), (412, "someone else has pushed"), (400, "Hub")],
)
def test_other_http_errors_are_one_line_errors(
    folder: Path, hub: Hub, status: int, word: str
) -> None:
    hub.failing["/commit/"] = status
    with pytest.raises(PublishError) as error:
        push(folder)
    assert_one_line(error, str(status), word)


def test_a_rejected_upload_is_a_one_line_error(folder: Path, hub: Hub) -> None:
    hub.failing["/lfs/"] = 403
    with pytest.raises(PublishError) as error:
        push(folder)
    assert_one_line(error, "403")


def test_a_failed_push_can_be_repeated(folder: Path, hub: Hub) -> None:
    hub.failing["/commit/"] = 503
    with pytest.raises(PublishError):
        push(folder, tag="v1")
    assert hub.repos[REPO].tags == {}
    hub.failing.clear()
    push(folder, tag="v1")
    assert contents(folder).items() <= hub.repos[REPO].files.items()
    assert hub.repos[REPO].tags == {"v1": hub.repos[REPO].head}


@pytest.mark.parametrize("name", ["README.md", "zh/test.parquet"])
def test_the_error_names_a_file_changed_after_the_build(folder: Path, hub: Hub, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(InputFileError) as error:
        push(folder)
    assert_one_line(error, name, "changed")
    assert hub.requests == []


def test_the_error_names_a_missing_file(folder: Path, hub: Hub) -> None:
    (folder / "en" / "test.parquet").unlink()
    with pytest.raises(InputFileError) as error:
        push(folder)
    assert_one_line(error, "en/test.parquet", "missing")


def test_a_folder_that_does_not_load_is_not_pushed(folder: Path, hub: Hub) -> None:
    change_file(folder, "zh/test.parquet", "no parquet")
    with pytest.raises(InputFileError) as error:
        push(folder)
    assert_one_line(error, "does not load")
    assert hub.requests == []


def test_a_folder_without_a_manifest_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError) as error:
        push(tmp_path)
    assert_one_line(error, "manifest.json")


def test_a_pushed_dataset_can_be_loaded_from_the_hub(
    folder: Path, hub: Hub, tmp_path: Path
) -> None:
    push(folder, private=True)
    program = (
        "import datasets, json\n"
        f"rows = [datasets.load_dataset({REPO!r}, name, split='test').to_list()"
        " for name in ('parallel', 'zh', 'en', 'mix')]\n"
        "print(json.dumps(rows))"
    )
    environ = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_writer",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    records = example_records(COUNT)
    assert json.loads(done.stdout) == [rows(records) for rows in layouts.CONFIGURATIONS.values()]


def test_the_command_prints_what_was_pushed(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    arguments = ["push-to-hub", REPO, "--dataset", str(folder), "--tag", "v1", "--json"]
    assert cli.run([*arguments, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is True
    assert hub.repos == {}
    assert cli.run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["commit"] == hub.repos[REPO].head
    assert cli.run(arguments[:-1]) == 0
    assert "nothing to change" in capsys.readouterr().out


def test_the_command_without_a_token_exits_with_code_2_and_one_line(
    folder: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["push-to-hub", REPO, "--dataset", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("error: no Hub token; set HF_TOKEN")


@pytest.mark.parametrize("installed", [True, False])
def test_a_hub_without_xet_gets_the_files_by_lfs(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", not installed)
    push(folder)
    assert hub.repos[REPO].files.keys() >= contents(folder).keys()
    refused = [path for _, path in hub.requests if "xet-write-token" in path]
    assert bool(refused) == installed
    assert constants.HF_HUB_DISABLE_XET is not installed


def test_a_failure_of_xet_other_than_a_missing_route_is_not_hidden(
    folder: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    hub.failing["xet-write-token"] = 403
    with pytest.raises(UserError) as error:
        push(folder)
    assert_one_line(error, "403")
