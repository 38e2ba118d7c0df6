"""The full pipeline with all 24 domains over real HTTP, from the command line to the files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.chat_server import KINDS, ChatServer, Faults

from clm_data.llm.offline import OfflineModel
from clm_data.manifest import file_hashes, read_manifest
from clm_data.resources import bank_path

pytestmark = pytest.mark.slow


def clm_data(folder: Path, *argv: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clm_data", "--workspace", str(folder), *argv],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def run_pipeline(folder: Path, url: str) -> dict[str, str]:
    """Generate, import and build; returns the sha256 of each file of the dataset."""
    folder.mkdir()
    (folder / "clm.yaml").write_text("generation: {timeout: 2.0}\n", encoding="utf-8")
    endpoint = ("--provider", "vllm", "--model", "bank", "--base-url", url)
    clm_data(folder, "generate", "--all", *endpoint)
    clm_data(folder, "import", str(bank_path("published_rows.json")))
    clm_data(folder, "build")
    return file_hashes(folder / "dataset")


def test_transient_faults_do_not_change_the_dataset(tmp_path: Path) -> None:
    with ChatServer(OfflineModel()) as server:
        clean = run_pipeline(tmp_path / "clean", server.url)
    with ChatServer(OfflineModel(), Faults(seed=7)) as server:
        faulty = run_pipeline(tmp_path / "faulty", server.url)
        faults = {arrived.fault for arrived in server.requests}
    assert faults == {None, *KINDS}
    assert read_manifest(tmp_path / "clean" / "dataset").stages["locality"]["kept"] >= 250
    assert faulty == clean
