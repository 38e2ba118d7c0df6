"""``manifest.json``: what a built folder was made from, and the sha256 of every file in it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clm_data.config import Settings
from clm_data.errors import InputFileError
from clm_data.files import sha256_file
from clm_data.records import Frozen

MANIFEST_NAME = "manifest.json"
_SHAPING_PACKAGES = ("pyarrow", "rapidfuzz", "matplotlib", "opencc", "langdetect")


class Manifest(Frozen):
    """What made a dataset. Holds no time and no path, so that equal input gives equal bytes."""

    clm_data: str
    """Version of this package."""
    packages: dict[str, str]
    """Versions of the packages that shape the bytes."""
    settings: dict[str, Any]
    """The settings that shape the content (:func:`shaping_settings`)."""
    domains_sha256: str
    """Of the domain file."""
    prompt_versions: dict[str, str]
    """Of the prompt templates as they are now."""
    prompt_hashes: dict[str, int]
    """sha256 of each rendered prompt and how many records it brought."""
    sources: list[dict[str, Any]]
    """Imported files: name, format, sha256, licence."""
    stages: dict[str, dict[str, int]]
    """Per stage: how many went in, were kept, were rejected."""
    reviewed: dict[str, int]
    """Records by review status."""
    reviewed_only: bool
    files: dict[str, str]
    """sha256 by path, for every file but this one."""

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder."""
        text = json.dumps(self.model_dump(), ensure_ascii=False, indent=2, sort_keys=True)
        (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a built folder.

    Raises:
        InputFileError: None there, or not one of ours.
    """
    file = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputFileError(
            f"no {MANIFEST_NAME} in {folder}; make the folder with: clm-data build --out {folder}"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputFileError(f"{file}: not a manifest of clm-data build: {reason}") from error


def shaping_settings(settings: Settings) -> dict[str, Any]:
    """The settings that shape what is built (not where the store is, nor who is asked)."""
    chosen = settings.model_dump(include={"dedup", "locality", "dataset"})
    source = chosen["locality"]["source"]
    chosen["locality"]["source"] = source if source.startswith("hub:") else Path(source).name
    return chosen


def shaping_packages() -> dict[str, str]:
    """Installed versions of the packages that shape the bytes."""
    return {name: version(name) for name in _SHAPING_PACKAGES}


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder but the manifest, by path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_NAME
    }
