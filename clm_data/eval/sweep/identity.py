"""What the names in a recipe stand for now: part of the key under which a cell is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError


def model_identity(name: str) -> Any:
    """A model's or tokenizer's files by their sha256, or its commit on the Hub.

    Args:
        name: A folder, ``gguf:FILE``, ``gguf:smollm2``, or a Hub id.

    Raises:
        InputFileError: It is neither here nor on the Hub, or cannot be read.
    """
    path = Path(name.removeprefix("gguf:"))
    try:
        if path.is_file():
            return _file_hash(path)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file())
            return {file.name: _file_hash(file) for file in files}
    except OSError as error:
        raise InputFileError(f"model {name}: {error.filename}: {error.strerror}") from error
    if name.startswith("gguf:"):
        return name
    return [name, _commit(name)]


def corpus_identity(spec: str) -> str:
    """The sha256 of a corpus that is a file; the name of any other."""
    path = Path(spec)
    return _file_hash(path) if path.is_file() else spec


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit(name: str) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["config.json"])).name
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputFileError(
            f"model {name}: neither a folder here nor to be had from the Hub: {first}"
        ) from error
