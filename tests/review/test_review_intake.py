from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from helpers.review_sheets import Desk, Row, candidate, candidates, csv_bytes

from clm_data.errors import UserError
from clm_data.records import Candidate, Problem
from clm_data.review.decisions import apply_decisions
from clm_data.review.intake import ImportReport
from clm_data.review.queue import item_of
from clm_data.review.sheet import COLUMNS, write_xlsx


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, candidates(6))
    yield desk
    desk.store.close()


def _say(row: Row, verdict: str, **cells: str) -> Row:
    row |= {"verdict": verdict} | cells
    return row


def _reasons(report: ImportReport) -> list[str]:
    return [conflict.reason for conflict in report.conflicts]


def _balances(report: ImportReport) -> bool:
    parts = report.repeated + report.undecided + len(report.unknown) + len(report.conflicts)
    return report.rows == sum(report.applied.values()) + parts


def test_accept_reject_and_fix_become_decisions(desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], "accept", reviewer="Wang", note="好")
    _say(rows[1], "reject", note="不是事实")
    _say(rows[2], "fix", zh_target_new="南山", en_target_new="South Hill")
    report = desk.take(rows)
    assert report.applied == {"accept": 1, "reject": 1, "fix": 1}
    assert (report.undecided, report.conflicts, report.unknown, report.warnings) == (3, (), (), ())
    assert _balances(report)
    accept, reject, fix = desk.store.decisions()
    assert (accept.entry_id, accept.reviewer, accept.note) == (rows[0]["id"], "Wang", "好")
    assert (reject.reviewer, reject.note, reject.fixed) == ("Li Na", "不是事实", None)
    assert fix.fixed == {"zh.target_new": "南山", "en.target_new": "South Hill"}
    assert fix.content_hash == desk.candidates[2].content_hash
    assert len(apply_decisions(desk.candidates, desk.store.decisions()).sifted.kept) == 5


@pytest.mark.parametrize(
    "said", ["accept", "ACCEPT", " Accept ", "accepted", "ａｃｃｅｐｔ", "通过", "通 过", "通過"]
)
def test_verdicts_are_read_in_both_languages_and_any_case(said: str, desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], said)
    assert desk.take(rows).applied["accept"] == 1


@pytest.mark.parametrize(("said", "verdict"), [("拒绝", "reject"), ("修改", "fix")])
def test_chinese_verdicts(said: str, verdict: str, desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], said, zh_target_new="西山" if verdict == "reject" else "南山")
    assert desk.take(rows).applied[verdict] == 1


def test_an_unclear_verdict_is_a_conflict(desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[3], "maybe")
    report = desk.take(rows)
    assert [(c.row, c.id) for c in report.conflicts] == [(5, rows[3]["id"])]
    assert "maybe" in _reasons(report)[0]
    assert desk.store.decisions() == []


def test_the_same_sheet_again_adds_nothing_in_whatever_form_it_was_saved(desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], "accept")
    _say(rows[1], "fix", zh_target_new="南山\n北")
    first = desk.take(rows)
    stored = desk.store.decisions()
    for encoding, delimiter in (("utf-8-sig", ","), ("gb18030", ";"), ("utf-16", "\t")):
        again = desk.take(csv_bytes(rows, encoding=encoding, delimiter=delimiter))
        assert (again.applied, again.repeated) == ({"accept": 0, "reject": 0, "fix": 0}, 2)
        assert again.conflicts == ()
        assert _balances(again)
    assert sum(first.applied.values()) == len(stored) == 2
    assert desk.store.decisions() == stored


def test_a_sheet_that_is_continued_adds_only_what_is_new(desk: Desk) -> None:
    rows = desk.rows()
    desk.take([_say(rows[0], "accept"), *rows[1:]])
    report = desk.take([rows[0], _say(rows[1], "reject", note="x"), *rows[2:]])
    assert (report.applied["reject"], report.repeated, report.undecided) == (1, 1, 4)


def test_a_person_may_return_to_an_earlier_verdict_with_a_new_sheet(desk: Desk) -> None:
    first = [_say(desk.rows()[0], "accept", reviewer="A")]
    desk.take(first)
    desk.take([_say(desk.rows()[0], "reject", reviewer="B", note="x")])
    assert desk.take(first).repeated == 1
    assert len(apply_decisions(desk.candidates, desk.store.decisions()).sifted.kept) == 5
    assert desk.take([_say(desk.rows()[0], "accept", reviewer="A")]).applied["accept"] == 1
    assert apply_decisions(desk.candidates, desk.store.decisions()).status == {
        desk.candidates[0].id: "accepted"
    }


