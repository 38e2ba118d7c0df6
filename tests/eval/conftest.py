"""Fixtures of the evaluation tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model trained on a few records; its parent is a cache folder."""
    pytest.importorskip("torch")
    from helpers.tiny_dataset import CONFIG, RECORDS

    from clm_data.eval.model.tiny import tiny_model

    return tiny_model(RECORDS, tmp_path_factory.mktemp("tiny-cache"), CONFIG)
