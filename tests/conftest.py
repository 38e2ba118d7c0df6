"""Fixtures for all tests."""

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
    """Finds installed modules except torch."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname == "torch" else super().find_spec(fullname, path, target)


if os.environ.get(
    "CLM_DATA_TESTS_WITHOUT_TORCH"
):  # set by `make test`, so that results do not depend on installed extras
    sys.meta_path[:] = [_WithoutTorch if x is PathFinder else x for x in sys.meta_path]

# Tests started in the background by a shell would ignore Ctrl-C, as would their subprocesses.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests must not depend on the speed of the machine.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):  # the "ci" profile of Hypothesis does the same and is deterministic
    settings.load_profile("any")


@pytest.fixture
def sample_folder() -> Path:
    """300 published CLM-Bench rows."""
    return shared_path("data", "clm_bench_sample")


@pytest.fixture(scope="session")
def new_postgres() -> Iterator[NewDatabase]:
    """Creates databases on a PostgreSQL server that runs until the tests end."""
    with running_postgres() as new:
        yield new


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the caller's workspace, API keys and Hub login from tests."""
    for name in ("WORKSPACE", "STORE", "PROVIDER", "MODEL", "BASE_URL"):
        monkeypatch.delenv(f"CLM_DATA_{name}", raising=False)
    for name in ("DEEPSEEK", "SILICONFLOW", "OPENROUTER", "DASHSCOPE", "OPENAI"):
        monkeypatch.delenv(f"{name}_API_KEY", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))
