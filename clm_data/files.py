"""Reading YAML, and writing files and folders whole: a reader sees old or new, never half."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from clm_data.errors import InputFileError, UserError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast loader where PyYAML was built with it."""


def read_yaml(file: Path, error_type: type[UserError] = InputFileError) -> Any:
    """The value in a YAML file.

    Args:
        file: UTF-8.
        error_type: What to raise.

    Raises:
        UserError: Missing, unreadable or not YAML; one line, as ``error_type``.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError as error:
        raise error_type(f"{file}: no such file; check the name") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise error_type(f"{file}: cannot be read as YAML: {reason}") from error


@contextmanager
def replaced_folder(out: Path, marker: str) -> Iterator[Path]:
    """Fill a new folder beside ``out`` and put it in its place at the end.

    A failure or a kill leaves ``out`` as it was; what an earlier one left over is removed.

    Args:
        out: The folder to make.
        marker: A file that tells a folder of ours, which may be replaced, from somebody's own.

    Yields:
        The new folder, empty.

    Raises:
        InputFileError: ``out`` is a file, or holds files and no ``marker``.
    """
    out = out.absolute()
    aside, retired = (out.with_name(f".{out.name}.{word}") for word in ("new", "old"))
    if retired.exists() and not out.exists():
        retired.rename(out)
    if out.exists() and not out.is_dir():
        raise InputFileError(f"{out} is a file; name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / marker).is_file():
        raise InputFileError(
            f"{out} holds files that clm-data did not write (no {marker}); "
            "name another folder with --out, or empty it"
        )
    for leftover in (aside, retired):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        if out.exists():
            out.rename(retired)
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


@contextmanager
def replaced_file(out: Path, *, force: bool = False) -> Iterator[Path]:
    """Fill a new file beside ``out`` and put it in its place at the end.

    A failure leaves ``out`` as it was and nothing beside it; what a kill left is overwritten.

    Args:
        out: The file to make, in a folder that is there; a link is followed.
        force: Allow ``out`` to be a file already.

    Yields:
        Where to write.

    Raises:
        InputFileError: ``out`` is there without ``force``, is no regular file, or what was written
            does not fit on the disk.
    """
    try:
        target = out.resolve()
        if target.exists() and not target.is_file():
            raise InputFileError(f"{out} is not a file that can be replaced; name another one")
        if target.exists() and not force:
            raise InputFileError(f"{out} is there already; name another file, or add --force")
        aside = target.with_name(f".{target.name}.new")
        aside.touch()
    except OSError as error:
        raise InputFileError(f"{out}: cannot be written: {error.strerror or error}") from error
    try:
        yield aside
        try:
            with aside.open("rb") as written:
                os.fsync(written.fileno())
            aside.replace(target)
        except OSError as error:
            raise InputFileError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
