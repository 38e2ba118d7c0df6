"""Finds the files that ship with the package: in a wheel ``_resources``, in a checkout its root."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from clm_data.errors import ConfigError

_PACKAGE = Path(__file__).parent


@lru_cache(maxsize=1)
def _root() -> Path:
    bundled = _PACKAGE / "_resources"
    return bundled if bundled.is_dir() else _PACKAGE.parent


def resource(*parts: str) -> Path:
    """Path of a shipped file or folder: ``resource("prompts", "generate.zh.md.j2")``.

    Raises:
        ConfigError: The installation is incomplete.
    """
    path = _root().joinpath(*parts)
    if not path.exists():
        raise ConfigError(f"shipped file {'/'.join(parts)} is missing; install clm-data again")
    return path


def read_text(*parts: str) -> str:
    """Text of a shipped file."""
    return resource(*parts).read_text(encoding="utf-8")


def bank_path(*parts: str) -> Path:
    """Path inside the bundled bank, which lives in the package itself."""
    return _PACKAGE.joinpath("bank", *parts)
