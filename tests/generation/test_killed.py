"""Runs of `clm-data generate` that are killed repeatedly end with the same dataset."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.chat_server import ChatServer
from helpers.stored_contents import dataset_contents

from clm_data.building import build
from clm_data.cli import _FirstInterrupt
from clm_data.config import open_workspace
from clm_data.generation.interrupts import until_interrupted
from clm_data.llm.offline import OfflineModel
from clm_data.manifest import file_hashes
from clm_data.store import Store

DOMAINS = ("chinese_literature", "physics", "sports", "biology", "chemistry", "classical_novels")


def command(folder: Path, url: str, domains: Sequence[str]) -> list[str]:
    named = [part for domain in domains for part in ("--domain", domain)]
    return [
        *(sys.executable, "-m", "clm_data"),
        *("--workspace", str(folder), "generate", *named, "--count", "12"),
        *("--provider", "vllm", "--model", "bank", "--base-url", url, "--concurrency", "4"),
    ]


def start(folder: Path, url: str, domains: Sequence[str] = DOMAINS[:2]) -> subprocess.Popen[str]:
    # A file instead of a pipe, which nobody would read while the process is killed.
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command(folder, url, domains), stdout=log, stderr=log, text=True)


def dataset(folder: Path) -> dict[str, str]:
    """The hash of each file of the dataset built from the store."""
    build(open_workspace(folder), folder / "dataset")
    return file_hashes(folder / "dataset")


def wait_for(server: ChatServer, requests: int, process: subprocess.Popen[str]) -> None:
    while len(server.requests) < requests and process.poll() is None:
        time.sleep(0.005)


def check_killed_runs(tmp_path: Path, domains: Sequence[str], *, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    clean, killed = tmp_path / "clean", tmp_path / "killed"
    for folder in (clean, killed):
        folder.mkdir()
    with ChatServer(OfflineModel(), latency=0.05) as server:
        assert start(clean, server.url, domains).wait(300) == 0
        requests_clean = len(server.requests)
    interrupted = 0
    with ChatServer(OfflineModel(), latency=0.05) as server:
        for _ in range(kills):
            process = start(killed, server.url, domains)
            wait_for(server, len(server.requests) + chance.randint(0, 2), process)
            time.sleep(chance.random() * 0.1)
            interrupted += process.poll() is None
            process.kill()
            process.wait(30)
        assert start(killed, server.url, domains).wait(300) == 0
        requests = len(server.requests)
        paid_twice = sum(times - 1 for times in server.answered.values())
    assert interrupted == kills
    assert dataset_contents(killed) == dataset_contents(clean)
    assert dataset(killed) == dataset(clean)
    assert len(dataset_contents(killed)) > 24 * len(domains) - 1
    assert requests <= requests_clean + 4 * interrupted
    assert paid_twice <= 4 * interrupted
    with Store(f"sqlite:///{killed}/clm.db") as store:
        assert all(dialogue.ended for dialogue in store.dialogues())
        answered = [(e.dialogue_id, e.turn) for e in store.exchanges() if e.completion is not None]
    assert len(answered) == len(set(answered)) == requests_clean


def test_three_kills_do_not_change_the_dataset(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, DOMAINS[:2], kills=3, seed=1)


@pytest.mark.slow
def test_twenty_kills_do_not_change_the_dataset(tmp_path: Path) -> None:
    check_killed_runs(tmp_path, DOMAINS, kills=20, seed=2)


def test_an_interrupted_run_exits_with_130_and_keeps_its_state(tmp_path: Path) -> None:
    with ChatServer(OfflineModel(), latency=0.2) as server:
        process = start(tmp_path, server.url)
        wait_for(server, 3, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "interrupted; finished work is kept" in (tmp_path / "log").read_text()
        assert start(tmp_path, server.url).wait(300) == 0
        assert sum(times - 1 for times in server.answered.values()) <= 4


def test_an_interrupted_run_prints_the_report_so_far_as_json(tmp_path: Path) -> None:
    with ChatServer(OfflineModel(), latency=0.2) as server:
        process = subprocess.Popen(
            [*command(tmp_path, server.url, DOMAINS[:2]), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(server, 6, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; finished work is kept, run the command again"
    report = json.loads(out)
    assert (report["interrupted"], report["stopped"]) == (True, "interrupted")
    stopped = [domain["stopped"] for domain in report["domains"]]
    assert stopped == ["interrupted"] * 2
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        answered = sum(each.completion is not None for each in store.exchanges())
    assert 0 < sum(domain["answers"] for domain in report["domains"]) <= answered
    entries = sum(domain["entries"] for domain in report["domains"])
    assert 0 < entries <= len(dataset_contents(tmp_path))


@pytest.mark.parametrize(("times", "pause"), [(2, 0.025), (6, 0.008), (6, 0.0)])
def test_repeated_interrupts_print_one_line_and_lose_nothing(
    times: int, pause: float, tmp_path: Path
) -> None:
    with ChatServer(OfflineModel(), latency=0.2) as server:
        process = start(tmp_path, server.url)
        wait_for(server, 3, process)
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)
        assert process.wait(60) == 130
        lines = (tmp_path / "log").read_text().splitlines()
        assert lines[-1] == "interrupted; finished work is kept, run the command again"
        assert [line for line in lines[:-1] if not line.startswith(DOMAINS[:2])] == []
        assert start(tmp_path, server.url).wait(300) == 0
        assert sum(times - 1 for times in server.answered.values()) <= 4


def test_an_end_that_hangs_can_be_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = _FirstInterrupt()
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)
    handler(signal.SIGINT, None)
    monkeypatch.setattr("clm_data.cli._SECONDS_TO_END", -1.0)
    with pytest.raises(KeyboardInterrupt):
        handler(signal.SIGINT, None)


@pytest.mark.parametrize("handled", [True, False])
def test_a_caller_gets_one_interrupt_and_its_handler_back(handled: bool) -> None:
    before = signal.getsignal(signal.SIGINT)

    async def work() -> None:
        for _ in range(5):
            signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(30)
        finally:
            cleaned.append(True)

    cleaned: list[bool] = []
    first = _FirstInterrupt()
    try:
        if handled:
            signal.signal(signal.SIGINT, first)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(until_interrupted(work()))
        assert cleaned == [True]
        assert signal.getsignal(signal.SIGINT) is (first if handled else before)
    finally:
        signal.signal(signal.SIGINT, before)