def test_an_entry_that_changed_since_the_export_is_a_conflict(desk: Desk) -> None:
    stale = desk.rows()
    desk.take([_say(desk.rows()[0], "fix", zh_target_new="南山")])
    report = desk.take([_say(stale[0], "accept", reviewer="Wang"), *stale[1:]])
    assert [(c.row, c.id) for c in report.conflicts] == [(2, stale[0]["id"])]
    assert "changed since the export" in _reasons(report)[0]
    assert len(desk.store.decisions()) == 1


def test_rows_without_verdict_are_no_conflict_when_their_entry_changed(desk: Desk) -> None:
    stale = desk.rows()
    desk.take([_say(desk.rows()[0], "fix", zh_target_new="南山")])
    assert desk.take(stale).undecided == 6


@pytest.mark.parametrize(
    ("verdict", "words"), [("accept", "verdict is accept"), ("", "no verdict")]
)
def test_edited_text_needs_the_verdict_fix(verdict: str, words: str, desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], verdict, en_target_new="South Hill")
    report = desk.take(rows)
    assert words in _reasons(report)[0]
    assert "en_target_new" in _reasons(report)[0]
    assert desk.store.decisions() == []


def test_a_fix_without_an_edit_and_an_emptied_cell_are_conflicts(desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], "fix")
    _say(rows[1], "fix", zh_subject="  ")
    reasons = _reasons(desk.take(rows))
    assert "no text was edited" in reasons[0]
    assert "zh_subject: emptied" in reasons[1]


def test_a_rejection_without_a_note_applies_with_a_warning(desk: Desk) -> None:
    report = desk.take([_say(desk.rows()[0], "reject")])
    assert report.applied["reject"] == 1
    assert "note" in report.warnings[0].reason


def test_rows_that_decide_differently_on_one_entry_are_all_conflicts(desk: Desk) -> None:
    rows = desk.rows()
    other = rows[0] | {"verdict": "reject"}
    _say(rows[0], "accept")
    _say(rows[1], "accept")
    report = desk.take([*rows, other])
    assert [conflict.row for conflict in report.conflicts] == [2, 8]
    assert "rows 2, 8" in _reasons(report)[0]
    assert report.applied["accept"] == 1
    assert _balances(report)


def test_the_same_row_twice_counts_once_and_a_second_reviewer_counts_too(desk: Desk) -> None:
    row = _say(desk.rows()[0], "accept")
    report = desk.take([row, dict(row), row | {"reviewer": "Wang"}])
    assert (report.applied["accept"], report.repeated) == (2, 1)


def test_unknown_ids_and_empty_ids_are_reported(desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], "accept", id="clm-000000000bad")
    _say(rows[1], "accept", id="")
    report = desk.take(rows)
    assert [note.id for note in report.unknown] == ["clm-000000000bad"]
    assert "id is empty" in _reasons(report)[0]
    assert _balances(report)


def test_deleted_rows_are_no_decision(desk: Desk) -> None:
    rows = desk.rows()
    assert desk.take([_say(rows[4], "accept")]).rows == 1
    assert len(desk.store.decisions()) == 1


def test_a_verdict_needs_a_reviewer_and_nothing_is_stored_without(desk: Desk) -> None:
    rows = desk.rows()
    _say(rows[0], "accept", reviewer="Wang")
    _say(rows[1], "accept")
    with pytest.raises(UserError, match=r"sheet\.csv: row 3 .*--reviewer"):
        desk.take(rows, reviewer=None)
    assert desk.store.decisions() == []


def test_dry_run_reports_the_same_and_stores_nothing(desk: Desk) -> None:
    rows = [_say(desk.rows()[0], "accept")]
    planned = desk.take(rows, dry_run=True)
    assert desk.store.decisions() == []
    assert desk.take(rows) == planned


def test_text_columns_that_are_missing_count_as_unchanged(desk: Desk) -> None:
    rows = [_say(desk.rows()[0], "fix", zh_target_new="南山")]
    columns = ["id", "verdict", "content_hash", "zh_target_new"]
    assert desk.take(csv_bytes(rows, columns=columns)).applied["fix"] == 1
    assert desk.store.decisions()[0].fixed == {"zh.target_new": "南山"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("007", "7"),
        ("1918-05", "May-18"),
        ("12345678901234567890", "1.23457E+19"),
        ("王𠮷", "王??"),
    ],
)
def test_a_cell_that_excel_rewrote_is_refused_with_the_reason(
    before: str, after: str, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, [candidate(n, ground_truth=before) for n in (1, 2, 3)])
    rows = desk.rows()
    for row, verdict in zip(rows, ("fix", "accept", ""), strict=True):
        _say(row, verdict, zh_ground_truth=after)
    report = desk.take(rows)
    assert [conflict.row for conflict in report.conflicts] == [2, 3]
    assert all("zh_ground_truth" in reason and ".xlsx" in reason for reason in _reasons(report))
    assert (report.undecided, [note.row for note in report.warnings]) == (1, [4])
    assert desk.store.decisions() == []
    desk.store.close()


