"""The command line as a whole: light imports, examples in the help, and clear errors."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import COMMANDS

from clm_data.cli import run

HEAVY = """
    torch transformers datasets huggingface_hub openai httpx aiohttp pandas pyarrow numpy
    rapidfuzz matplotlib openpyxl sqlalchemy opencc langdetect jinja2 yaml pydantic jsonschema
""".split()


def test_all_commands_exist() -> None:
    assert {
        "demo",
        "init",
        "domains",
        "schema",
        "doctor",
        "generate",
        "import",
        "audit",
        "review export",
        "review import",
        "review status",
        "locality attach",
        "build",
        "stats",
        "export",
        "push-to-hub",
    } <= COMMANDS.keys()


def test_help_imports_no_heavy_packages() -> None:
    script = (
        "import sys; from clm_data.cli import run; run(['--help']); "
        f"print('LOADED', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "LOADED []" in done.stdout
    assert "generate" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_that_parses(name: str) -> None:
    command = COMMANDS[name]
    examples = [
        line.split("`")[1] for line in (command.help or "").splitlines() if "Example" in line
    ]
    assert examples, "the help has no line 'Example: `clm-data ...`'"
    for example in examples:
        words = shlex.split(example)
        assert words[: 1 + len(name.split())] == ["clm-data", *name.split()]
        command.make_context(name, words[1 + len(name.split()) :])


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["nonsense"], "No such command"),
        (["generate", "--nonsense"], "No such option"),
        (["generate", "--count"], "requires an argument"),
        (["build"], "clm-data init"),
        (["stats"], "clm-data init"),
        (["review", "status"], "clm-data init"),
        (["review", "import", "nowhere.csv"], "clm-data init"),
        (["audit", "nowhere.json"], "nowhere.json"),
        (["--workspace", "nowhere", "build"], "nowhere"),
        (["init", "/dev/null"], "/dev/null"),
        (["init", "/dev/null/inside"], "/dev/null"),
        (["demo", "/dev/null"], "/dev/null"),
    ],
)
def test_user_errors_are_one_line_and_exit_with_code_2(
    argv: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(argv) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


def test_an_unknown_domain_suggests_similar_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["generate", "--provider", "offline", "--domain", "chinese_litterature"]
    assert run(argv) == 2
    assert "did you mean chinese_literature" in capfd.readouterr().err


def test_a_missing_key_names_the_variable_and_the_offline_provider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["generate", "--domain", "chinese_literature"]) == 2
    err = capfd.readouterr().err
    assert "DEEPSEEK_API_KEY" in err
    assert "--provider offline" in err
    assert err.count("error: ") == 1


@pytest.mark.parametrize("argv", [[], ["review"]])
def test_without_a_command_the_help_is_printed(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(argv) == 2
    out, err = capfd.readouterr()
    assert "Usage: clm-data" in out
    assert err == ""


def test_output_works_on_terminals_without_unicode() -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    argv = [sys.executable, "-m", "clm_data", "domains", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environ, check=True)
    assert "\\u" in done.stdout
    assert len(json.loads(done.stdout)) == 24


def test_the_suggested_command_works_if_the_program_is_not_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/clm-data"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["init", str(tmp_path / "with space")]) == 0
    suggestion = capfd.readouterr().out.splitlines()[-1].removeprefix("next: ")
    assert shlex.split(suggestion)[:3] == [
        ".venv/bin/clm-data",
        "--workspace",
        str(tmp_path / "with space"),
    ]


def test_an_interrupt_while_modules_are_imported_exits_with_130(tmp_path: Path) -> None:
    """Python would end itself by SIGINT if the interrupt passed through an exec() of a string."""
    code = (
        "import clm_data.cli as cli\n"
        "def interrupted(argv):\n"
        "    try:\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n"
        "        return 130\n"
        "cli.run = interrupted\n"
        "cli.main([])\n"
    )
    (tmp_path / "interrupted.py").write_text(code)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    assert subprocess.run([sys.executable, "-m", "interrupted"], env=environ).returncode == 130
