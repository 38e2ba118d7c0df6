"""Workbooks as people leave them: each cell is read right, or named with the remedy."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from helpers.review_sheets import ReviewFolder, candidate, candidates, csv_bytes
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.comments import Comment
from openpyxl.styles import Font
from openpyxl.worksheet.formula import ArrayFormula

from clm_data.errors import InputFileError
from clm_data.review.intake import ImportReport
from clm_data.review.queue import item_of
from clm_data.review.returned import read_sheet
from clm_data.review.sheet import COLUMNS, write_xlsx

AT = {name: index for index, name in enumerate(COLUMNS, 1)}
Edit = Callable[[Any], None]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[ReviewFolder]:
    made = ReviewFolder(tmp_path, candidates(5))
    yield made
    made.store.close()


def _saved(book: Any) -> bytes:
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _book(folder: ReviewFolder) -> Any:
    return openpyxl.load_workbook(
        io.BytesIO(write_xlsx(map(item_of, folder.candidates), "guide")), rich_text=True
    )


def _import(folder: ReviewFolder, edit: Edit, verdict: str = "fix") -> ImportReport:
    book = _book(folder)
    book["review"].cell(2, AT["verdict"]).value = verdict
    edit(book)
    return folder.import_rows(_saved(book), name="back.xlsx")


def _set(value: Any, kind: str | None = None, format_: str | None = None) -> Edit:
    def edit(book: Any) -> None:
        cell = book["review"].cell(2, AT["zh_target_new"])
        cell.number_format = format_ or "General"
        cell.value = value
        if kind is not None:
            cell.data_type = kind

    return edit


def _struck(book: Any) -> None:
    book["review"].cell(2, AT["zh_target_new"]).font = Font(strike=True)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_set('="茅"&"盾"', "f"), "holds a formula"),
        (_set("#NAME?", "e"), "error value (#NAME?)"),
        (_set("#REF!", "e"), "error value (#REF!)"),
        (_set(ArrayFormula("J2:J2", '=CONCAT("茅","盾")')), "holds a formula"),
        (_set(0.5, None, "0%"), "in a format of its own"),
        (_set(7, None, "000"), "in a format of its own"),
        (_set(0.25, None, "# ?/?"), "in a format of its own"),
        (_struck, "is struck out"),
        (
            _set(CellRichText(TextBlock(InlineFont(strike=True), "长江"), "黄河")),
            "is struck out",
        ),
    ],
)
def test_a_cell_that_no_person_typed_is_a_conflict_with_its_place(
    folder: ReviewFolder, edit: Edit, words: str
) -> None:
    report = _import(folder, edit)
    (conflict,) = report.conflicts
    assert conflict.row == 2
    assert "zh_target_new (J2)" in conflict.reason
    assert words in conflict.reason
    assert folder.store.decisions() == []


def test_a_formula_as_a_verdict_is_a_conflict(folder: ReviewFolder) -> None:
    report = _import(folder, lambda _book: None, verdict='=IF(TRUE,"accept","")')
    assert "verdict (Q2) holds a formula" in report.conflicts[0].reason


@pytest.mark.parametrize(("value", "text"), [(1984, "1984"), ("茅盾", "茅盾"), (1e5, "100000")])
def test_a_typed_value_is_read_as_it_is_shown(folder: ReviewFolder, value: Any, text: str) -> None:
    _import(folder, _set(value))
    (decision,) = folder.store.decisions()
    assert decision.fixed == {"zh.target_new": text}


def test_dates_of_both_epochs_are_read(tmp_path: Path) -> None:
    for epoch in (openpyxl.utils.datetime.WINDOWS_EPOCH, openpyxl.utils.datetime.MAC_EPOCH):
        book = openpyxl.load_workbook(io.BytesIO(write_xlsx(map(item_of, candidates(1)), "g")))
        book.epoch = epoch
        book["review"].cell(2, AT["zh_target_new"]).value = datetime(1990, 1, 1)
        (tmp_path / "d.xlsx").write_bytes(_saved(book))
        assert read_sheet(tmp_path / "d.xlsx")[0].cells["zh_target_new"] == "1990-01-01"


def _merge(book: Any) -> None:
    column = AT["verdict"]
    book["review"].merge_cells(start_row=2, end_row=6, start_column=column, end_column=column)


def test_rows_under_a_merged_verdict_are_conflicts(folder: ReviewFolder) -> None:
    report = _import(folder, _merge, "accept")
    assert report.applied["accept"] == 1
    assert [issue.row for issue in report.conflicts] == [3, 4, 5, 6]
    assert "merged cells Q2:Q6" in report.conflicts[0].reason


def test_verdicts_on_a_copied_sheet_are_named(folder: ReviewFolder) -> None:
    def copy(book: Any) -> None:
        sheet = book.copy_worksheet(book["review"])
        sheet.title = "review (2)"
        sheet.cell(3, AT["verdict"]).value = "accept"

    report = _import(folder, copy, "")
    assert report.undecided == 5
    assert "sheet 'review (2)' also has 1 verdict" in report.unread[0]


def _renamed(book: Any) -> None:
    book["review"].title = "审校"
    book.move_sheet(book["审校"], 1)


def _titled(book: Any) -> None:
    book["review"].insert_rows(1, 2)
    book["review"].cell(1, 1).value = "第一批"


@pytest.mark.parametrize("edit", [_renamed, _titled])
def test_the_sheet_and_the_header_are_found_wherever_they_are(
    folder: ReviewFolder, edit: Edit
) -> None:
    assert _import(folder, edit, "accept").applied["accept"] == 1


def test_without_the_columns_the_error_names_the_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.title = "other"
    book.active.append(["a", "b"])
    (tmp_path / "x.xlsx").write_bytes(_saved(book))
    with pytest.raises(InputFileError, match="sheet 'other': column 'id' is missing"):
        read_sheet(tmp_path / "x.xlsx")


def test_comments_and_hidden_rows_are_warnings(folder: ReviewFolder) -> None:
    def edit(book: Any) -> None:
        book["review"].cell(2, AT["zh_prompt"]).comment = Comment("wrong", "Li Na")
        book["review"].row_dimensions[2].hidden = True

    warnings = [issue.reason for issue in _import(folder, edit, "accept").warnings]
    assert any("zh_prompt (D2) has a comment" in text for text in warnings)
    assert any("row is hidden" in text for text in warnings)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"), "password"),
        (b"\xd0\xcf\x11\xe0", "old .xls"),
        (b"<html><table><tr><td>id</td></tr></table>", "a web page"),
        (b'<?xml version="1.0"?><Workbook/>', "XML"),
    ],
)
def test_another_format_is_named_with_the_remedy(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.xls").write_bytes(data)
    with pytest.raises(InputFileError, match=rf"{words}.*\.xlsx or CSV UTF-8"):
        read_sheet(tmp_path / "x.xls")


def _with_part(data: bytes, part: str, change: Callable[[bytes], bytes]) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, change(content) if name == part else content)
    return out.getvalue()


def _append(rows: bytes) -> Callable[[bytes], bytes]:
    return lambda xml: xml.replace(b"</sheetData>", rows + b"</sheetData>")


def _huge_cell(xml: bytes) -> bytes:
    text = b"a" * 400_000_000
    return _append(b'<row r="9"><c t="inlineStr"><is><t>' + text + b"</t></is></c></row>")(xml)


SHEET = "xl/worksheets/sheet1.xml"
FAR = b'<row r="1048576"><c r="A1048576"/></row>'
CORNER = b'<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>x</t></is></c></row>'
ENTITIES = (
    b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 30) for i in range(9))
    + b"]>"
)


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (_append(FAR), "5 rows"),
        (_append(CORNER), "5 rows"),
        (_huge_cell, "at most 64 MB"),
        (_append(b'<row r="9">' + b"<c/>" * 10_000_000 + b"</row>"), "5 rows"),
        (_append(b'<row r="9"><c t="inlineStr"><is>' + b"<r/>" * 1_000_000 + b"</is></c></row>"),
         "parts"),
        (lambda xml: ENTITIES + xml.replace(b"</sheetData>", b"<row><c>&j;</c></row></sheetData>"),
         "cannot be read"),
    ],
    ids=["blank-last-row", "last-corner", "huge-cell", "many-cells", "many-runs", "entities"],
)  # fmt: skip
def test_far_cells_and_bombs_are_read_or_refused_in_little_memory(
    tmp_path: Path, folder: ReviewFolder, change: Callable[[bytes], bytes], outcome: str
) -> None:
    path = tmp_path / "bomb.xlsx"
    path.write_bytes(_with_part(_saved(_book(folder)), SHEET, change))
    code = (
        "import sys; from pathlib import Path; from clm_data.errors import UserError\n"
        "from clm_data.review.returned import read_sheet\n"
        "try: print(len(read_sheet(Path(sys.argv[1]))), 'rows')\n"
        "except UserError as error: print(error)\n"
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(int(line.split()[1]) // 1024 for line in lines if 'VmHWM' in line))"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True, text=True, check=True, preexec_fn=limit,
    )  # fmt: skip
    said, megabytes = done.stdout.strip().rsplit("\n", 1)
    assert outcome in said
    assert int(megabytes) < 200


def test_csv_with_a_separator_line_and_a_very_long_cell_is_read(tmp_path: Path) -> None:
    rows = ReviewFolder(tmp_path, candidates(2)).export_rows()
    rows[0]["note"] = "长" * 140_000
    data = b"sep=;\r\n" + csv_bytes(rows, delimiter=";", encoding="utf-8")
    (tmp_path / "x.csv").write_bytes(data)
    first, second = read_sheet(tmp_path / "x.csv")
    assert first.cells["note"] == rows[0]["note"]
    assert (first.number, second.number) == (2, 3)


@pytest.mark.parametrize("encoding", ["cp932", "cp949", "cp950"])
def test_a_sheet_saved_in_another_code_page_applies_nothing(
    folder: ReviewFolder, encoding: str
) -> None:
    rows = folder.export_rows()
    rows[0] |= {"verdict": "fix", "zh_target_new": "茅盾"}
    text = csv_bytes(rows, encoding="utf-8").decode()
    with pytest.raises(InputFileError, match=r"garbled.*save it as .CSV UTF-8. or \.xlsx"):
        folder.import_rows(text.encode(encoding, "replace"))
    assert folder.store.decisions() == []


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_question_marks_for_chinese_apply_nothing(folder: ReviewFolder, encoding: str) -> None:
    rows = folder.export_rows()
    rows[0] |= {"verdict": "fix", "zh_target_new": "茅盾"}
    text = csv_bytes(rows, encoding="utf-8").decode()
    report = folder.import_rows(text.encode(encoding, "replace"))
    assert "question marks" in report.conflicts[0].reason
    assert folder.store.decisions() == []


def test_a_year_that_became_a_date_is_a_conflict_and_the_same_date_is_none(tmp_path: Path) -> None:
    texts = ["1990年", "1990-01-01"]
    folder = ReviewFolder(tmp_path, [candidate(n, target_new=t) for n, t in enumerate(texts, 1)])
    book = _book(folder)
    for row in (2, 3):
        book["review"].cell(row, AT["verdict"]).value = "fix"
        book["review"].cell(row, AT["zh_target_new"]).value = datetime(1990, 1, 1)
        book["review"].cell(row, AT["zh_subject"]).value = f"{row}号河流"
    report = folder.import_rows(_saved(book), name="back.xlsx")
    assert [(issue.row, "became a date" in issue.reason) for issue in report.conflicts] == [
        (2, True)
    ]
    assert report.applied["fix"] == 1
    folder.store.close()


@pytest.mark.parametrize("column", ["zh_target_new", "zh_prompt", "en_subject"])
def test_texts_sorted_against_their_ids_are_conflicts(folder: ReviewFolder, column: str) -> None:
    rows = folder.export_rows()[:3]
    texts = ["甲", "乙", "丙"]
    folder.import_rows(
        [row | {"verdict": "fix", column: text} for row, text in zip(rows, texts, strict=True)]
    )
    rows = folder.export_rows()[:3]
    moved = [row[column] for row in rows[1:]] + [rows[0][column]]
    back = [row | {"verdict": "fix", column: text} for row, text in zip(rows, moved, strict=True)]
    report = folder.import_rows(back)
    assert len(report.conflicts) == 3
    assert rows[1]["id"] in report.conflicts[0].reason
    assert "sorted" in report.conflicts[0].reason
    assert len(folder.store.decisions()) == 3


def test_a_fix_to_the_target_of_another_row_is_no_moved_text(folder: ReviewFolder) -> None:
    rows = folder.export_rows()[:2]
    rows[0] |= {"verdict": "fix", "zh_subject": rows[1]["zh_subject"]}
    assert folder.import_rows(rows).applied["fix"] == 1


def test_rows_that_were_sorted_as_a_whole_are_read(folder: ReviewFolder) -> None:
    rows = [row | {"verdict": "accept"} for row in folder.export_rows()]
    assert folder.import_rows(rows[::-1]).applied["accept"] == 5


def _one_column_sheet(book: Any) -> None:
    sheet = book.create_sheet("verdicts")
    sheet.append(["id", "verdict"])
    sheet.append([book["review"].cell(2, 1).value, "accept"])


def _renamed_column(book: Any) -> None:
    book["review"].cell(1, AT["zh_target_new"]).value = "新目标"


def _remarks_beside_the_table(book: Any) -> None:
    book["review"].cell(1, len(COLUMNS) + 1).value = "我的意见"
    book["review"].cell(3, len(COLUMNS) + 1).value = "有误"
    book["review"].cell(4, len(COLUMNS) + 3).value = "应删"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_one_column_sheet, ["sheet 'verdicts' also has 1 verdict"]),
        (_renamed_column, ["'zh_target_new' is missing: restore its name"]),
        (
            _remarks_beside_the_table,
            ["column '我的意见' was not exported: its 1 text is not read", "column V (without a"],
        ),
    ],
)
def test_what_is_not_read_is_said(folder: ReviewFolder, edit: Edit, words: list[str]) -> None:
    unread = _import(folder, edit, "accept").unread
    assert len(unread) == len(words)
    assert all(part in line for part, line in zip(words, unread, strict=True))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "", "note": "存疑"}, "the note is not stored"),
        ({"verdict": "accept", "domain": "chemistry"}, "domain: edited, not read"),
        ({"verdict": "", "domain": "chemistry"}, "domain: edited, not read"),
        ({"verdict": "accept", "decisions": "3"}, "there were at most 0"),
        ({"verdict": "accept", "note": "可"}, None),
        ({"verdict": "accept", "decisions": "9" * 5000}, None),
    ],
)
def test_what_a_reviewer_entered_in_vain_is_a_warning(
    folder: ReviewFolder, changes: dict[str, str], words: str | None
) -> None:
    rows = folder.export_rows()
    report = folder.import_rows([rows[0] | changes, *rows[1:]])
    assert sum(report.applied.values()) == (changes["verdict"] == "accept")
    assert [words in warning.reason for warning in report.warnings if words] == [True] * bool(words)
    assert len(report.warnings) == bool(words)


@pytest.mark.parametrize("mimetype", ["application/vnd.oasis.opendocument.spreadsheet"])
def test_an_ods_file_is_named_with_the_remedy(tmp_path: Path, mimetype: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.xlsx", "w") as archive:
        archive.writestr("mimetype", mimetype)
    with pytest.raises(InputFileError, match=r"ODS or Numbers.*\.xlsx or CSV UTF-8"):
        read_sheet(tmp_path / "x.xlsx")


@pytest.mark.parametrize(
    "rows",
    [
        b'<row r="2"><c r="A2" t="inlineStr"><is><t>x</t></is></c></row>',
        b'<row r="9"><c r="A9"><v>1</v></c><c r="A9"><v>2</v></c></row>',
        b'<row r="9"><c r="A9" t="s"><v>999999</v></c></row>',
        b'<row r="x"/>',
        b"<row>",
    ],
)
def test_a_damaged_workbook_is_one_line(tmp_path: Path, folder: ReviewFolder, rows: bytes) -> None:
    path = tmp_path / "bad.xlsx"
    path.write_bytes(_with_part(_saved(_book(folder)), SHEET, _append(rows)))
    with pytest.raises(InputFileError, match=r"cannot be read as XLSX.*save it as \.xlsx again"):
        read_sheet(path)


@pytest.mark.parametrize("line_end", ["\r", "\n", "\r\n"])
def test_every_line_end_of_csv_is_read(tmp_path: Path, line_end: str) -> None:
    rows = ReviewFolder(tmp_path, candidates(3)).export_rows()
    (tmp_path / "x.csv").write_bytes(csv_bytes(rows, line_end=line_end))
    assert [dict(row.cells) for row in read_sheet(tmp_path / "x.csv")] == rows


def test_an_open_quotation_mark_and_a_nul_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for data, words in (
        (b'id,content_hash,verdict\r\n1,2,"a"b\r\n', r"x\.csv:2: .*quotation marks"),
        (b"id,content_hash,verdict\r\n1,2,a\x00\r\n", r"NUL byte \(line 2\)"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputFileError, match=words):
            read_sheet(path)


@pytest.mark.parametrize("text", ["Julio CortÃ¡zar", "鐨勪綔鑰呮槸", "茅\ufffd"])
def test_a_garbled_fix_in_a_workbook_is_a_conflict(folder: ReviewFolder, text: str) -> None:
    report = _import(folder, _set(text))
    assert "zh_target_new: garbled text" in report.conflicts[0].reason
    assert folder.store.decisions() == []