def test_what_is_text_in_a_workbook_was_typed_and_is_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [candidate(n, ground_truth="1949-10-01") for n in (1, 2)])
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(map(item_of, desk.candidates), "")))
    at = {name: index for index, name in enumerate(COLUMNS, 1)}
    for row, value in ((2, "1949/10/1"), (3, datetime(1949, 10, 1))):
        book["review"].cell(row, at["verdict"]).value = "fix"
        book["review"].cell(row, at["zh_ground_truth"]).value = value
    book["review"].cell(3, at["zh_subject"]).value = "三号河流"
    out = io.BytesIO()
    book.save(out)
    report = desk.take(out.getvalue(), name="sheet.xlsx")
    assert desk.store.decisions()[0].fixed == {"zh.ground_truth": "1949/10/1"}
    assert report.applied["fix"] == 2, "a date of the same text in another dress is no edit"
    assert desk.store.decisions()[1].fixed == {"zh.subject": "三号河流"}
    desk.store.close()


@pytest.mark.parametrize("text", ["=1+1", "'=1", "-5", "a\r\nb", "a\rb", "\ud800", "\x00", "007"])
def test_awkward_texts_can_be_accepted_from_either_kind_of_sheet(text: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, [candidate(1, target_new=text), candidate(2, prompt=text)])
    rows = desk.rows()
    assert desk.take([_say(rows[0], "accept"), rows[1]]).applied["accept"] == 1
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(map(item_of, desk.candidates), "")))
    book["review"].cell(3, COLUMNS.index("verdict") + 1).value = "通过"
    out = io.BytesIO()
    book.save(out)
    report = desk.take(out.getvalue(), name="sheet.xlsx")
    assert (report.applied["accept"], report.conflicts) == (1, ())
    desk.store.close()


def test_line_breaks_that_excel_changed_are_no_edit(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [candidate(1, prompt="上\r\n下")])
    row = _say(desk.rows()[0], "accept", zh_prompt="上\n下")
    assert desk.take([row]).applied["accept"] == 1
    desk.store.close()


def test_a_verdict_that_leaves_an_error_standing_is_warned_of(desk: Desk) -> None:
    def check(content: Candidate) -> list[object]:
        bad = content.zh is None or content.zh.target_new != "南山"
        return [Problem(code="answer-in-prompt", message="x")] if bad else []

    rows = desk.rows()
    _say(rows[0], "accept")
    _say(rows[1], "fix", zh_target_new="南山")
    _say(rows[2], "fix", zh_target_new="北山")
    report = desk.take(rows, check=check)
    assert sum(report.applied.values()) == 3
    assert [note.row for note in report.warnings] == [2, 4]
    assert all("answer-in-prompt" in note.reason for note in report.warnings)


def test_a_file_as_wps_saves_it(desk: Desk) -> None:
    """GB18030, CRLF, columns in another order, one added, quotes only where needed."""
    one, two = desk.candidates[:2]
    lines = [
        "编号,ID,Verdict,Note,zh_target_new,content_hash",
        f'1,{one.id},修改,"改为“南山”,\n更合适",南山,{one.content_hash}',
        ",,,,,",
        f"2,{two.id},通过,,西山,{two.content_hash}",
        ",,,,,",
    ]
    report = desk.take(("\r\n".join(lines) + "\r\n").encode("gb18030"))
    assert report.applied == {"accept": 1, "reject": 0, "fix": 1}
    assert desk.store.decisions()[0].note == "改为“南山”,\n更合适"


def test_a_file_as_excel_saves_unicode_text(desk: Desk) -> None:
    """UTF-16 with its mark, tabs, CRLF, a line break in a quoted cell."""
    one = desk.candidates[0]
    text = f'id\tcontent_hash\tverdict\tnote\r\n{one.id}\t{one.content_hash}\tReject\t"假\n的"\r\n'
    assert desk.take(b"\xff\xfe" + text.encode("utf-16-le")).applied["reject"] == 1
    assert desk.store.decisions()[0].note == "假\n的"


def test_the_report_is_plain_json(desk: Desk) -> None:
    report = desk.take([_say(desk.rows()[0], "maybe")]).as_json()
    assert report["conflicts"][0]["row"] == 2
    assert set(report) == {
        "rows", "applied", "repeated", "undecided", "unknown", "conflicts", "warnings",
    }  # fmt: skip


@pytest.mark.parametrize("column", ["zh_prompt", "note", "reviewer"])
def test_half_a_character_is_a_conflict(column: str, desk: Desk) -> None:
    rows = desk.rows()
    rows[0] = _say(rows[0], "fix", zh_target_new="另一条河") | {column: "_xD800_"}
    report = desk.take(rows)
    assert "half a character" in _reasons(report)[0]
    assert desk.store.decisions() == []
