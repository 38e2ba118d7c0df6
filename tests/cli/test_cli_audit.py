from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.example_candidates import VALID

from clm_data.cli import run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows: list[Any] = [{"case_id": 1, **VALID["zh"]}, {"case_id": "2", **VALID["zh"]}]
    rows[1] |= {"prompt": "小说《边城》的作者是谁？", "subject": "边城"}
    path = tmp_path / "made.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def test_json_goes_to_stdout_alone(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = file.with_name("audit.html")
    assert run(["audit", str(file), "--json", "--html", str(page)]) == 0
    out = capsys.readouterr()
    report = json.loads(out.out)
    assert report["entries"] == 2
    assert {"prompt-not-cloze", "duplicate-id"} <= {p["code"] for p in report["problems"]}
    assert "wrote" in out.err
    assert "边城" in page.read_text(encoding="utf-8")


def test_the_table_shows_code_count_and_example(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", str(file)]) == 0
    out = capsys.readouterr().out
    assert "prompt-not-cloze" in out
    assert "2 entries" in out
    assert "ends in a question" in " ".join(out.split())


def test_strict_tells_by_exit_code_whether_an_error_was_found(file: Path) -> None:
    assert run(["audit", str(file), "--strict"]) == 1
    sound = file.with_name("sound.json")
    sound.write_text(json.dumps([{"case_id": 1, **VALID["zh"]}]), encoding="utf-8")
    assert run(["audit", str(sound), "--strict"]) == 0


def test_a_page_that_cannot_be_written_is_one_line(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", str(file), "--html", str(file.parent)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_page_replaces_only_a_page(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = file.read_bytes()
    assert run(["audit", str(file), "--html", str(file)]) == 2
    assert "is not a web page; choose another file" in capsys.readouterr().err
    assert file.read_bytes() == before
    page = file.with_name("audit.html")
    for _ in range(2):
        assert run(["audit", str(file), "--html", str(page)]) == 0


def test_the_page_lists_the_fields_that_are_not_read(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps([{**row, "<b>extra": "x"} for row in rows]), encoding="utf-8")
    page = file.with_name("audit.html")
    assert run(["audit", str(file), "--html", str(page)]) == 0
    assert "1 field is not read: <b>extra (2 rows)" in capsys.readouterr().err
    html = page.read_text(encoding="utf-8")
    assert "<li>1 field is not read: &lt;b&gt;extra (2 rows)</li>" in html


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_the_page_can_go_to_stdout_alone(file: Path, name: str) -> None:
    command = [sys.executable, "-m", "clm_data", "audit", str(file), "--html", name]
    piped = subprocess.run(command, capture_output=True, check=True)
    html = piped.stdout.decode()
    assert html.startswith("<!doctype html>")
    assert html.rstrip().endswith("</html>")
    assert "边城" in html
    out = file.with_name("page.html")
    with out.open("wb") as opened:
        subprocess.run(command, stdout=opened, check=True, env=os.environ | {"LC_ALL": "C"})
    assert out.read_bytes() == piped.stdout


def test_the_page_and_json_cannot_both_go_to_stdout(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", str(file), "--json", "--html", "-"]) == 2
    out = capsys.readouterr()
    assert (out.out, out.err.count("\n")) == ("", 1)
    assert "give --html a file" in out.err


def test_schema_prints_the_shipped_one_or_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "record"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Record"
    assert run(["schema"]) == 0
    assert "urn:clm-data:schema:entry:1" in capsys.readouterr().out
    assert run(["schema", "recrod"]) == 2
    assert "did you mean record" in capsys.readouterr().err


def test_square_brackets_in_a_finding_are_shown_as_they_are(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = VALID["zh"] | {"prompt": "《边城》的作者是[MASK]"}
    file.write_text(json.dumps([row], ensure_ascii=False), encoding="utf-8")
    assert run(["audit", str(file)]) == 0
    assert "[MASK]" in "".join(capsys.readouterr().out.split())


def test_without_files_the_workspace_is_audited(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from clm_data.config import open_workspace
    from clm_data.store import Store

    workspace = open_workspace(tmp_path, create=True)
    with Store(workspace.store_url) as store:
        rows = [{"case_id": 1, **VALID["zh"], "subject": None}]
        store.add_source("made.json", "clm-bench-zh", "0" * 64, None, rows)
    assert run(["--workspace", str(tmp_path), "audit", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [p["code"] for p in report["problems"]] == ["empty-field"]
