from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.chat_server import ChatServer

from clm_data.cli import run
from clm_data.llm.offline import OfflineModel

Capture = pytest.CaptureFixture[str]


def test_a_missing_key_is_a_one_line_error(tmp_path: Path, capsys: Capture) -> None:
    assert run(["-w", str(tmp_path), "generate", "--domain", "physics"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "DEEPSEEK_API_KEY" in err
    assert "--provider offline" in err


def test_the_offline_provider_creates_a_workspace_and_reports(
    tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "new"
    arguments = ["-w", str(folder), "generate", "-d", "physics", "--count", "5"]
    assert run([*arguments, "--provider", "offline", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["domains"][0]["entries"] == 5
    assert "physics: 5 of 5 entries" in err
    assert (folder / "clm.yaml").is_file()
    assert run([*arguments, "--provider", "offline"]) == 0
    assert "quota reached" in capsys.readouterr().out


def test_a_dry_run_needs_no_key_and_shows_prompt_and_cost(tmp_path: Path, capsys: Capture) -> None:
    assert run(["-w", str(tmp_path), "generate", "-d", "physics", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "物理" in out
    assert "requests" in out
    assert "USD" in out


def test_strict_fails_if_entries_are_missing(tmp_path: Path, capsys: Capture) -> None:
    arguments = ["-w", str(tmp_path), "generate", "-d", "physics", "--provider", "offline"]
    assert run([*arguments, "--count", "500", "--strict"]) == 1
    err = capsys.readouterr().err
    assert "below quota: physics" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--domain"),
        (["--all", "--domain", "physics"], "--domain"),
        (["--domain", "fysics"], "physics"),
        (["--domain", "physics", "--provider", "deepsek"], "deepseek"),
    ],
)
def test_wrong_arguments_are_one_line_errors(
    arguments: list[str], message: str, tmp_path: Path, capsys: Capture
) -> None:
    assert run(["-w", str(tmp_path), "generate", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_key_is_neither_written_nor_shown(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLM_DATA_API_KEY", "sk-never-shown-4711")
    with ChatServer(OfflineModel()) as server:
        arguments = ["--provider", "custom", "--model", "bank", "--base-url", server.url]
        assert (
            run(["-w", str(tmp_path), "generate", "-d", "physics", "--count", "3", *arguments]) == 0
        )
        assert server.requests[0].headers["Authorization"] == "Bearer sk-never-shown-4711"
    shown = "".join(capsys.readouterr())
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert "4711" not in shown
    assert b"sk-never-shown" not in written
