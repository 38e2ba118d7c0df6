"""Making an environment with EasyEdit, and what doctor says about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.fake_easyedit import fake_checkout

import clm_data
from clm_data.cli import run
from clm_data.errors import ConfigError, InputFileError
from clm_data.eval.easyedit.found import find_easyedit
from clm_data.eval.easyedit.install import RELEASE, examine

PINS = Path(clm_data.__file__).parent / "eval" / "easyedit"


def interpreter(folder: Path, *, pip: str = "true", version: str = "3 11") -> Path:
    """In the place of Python: makes environments like itself; pip only writes what it is asked."""
    file = folder / "python3.11"
    log = folder / "pip.txt"
    file.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = -c ]; then echo {version}; exit; fi\n'
        'if [ "$2" = venv ]; then mkdir -p "$3/bin"; touch "$3/pyvenv.cfg"; '
        f'cp "{file}" "$3/bin/python"; exit; fi\n'
        f'if [ "$2" = pip ]; then echo "$@" >> "{log}"; {pip}; exit; fi\n'
        f'exec "{sys.executable}" "$@"\n',
        encoding="utf-8",
    )
    file.chmod(0o755)
    return file


def checkout_without_torch(folder: Path) -> Path:
    """A package in the place of EasyEdit that only names methods, so that importing it is fast."""
    package = folder / "easyeditor"
    (package / "util").mkdir(parents=True)
    (package / "editors").mkdir()
    for name in ("__init__.py", "util/__init__.py", "editors/editor.py"):
        (package / name).touch()
    names = "ALG_DICT = dict.fromkeys(['FT', 'MEMIT', 'ROME'])\n"
    (package / "util" / "alg_dict.py").write_text(names, encoding="utf-8")
    return folder


def finding(name: str, text: str) -> dict[str, str]:
    found = {one["check"]: one for one in json.loads(text)}
    return dict(found[name])


def test_an_environment_for_a_checkout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, folder = checkout_without_torch(tmp_path / "home"), tmp_path / "env"
    command = ["eval", "setup-easyeditor", str(folder), "--checkout", str(home)]
    assert run([*command, "--python", str(interpreter(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "EasyEdit checkout " in out
    assert ": memit, rome, ft, ft-m\n" in out
    assert f"export EASYEDIT_PYTHON={folder}/bin/python" in out
    assert f"export EASYEDIT_HOME={home}" in out
    [pip] = (tmp_path / "pip.txt").read_text("utf-8").splitlines()
    assert pip.endswith(f"--requirement {PINS / 'pins-checkout.txt'}")
    # Again, nothing is installed, and doctor finds it by the variables.
    assert run(command) == 0
    capsys.readouterr()
    assert [line.split()[-1] for line in pip_calls(tmp_path)[1:]] == ["--version"]
    monkeypatch.setenv("EASYEDIT_PYTHON", str(folder / "bin" / "python"))
    monkeypatch.setenv("EASYEDIT_HOME", str(home))
    run(["doctor", "--json"])
    found = finding("EasyEdit", capsys.readouterr().out)
    assert found["state"] == "ok"
    assert found["detail"].endswith(": memit, rome, ft, ft-m")


def pip_calls(folder: Path) -> list[str]:
    return (folder / "pip.txt").read_text("utf-8").splitlines()


def test_an_environment_that_was_not_finished_is_made_again(tmp_path: Path) -> None:
    home, folder = checkout_without_torch(tmp_path / "home"), tmp_path / "env"
    python = interpreter(tmp_path)
    logged: list[str] = []

    def again() -> int:
        logged.clear()
        before = len(pip_calls(tmp_path)) if (tmp_path / "pip.txt").exists() else 0
        clm_data.setup_easyeditor(folder, checkout=home, python=python, log=logged.append)
        return len(pip_calls(tmp_path)) - before

    again()
    assert again() == 1  # the question whether pip runs
    mark = folder / "clm-data-easyedit.txt"
    finished = mark.read_text("utf-8")
    mark.write_text("")  # as after an interruption while packages were installed
    assert again() == 2
    assert mark.read_text("utf-8") == finished
    (folder / "bin" / "python").unlink()
    again()
    assert "again, because it was not finished" in logged[0]
    # What was installed does not import any more: a package is damaged.
    (folder / "bin" / "python").write_text(
        (folder / "bin" / "python").read_text("utf-8").replace("exec", "exit 7; exec")
    )
    with pytest.raises(ConfigError, match="later, ended with 7"):
        again()
    assert "installing again: EasyEdit in" in logged[0]
    assert "--force-reinstall" in pip_calls(tmp_path)[-1]


def test_the_release_is_installed_without_its_own_requirements(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the package easyeditor is not installed"):
        clm_data.setup_easyeditor(tmp_path / "env", python=interpreter(tmp_path))
    first, second = (tmp_path / "pip.txt").read_text("utf-8").splitlines()
    assert first.endswith(f"--requirement {PINS / 'pins-release.txt'}")
    assert second.endswith(f"install --no-deps {RELEASE}")


def test_packages_that_cannot_be_installed_are_one_line(tmp_path: Path) -> None:
    pip = "echo 'ERROR: No matching distribution found for torch==2.13.0' >&2; exit 1"
    with pytest.raises(ConfigError) as error:
        clm_data.setup_easyeditor(tmp_path / "env", python=interpreter(tmp_path, pip=pip))
    assert str(error.value) == (
        "the packages cannot be installed: No matching distribution found for torch==2.13.0"
    )


def test_a_version_of_python_without_builds_is_refused(tmp_path: Path) -> None:
    python = interpreter(tmp_path, version="3 13")
    with pytest.raises(ConfigError, match=r"is Python 3\.13; the pinned packages need 3\.10 to"):
        clm_data.setup_easyeditor(tmp_path / "env", python=python)
    assert not (tmp_path / "env").exists()


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputFileError, match="exists and is no virtual environment"):
        clm_data.setup_easyeditor(tmp_path)
    with pytest.raises(InputFileError, match="it is no checkout of EasyEdit"):
        clm_data.setup_easyeditor(tmp_path / "env", checkout=tmp_path)
    with pytest.raises(InputFileError, match=r"notes\.txt exists and is no virtual environment"):
        clm_data.setup_easyeditor(tmp_path / "notes.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "pyvenv.cfg").write_text("", encoding="utf-8")  # another's environment, broken
    with pytest.raises(InputFileError, match="whose Python or pip does not run; delete it, or"):
        clm_data.setup_easyeditor(tmp_path)
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(InputFileError, match="/proc/env cannot be written: No such file"):
        clm_data.setup_easyeditor("/proc/env", python=interpreter(tmp_path))


def test_a_method_that_lacks_its_package_is_not_offered(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra eval is not installed")
    home = fake_checkout(tmp_path, complete=True)
    source = home / "easyeditor" / "models" / "lora" / "lora_main.py"
    text = source.read_text("utf-8").replace("a_package_for_images.adapters", "peft")
    source.write_text(text, encoding="utf-8")
    found = examine(find_easyedit(sys.executable, {"EASYEDIT_HOME": str(home)}))
    offered = "memit, alphaedit, pmet, rome, ft, ft-m, ultraedit, grace, wise"
    assert str(found).endswith(f": {offered}; lora needs the package peft")
    assert found.as_json()["lacking"] == {"lora": "peft"}


def test_doctor_without_and_with_a_broken_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EASYEDIT_HOME", raising=False)
    monkeypatch.delenv("EASYEDIT_PYTHON", raising=False)
    run(["doctor", "--json"])
    found = finding("EasyEdit", capsys.readouterr().out)
    assert (found["state"], "setup-easyeditor DIR" in found["detail"]) == ("absent", True)
    monkeypatch.setenv("EASYEDIT_PYTHON", "/no/such/python")
    assert run(["doctor", "--json"]) == 2
    found = finding("EasyEdit", capsys.readouterr().out)
    assert found["state"] == "wrong"
    assert "no interpreter that can be run" in found["detail"]


@pytest.mark.parametrize("kind", ["release", "checkout"])
def test_every_package_is_pinned(kind: str) -> None:
    lines = (PINS / f"pins-{kind}.txt").read_text("utf-8").splitlines()
    pins = [line.partition("#")[0].strip() for line in lines]
    assert [pin for pin in pins if pin]
    assert all(pin.count("==") == 1 for pin in pins if pin)
