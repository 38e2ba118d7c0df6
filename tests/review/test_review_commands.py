"""The review commands on a real workspace, and imports killed with SIGKILL."""

from __future__ import annotations

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.review_sheets import Row, csv_bytes

from clm_data import bank
from clm_data.cli import run
from clm_data.config import open_workspace
from clm_data.records import Decision
from clm_data.store import Store

DOMAINS = ("chinese_literature", "physics")
COUNT = sum(len(bank.load_domain(domain)) for domain in DOMAINS)


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _decisions(workspace_folder: Path) -> list[Decision]:
    with Store(open_workspace(workspace_folder).store_url) as store:
        return store.decisions()


def _json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def _review(workspace_folder: Path, *words: str) -> int:
    return run(["--workspace", str(workspace_folder), "review", *words])


def test_json_reports_the_sheets_that_were_stored_before_one_that_cannot_be_read(
    workspace_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = workspace_folder / "good.csv", workspace_folder / "bad.csv"
    assert _review(workspace_folder, "export", "--out", str(good)) == 0
    rows = _rows(good)
    rows[0] |= {"verdict": "accept", "reviewer": "Li"}
    good.write_bytes(csv_bytes(rows))
    bad.write_text("no sheet")
    capsys.readouterr()
    assert _review(workspace_folder, "import", str(bad), str(good), "--json") == 2
    assert capsys.readouterr().out == ""
    assert _review(workspace_folder, "import", str(good), str(bad), "--json") == 2
    (report,) = _json(capsys)
    assert (report["file"], report["applied"]["accept"]) == (str(good), 1)
    assert len(_decisions(workspace_folder)) == 1


def test_verdicts_in_an_exported_sheet_can_be_imported(
    workspace_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = workspace_folder / "sheet.csv"
    assert _review(workspace_folder, "export", "--out", str(sheet), "--json") == 0
    assert _json(capsys) == {"file": str(sheet), "entries": COUNT, "too_long": []}
    rows = _rows(sheet)
    rows[0] |= {"verdict": "通过"}
    rows[1] |= {"verdict": "reject", "note": "假"}
    rows[2] |= {"verdict": "accept", "zh_target_new": "别的"}
    sheet.write_bytes(csv_bytes(rows, encoding="gb18030"))
    assert _review(workspace_folder, "import", str(sheet), "--reviewer", "Li", "--dry-run") == 0
    assert "2 would be applied" in capsys.readouterr().out
    assert _decisions(workspace_folder) == []
    assert _review(workspace_folder, "import", str(sheet), "--reviewer", "Li", "--strict") == 1
    out = capsys.readouterr().out
    assert "2 applied (1 accept, 1 reject, 0 fix)" in out
    assert f"conflict: row 4, {rows[2]['id']}: zh_target_new: edited" in out
    assert _review(workspace_folder, "import", str(sheet), "--reviewer", "Li", "--json") == 0
    (report,) = _json(capsys)
    assert (report["repeated"], report["undecided"], len(report["conflicts"])) == (2, COUNT - 3, 1)
    assert _review(workspace_folder, "status", "--json") == 0
    status = {row["domain"]: row for row in _json(capsys)}
    assert list(status) == [name for name in status if name in DOMAINS]
    total = {name: sum(row[name] for row in status.values()) for name in ("accepted", "rejected")}
    assert total == {"accepted": 1, "rejected": 1}
    assert sum(row["entries"] for row in status.values()) == COUNT - 1
    assert _review(workspace_folder, "status") == 0
    assert "unreviewed" in capsys.readouterr().out


def test_export_selects_entries_and_does_not_overwrite_a_sheet(
    workspace_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = workspace_folder / "sheet.csv"
    one = ["export", "--out", str(sheet), "--domain", "physics"]
    assert _review(workspace_folder, *one, "--limit", "2") == 0
    assert [row["domain"] for row in _rows(sheet)] == ["physics"] * 2
    assert _review(workspace_folder, *one) == 2
    assert "--force" in capsys.readouterr().err
    assert _review(workspace_folder, *one, "--all", "--force") == 0
    rows = _rows(sheet)
    assert len(rows) == len(bank.load_domain("physics")) + 1
    assert "subject-not-in-prompt" in rows[-1]["problems"]
    assert _review(workspace_folder, "export", "--domain", "phisics") == 2
    assert "did you mean physics" in capsys.readouterr().err


def test_a_rejected_entry_can_be_fixed_but_not_accepted_unchanged(
    workspace_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = workspace_folder / "sheet.csv"
    assert _review(workspace_folder, "export", "--out", str(sheet), "--all") == 0
    bad = _rows(sheet)[-1]
    sheet.write_bytes(csv_bytes([bad | {"verdict": "accept"}]))
    capsys.readouterr()
    assert _review(workspace_folder, "import", str(sheet), "--reviewer", "Li") == 0
    assert "not in the dataset until subject-not-in-prompt" in capsys.readouterr().out
    fixed = bad | {"verdict": "fix", "zh_subject": "声音", "zh_prompt": "声音在水里的传播快于"}
    fixed |= {"zh_ground_truth": "空气中", "zh_target_new": "钢铁中"}
    fixed |= {"zh_rephrase_prompt": "跟水里相比，声音走得更慢的地方是在"}
    sheet.write_bytes(csv_bytes([fixed]))
    assert _review(workspace_folder, "import", str(sheet), "--reviewer", "Li", "--json") == 0
    (report,) = _json(capsys)
    assert (report["applied"]["fix"], report["conflicts"]) == (1, [])
    assert _decisions(workspace_folder)[-1].fixed == {
        "zh.subject": "声音",
        "zh.prompt": "声音在水里的传播快于",
        "zh.ground_truth": "空气中",
        "zh.target_new": "钢铁中",
        "zh.rephrase_prompt": "跟水里相比，声音走得更慢的地方是在",
    }


def test_an_invalid_sheet_is_a_one_line_error_with_exit_code_2(
    workspace_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = workspace_folder / "sheet.csv"
    sheet.write_text("id,verdict\nclm-1,accept\n", encoding="utf-8")
    assert _review(workspace_folder, "import", str(sheet)) == 2
    error = capsys.readouterr().err
    assert "column 'content_hash' is missing" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "kills", [3, pytest.param(20, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_killed_import_stores_all_or_nothing_and_can_be_repeated(
    kills: int, workspace_folder: Path
) -> None:
    sheet = workspace_folder / "sheet.csv"
    assert _review(workspace_folder, "export", "--out", str(sheet)) == 0
    verdicts = ("accept", "reject", "accept")
    rows = _rows(sheet)
    for number, row in enumerate(rows):
        row |= {"verdict": verdicts[number % 3], "note": f"第{number}行"}
    sheet.write_bytes(csv_bytes(rows))
    words = (
        "--workspace",
        str(workspace_folder),
        "review",
        "import",
        str(sheet),
        "--reviewer",
        "Li",
    )
    command = [sys.executable, "-m", "clm_data", *words]
    start = time.monotonic()
    subprocess.run([*command, "--dry-run"], check=True, capture_output=True)
    length = time.monotonic() - start
    chance = random.Random(5)
    pristine = {path: path.read_bytes() for path in workspace_folder.glob("clm.db*")}
    results = []
    for _ in range(kills):
        for path in workspace_folder.glob("clm.db*"):
            path.unlink()
        for path, data in pristine.items():
            path.write_bytes(data)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(length * chance.uniform(0.3, 1.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(_decisions(workspace_folder)) in {0, COUNT}
        subprocess.run(command, check=True, capture_output=True)
        results.append(_decisions(workspace_folder))
    assert [decision.note for decision in results[0]] == [row["note"] for row in rows]
    assert all(decisions == results[0] for decisions in results)
