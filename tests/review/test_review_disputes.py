"""Contrary decisions of people who did not know of each other, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.postgres_server import NewDatabase
from helpers.review_sheets import ReviewFolder, Row, candidates, csv_bytes

from clm_data import build, export_review, import_review, review_status, stats
from clm_data.review.decisions import apply_decisions
from clm_data.store import Store


@pytest.fixture(params=["sqlite", "postgres"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ReviewFolder]:
    made = ReviewFolder(tmp_path, candidates(2))
    if request.param == "postgres":
        new: NewDatabase = request.getfixturevalue("new_postgres")
        made.store.close()
        made.store = Store(new())
    yield made
    made.store.close()


SOUTH = {"verdict": "fix", "zh_target_new": "南山", "en_target_new": "South Hill"}
NORTH = {"verdict": "fix", "zh_target_new": "北山", "en_target_new": "North Hill"}
ACCEPT = {"verdict": "accept"}
REJECT = {"verdict": "reject", "note": "不是事实"}


def _sheet(rows: list[Row], reviewer: str, cells: Row) -> list[Row]:
    return [rows[0] | cells | {"reviewer": reviewer}]


def _codes(folder: ReviewFolder) -> dict[str, str]:
    result = apply_decisions(folder.candidates, folder.store.decisions())
    return {rejection.id: rejection.code for rejection in result.rejected}


def _status(folder: ReviewFolder) -> str | None:
    result = apply_decisions(folder.candidates, folder.store.decisions())
    return result.status.get(folder.candidates[0].id)


@pytest.mark.parametrize(
    ("one", "other"),
    [(ACCEPT, REJECT), (SOUTH, REJECT), (ACCEPT, SOUTH), (SOUTH, NORTH)],
    ids=["accept-reject", "fix-reject", "accept-fix", "two-fixes"],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_contrary_decisions_on_one_export_leave_the_entry_out(
    folder: ReviewFolder, one: Row, other: Row, swapped: bool
) -> None:
    rows = folder.export_rows()
    sheets = [_sheet(rows, "Li Na", one), _sheet(rows, "Wang", other)]
    first, second = [folder.import_rows(sheet) for sheet in sheets[:: -1 if swapped else 1]]
    assert first.contrary == ()
    assert [issue.row for issue in second.contrary] == [2]
    assert ("Wang" if swapped else "Li Na") in second.contrary[0].reason
    assert sum(second.applied.values()) == 1
    assert len(folder.store.decisions()) == 2
    assert _codes(folder) == {rows[0]["id"]: "contrary-decisions"}
    again = folder.import_rows(sheets[0])
    assert (again.repeated, again.contrary) == (1, ())


@pytest.mark.parametrize("settled", [ACCEPT, REJECT, NORTH])
def test_a_decision_that_knows_both_settles_the_dispute(folder: ReviewFolder, settled: Row) -> None:
    rows = folder.export_rows()
    folder.import_rows(_sheet(rows, "Li Na", SOUTH))
    folder.import_rows(_sheet(rows, "Wang", REJECT))
    report = folder.import_rows(_sheet(folder.export_rows(), "Chen", settled))
    assert (report.contrary, report.conflicts) == ((), ())
    expected = {"accept": "accepted", "reject": None, "fix": "fixed"}[settled["verdict"]]
    assert _status(folder) == expected
    assert "contrary-decisions" not in _codes(folder).values()


def test_two_people_with_the_same_result_do_not_disagree(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    folder.import_rows(_sheet(rows, "Li Na", SOUTH))
    assert folder.import_rows(_sheet(rows, "Wang", SOUTH)).contrary == ()
    assert _status(folder) == "fixed"


def test_a_reviewer_who_changes_the_verdict_is_not_a_dispute(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    folder.import_rows(_sheet(rows, "Li Na", REJECT))
    assert folder.import_rows(_sheet(rows, " li  na ", ACCEPT)).contrary == ()
    assert _status(folder) == "accepted"


def test_a_reviewer_who_gives_in_ends_the_dispute(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    folder.import_rows(_sheet(rows, "Li Na", ACCEPT))
    folder.import_rows(_sheet(rows, "Wang", REJECT))
    assert folder.import_rows(_sheet(rows, "Wang", ACCEPT)).contrary == ()
    assert _status(folder) == "accepted"


def test_a_later_sheet_that_knows_the_earlier_decision_replaces_it(folder: ReviewFolder) -> None:
    folder.import_rows(_sheet(folder.export_rows(), "Li Na", ACCEPT))
    assert folder.import_rows(_sheet(folder.export_rows(), "Wang", REJECT)).contrary == ()
    assert "rejected-by-reviewer" in _codes(folder).values()


def test_a_sheet_without_the_column_decisions_knew_nothing(folder: ReviewFolder) -> None:
    folder.import_rows(_sheet(folder.export_rows(), "Li Na", ACCEPT))
    row = _sheet(folder.export_rows(), "Wang", REJECT)[0]
    del row["decisions"]
    data = csv_bytes([row], columns=list(row))
    assert len(folder.import_rows(data).contrary) == 1


def test_more_decisions_than_there_are_do_not_settle(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    for reviewer, cells in (("甲", ACCEPT), ("乙", REJECT)):
        folder.import_rows(_sheet(rows, reviewer, cells))
    report = folder.import_rows(_sheet(rows, "丙", ACCEPT | {"decisions": "3"}))
    assert len(report.contrary) == 1
    assert "contrary-decisions" in _codes(folder).values()


def test_a_third_verdict_that_knew_of_neither_does_not_settle(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    for reviewer, cells in (("Li Na", ACCEPT), ("Wang", REJECT), ("Chen", ACCEPT)):
        report = folder.import_rows(_sheet(rows, reviewer, cells))
    assert len(report.contrary) == 1
    assert "contrary-decisions" in _codes(folder).values()


def test_a_dispute_is_shown_first_counted_and_left_out_of_build(
    workspace_folder: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.csv"
    export_review(sheet, domains=["physics"], workspace=workspace_folder)
    text = sheet.read_text(encoding="utf-8-sig")
    header, *lines = text.splitlines()
    assert header.endswith("verdict,note,reviewer")
    last = lines[-1].removesuffix(",,,")
    for reviewer, verdict in (("Li Na", "accept"), ("Wang", "reject")):
        back = f"{header}\n{last},{verdict},,{reviewer}\n"
        sheet.write_text(back, encoding="utf-8")
        import_review(sheet, workspace=workspace_folder)
    (row,) = [each for each in review_status(workspace_folder) if each.domain == "physics"]
    assert (row.contrary, row.rejected, row.accepted) == (1, 0, 0)
    report = build(tmp_path / "dataset", workspace=workspace_folder)
    assert any("1 entry is left out: reviewers disagree" in line for line in report.summary())
    rejected = (tmp_path / "dataset" / "rejected.jsonl").read_text(encoding="utf-8")
    assert "contrary-decisions" in rejected
    assert any(each.code == "contrary-decisions" for each in stats(workspace_folder).rejected)
    export_review(sheet, force=True, workspace=workspace_folder)
    first = sheet.read_text(encoding="utf-8-sig").splitlines()[1]
    assert first.startswith(last.split(",")[0])
    for words in ("contrary-decisions", "Li Na: accept", "Wang: reject"):
        assert words in first
