"""Fixtures every test may use."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import pytest
from helpers.paths import shared_path
from helpers.postgres_server import NewDatabase, running_postgres
from hypothesis import HealthCheck, settings


class _WithoutTorch(PathFinder):
    """Finds what is installed, but for torch."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


if os.environ.get("CLM_DATA_TESTS_WITHOUT_TORCH"):  # so runs `make test`, whatever is installed
    sys.meta_path[:] = [_WithoutTorch if x is PathFinder else x for x in sys.meta_path]

# A shell that starts the tests in the background has them ignore Ctrl-C, and whatever they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test depends on how fast the machine is.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):  # there the library's own profile does the same, without chance
    settings.load_profile("any")


@pytest.fixture
def sample_folder() -> Path:
    """300 published CLM-Bench rows."""
    return shared_path("data", "clm_bench_sample")


@pytest.fixture(scope="session")
def new_postgres() -> Iterator[NewDatabase]:
    """Makes databases on a PostgreSQL server that lives as long as the tests."""
    with running_postgres() as new:
        yield new


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the caller's workspace, keys or Hub login, or can reach the Hub by accident."""
    for name in ("WORKSPACE", "STORE", "PROVIDER", "MODEL", "BASE_URL"):
        monkeypatch.delenv(f"CLM_DATA_{name}", raising=False)
    for name in ("DEEPSEEK", "SILICONFLOW", "OPENROUTER", "DASHSCOPE", "OPENAI"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))
