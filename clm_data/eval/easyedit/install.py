"""Making an environment with EasyEdit: what `clm-data eval setup-easyeditor` does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clm_data.errors import ConfigError, InputFileError
from clm_data.eval.easyedit import CHECKOUT_ONLY, METHODS
from clm_data.eval.easyedit.found import (
    CHECKOUT_VARIABLE,
    PYTHON_VARIABLE,
    EasyEdit,
    find_easyedit,
    last_line,
    methods_of,
)
from clm_data.log import Log, silent

RELEASE = "easyeditor==0.0.1.dev0"
_PYTHONS = {"release": ((3, 10), (3, 11)), "checkout": ((3, 11), (3, 13))}
"""Versions of Python that the pinned packages have builds for, the first and the last."""


@dataclass(frozen=True)
class EasyEditSetup:
    """An environment that was made.

    Attributes:
        easyedit: The environment.
        methods: Our names of the methods that it computes.
    """

    easyedit: EasyEdit
    methods: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "python": str(self.easyedit.python),
            "checkout": self.easyedit.checkout and str(self.easyedit.checkout),
            "versions": self.easyedit.as_json(),
            "methods": list(self.methods),
        }

    def __str__(self) -> str:
        return describe(self.easyedit, self.methods)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables with which `eval-baselines` finds it."""
        found = {PYTHON_VARIABLE: str(self.easyedit.python)}
        if self.easyedit.checkout is not None:
            found[CHECKOUT_VARIABLE] = str(self.easyedit.checkout)
        return found


def setup_easyeditor(
    folder: str | Path,
    *,
    checkout: str | Path | None = None,
    python: str | Path | None = None,
    log: Log = silent,
) -> EasyEditSetup:
    """Make a virtual environment with EasyEdit, and check what it offers.

    Args:
        folder: Where to make it; an environment that is there is completed.
        checkout: Folder of a git checkout of EasyEdit; None installs the release on the package
            index, which has MEMIT, ROME and FT for older models.
        python: Interpreter to make it from; default a version that the packages have builds for.
        log: Called with progress messages.

    Raises:
        ConfigError: There is no suitable interpreter, or packages cannot be installed.
        InputFileError: `folder` contains something else, or `checkout` is no checkout.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and not (folder / "pyvenv.cfg").is_file() and any(folder.iterdir()):
        raise InputFileError(
            f"{folder} exists and is no virtual environment; choose another folder"
        )
    home = None if checkout is None else Path(checkout).expanduser().absolute()
    if home is not None and not (home / "easyeditor" / "__init__.py").is_file():
        raise InputFileError(f"{home} contains no easyeditor/, so it is no checkout of EasyEdit")
    kind = "release" if home is None else "checkout"
    inside = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not inside.exists():
        base = _interpreter(kind, python)
        log(f"making an environment in {folder} with {base}")
        _run([str(base), "-m", "venv", str(folder)], "the environment")
    pins = Path(__file__).with_name(f"pins-{kind}.txt")
    pip = [str(inside), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    log(f"installing the packages of {pins.name}")
    _run([*pip, "--requirement", str(pins)], "the packages")
    if home is None:
        _run([*pip, "--no-deps", RELEASE], RELEASE)
    log("importing EasyEdit")
    variables = {} if home is None else {CHECKOUT_VARIABLE: str(home)}
    return examine(find_easyedit(inside, variables))


def examine(easyedit: EasyEdit) -> EasyEditSetup:
    """Import EasyEdit in its environment, and list the methods that it computes.

    Raises:
        ConfigError: EasyEdit cannot be imported.
    """
    there = methods_of(easyedit)
    here = [one for one, name in METHODS.items() if name in there]
    if easyedit.checkout is None:
        here = [one for one in here if one not in CHECKOUT_ONLY]
    return EasyEditSetup(easyedit, tuple(here))


def describe(easyedit: EasyEdit, methods: tuple[str, ...]) -> str:
    """An environment in one line."""
    return (
        f"EasyEdit {easyedit.version} with transformers "
        f"{easyedit.versions.get('transformers', 'missing')}: {', '.join(methods) or 'no method'}"
    )


def _interpreter(kind: str, given: str | Path | None) -> Path:
    """An interpreter of a version that the pinned packages have builds for.

    Raises:
        ConfigError: There is none, or the given one is of another version.
    """
    first, last = _PYTHONS[kind]
    if given is not None:
        return _checked(Path(given), first, last)
    if first <= sys.version_info[:2] <= last:
        return Path(sys.executable)
    for minor in range(last[1], first[1] - 1, -1):
        if found := shutil.which(f"python3.{minor}"):
            return Path(found)
    raise ConfigError(
        f"EasyEdit's {kind} needs Python {_dotted(first)} to {_dotted(last)}; give it as --python"
    )


def _checked(python: Path, first: tuple[int, int], last: tuple[int, int]) -> Path:
    code = "import sys; print(*sys.version_info[:2])"
    version = tuple(map(int, _run([str(python), "-c", code], str(python)).split()))
    if not first <= version <= last:
        raise ConfigError(
            f"{python} is Python {_dotted(version)}; the pinned packages need {_dotted(first)} to "
            f"{_dotted(last)}"
        )
    return python


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _run(command: list[str], what: str) -> str:
    """Run a program; its output.

    Raises:
        ConfigError: It cannot be run, or failed; with the last error that it printed.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise ConfigError(f"{command[0]}: cannot be run ({error.strerror})") from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else last_line(done.stderr)
        raise ConfigError(f"{what} cannot be installed: {reason or f'exit {done.returncode}'}")
    return done.stdout
