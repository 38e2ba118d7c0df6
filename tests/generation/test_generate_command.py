from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web
from helpers.chat_server import ChatServer

from clm_data.cli import run
from clm_data.llm import Completion
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-d", "all", "-d", "physics"], "'all' is every domain; pass it alone"),
        (["-d", "physics", "-d", "all"], "'all' is every domain; pass it alone"),
        (["-d", "physics", "--count", "9" * 400], "count is too large"),
        (["-d", "physics", "--count", "1000001"], "count is too large"),
        (["-d", "physics", "--count", "0"], "--count"),
        (["-d", "physics", "--count", "-3"], "--count"),
        (["-d", "physics", "--max-cost", "nan"], "pass an amount above 0"),
        (["-d", "physics", "--max-cost", "0"], "pass an amount above 0"),
        (["-d", "physics", "--max-cost", "1"], "generation: {price:"),
    ],
)
def test_limits_that_make_no_sense_are_one_line(
    arguments: list[str], words: str, tmp_path: Path, capsys: Capture
) -> None:
    assert run(["-w", str(tmp_path), "generate", "--provider", "offline", *arguments]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert len(err.splitlines()) == 1
    assert out == ""


class _Limited(ChatServer):
    """Refuses the first request with a pause, then answers with nothing but a terminal command."""

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        response = await super()._chat(request)
        if len(self.requests) == 1:
            error = {"error": {"message": "slow down \x1b[2J"}}
            return web.json_response(error, status=429, headers={"Retry-After": "1.5"})
        return response


def _workspace(folder: Path, server: ChatServer) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "clm.yaml").write_text(
        f"provider: custom\nmodel: m\nbase_url: {server.url}\n"
        "generation: {dialogues_at_once: 1, dry_waves: 1, turns: 1}\n",
        encoding="utf-8",
    )
    return ["-w", str(folder), "generate", "-d", "physics", "--count", "5"]


def test_the_summary_says_why_it_waited_and_why_entries_are_missing(
    tmp_path: Path, capsys: Capture
) -> None:
    bad = '[{"zh": {"prompt": "\x1b[31m", "subject": 5}, "en": 3}]'
    with _Limited(lambda *_: Completion(text=bad, model="m")) as server:
        assert run(_workspace(tmp_path / "w", server)) == 0
    out, err = capsys.readouterr()
    assert "waiting 2 s: HTTP 429: slow down" in err
    assert err.count("waiting") == 1
    assert "1 rate-limit: the endpoint limits the number of requests or tokens" in out
    assert "1 unreadable-answer: no complete entry could be parsed; such as physics/0/0#1" in out
    assert "to see what was asked and answered: clm-data show physics/0/0#1\n" in out
    assert run(["-w", str(tmp_path / "w"), "show", "physics/0/0#1"]) == 0
    assert "unreadable-answer" in capsys.readouterr().out
    assert "a batch with no new entries" in " ".join(out.split())
    assert "tokens: about" in out
    assert "\x1b" not in out + err


def test_a_run_that_fails_says_what_it_did_until_then(tmp_path: Path, capsys: Capture) -> None:
    class _Broke(ChatServer):
        async def _chat(self, request: web.Request) -> web.StreamResponse:
            response = await super()._chat(request)
            if len(self.requests) == 2:
                return web.json_response({"error": {"message": "Insufficient Balance"}}, status=402)
            return response

    with _Broke(OfflineModel()) as server:
        arguments = _workspace(tmp_path / "w", server)
        assert run([*arguments[:-1], "60", "--concurrency", "1"]) == 2
    err = capsys.readouterr().err
    assert "(when the run ended)" in err
    assert "tokens" in err
