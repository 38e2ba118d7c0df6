"""Datasets and models as folders, for tests that go through the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clm_data.layouts import published
from clm_data.records import Record


def dataset_folder(folder: Path, records: Sequence[Record]) -> Path:
    """The published JSON files."""
    folder.mkdir()
    for name, rows in published(records).items():
        (folder / name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


def model_folder(folder: Path, **sizes: Any) -> Path:
    """A random Llama-style model of five layers, or as given, with its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from helpers.small_models import byte_level_tokenizer, small_model

    words = byte_level_tokenizer()
    model = small_model(tokenizer=words).model
    if sizes:
        shape = model.config.to_dict() | sizes
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
