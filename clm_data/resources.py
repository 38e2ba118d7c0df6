"""Paths of the files that ship with the package.

They are in ``_resources`` in an installed wheel, and in the root folder of a checkout.
"""

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
    """Path of a shipped file or folder, such as ``resource("prompts", "generate.zh.md.j2")``.

    Raises:
        ConfigError: The file is missing, so the installation is incomplete.
    """
    path = _root().joinpath(*parts)
    if not path.exists():
        raise ConfigError(f"shipped file {'/'.join(parts)} is missing; reinstall clm-data")
    return path


def read_text(*parts: str) -> str:
    """Text of a shipped UTF-8 file."""
    return resource(*parts).read_text(encoding="utf-8")


def bank_path(*parts: str) -> Path:
    """Path of a file in the bundled bank, which is part of the package itself."""
    return _PACKAGE.joinpath("bank", *parts)
