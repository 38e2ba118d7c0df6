from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from helpers.review_sheets import ReviewFolder, Row, candidate, candidates, csv_bytes

from clm_data.errors import UserError
from clm_data.records import Candidate, Problem
from clm_data.review.decisions import apply_decisions
from clm_data.review.intake import ImportReport
from clm_data.review.queue import item_of
from clm_data.review.sheet import COLUMNS, write_xlsx


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ReviewFolder]:
    folder = ReviewFolder(tmp_path, candidates(6))
    yield folder
    folder.store.close()


def _decide(row: Row, verdict: str, **cells: str) -> Row:
    """Set the verdict and other cells of a row in place."""
    row |= {"verdict": verdict} | cells
    return row


def _reasons(report: ImportReport) -> list[str]:
    return [conflict.reason for conflict in report.conflicts]


def _counts_every_row(report: ImportReport) -> bool:
    parts = report.repeated + report.undecided + len(report.unknown) + len(report.conflicts)
    return report.rows == sum(report.applied.values()) + parts


def test_accept_reject_and_fix_become_decisions(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    _decide(rows[0], "accept", reviewer="Wang", note="好")
    _decide(rows[1], "reject", note="不是事实")
    _decide(rows[2], "fix", zh_target_new="南山", en_target_new="South Hill")
    report = folder.import_rows(rows)
    assert report.applied == {"accept": 1, "reject": 1, "fix": 1}
    assert (report.undecided, report.conflicts, report.unknown, report.warnings) == (3, (), (), ())
    assert _counts_every_row(report)
    accept, reject, fix = folder.store.decisions()
    assert (accept.entry_id, accept.reviewer, accept.note) == (rows[0]["id"], "Wang", "好")
    assert (reject.reviewer, reject.note, reject.fixed) == ("Li Na", "不是事实", None)
    assert fix.fixed == {"zh.target_new": "南山", "en.target_new": "South Hill"}
    assert fix.content_hash == folder.candidates[2].content_hash
    assert len(apply_decisions(folder.candidates, folder.store.decisions()).kept) == 5


@pytest.mark.parametrize(
    "text", ["accept", "ACCEPT", " Accept ", "accepted", "ａｃｃｅｐｔ", "通过", "通 过", "通過"]
)
def test_accept_is_recognized_in_both_languages_and_any_case(
    text: str, folder: ReviewFolder
) -> None:
    rows = folder.export_rows()
    _decide(rows[0], text)
    assert folder.import_rows(rows).applied["accept"] == 1


@pytest.mark.parametrize(("text", "verdict"), [("拒绝", "reject"), ("修改", "fix")])
def test_chinese_verdicts_are_recognized(text: str, verdict: str, folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    _decide(rows[0], text, zh_target_new="西山" if verdict == "reject" else "南山")
    assert folder.import_rows(rows).applied[verdict] == 1


def test_an_unknown_verdict_is_a_conflict(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    _decide(rows[3], "maybe")
    report = folder.import_rows(rows)
    assert [(c.row, c.id) for c in report.conflicts] == [(5, rows[3]["id"])]
    assert "maybe" in _reasons(report)[0]
    assert folder.store.decisions() == []


def test_importing_a_sheet_again_adds_nothing_whatever_its_file_format(
    folder: ReviewFolder,
) -> None:
    rows = folder.export_rows()
    _decide(rows[0], "accept")
    _decide(rows[1], "fix", zh_target_new="南山\n北")
    first = folder.import_rows(rows)
    stored = folder.store.decisions()
    for encoding, delimiter in (("utf-8-sig", ","), ("gb18030", ";"), ("utf-16", "\t")):
        again = folder.import_rows(csv_bytes(rows, encoding=encoding, delimiter=delimiter))
        assert (again.applied, again.repeated) == ({"accept": 0, "reject": 0, "fix": 0}, 2)
        assert again.conflicts == ()
        assert _counts_every_row(again)
    assert sum(first.applied.values()) == len(stored) == 2
    assert folder.store.decisions() == stored


def test_importing_an_extended_sheet_adds_only_new_verdicts(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    folder.import_rows([_decide(rows[0], "accept"), *rows[1:]])
    report = folder.import_rows([rows[0], _decide(rows[1], "reject", note="x"), *rows[2:]])
    assert (report.applied["reject"], report.repeated, report.undecided) == (1, 1, 4)


def test_a_reviewer_can_return_to_an_earlier_verdict_with_a_new_export(
    folder: ReviewFolder,
) -> None:
    first = [_decide(folder.export_rows()[0], "accept", reviewer="A")]
    folder.import_rows(first)
    folder.import_rows([_decide(folder.export_rows()[0], "reject", reviewer="B", note="x")])
    assert folder.import_rows(first).repeated == 1
    assert len(apply_decisions(folder.candidates, folder.store.decisions()).kept) == 5
    assert (
        folder.import_rows([_decide(folder.export_rows()[0], "accept", reviewer="A")]).applied[
            "accept"
        ]
        == 1
    )
    assert apply_decisions(folder.candidates, folder.store.decisions()).status == {
        folder.candidates[0].id: "accepted"
    }


def test_an_entry_that_changed_since_the_export_is_a_conflict(folder: ReviewFolder) -> None:
    stale = folder.export_rows()
    folder.import_rows([_decide(folder.export_rows()[0], "fix", zh_target_new="南山")])
    report = folder.import_rows([_decide(stale[0], "accept"), *stale[1:]])
    assert [(c.row, c.id) for c in report.conflicts] == [(2, stale[0]["id"])]
    assert "changed since the export" in _reasons(report)[0]
    assert len(folder.store.decisions()) == 1


def test_a_row_without_a_verdict_is_no_conflict_if_its_entry_changed(folder: ReviewFolder) -> None:
    stale = folder.export_rows()
    folder.import_rows([_decide(folder.export_rows()[0], "fix", zh_target_new="南山")])
    assert folder.import_rows(stale).undecided == 6


@pytest.mark.parametrize(
    ("verdict", "words"), [("accept", "verdict is accept"), ("", "there is no verdict")]
)
def test_an_edited_text_requires_the_verdict_fix(
    verdict: str, words: str, folder: ReviewFolder
) -> None:
    rows = folder.export_rows()
    _decide(rows[0], verdict, en_target_new="South Hill")
    report = folder.import_rows(rows)
    assert words in _reasons(report)[0]
    assert "en_target_new" in _reasons(report)[0]
    assert folder.store.decisions() == []


def test_a_fix_without_an_edit_and_a_deleted_text_are_conflicts(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    _decide(rows[0], "fix")
    _decide(rows[1], "fix", zh_subject="  ")
    reasons = _reasons(folder.import_rows(rows))
    assert "no text was edited" in reasons[0]
    assert "zh_subject: the text was deleted" in reasons[1]


def test_a_rejection_without_a_reason_is_applied_with_a_warning(folder: ReviewFolder) -> None:
    report = folder.import_rows([_decide(folder.export_rows()[0], "reject")])
    assert report.applied["reject"] == 1
    assert "note" in report.warnings[0].reason


def test_rows_with_different_decisions_on_one_entry_are_all_conflicts(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    other = rows[0] | {"verdict": "reject"}
    _decide(rows[0], "accept")
    _decide(rows[1], "accept")
    report = folder.import_rows([*rows, other])
    assert [conflict.row for conflict in report.conflicts] == [2, 8]
    assert "rows 2, 8" in _reasons(report)[0]
    assert report.applied["accept"] == 1
    assert _counts_every_row(report)


def test_a_repeated_row_counts_once_but_a_second_reviewer_counts(folder: ReviewFolder) -> None:
    row = _decide(folder.export_rows()[0], "accept")
    report = folder.import_rows([row, dict(row), row | {"reviewer": "Wang"}])
    assert (report.applied["accept"], report.repeated) == (2, 1)


def test_unknown_ids_and_empty_ids_are_reported(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    _decide(rows[0], "accept", id="clm-000000000bad")
    _decide(rows[1], "accept", id="")
    report = folder.import_rows(rows)
    assert [issue.id for issue in report.unknown] == ["clm-000000000bad"]
    assert "id is empty" in _reasons(report)[0]
    assert _counts_every_row(report)


def test_deleted_rows_are_ignored(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    assert folder.import_rows([_decide(rows[4], "accept")]).rows == 1
    assert len(folder.store.decisions()) == 1


def test_nothing_is_stored_if_a_verdict_has_no_reviewer(folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    _decide(rows[0], "accept", reviewer="Wang")
    _decide(rows[1], "accept")
    with pytest.raises(UserError, match=r"sheet\.csv: row 3 .*--reviewer"):
        folder.import_rows(rows, reviewer=None)
    assert folder.store.decisions() == []


def test_a_dry_run_gives_the_same_report_and_stores_nothing(folder: ReviewFolder) -> None:
    rows = [_decide(folder.export_rows()[0], "accept")]
    planned = folder.import_rows(rows, dry_run=True)
    assert folder.store.decisions() == []
    assert folder.import_rows(rows) == planned


def test_missing_text_columns_count_as_unchanged(folder: ReviewFolder) -> None:
    rows = [_decide(folder.export_rows()[0], "fix", zh_target_new="南山")]
    columns = ["id", "verdict", "content_hash", "zh_target_new"]
    assert folder.import_rows(csv_bytes(rows, columns=columns)).applied["fix"] == 1
    assert folder.store.decisions()[0].fixed == {"zh.target_new": "南山"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("007", "7"),
        ("1918-05", "May-18"),
        ("12345678901234567890", "1.23457E+19"),
        ("王𠮷", "王??"),
    ],
)
def test_a_cell_changed_by_excel_is_a_conflict_with_the_reason(
    before: str, after: str, tmp_path: Path
) -> None:
    folder = ReviewFolder(tmp_path, [candidate(n, ground_truth=before) for n in (1, 2, 3)])
    rows = folder.export_rows()
    for row, verdict in zip(rows, ("fix", "accept", ""), strict=True):
        _decide(row, verdict, zh_ground_truth=after)
    report = folder.import_rows(rows)
    assert [conflict.row for conflict in report.conflicts] == [2, 3]
    assert all("zh_ground_truth" in reason and ".xlsx" in reason for reason in _reasons(report))
    assert (report.undecided, [issue.row for issue in report.warnings]) == (1, [4])
    assert folder.store.decisions() == []
    folder.store.close()


def test_a_text_cell_in_a_workbook_is_an_edit_and_a_date_cell_is_not(tmp_path: Path) -> None:
    folder = ReviewFolder(tmp_path, [candidate(n, ground_truth="1949-10-01") for n in (1, 2)])
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(map(item_of, folder.candidates), "")))
    at = {name: index for index, name in enumerate(COLUMNS, 1)}
    for row, value in ((2, "1949/10/1"), (3, datetime(1949, 10, 1))):
        book["review"].cell(row, at["verdict"]).value = "fix"
        book["review"].cell(row, at["zh_ground_truth"]).value = value
    book["review"].cell(3, at["zh_subject"]).value = "三号河流"
    out = io.BytesIO()
    book.save(out)
    report = folder.import_rows(out.getvalue(), name="sheet.xlsx")
    assert folder.store.decisions()[0].fixed == {"zh.ground_truth": "1949/10/1"}
    assert report.applied["fix"] == 2, "a date cell with the same date is not an edit"
    assert folder.store.decisions()[1].fixed == {"zh.subject": "三号河流"}
    folder.store.close()


@pytest.mark.parametrize("text", ["=1+1", "'=1", "-5", "a\r\nb", "a\rb", "\ud800", "\x00", "007"])
def test_awkward_texts_can_be_accepted_in_csv_and_xlsx(text: str, tmp_path: Path) -> None:
    folder = ReviewFolder(tmp_path, [candidate(1, target_new=text), candidate(2, prompt=text)])
    rows = folder.export_rows()
    assert folder.import_rows([_decide(rows[0], "accept"), rows[1]]).applied["accept"] == 1
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(map(item_of, folder.candidates), "")))
    book["review"].cell(3, COLUMNS.index("verdict") + 1).value = "通过"
    out = io.BytesIO()
    book.save(out)
    report = folder.import_rows(out.getvalue(), name="sheet.xlsx")
    assert (report.applied["accept"], report.conflicts) == (1, ())
    folder.store.close()


def test_changed_line_endings_are_not_an_edit(tmp_path: Path) -> None:
    folder = ReviewFolder(tmp_path, [candidate(1, prompt="上\r\n下")])
    row = _decide(folder.export_rows()[0], "accept", zh_prompt="上\n下")
    assert folder.import_rows([row]).applied["accept"] == 1
    folder.store.close()


def test_a_verdict_on_a_text_with_errors_gives_a_warning(folder: ReviewFolder) -> None:
    def check(content: Candidate) -> list[object]:
        bad = content.zh is None or content.zh.target_new != "南山"
        return [Problem(code="answer-in-prompt", message="x")] if bad else []

    rows = folder.export_rows()
    _decide(rows[0], "accept")
    _decide(rows[1], "fix", zh_target_new="南山")
    _decide(rows[2], "fix", zh_target_new="北山")
    report = folder.import_rows(rows, check=check)
    assert sum(report.applied.values()) == 3
    assert [issue.row for issue in report.warnings] == [2, 4]
    assert all("answer-in-prompt" in issue.reason for issue in report.warnings)


def test_a_csv_file_saved_by_wps_is_imported(folder: ReviewFolder) -> None:
    """GB18030, CRLF, reordered columns, an added one, and minimal quoting."""
    one, two = folder.candidates[:2]
    lines = [
        "编号,ID,Verdict,Note,zh_target_new,content_hash",
        f'1,{one.id},修改,"改为“南山”,\n更合适",南山,{one.content_hash}',
        ",,,,,",
        f"2,{two.id},通过,,西山,{two.content_hash}",
        ",,,,,",
    ]
    report = folder.import_rows(("\r\n".join(lines) + "\r\n").encode("gb18030"))
    assert report.applied == {"accept": 1, "reject": 0, "fix": 1}
    assert folder.store.decisions()[0].note == "改为“南山”,\n更合适"


def test_unicode_text_saved_by_excel_is_imported(folder: ReviewFolder) -> None:
    """UTF-16 with a byte-order mark, tabs, CRLF, and a line break in a quoted cell."""
    one = folder.candidates[0]
    text = f'id\tcontent_hash\tverdict\tnote\r\n{one.id}\t{one.content_hash}\tReject\t"假\n的"\r\n'
    assert folder.import_rows(b"\xff\xfe" + text.encode("utf-16-le")).applied["reject"] == 1
    assert folder.store.decisions()[0].note == "假\n的"


def test_the_report_converts_to_json(folder: ReviewFolder) -> None:
    report = folder.import_rows([_decide(folder.export_rows()[0], "maybe")]).as_json()
    assert report["conflicts"][0]["row"] == 2
    assert set(report) == {
        "rows", "applied", "repeated", "undecided", "unknown", "conflicts", "warnings",
        "contrary", "unread",
    }  # fmt: skip


@pytest.mark.parametrize("column", ["zh_prompt", "note", "reviewer"])
def test_half_a_character_is_a_conflict(column: str, folder: ReviewFolder) -> None:
    rows = folder.export_rows()
    rows[0] = _decide(rows[0], "fix", zh_target_new="另一条河") | {column: "_xD800_"}
    report = folder.import_rows(rows)
    assert "an invalid character" in _reasons(report)[0]
    assert folder.store.decisions() == []
