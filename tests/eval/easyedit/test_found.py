"""Finding EasyEdit's environment: what is missing is said in one line."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from helpers.fake_easyedit import fake_checkout

from clm_data.errors import ConfigError
from clm_data.eval.easyedit.found import DRIVER, EasyEdit, find_easyedit, process_environment

PARTS = tuple(sorted(DRIVER.parent.glob("driver*.py")))


def script(folder: Path, text: str) -> Path:
    """An executable in the place of an interpreter."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)
    return file


def one_line(error: pytest.ExceptionInfo[ConfigError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_an_environment_the_message_says_how_to_make_one() -> None:
    with pytest.raises(ConfigError) as error:
        find_easyedit(environ={})
    message = one_line(error)
    assert "clm-data eval setup-easyeditor DIR" in message
    assert "--easyedit-python or EASYEDIT_PYTHON" in message


def test_an_interpreter_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        find_easyedit(tmp_path / "python")
    assert "no interpreter that can be run (No such file or directory)" in one_line(error)


def test_a_folder_in_the_place_of_its_interpreter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, not an interpreter; make one with"):
        find_easyedit(tmp_path, environ={})
    (tmp_path / "bin").mkdir()
    inside = script(tmp_path / "bin", "exit")
    with pytest.raises(ConfigError, match=f"is a folder, not an interpreter; give {inside}"):
        find_easyedit(tmp_path, environ={})


@pytest.mark.parametrize("text", ["soon", "0", "inf", "nan"])
def test_a_timeout_that_is_no_number_of_seconds(text: str) -> None:
    environ = {"EASYEDIT_PYTHON": sys.executable, "EASYEDIT_TIMEOUT": text}
    with pytest.raises(ConfigError, match=f"EASYEDIT_TIMEOUT={text} is not a number of seconds"):
        find_easyedit(environ=environ)


def test_an_environment_without_easyedit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        find_easyedit(sys.executable, environ={})
    message = one_line(error)
    assert "the package easyeditor is not installed" in message
    assert "setup-easyeditor" in message


def test_an_interpreter_that_fails_is_quoted(tmp_path: Path) -> None:
    broken = script(tmp_path, 'echo "first" >&2; echo "no module named encodings" >&2; exit 3')
    with pytest.raises(ConfigError) as error:
        find_easyedit(broken, environ={})
    message = one_line(error)
    assert "needs Python 3.9 or later, ended with 3" in message
    assert message.endswith("it printed: no module named encodings")


def test_a_driver_of_another_version_is_refused(tmp_path: Path) -> None:
    answer = '{"status": "ok", "protocol": 0, "versions": {}, "source": ""}'
    with pytest.raises(ConfigError, match="the driver is of another version"):
        find_easyedit(script(tmp_path, f"echo '{answer}'"), environ={})


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        find_easyedit(sys.executable, environ={"EASYEDIT_HOME": str(tmp_path)})
    assert f"EASYEDIT_HOME={tmp_path} contains no easyeditor/" in one_line(error)


def test_a_checkout_is_known_by_its_code(tmp_path: Path) -> None:
    environ = {"EASYEDIT_HOME": str(fake_checkout(tmp_path)), "EASYEDIT_PYTHON": sys.executable}
    found = find_easyedit(environ=environ)
    assert found.version == f"checkout {found.source}"
    assert len(found.source) == 16
    assert found.versions["python"] == ".".join(map(str, sys.version_info[:3]))
    file = tmp_path / "easyeditor" / "models" / "ft" / "ft_main.py"
    file.write_text(file.read_text("utf-8") + "# changed\n", encoding="utf-8")
    assert find_easyedit(environ=environ).source != found.source


def test_a_release_is_known_by_its_version() -> None:
    assert EasyEdit(Path("python"), None, {"easyeditor": "0.0.1"}, "abc").version == "0.0.1"


def test_the_driver_gets_no_keys_and_stays_offline() -> None:
    given = {"OPENAI_API_KEY": "a", "HF_TOKEN": "b", "PATH": "c", "DB_PASSWORD": "d"}
    found = process_environment(given)
    assert found.keys() & given.keys() == {"PATH"}
    assert found["HF_HUB_OFFLINE"] == found["HF_DATASETS_OFFLINE"] == "1"


@pytest.mark.parametrize("file", PARTS, ids=lambda file: file.name)
def test_the_driver_stands_alone_and_is_python_3_9(file: Path) -> None:
    tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 9))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names.add(str(node.module).partition(".")[0])
    assert "annotations" in {alias.name for alias in tree.body[1].names}  # type: ignore[attr-defined]
    outside = names - sys.stdlib_module_names
    assert outside <= {"easyeditor", "numpy", "safetensors", "torch", "transformers"}
