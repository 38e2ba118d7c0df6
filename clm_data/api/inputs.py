"""What the public functions accept: workspaces, files, and rows in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from clm_data.config import Workspace, open_workspace
from clm_data.errors import ConfigError, InputFileError
from clm_data.sources import SourceFile, read_file
from clm_data.sources.files import RawFile, rows_in_memory

if TYPE_CHECKING:
    from datasets.arrow_dataset import Dataset

WorkspaceLike: TypeAlias = Workspace | str | Path | None
"""A workspace, its folder, or None: `CLM_DATA_WORKSPACE`, else the current folder."""

Rows: TypeAlias = "Iterable[Mapping[str, Any]] | Dataset"
"""Rows in memory: dicts in any layout that :data:`clm_data.sources.FORMATS` knows."""

Source: TypeAlias = "str | Path | Sequence[str | Path] | Rows"
"""One file, several files that belong together, or rows in memory."""

IN_MEMORY = "rows"
"""Name of rows that came from no file."""


def as_workspace(workspace: WorkspaceLike, *, create: bool = False, **overrides: Any) -> Workspace:
    """Open a workspace.

    Args:
        workspace: See :data:`WorkspaceLike`. A workspace that is open already keeps its settings.
        create: Write a default `clm.yaml` if the folder has none.
        overrides: Top-level settings that win over `clm.yaml`; None leaves a setting alone.

    Raises:
        ConfigError: The folder is not a workspace, or a setting is wrong.
    """
    if isinstance(workspace, Workspace):
        given = {name: value for name, value in overrides.items() if value is not None}
        return workspace.with_settings(**given) if given else workspace
    check_folder(workspace)
    folder = Path(workspace) if workspace is not None else None
    return open_workspace(folder, create=create, overrides=overrides)


def source_files(
    source: Source,
    format: str | None = None,
    license: str | None = None,
    encoding: str | None = None,
) -> list[SourceFile]:
    """Read a source; alters and drops nothing.

    Raises:
        InputFileError: A file is unreadable or of no known format, or there are no rows.
        UnknownNameError: There is no format of that name.
    """
    return [read_file(item, format, license, encoding) for item in inputs(source)]


def check_at_least_one(**limits: int | None) -> None:
    """Check limits that the caller may leave out.

    Raises:
        ConfigError: A limit is not a whole number, or less than 1.
    """
    for name, value in limits.items():
        if value is not None and (not isinstance(value, Integral) or value < 1):
            raise ConfigError(f"{name} is {value}; pass a whole number of at least 1, or None")


def check_text(**values: Any) -> None:
    """Check texts that the caller may leave out.

    Raises:
        ConfigError: A value is neither text nor None.
    """
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{name} is {value!r}; pass a text, or None")


def check_folder(folder: Any) -> None:
    """Check the type of a folder that the caller may leave out.

    Raises:
        ConfigError: It is neither a path nor None.
    """
    if folder is not None and not isinstance(folder, str | Path):
        raise ConfigError(f"the folder is {folder!r}; pass a path")


def inputs(source: Source) -> list[Path | RawFile]:
    """The files of a source, or its rows as one file in memory; `sha256` is that of their JSON.

    Raises:
        InputFileError: The source is empty, or has both files and rows.
    """
    if isinstance(source, str | Path):
        return [_path(source)]
    if not isinstance(source, Iterable) or isinstance(source, Mapping) or hasattr(source, "iloc"):
        raise InputFileError(
            f"rows cannot be read from a {type(source).__name__}; pass files, dicts (from a "
            "DataFrame: to_dict('records')) or a datasets.Dataset (one split)"
        )
    items = list(source)
    if not items:
        raise InputFileError("the source is empty; pass at least one file or row")
    are_files = [isinstance(item, str | Path) for item in items]
    if all(are_files):
        return [_path(item) for item in items]
    if any(are_files):
        place = are_files.index(not are_files[0]) + 1
        raise InputFileError(
            f"files and rows are mixed (item 1 and item {place}); pass either files or rows"
        )
    return [rows_in_memory(items, IN_MEMORY)]


def _path(given: str | Path) -> Path:
    if not str(given).strip():
        raise InputFileError("the name of a file is empty; pass a file, or rows")
    return Path(given)
