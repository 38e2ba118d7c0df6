"""Finding an environment with EasyEdit, and what it offers."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clm_data.errors import ConfigError

PROTOCOL = 1
"""The driver's `PROTOCOL`."""
DRIVER = Path(__file__).with_name("driver.py")
PYTHON_VARIABLE, CHECKOUT_VARIABLE = "EASYEDIT_PYTHON", "EASYEDIT_HOME"
TIMEOUT_VARIABLE = "EASYEDIT_TIMEOUT"
_PATIENCE = 600.0
"""Seconds to wait for versions or methods; importing EasyEdit from a slow disk takes minutes."""
_SETUP = "make one with: clm-data eval setup-easyeditor DIR"


@dataclass(frozen=True)
class EasyEdit:
    """An environment with EasyEdit.

    Attributes:
        python: Its interpreter.
        checkout: Folder that holds `easyeditor/` of a git checkout; None for an installed release.
        versions: Package to version; `easyeditor` is missing for a checkout, which has none.
        source: Hash of EasyEdit's code, 16 hexadecimal digits.
        timeout: Seconds to wait for the model to be loaded, or for an edit; None waits.
    """

    python: Path
    checkout: Path | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    timeout: float | None = None

    @property
    def version(self) -> str:
        """The version to show: that of the release, or the hash of a checkout's code."""
        return self.versions.get("easyeditor") or f"checkout {self.source}"

    def as_json(self) -> dict[str, str]:
        """What identifies EasyEdit in results: versions and the hash of its code."""
        return {**dict(sorted(self.versions.items())), "source": self.source}

    def command(self, *arguments: str) -> list[str]:
        """The command line of the driver; isolated, so that none of our modules is imported."""
        checkout = [] if self.checkout is None else [str(self.checkout)]
        return [str(self.python), "-I", "-X", "utf8", str(DRIVER), *arguments, *checkout]


def find_easyedit(
    python: str | Path | None = None, environ: Mapping[str, str] = os.environ
) -> EasyEdit:
    """Find the environment and read its versions, without importing EasyEdit.

    Args:
        python: Interpreter of the environment; None for the variable `EASYEDIT_PYTHON`.
        environ: Environment variables; `EASYEDIT_HOME` is the folder of a checkout,
            `EASYEDIT_TIMEOUT` the seconds to wait for an edit.

    Raises:
        ConfigError: There is no such environment, it has no EasyEdit, or a variable is wrong.
    """
    given = str(python or environ.get(PYTHON_VARIABLE, ""))
    if not given:
        raise ConfigError(
            f"the back end easyeditor needs an environment with EasyEdit; {_SETUP}, and give its "
            f"interpreter with --easyedit-python or {PYTHON_VARIABLE}"
        )
    home = environ.get(CHECKOUT_VARIABLE)
    checkout = Path(home).absolute() if home else None
    if checkout is not None and not (checkout / "easyeditor" / "__init__.py").is_file():
        raise ConfigError(
            f"{CHECKOUT_VARIABLE}={home} contains no easyeditor/; unset or correct it"
        )
    python = Path(given).expanduser().absolute()
    if python.is_dir():
        inside = python_in(python)
        better = f"give {inside}" if inside.exists() else _SETUP
        raise ConfigError(f"{python} is a folder, not an interpreter; {better}")
    timeout = _timeout(environ.get(TIMEOUT_VARIABLE, ""))
    environment = EasyEdit(python, checkout, timeout=timeout)
    answer = _ask(environment, "identify")
    return replace(environment, versions=answer["versions"], source=answer["source"])


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _timeout(text: str) -> float | None:
    try:
        seconds = float(text) if text else None
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 < seconds < threading.TIMEOUT_MAX:
        raise ConfigError(
            f"{TIMEOUT_VARIABLE}={text} is not a number of seconds; correct or unset it"
        )
    return seconds


def methods_of(environment: EasyEdit) -> tuple[list[str], list[str]]:
    """EasyEdit's names of the methods in an environment, and the packages that it lacks.

    Raises:
        ConfigError: EasyEdit cannot be imported.
    """
    answer = _ask(environment, "methods")
    return list(answer["methods"]), list(answer["missing"])


def process_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables of the driver: offline, and without keys and tokens."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.upper().endswith(("_KEY", "_TOKEN", "_SECRET", "PASSWORD"))
    }
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    return {**kept, **offline, "TOKENIZERS_PARALLELISM": "false"}


def _ask(environment: EasyEdit, question: str) -> dict[str, Any]:
    """Run the driver once; its answer."""
    where = f"EasyEdit in {environment.python}"
    try:
        done = subprocess.run(
            environment.command(question),
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            env=process_environment(),
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{where}: no answer within {_PATIENCE:.0f} seconds") from error
    except OSError as error:
        raise ConfigError(
            f"{environment.python}: no interpreter that can be run ({error.strerror}); {_SETUP}"
        ) from error
    answer = parse_answer(done.stdout)
    if answer is None:
        printed = last_line(done.stderr) or "nothing"
        raise ConfigError(
            f"{where}: the driver, which needs Python 3.9 or later, ended with {done.returncode}; "
            f"it printed: {printed}"
        )
    if answer["status"] != "ok":
        printed = last_line(done.stderr) if question == "methods" else ""
        said = f"; it printed: {printed}" if printed else f"; {_SETUP}"
        raise ConfigError(f"{where}: {answer['message']}{said}")
    if answer["protocol"] != PROTOCOL:
        raise ConfigError(f"{where}: the driver is of another version; reinstall clm-data")
    return answer


def parse_answer(line: str) -> dict[str, Any] | None:
    """The driver's answer; None if the line is not one."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and "status" in answer else None


def last_line(text: str) -> str:
    """The last line with a word or number."""
    lines = [line.strip() for line in text.splitlines() if any(map(str.isalnum, line))]
    return lines[-1] if lines else ""
