"""A sweep killed with SIGKILL: the next run computes the missing cells, with the same result."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

from helpers.saved_folders import cell_versions, dataset_folder, model_folder
from helpers.tiny_dataset import RECORDS

GRID = {
    "models": [{"name": "model", "params": "tiny"}],
    "methods": ["memit", "ft"],
    "batch_sizes": [2, 3, 6],
    "languages": ["zh", "en", "mix"],
    "params": {"memit": {"values": {"steps": 4}}, "ft": {"epochs": 4}},
    "generate": False,
    "corpus": "dataset",
    "resamples": 20,
}
CELLS = 18


@dataclass(frozen=True)
class Uninterrupted:
    """A sweep that ran to the end.

    Attributes:
        folder: Holds the model, the dataset, the recipe, and the results in `uninterrupted`.
        first: Seconds until the first cell was written.
        seconds: Seconds in all.
    """

    folder: Path
    first: float
    seconds: float


@contextmanager
def running(folder: Path, out: str) -> Iterator[subprocess.Popen[str]]:
    """Run the sweep in another process; it is killed on exit."""
    argv = ["--recipe", "grid.yaml", "--dataset", "set", "--out", out, "--cache", f"{out}-cache"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clm_data", "eval-baselines", *argv, "--save-deltas"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / f"{out}.log").open("w", encoding="utf-8"),
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    folder = tmp_path_factory.mktemp("killed")
    model_folder(folder / "model")
    dataset_folder(folder / "set", RECORDS[:6])
    (folder / "grid.yaml").write_text(json.dumps(GRID), encoding="utf-8")
    began = time.monotonic()
    with running(folder, "uninterrupted") as process:
        while process.poll() is None and not cell_versions(folder / "uninterrupted"):
            time.sleep(0.02)
        first = time.monotonic() - began
        assert process.wait() == 0
    return Uninterrupted(folder, first, time.monotonic() - began)


def outputs(out: Path) -> dict[str, bytes]:
    names = ["results.json", "table.md", "table.csv", "table.tex"]
    files = [*(out / name for name in names), *(out / "before").iterdir()]
    return {file.name: file.read_bytes() for file in files}


def deltas(out: Path) -> dict[str, dict[str, list[float]]]:
    """Tensors by file; the bytes may differ, as the format does not fix the order of its header."""
    from safetensors.torch import load_file

    return {
        file.name: {name: tensor.flatten().tolist() for name, tensor in load_file(file).items()}
        for file in (out / "deltas").iterdir()
    }


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_killed_sweep_computes_only_the_missing_cells_and_ends_with_the_same_files(
    uninterrupted: Uninterrupted, kills: int
) -> None:
    out = uninterrupted.folder / f"out{kills}"
    log = uninterrupted.folder / f"{out.name}.log"
    rng = random.Random(kills)
    seconds_per_cell = (uninterrupted.seconds - uninterrupted.first) / CELLS
    for kill in range(kills):
        before = cell_versions(out)
        if len(before) > CELLS - 3:
            break
        with running(uninterrupted.folder, out.name) as process:
            # Every fourth kill may come before the first cell, the others while a cell is computed.
            wanted = 0 if kill % 4 == 3 else len(before) + 1
            while process.poll() is None and len(cell_versions(out)) < wanted:
                time.sleep(0.01)
            longest = 1.5 * seconds_per_cell if wanted else uninterrupted.first
            end = time.monotonic() + rng.uniform(0, longest)
            while time.monotonic() < end and len(cell_versions(out)) < CELLS - 2:
                time.sleep(0.005)
            assert process.poll() is None, log.read_text(encoding="utf-8")
        after = cell_versions(out)
        assert after.items() >= before.items()
        assert len(after) >= wanted
        assert not (out / "results.json").exists()
    finished = cell_versions(out)
    with running(uninterrupted.folder, out.name) as process:
        assert process.wait() == 0, log.read_text(encoding="utf-8")
    versions = cell_versions(out)
    assert len(versions) == CELLS
    assert versions.items() >= finished.items()
    assert outputs(out) == outputs(uninterrupted.folder / "uninterrupted")
    assert deltas(out) == deltas(uninterrupted.folder / "uninterrupted")
