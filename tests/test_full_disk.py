"""Full disks: one line, no temporary files, and every answer that could be stored is stored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.chat_server import ChatServer

import clm_data
from clm_data.cli import run
from clm_data.config import open_workspace
from clm_data.llm.offline import OfflineModel


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A file system of limited size."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    with tempfile.TemporaryDirectory(prefix="clm-data-test-") as folder:
        mounted = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={size},nr_inodes=1000",
            "clm-data-test",
            folder,
        ]
        if subprocess.run(mounted, capture_output=True, check=False).returncode:
            pytest.skip("file systems cannot be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> Path:
    """Leave no space; returns the file to delete to have some again."""
    file = disk / "filling"
    with file.open("wb", buffering=0) as filling:
        try:
            while True:
                filling.write(bytes(4096))
        except OSError:
            pass
    return file


def generate(folder: Path, url: str, file_blocks: int | None = None) -> tuple[int, str]:
    """Run `clm-data generate`, with a limit on the size of files in KB."""
    arguments = [
        *(sys.executable, "-m", "clm_data", "--workspace", str(folder)),
        *("generate", "--domain", "physics", "--count", "40", "--provider", "vllm"),
        *("--model", "bank", "--base-url", url, "--concurrency", "4"),
    ]
    limit = "" if file_blocks is None else f"ulimit -f {file_blocks}; "
    done = subprocess.run(
        ["bash", "-c", f'{limit}exec "$@"', "bash", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stderr


def stored(folder: Path) -> tuple[int, int]:
    """Requests and answers in the store."""
    with open_workspace(folder).open_store() as store:
        exchanges = store.exchanges()
    return len(exchanges), sum(exchange.completion is not None for exchange in exchanges)


def check_stopped(folder: Path, server: ChatServer, status: int, printed: str) -> None:
    assert status == 2, printed
    assert "free some space" in printed
    assert "Traceback" not in printed
    requests, answers = stored(folder)
    assert 0 < answers <= sum(server.answered.values())
    assert requests == len(server.requests)
    assert run(["--workspace", str(folder), "doctor"]) == 0
    assert clm_data.stats(folder).records > 0


def test_a_run_on_a_full_disk_stops_and_is_resumed_when_there_is_space() -> None:
    with small_disk("500k") as disk, ChatServer(OfflineModel(), latency=0.02) as server:
        check_stopped(disk, server, *generate(disk, server.url))
        _, answers = stored(disk)
        lost = sum(server.answered.values()) - answers
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        status, printed = generate(disk, server.url)
        assert status == 0, printed
        assert sum(times - 1 for times in server.answered.values()) <= lost
        _, answers = stored(disk)
        assert answers == len(server.answered)


@pytest.mark.parametrize("kilobytes", [300, 400])
def test_a_run_at_the_limit_of_a_files_size_stops_and_is_resumed(
    tmp_path: Path, kilobytes: int
) -> None:
    with ChatServer(OfflineModel(), latency=0.02) as server:
        check_stopped(tmp_path, server, *generate(tmp_path, server.url, kilobytes))
        _, answers = stored(tmp_path)
        lost = sum(server.answered.values()) - answers
        assert generate(tmp_path, server.url)[0] == 0
        assert sum(times - 1 for times in server.answered.values()) <= lost


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    opened = clm_data.init(folder)
    clm_data.generate("physics", count=10, provider="offline", workspace=opened)
    clm_data.build(folder / "dataset", workspace=opened)
    return folder


WRITING = {
    "sheet": ["review", "export", "--out", "DISK/sheet.xlsx"],
    "CSV sheet": ["review", "export", "--out", "DISK/sheet.csv"],
    "dataset": ["build", "--out", "DISK/dataset"],
    "export": ["export", "--out", "DISK/layout"],
    "report": ["audit", "--html", "DISK/audit.html"],
    "backup": ["store", "backup", "DISK/backup.db"],
    "new workspace": ["init", "DISK/workspace"],
    "own domains": ["init", "DISK", "--own-domains"],
    "demo": ["demo", "DISK/demo"],
}


@pytest.mark.parametrize("name", WRITING)
def test_nothing_is_left_when_the_disk_is_full(
    workspace: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk("80k") as disk:
        if name == "own domains":
            (disk / "clm.yaml").write_bytes((workspace / "clm.yaml").read_bytes())
        free = fill(disk)
        before = sorted(disk.rglob("*"))
        arguments = [part.replace("DISK", str(disk)) for part in WRITING[name]]
        assert run(["--workspace", str(workspace), *arguments]) == 2
        error = capsys.readouterr().err
        assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
        left = [path for path in disk.rglob("*") if path not in before]
        assert [path for path in left if path.is_file() and path.stat().st_size] == []
        assert [path for path in left if path.name.startswith(".")] == []
        assert not (disk / "workspace" / "clm.yaml").exists()
        free.unlink()


@pytest.mark.parametrize("out", ["/", "FILE", "FILE/inside", "/proc/dataset", "."])
@pytest.mark.parametrize("command", ["build", "export"])
def test_a_place_that_cannot_be_written_is_one_line(
    workspace: Path,
    tmp_path: Path,
    command: str,
    out: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    monkeypatch.chdir(tmp_path)
    place = ["--out", out.replace("FILE", str(file))]
    assert run(["--workspace", str(workspace), command, *place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
