"""Tools around a dataset: workspaces, domains, schemas, the demo, near-duplicates in any file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from clm_data import json_schema
from clm_data.api.inputs import WorkspaceLike, as_workspace, check_folder
from clm_data.backup import StoreCopy, back_up, restore
from clm_data.building import BuildReport
from clm_data.config import (
    CONFIG_NAME,
    TemporaryFolder,
    Workspace,
    copy_domains,
    open_workspace,
)
from clm_data.demo_run import run_demo
from clm_data.diagnosis import Finding, examine
from clm_data.domain import Domain, load_domains
from clm_data.log import Log, silent
from clm_data.resources import resource
from clm_data.store import Store
from clm_data.tabular import Listing

__all__ = ["backup_store", "demo", "doctor", "domains", "init", "restore_store", "schema"]


def init(folder: str | Path | None = None, *, own_domains: bool = False) -> Workspace:
    """Create a workspace: a folder with `clm.yaml` (settings) and `clm.db` (the store).

    Args:
        folder: Created if missing; an existing workspace is opened. None creates a temporary
            workspace, which is deleted when it is no longer referenced.
        own_domains: Copy `domains.yaml` and `prompts/` into it for editing.

    Raises:
        ConfigError: A setting is wrong, the folder cannot be created, or the workspace already has
            its own domains.
    """
    check_folder(folder)
    temporary = TemporaryFolder() if folder is None else None
    place = temporary.path if temporary else Path(folder or "")
    # The path is absolute, so that the object means the same folder after a change of directory.
    opened = open_workspace(place, create=True)
    workspace = replace(opened, path=opened.path.absolute(), temporary=temporary)
    Store(workspace.store_url).close()
    if own_domains:
        copy_domains(place)
    return workspace


def domains(workspace: WorkspaceLike = None) -> Listing[Domain]:
    """The domains with their quotas and topics.

    Args:
        workspace: Its own `domains.yaml` is read if it has one. None, outside a workspace: the
            domains that ship with clm-data.

    Raises:
        ConfigError: The domain file is invalid.
    """
    named = workspace is not None or os.environ.get("CLM_DATA_WORKSPACE")
    shipped = not named and not Path(CONFIG_NAME).is_file()
    file = resource("domains.yaml") if shipped else as_workspace(workspace).domains_file
    found = load_domains(file)
    wanted = sum(domain.quota for domain in found.values())
    return Listing(found.values(), f"{len(found)} domains, {wanted} entries wanted")


def doctor(workspace: WorkspaceLike = None) -> Listing[Finding]:
    """Check this machine and a workspace, without showing secrets."""
    if isinstance(workspace, Workspace):
        folder: Path | None = workspace.path
    else:
        check_folder(workspace)
        folder = Path(workspace) if workspace is not None else None
    return Listing(examine(folder), "doctor")


def backup_store(
    file: str | Path, *, force: bool = False, workspace: WorkspaceLike = None
) -> StoreCopy:
    """Write the store of a workspace to one file, while others may write to it.

    Args:
        file: The backup, which can be restored into SQLite and PostgreSQL.
        force: Replace an existing file.
        workspace: See :data:`clm_data.api.inputs.WorkspaceLike`.

    Raises:
        InputFileError: The file exists, or cannot be written.
        StoreError: The store is missing or damaged, or the disk is full. No backup is written.
    """
    with as_workspace(workspace).open_store() as store:
        return back_up(store, Path(file), overwrite=force)


def restore_store(
    file: str | Path, *, replace: bool = False, workspace: WorkspaceLike = None
) -> StoreCopy:
    """Put a backup in the place of the store of a workspace, completely or not at all.

    Args:
        file: A backup by :func:`backup_store`, or another SQLite store.
        replace: Replace what is in the store.
        workspace: See :data:`clm_data.api.inputs.WorkspaceLike`.

    Raises:
        InputFileError: There is no such file.
        StoreError: The backup is damaged; or the store is not empty and `replace` is false, is in
            use, or cannot be written. It is unchanged then.
    """
    return restore(as_workspace(workspace).store_url, Path(file), replace=replace)


def schema(name: str | None = None) -> dict[str, Any]:
    """The JSON Schema of `entry`, `record` or `decision`; None: all of them, by name.

    Raises:
        UnknownNameError: There is no schema of that name.
    """
    if name is not None:
        return json_schema.load(name)
    return {kind: json_schema.load(kind) for kind in json_schema.KINDS}


def demo(
    folder: str | Path = "clm_demo", *, log: Log = silent, program: str = "clm-data"
) -> BuildReport:
    """Run the full pipeline offline on bundled data: generate, import, review, build.

    Args:
        folder: Workspace to create; an earlier demo is continued.
        log: Called with progress messages.
        program: Program name to show in the commands suggested at the end.

    Raises:
        ConfigError: The folder is another workspace.
    """
    check_folder(folder)
    return run_demo(Path(folder), log, program)
