"""Making an environment with EasyEdit: what `clm-data eval setup-easyeditor` does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clm_data.errors import ConfigError, InputFileError
from clm_data.eval.easyedit import METHODS, PACKAGES, RELEASE_METHODS
from clm_data.eval.easyedit.found import (
    CHECKOUT_VARIABLE,
    PYTHON_VARIABLE,
    EasyEdit,
    find_easyedit,
    last_line,
    methods_of,
    python_in,
)
from clm_data.log import Log, silent

RELEASE = "easyeditor==0.0.1.dev0"
_PYTHONS = {"release": ((3, 10), (3, 11)), "checkout": ((3, 11), (3, 13))}
"""Versions of Python that the pinned packages have builds for, the first and the last."""
_MARK = "clm-data-easyedit.txt"
"""A file in each environment that was made here: the packages that were installed completely."""


@dataclass(frozen=True)
class EasyEditSetup:
    """An environment that was made.

    Attributes:
        easyedit: The environment.
        methods: Our names of the methods that it computes.
        lacking: Our names of the methods for which it lacks a package, and the package.
    """

    easyedit: EasyEdit
    methods: tuple[str, ...]
    lacking: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "python": str(self.easyedit.python),
            "checkout": self.easyedit.checkout and str(self.easyedit.checkout),
            "versions": self.easyedit.as_json(),
            "methods": list(self.methods),
            "lacking": dict(self.lacking),
        }

    def __str__(self) -> str:
        lacking = [f"{method} needs the package {one}" for method, one in self.lacking.items()]
        methods = ", ".join(self.methods) or "no method"
        return "; ".join([f"{_described(self.easyedit)}: {methods}", *lacking])

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
        folder: Where to make it; an environment that is there is completed or repaired.
        checkout: Folder of a git checkout of EasyEdit; None installs the release on the package
            index, which has MEMIT, ROME and FT for older models.
        python: Interpreter to make it from; default a version that the packages have builds for.
        log: Called with progress messages.

    Raises:
        ConfigError: There is no suitable interpreter, or packages cannot be installed.
        InputFileError: `folder` contains something else or cannot be written, or `checkout` is no
            checkout.
    """
    folder = Path(folder).expanduser().absolute()
    home = None if checkout is None else Path(checkout).expanduser().absolute()
    if home is not None and not (home / "easyeditor" / "__init__.py").is_file():
        raise InputFileError(f"{home} contains no easyeditor/, so it is no checkout of EasyEdit")
    kind = "release" if home is None else "checkout"
    pins = Path(__file__).with_name(f"pins-{kind}.txt")
    variables = {} if home is None else {CHECKOUT_VARIABLE: str(home)}
    inside = python_in(folder)
    wanted = pins.read_text(encoding="utf-8") + RELEASE
    if _environment(folder, kind, python, log) == wanted:
        try:
            return examine(find_easyedit(inside, variables))
        except ConfigError as error:
            log(f"installing again: {error}")
            _install(inside, pins, home, "--force-reinstall")
    else:
        log(f"installing the packages of {pins.name}; this takes minutes")
        _install(inside, pins, home)
    log("importing EasyEdit")
    made = examine(find_easyedit(inside, variables))
    (folder / _MARK).write_text(wanted, encoding="utf-8")
    return made


def _environment(folder: Path, kind: str, python: str | Path | None, log: Log) -> str:
    """Make the environment if it is not there or was not finished; what its mark says.

    Raises:
        ConfigError: There is no suitable interpreter, or it makes no environment.
        InputFileError: The folder contains something else, or cannot be written.
    """
    mark, inside = folder / _MARK, python_in(folder)
    try:
        ours = mark.is_file()
        if not ours and folder.exists() and not (folder / "pyvenv.cfg").is_file():
            if not folder.is_dir() or any(folder.iterdir()):
                raise InputFileError(
                    f"{folder} exists and is no virtual environment; choose another folder"
                )
        elif ours or folder.exists():
            if _runs(inside, "-m", "pip", "--version"):
                return mark.read_text(encoding="utf-8") if ours else ""
            if not ours:
                raise InputFileError(
                    f"{folder} is a virtual environment whose Python or pip does not run; delete "
                    "it, or choose another folder"
                )
        base = _interpreter(kind, python)
        if ours:
            log(f"making the environment in {folder} again, because it was not finished")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise InputFileError(f"{folder} cannot be written: {error.strerror}") from error
    log(f"making an environment in {folder} with {base}")
    _run([str(base), "-m", "venv", str(folder)], "the environment")
    return ""


def _install(inside: Path, pins: Path, home: Path | None, *options: str) -> None:
    pip = [str(inside), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *options]
    _run([*pip, "--requirement", str(pins)], "the packages")
    if home is None:
        _run([*pip, "--no-deps", RELEASE], RELEASE)


def _runs(python: Path, *arguments: str) -> bool:
    try:
        done = subprocess.run([str(python), *arguments], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def examine(easyedit: EasyEdit) -> EasyEditSetup:
    """Import EasyEdit in its environment, and list the methods that it computes.

    Raises:
        ConfigError: EasyEdit cannot be imported.
    """
    there, missing = methods_of(easyedit)
    known = METHODS if easyedit.checkout else RELEASE_METHODS
    here = [one for one in known if METHODS[one] in there]
    lacking = {one: PACKAGES[one] for one in here if PACKAGES.get(one) in missing}
    return EasyEditSetup(easyedit, tuple(one for one in here if one not in lacking), lacking)


def _described(easyedit: EasyEdit) -> str:
    transformers = easyedit.versions.get("transformers", "missing")
    return f"EasyEdit {easyedit.version} with transformers {transformers}"


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
