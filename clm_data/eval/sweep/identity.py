"""What identifies models and corpora by content: part of the key of a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError
from clm_data.files import sha256_file


def model_identity(name: str, revision: str | None = None) -> Any:
    """JSON that identifies the files of a model or tokenizer: their sha256, or a commit on the Hub.

    Args:
        name: A folder, `gguf:FILE`, `gguf:smollm2`, or a Hub id.
        revision: Branch, tag or commit on the Hub; None for the main branch.

    Raises:
        InputFileError: The model is neither local nor on the Hub, cannot be read, or is local with
            a revision.
    """
    _check_revision(name, revision)
    path = Path(name.removeprefix("gguf:"))
    try:
        if path.is_file():
            return sha256_file(path)
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file())
            return {file.name: sha256_file(file) for file in files}
    except OSError as error:
        raise InputFileError(f"model {name}: {error.filename}: {error.strerror}") from error
    if name.startswith("gguf:"):  # gguf:smollm2, a file in a package
        from clm_data.eval.model.loading import model_source

        folder, arguments = model_source(name)
        return sha256_file(Path(folder) / arguments["gguf_file"])
    return [name, Path(_config_folder(name, revision)).name]


def encoder_identity(folder: str) -> dict[str, str]:
    """The sha256 of each file of a sentence encoder, those of its modules in subfolders included.

    Raises:
        InputFileError: There is no such folder, or a file cannot be read.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputFileError(f"encoder {folder}: no such folder; download it first")
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {file.relative_to(path).as_posix(): sha256_file(file) for file in files}
    except OSError as error:
        raise InputFileError(f"encoder {folder}: {error.filename}: {error.strerror}") from error


def model_config(name: str, revision: str | None = None) -> Mapping[str, Any]:
    """The content of a model's `config.json`, without loading the model.

    Args:
        name: A folder, `gguf:FILE`, `gguf:smollm2`, or a Hub id.
        revision: Branch, tag or commit on the Hub; None for the main branch.

    Raises:
        InputFileError: There is no such model, or its config cannot be read.
    """
    _check_revision(name, revision)
    try:
        if name.startswith("gguf:"):
            from transformers import AutoConfig

            from clm_data.eval.model.loading import model_source

            folder, arguments = model_source(name)
            return dict(AutoConfig.from_pretrained(folder, **arguments).to_dict())
        folder = name if Path(name).is_dir() else _config_folder(name, revision)
        file = Path(folder) / "config.json"
        if not file.exists():
            raise InputFileError(
                f"model {name}: no model, because it has no config.json; specify a folder or "
                "repository with config.json, weights and tokenizer"
            )
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputFileError(f"model {name}: config.json cannot be read: {reason}") from error
    if not isinstance(found, dict):
        raise InputFileError(f"model {name}: config.json holds no settings")
    return found


def corpus_identity(spec: str) -> str:
    """The sha256 of a corpus that is a file; the name of any other.

    Raises:
        InputFileError: The file cannot be read.
    """
    path = Path(spec)
    try:
        return sha256_file(path) if path.is_file() else spec
    except OSError as error:
        raise InputFileError(f"corpus {spec}: cannot be read: {error.strerror}") from error


def _check_revision(name: str, revision: str | None) -> None:
    if revision is not None and (name.startswith("gguf:") or Path(name).exists()):
        raise InputFileError(
            f"model {name}: a local model has no revision '{revision}'; leave it out, or specify "
            "the model's id on the Hub"
        )


def _config_folder(name: str, revision: str | None) -> str:
    """Folder in the cache with the config of a model on the Hub; its name is the commit."""
    if name.startswith(("./", "../", "/", "~")):
        raise InputFileError(
            f"model {name}: no such folder; check the path, or specify the model's id on the Hub"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(name, revision=revision, allow_patterns=["config.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputFileError(
            f"model {name}{f' at {revision}' if revision else ''}: neither a local folder nor a "
            f"model on the Hub: {reason}"
        ) from error
