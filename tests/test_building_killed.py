"""After ``kill -9`` during a build, the dataset folder is the old one or the new one."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clm_data.building import build
from clm_data.config import open_workspace
from clm_data.manifest import file_hashes, read_manifest
from clm_data.resources import bank_path
from clm_data.sources import read_file


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], float]:
    """A workspace, the hashes of its dataset, and the duration of a build in seconds."""
    folder = tmp_path_factory.mktemp("killed")
    workspace = open_workspace(folder, create=True)
    file = read_file(bank_path("published_rows.json"))
    with workspace.open_store(create=True) as store:
        store.add_source(file.name, file.format, file.sha256, None, file.rows)
    build(workspace, folder / "clean")
    began = time.monotonic()
    start(folder, "timed").wait()
    return folder, file_hashes(folder / "clean"), time.monotonic() - began


def start(folder: Path, out: str) -> subprocess.Popen[bytes]:
    argv = ["-m", "clm_data", "--workspace", str(folder), "build", "--out", str(folder / out)]
    return subprocess.Popen([sys.executable, *argv], stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_build_leaves_a_complete_folder_and_can_be_repeated(
    clean: tuple[Path, dict[str, str], float], kills: int
) -> None:
    folder, expected, seconds = clean
    out = f"out{kills}"
    chance = random.Random(kills)
    for _ in range(kills):
        process = start(folder, out)
        # Start-up is mostly imports, so kill in the later part, when files are written.
        time.sleep(seconds * chance.uniform(0.3, 1.0))
        process.kill()
        process.wait()
        if (folder / out).exists():
            assert read_manifest(folder / out).files == file_hashes(folder / out) == expected
    assert start(folder, out).wait() == 0
    assert file_hashes(folder / out) == expected
    assert not list(folder.glob(f".{out}.*"))
