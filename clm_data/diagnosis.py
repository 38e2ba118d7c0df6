"""Checks of the installation and the workspace for ``clm-data doctor``. Shows no secrets."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from clm_data.config import CONFIG_NAME, Workspace, open_workspace
from clm_data.domain import load_domains
from clm_data.errors import UserError
from clm_data.lease import holders
from clm_data.llm import PROVIDERS, key_problem
from clm_data.resources import resource
from clm_data.sources import unknown_formats
from clm_data.store_check import check_store


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    check: str
    state: Literal["ok", "absent", "wrong"]
    """``absent``: optional and missing; ``wrong``: must be fixed."""
    detail: str
    """What was found, or how to fix it."""


def examine(folder: Path | None) -> list[Finding]:
    """Check Python, shipped files, packages, workspace, store, keys, EasyEdit and fonts."""
    return [*_installation(), *_workspace(folder), *_keys(), *_easyedit(), *_chart_font()]


def _installation() -> Iterator[Finding]:
    yield Finding("Python", "ok", sys.version.split()[0])
    try:
        found = load_domains(resource("domains.yaml"))
        yield Finding("shipped domains", "ok", f"{len(found)}")
    except UserError as error:
        yield Finding("shipped domains", "wrong", str(error))
    for package, extra in (("torch", "eval"), ("transformers", "eval"), ("psycopg", "postgres")):
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "absent", f"only needed for the extra {extra}")


def _workspace(folder: Path | None) -> Iterator[Finding]:
    if (
        folder is None
        and not os.environ.get("CLM_DATA_WORKSPACE")
        and not Path(CONFIG_NAME).is_file()
    ):
        yield Finding("workspace", "absent", "create one with: clm-data init my-dataset")
        return
    try:
        workspace = open_workspace(folder)
        yield Finding("workspace", "ok", str(workspace.path))
        yield from _store(workspace)
        yield Finding("domains", "ok", f"{len(workspace.domains())}")
    except UserError as error:
        yield Finding("workspace", "wrong", str(error))


def _store(workspace: Workspace) -> Iterator[Finding]:
    try:
        with workspace.open_store() as store:
            checked = check_store(store)
            store.read_around_damage()
            damaged = (*checked.damaged, *unknown_formats(store))
            running = holders(store) if store.has_table("lease") else {}
    except UserError as error:
        yield Finding("store", "wrong", str(error))
        return
    counts = checked.counts
    intact = ", ".join(f"{number} {kind}" for kind, number in counts.items())
    if not damaged:
        yield Finding("store", "ok", intact)
    for row in damaged:
        yield Finding("store", "wrong", f"damaged: {row}")
    if damaged:
        fix = (
            "clm-data show reads around damaged rows; put a backup in the place of the store "
            "with: clm-data store restore FILE --replace"
        )
        yield Finding("store", "wrong", f"intact: {intact}; {fix}")
    for name, holder in running.items():
        yield Finding(name, "ok", f"{holder}")


def _keys() -> Iterator[Finding]:
    names = {preset.key_variable for preset in PROVIDERS.values() if preset.key_variable}
    for name in sorted(names):
        key = os.environ.get(name, "").strip()
        if problem := key_problem(key):
            yield Finding(name, "wrong", f"cannot be sent: {problem}")
        elif key:
            yield Finding(name, "ok", "set")
        else:
            yield Finding(name, "absent", f"export {name}=... to use it")
    token = bool(os.environ.get("HF_TOKEN"))
    yield Finding(
        "HF_TOKEN",
        "ok" if token else "absent",
        "set" if token else "export HF_TOKEN=... or run hf auth login, to push",
    )


def _easyedit() -> Iterator[Finding]:
    """Which methods EasyEdit's environment offers; importing it there takes seconds."""
    from clm_data.eval.easyedit.found import PYTHON_VARIABLE, find_easyedit
    from clm_data.eval.easyedit.install import examine as examine_easyedit

    if not os.environ.get(PYTHON_VARIABLE):
        make = "make an environment with: clm-data eval setup-easyeditor DIR"
        yield Finding("EasyEdit", "absent", f"only needed for --backend easyeditor; {make}")
        return
    try:
        yield Finding("EasyEdit", "ok", f"{examine_easyedit(find_easyedit())}")
    except UserError as error:
        yield Finding("EasyEdit", "wrong", str(error))


def _chart_font() -> Iterator[Finding]:
    from clm_data.fonts import find_fonts

    fonts = find_fonts("中文")
    yield Finding(
        "Chinese font",
        "ok" if fonts else "absent",
        str(fonts) if fonts else "charts use English names; install fonts-noto-cjk for Chinese",
    )
