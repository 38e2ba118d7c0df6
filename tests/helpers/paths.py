"""Paths that tests use: the checkout, and the data that may lie next to it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def shared_path(*parts: str) -> Path:
    """A file or folder under ``../shared``; skips the test if it does not exist."""
    path = ROOT.parent.joinpath("shared", *parts)
    if not path.exists():
        pytest.skip(f"needs ../shared/{'/'.join(parts)} next to the checkout")
    return path
