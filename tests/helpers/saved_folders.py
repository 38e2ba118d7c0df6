"""Datasets, models and results as folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clm_data.layouts import published
from clm_data.records import Record


def dataset_folder(folder: Path, records: Sequence[Record]) -> Path:
    """Write records as the published JSON files."""
    folder.mkdir()
    for name, rows in published(records).items():
        (folder / name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder


def model_folder(folder: Path, **config: Any) -> Path:
    """Write a random Llama-style model of five layers with its tokenizer.

    Args:
        folder: Where to write.
        config: Changes to the model's configuration.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from helpers.small_models import byte_level_tokenizer, small_model

    tokenizer = byte_level_tokenizer()
    model = small_model(tokenizer=tokenizer).model
    if config:
        changed = model.config.to_dict() | config
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**changed))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def cell_versions(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of each cell file, which change when a cell is written anew."""
    stats = {file.name: file.stat() for file in (folder / "cells").glob("*.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}
