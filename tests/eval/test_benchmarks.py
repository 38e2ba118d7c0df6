"""Benchmarks that few machines can run, in small."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the extra eval is not installed")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu_edit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `gpu_edit`, which imports its neighbors as a script does."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gpu_edit")


def test_the_gpu_benchmark_runs_on_a_cpu_with_a_small_model(
    gpu_edit: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--device cpu --layers 3 --width 32 --steps 2 --facts 4"
    monkeypatch.setattr(sys, "argv", ["gpu_edit.py", *small.split()])
    gpu_edit.main()
    said = capsys.readouterr().out
    for word in ("second moments: ", "values ", "keys ", "solve ", "peak memory ", "GFLOP/s"):
        assert word in said
    assert "4 facts, 4 updates" in said
    assert "of a matrix product in bfloat16" in said


def test_facts_of_the_bank_are_used_again_with_numbered_subjects(
    gpu_edit: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = gpu_edit.bank_requests(682)
    assert "the bank has 680 facts: 2 are used again, numbered" in capsys.readouterr().out
    first, again = requests[1], requests[681]
    assert again.subject == f"{first.subject} 2"
    assert all(one.subject in one.prompt for one in requests)
    assert len({(one.prompt, one.lang) for one in requests}) == 682
