"""The public names of `clm_data`: lazy, documented, and what the command line calls."""

from __future__ import annotations

import ast
import inspect
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import COMMANDS

import clm_data
from clm_data.cli import run

FUNCTION_OF = {
    "init": "init",
    "domains": "domains",
    "generate": "generate",
    "import": "import_files",
    "audit": "audit",
    "show": "show",
    "locality attach": "attach_probes",
    "stats": "stats",
    "build": "build",
    "review export": "export_review",
    "review import": "import_review",
    "review status": "review_status",
    "export": "export",
    "push-to-hub": "push_to_hub",
    "eval-baselines": "evaluate",
    "eval setup-easyeditor": "setup_easyeditor",
    "analyze": "analyze",
    "report": "report",
    "demo": "demo",
    "dedup": "deduplicate",
    "schema": "schema",
    "doctor": "doctor",
    "eval save-model": "save_model",
    "store backup": "backup_store",
    "store restore": "restore_store",
}
WITHOUT_A_COMMAND = {"apply_edit", "load", "estimate_cost", "estimate_evaluation"}
"""`apply_edit` changes a model in memory, `load` reads a dataset back, `generate --dry-run` calls
`estimate_cost`, and `eval-baselines --dry-run` calls `estimate_evaluation`."""
HEAVY = (
    "torch transformers datasets huggingface_hub openai pandas pyarrow numpy pydantic sqlalchemy"
)
FUNCTIONS = [name for name in clm_data.__all__ if name[0].islower()]


class Called(Exception):  # noqa: N818 control flow, not an error
    """Raised in place of a public function."""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, clm_data; print(sorted(set({HEAVY.split()!r}) & set(sys.modules)))"
    assert python(code).strip() == "[]"


def test_importing_the_package_imports_no_other_module_but_the_version() -> None:
    code = "import sys, clm_data; print([m for m in sys.modules if m.startswith('clm_data.')])"
    assert python(code).strip() == "['clm_data.version']"


def test_public_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(inspect.getsource(clm_data))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        (str(node.module), alias.name)
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {(module, name) for module, names in clm_data._PUBLIC.items() for name in names}
    assert imported == lazy
    assert {name for _, name in lazy} | {"__version__"} == set(clm_data.__all__)
    assert set(clm_data.__all__) <= set(dir(clm_data))


def test_public_names_survive_the_import_of_every_submodule() -> None:
    """Importing a submodule sets an attribute of the package, which must not hide a function."""
    code = """
import importlib, inspect, json, pkgutil
import clm_data
skipped = []
for module in pkgutil.walk_packages(clm_data.__path__, "clm_data."):
    if module.name != "clm_data.__main__":
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            skipped.append(f"{module.name}: {error}")
wrong = [n for n in clm_data.__all__ if inspect.ismodule(getattr(clm_data, n))]
wrong += [n for n in clm_data.__all__ if n[0] != "_" and not callable(getattr(clm_data, n))]
print(json.dumps([wrong, skipped]))
"""
    wrong, skipped = json.loads(python(code).splitlines()[-1])
    assert wrong == []
    assert all("torch" in reason or "transformers" in reason for reason in skipped)


@pytest.mark.parametrize("name", [n for n in clm_data.__all__ if n != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(clm_data, name)
    assert inspect.getdoc(value)
    if name in FUNCTIONS:
        doc, parameters = value.__doc__, inspect.signature(value).parameters
        inherited = "The arguments are those of" in doc
        missing = [p for p in parameters if not inherited and f"        {p}: " not in doc]
        assert len(parameters) <= 1 or missing == []


def test_every_function_is_called_by_a_command() -> None:
    assert set(FUNCTION_OF) == set(COMMANDS)
    assert {*FUNCTION_OF.values(), *WITHOUT_A_COMMAND} == set(FUNCTIONS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_calls_its_function(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (example,) = [
        line.split("`")[1]
        for line in (COMMANDS[command].help or "").splitlines()
        if "Example" in line
    ]

    def raise_name(name: str) -> object:
        def function(*_: object, **__: object) -> None:
            raise Called(name)

        return function

    for name in FUNCTIONS:
        monkeypatch.setattr(clm_data, name, raise_name(name))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Called, match=f"^{FUNCTION_OF[command]}$"):
        run(shlex.split(example)[1:])


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        clm_data.nonsense  # noqa: B018
