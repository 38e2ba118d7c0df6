"""``manifest.json``: the provenance of a built dataset and the sha256 of its files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clm_data.config import Settings
from clm_data.errors import InputFileError
from clm_data.files import files_in, sha256_file
from clm_data.records import Frozen

MANIFEST_NAME = "manifest.json"
_PACKAGES = ("pyarrow", "rapidfuzz", "matplotlib", "opencc", "langdetect")


class Manifest(Frozen):
    """Provenance of a dataset. Has no times or paths, so equal input gives equal bytes."""

    clm_data: str
    """Version of clm-data, as shown by ``clm-data --version``."""
    packages: dict[str, str]
    """Versions of the packages that affect the output."""
    settings: dict[str, Any]
    """The settings that affect the content (:func:`content_settings`)."""
    domains_sha256: str
    """sha256 of the domain file."""
    prompt_versions: dict[str, str]
    """Current versions of the prompt templates."""
    prompt_hashes: dict[str, int]
    """Number of records by the sha256 of the rendered prompt that produced them."""
    sources: list[dict[str, Any]]
    """Imported files: ``name``, ``format``, ``sha256``, ``licence``."""
    stages: dict[str, dict[str, int]]
    """Counts ``in``, ``kept`` and ``rejected`` by stage."""
    reviewed: dict[str, int]
    """Number of records by review status."""
    reviewed_only: bool
    """Whether unreviewed entries were left out."""
    files: dict[str, str]
    """sha256 by path, for every file except the manifest."""

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into a folder."""
        text = json.dumps(self.model_dump(), ensure_ascii=False, indent=2, sort_keys=True)
        (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a built dataset.

    Raises:
        InputFileError: The folder has no manifest, or one that clm-data did not write.
    """
    file = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputFileError(
            f"no {MANIFEST_NAME} in {folder}; build the dataset with: clm-data build --out {folder}"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputFileError(
            f"{file}: not a manifest written by clm-data build: {reason}"
        ) from error


def other_files(folder: Path) -> Iterator[str]:
    """Paths in a folder that are not as the build wrote them: not in its manifest, or changed.

    Without a manifest of clm-data these are all files.
    """
    try:
        written = read_manifest(folder).files
    except InputFileError:
        yield from files_in(folder)
        return
    for path in files_in(folder):
        if path == MANIFEST_NAME:
            continue
        if path not in written or sha256_file(folder / path) != written[path]:
            yield path


def content_settings(settings: Settings) -> dict[str, Any]:
    """The settings that affect the built dataset; not the store, provider or model."""
    chosen = settings.model_dump(include={"dedup", "locality", "dataset"})
    source = chosen["locality"]["source"]
    chosen["locality"]["source"] = source if source.startswith("hub:") else Path(source).name
    return chosen


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that affect the output."""
    return {name: version(name) for name in _PACKAGES}


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file in a folder except the manifest, by path with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_NAME
    }
