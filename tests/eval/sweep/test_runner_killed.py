"""``kill -9`` in a sweep: the next run computes what is missing, and the result is the same."""

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

from helpers.saved_folders import dataset_folder, model_folder
from helpers.tiny_dataset import RECORDS

GRID = {
    "models": [{"name": "model", "params": "tiny"}],
    "methods": ["memit", "ft"],
    "batch_sizes": [2, 3, 6],
    "languages": ["zh", "en", "mix"],
    "params": {"memit": {"values": {"steps": 4}}, "ft": {"steps": 4}},
    "generate": False,
    "corpus": "dataset",
    "resamples": 20,
}
CELLS = 18


@dataclass(frozen=True)
class Undisturbed:
    """A finished sweep: where it lies, when its first cell was there, and how long it took."""

    folder: Path
    first: float
    seconds: float


@contextmanager
def running(folder: Path, out: str) -> Iterator[subprocess.Popen[str]]:
    """The sweep in a process of its own, killed at the end."""
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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("killed")
    model_folder(folder / "model")
    dataset_folder(folder / "set", RECORDS[:6])
    (folder / "grid.yaml").write_text(json.dumps(GRID), encoding="utf-8")
    began = time.monotonic()
    with running(folder, "undisturbed") as process:
        while process.poll() is None and not finished(folder / "undisturbed"):
            time.sleep(0.02)
        first = time.monotonic() - began
        assert process.wait() == 0
    return Undisturbed(folder, first, time.monotonic() - began)


def finished(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each cell that is there."""
    stats = {file.name: file.stat() for file in (out / "cells").glob("*.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def outputs(out: Path) -> dict[str, bytes]:
    names = ["results.json", "table.md", "table.csv", "table.tex"]
    files = [*(out / name for name in names), *(out / "before").iterdir()]
    return {file.name: file.read_bytes() for file in files}


def deltas(out: Path) -> dict[str, dict[str, list[float]]]:
    """By file: the values of each tensor (the header's order is left to chance by the format)."""
    from safetensors.torch import load_file

    return {
        file.name: {name: tensor.flatten().tolist() for name, tensor in load_file(file).items()}
        for file in (out / "deltas").iterdir()
    }


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_after_kill_9_only_missing_cells_are_computed_and_the_result_is_the_same(
    undisturbed: Undisturbed, kills: int
) -> None:
    out = undisturbed.folder / f"out{kills}"
    moments = random.Random(kills)
    cell = (undisturbed.seconds - undisturbed.first) / CELLS
    for kill in range(kills):
        before = finished(out)
        if len(before) > CELLS - 3:
            break
        with running(undisturbed.folder, out.name) as process:
            # Now and then before a cell is there, mostly while one is computed; never at the end.
            until = 0 if kill % 4 == 3 else len(before) + 1
            while process.poll() is None and len(finished(out)) < until:
                time.sleep(0.01)
            end = time.monotonic() + moments.uniform(0, 1.5 * cell if until else undisturbed.first)
            while time.monotonic() < end and len(finished(out)) < CELLS - 2:
                time.sleep(0.005)
            assert process.poll() is None, (undisturbed.folder / f"{out.name}.log").read_text()
        after = finished(out)
        assert after.items() >= before.items()
        assert len(after) >= until
        assert not (out / "results.json").exists()
    left = finished(out)
    with running(undisturbed.folder, out.name) as process:
        assert process.wait() == 0
    assert len(finished(out)) == CELLS
    assert finished(out).items() >= left.items()
    said = (undisturbed.folder / f"{out.name}.log").read_text(encoding="utf-8")
    assert said.count("reliability/locality") == CELLS - len(left)
    assert f"{len(left)} of {CELLS} cells are there already" in said
    assert outputs(out) == outputs(undisturbed.folder / "undisturbed")
    assert deltas(out) == deltas(undisturbed.folder / "undisturbed")
