"""Review through the Python API."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from helpers.review_sheets import Row, csv_bytes

from clm_data import bank, export_review, import_review, review_status
from clm_data.config import Workspace, open_workspace
from clm_data.errors import UnknownNameError, UserError

COUNTS = {domain: len(bank.load_domain(domain)) for domain in ("chinese_literature", "physics")}


@pytest.fixture
def workspace(workspace_folder: Path) -> Workspace:
    return open_workspace(workspace_folder)


def read_rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_export_writes_one_row_per_entry(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "sheet.csv"
    report = export_review(out, workspace=workspace)
    assert report.as_json() == {"file": str(out), "entries": sum(COUNTS.values()), "too_long": []}
    assert len(read_rows(out)) == report.entries


def test_export_selects_by_domain_and_limit(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "sheet.csv"
    assert export_review(out, domains=["physics"], workspace=workspace).entries == COUNTS["physics"]
    assert export_review(out, limit=2, force=True, workspace=workspace).entries == 2
    with pytest.raises(UnknownNameError, match="did you mean physics"):
        export_review(out, domains=["phisics"], force=True, workspace=workspace)


def test_export_includes_rejected_entries_on_request(workspace: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "sheet.csv"
    report = export_review(out, domains=["physics"], include_rejected=True, workspace=workspace)
    assert report.entries == COUNTS["physics"] + 1
    assert "subject-not-in-prompt" in read_rows(out)[-1]["problems"]


def test_export_does_not_overwrite_a_sheet_unless_forced(
    workspace: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.csv"
    out.write_text("verdicts", encoding="utf-8")
    with pytest.raises(UserError, match="may contain verdicts"):
        export_review(out, workspace=workspace)
    assert out.read_text(encoding="utf-8") == "verdicts"
    assert export_review(out, force=True, workspace=workspace).entries == len(read_rows(out))


def test_imported_verdicts_show_in_status_and_shorten_the_next_export(
    workspace: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.csv"
    export_review(out, domains=["physics"], workspace=workspace)
    rows = read_rows(out)
    rows[0]["verdict"], rows[1] = "accept", rows[1] | {"verdict": "reject", "note": "假"}
    out.write_bytes(csv_bytes(rows))
    status = {row.domain: row for row in review_status(workspace)}
    assert (status["physics"].accepted, status["physics"].rejected) == (0, 0)

    calls = []
    planned = import_review([out], reviewer="Li", dry_run=True, workspace=workspace)
    assert status == {row.domain: row for row in review_status(workspace)}
    reports = import_review(
        [out],
        reviewer="Li",
        progress=lambda file, report: calls.append((file, report)),
        workspace=workspace,
    )
    assert calls == list(reports.items())
    assert reports == planned
    assert reports[out].applied == {"accept": 1, "reject": 1, "fix": 0}

    status = {row.domain: row for row in review_status(workspace)}
    assert (status["physics"].accepted, status["physics"].rejected) == (1, 1)
    assert status["physics"].entries == COUNTS["physics"] - 1
    left = export_review(out, domains=["physics"], force=True, workspace=workspace)
    assert left.entries == COUNTS["physics"] - 2
    assert import_review(out, workspace=workspace)[out].undecided == left.entries


def test_a_sheet_that_cannot_be_read_leaves_earlier_sheets_imported(
    workspace: Workspace, tmp_path: Path
) -> None:
    out, broken = tmp_path / "sheet.csv", tmp_path / "broken.csv"
    export_review(out, limit=1, workspace=workspace)
    out.write_bytes(csv_bytes([read_rows(out)[0] | {"verdict": "accept"}]))
    broken.write_text("id,verdict\nclm-1,accept\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"broken\.csv.*content_hash"):
        import_review([out, broken], reviewer="Li", workspace=workspace)
    assert sum(row.accepted for row in review_status(workspace)) == 1
