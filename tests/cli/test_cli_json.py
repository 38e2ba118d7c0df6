"""With `--json`, stdout is one JSON value or nothing, whatever goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.commands import COMMANDS

from clm_data.cli import run

ARGUMENTS = {
    "import": ["none.json"],
    "locality attach": ["--source", "none.json"],
    "generate": ["--domain", "none"],
    "show": ["none"],
    "review import": ["none.csv"],
    "export": ["--out", "out"],
    "push-to-hub": ["a/b", "--dry-run"],
    "eval-baselines": ["--dataset", "none", "--model", "tiny"],
    "analyze": ["none"],
    "eval setup-easyeditor": ["folder", "--checkout", "none", "--python", "none"],
    "report": ["none"],
    "store backup": ["backup.db"],
    "store restore": ["none.db"],
    "dedup": ["none.jsonl", "--field", "p", "--out", "out.jsonl"],
}
"""Arguments with which each command fails, or has nothing to show, in an empty folder."""
WITH_JSON = sorted(
    name
    for name, command in COMMANDS.items()
    if any("--json" in option.opts for option in command.params)
)


@pytest.mark.parametrize("name", WITH_JSON)
def test_stdout_is_json_or_empty_if_a_command_fails(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code = run([*name.split(), *ARGUMENTS.get(name, []), "--json"])
    out = capsys.readouterr().out
    assert code in (0, 2)
    assert code == 2 or out
    if out:
        json.loads(out)
