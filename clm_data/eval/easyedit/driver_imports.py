"""The first part of the driver: versions, and importing EasyEdit. Stands alone, as `driver.py`."""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROTOCOL = 1
"""Raised when requests or answers change; both sides must have the same."""
LONGEST = 240
"""Characters of a message."""
REQUIRED = ("torch", "transformers", "numpy")
"""Packages without which EasyEdit edits nothing; others may be missing."""
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "peft", "easyeditor")


class DriverError(Exception):
    """An error with a kind: `environment`, `model`, `method` or `request`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def package_folder() -> Path:
    """The folder of EasyEdit, found without importing it."""
    spec = importlib.util.find_spec("easyeditor")
    if spec is None or not spec.submodule_search_locations:
        raise DriverError("environment", "the package easyeditor is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def identify(checkout: str | None) -> dict[str, Any]:
    """Versions of Python and packages, and a hash of EasyEdit's code."""
    folder = package_folder()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    code = hashlib.sha256()
    for file in [*sorted(folder.glob("models/**/*.py")), folder / "editors" / "editor.py"]:
        code.update(file.read_bytes())
    if checkout:  # an installed release would be another one
        versions.pop("easyeditor", None)
    return {"protocol": PROTOCOL, "versions": versions, "source": code.hexdigest()[:16]}


def methods(checkout: str | None) -> dict[str, Any]:
    """What `identify` returns, and the names of the methods; imports EasyEdit."""
    found = identify(checkout)
    algorithms = import_easyeditor()
    return {**found, "methods": sorted(algorithms), "missing": sorted(_MISSING)}


_MISSING: dict[str, str] = {}
"""Packages that EasyEdit imports and that are not there, with the reason."""
_IMPORTING = [False]


class _StandIn(type):
    """Something that a missing package would define: fails when EasyEdit calls it."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return stand_in(cls.package, name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not _IMPORTING[0]:
            raise DriverError(
                "environment",
                f"EasyEdit needs the package {cls.package}: "
                f"{_MISSING.get(cls.package, 'not installed')}",
            )
        decorates = len(args) == 1 and not kwargs and callable(args[0])
        return args[0] if decorates else stand_in(cls.package, cls.__name__)

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __or__(cls, other: Any) -> Any:
        return cls

    __ror__ = __or__


def stand_in(package: str, name: str) -> Any:
    """A class in place of something in a missing package."""
    return _StandIn(name, (), {"package": package, "__all__": []})


class _Partial:
    """A module, with stand-ins for what its version lacks."""

    def __init__(self, module: Any, name: str) -> None:
        self._module, self._name = module, name

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._module, name)
        except AttributeError:
            if name.startswith("__"):
                raise
            return stand_in(self._name, name)


def _importer(real: Callable[..., Any]) -> Callable[..., Any]:
    """`__import__` that gives EasyEdit's own modules, and only them, stand-ins."""

    def lenient(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        importer = (globals or {}).get("__name__") or ""
        own = level > 0 or name.split(".", maxsplit=1)[0] == "easyeditor"
        if own or importer.split(".")[0] != "easyeditor":
            return real(name, globals, locals, fromlist, level)
        try:
            module = real(name, globals, locals, fromlist, level)
        except Exception as error:
            package = name.split(".", maxsplit=1)[0]
            if package in REQUIRED:
                raise
            _MISSING[name] = " ".join(str(error).split()) or type(error).__name__
            return stand_in(name if fromlist else package, name.rsplit(".", maxsplit=1)[-1])
        lacking = [one for one in fromlist or () if one != "*" and not hasattr(module, one)]
        for one in lacking:
            _MISSING[f"{name}.{one}"] = "not in the installed version"
        return _Partial(module, name) if lacking else module

    return lenient


def import_easyeditor() -> dict[str, Any]:
    """Import EasyEdit; its methods by name.

    Packages that it imports and that are not installed, most of them for images or for training,
    are replaced by stand-ins, which fail with the package's name if a method needs them.
    """
    package_folder()
    real = builtins.__import__
    builtins.__import__, _IMPORTING[0] = _importer(real), True
    try:
        import easyeditor  # noqa: F401
        from easyeditor.util.alg_dict import ALG_DICT
    except Exception as error:
        raise DriverError("environment", f"import easyeditor: {describe(error)}") from error
    finally:
        builtins.__import__, _IMPORTING[0] = real, False
    return dict(ALG_DICT)


def shortened(text: str) -> str:
    """A text in one line, without what is beyond a readable length."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else line[:LONGEST].rstrip() + " ..."


def describe(error: BaseException) -> str:
    """An exception in one line; EasyEdit's assertions often have no text."""
    text = shortened(str(error))
    text = "" if text == "None" else text
    return ": ".join(part for part in (type(error).__name__, text) if part)
