from __future__ import annotations

import io
import zipfile
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest
from helpers.review_sheets import Row, candidate, candidates, csv_bytes, exported_rows

from clm_data.errors import InputFileError, UserError
from clm_data.records import TEXT_FIELDS, Problem
from clm_data.resources import read_text
from clm_data.review.queue import item_of
from clm_data.review.returned import read_sheet
from clm_data.review.sheet import COLUMNS, write_csv, write_sheet, write_xlsx


def _read(data: bytes, folder: Path, name: str = "sheet.csv") -> list[Row]:
    path = folder / name
    path.write_bytes(data)
    return [dict(row.cells) for row in read_sheet(path)]


def test_the_columns_of_both_languages_alternate() -> None:
    assert COLUMNS[:7] == (
        "id", "content_hash", "domain", "zh_prompt", "en_prompt", "zh_subject", "en_subject",
    )  # fmt: skip
    assert COLUMNS[-3:] == ("verdict", "note", "reviewer")
    assert len([name for name in COLUMNS if name[:3] in {"zh_", "en_"}]) == len(TEXT_FIELDS) == 10


def test_excel_opens_the_default_csv_as_utf8() -> None:
    assert write_csv([item_of(candidate(1))]).startswith(b"\xef\xbb\xbfid,content_hash,")


def test_problems_are_described_in_both_languages() -> None:
    problem = Problem(code="number-mismatch", message="3 and 4", lang="en", field="prompt")
    cell = write_csv([item_of(candidate(1), [problem])]).decode("utf-8-sig")
    for words in ("en.prompt", "中英文数字不一致", "numbers differ", "3 and 4", "warning", "提醒"):
        assert words in cell


def test_an_unsupported_encoding_is_an_error() -> None:
    with pytest.raises(UserError, match="latin-1"):
        write_csv([], "latin-1")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_a_sheet_is_read_in_every_encoding_and_csv_dialect(
    encoding: str, delimiter: str, line_end: str, tmp_path: Path
) -> None:
    rows = exported_rows(candidates(3))
    rows[1] |= {"note": 'two\nlines, "quoted"; 对', "verdict": "通过"}
    data = csv_bytes(rows, encoding=encoding, delimiter=delimiter, line_end=line_end)
    assert _read(data, tmp_path) == rows


def test_big_endian_utf16_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    rows = exported_rows(candidates(2))
    data = b"\xfe\xff" + csv_bytes(rows, encoding="utf-16-be", delimiter="\t")
    assert _read(data, tmp_path) == rows


def test_bytes_valid_in_two_encodings_get_a_byte_order_mark(tmp_path: Path) -> None:
    item = item_of(candidate(1, prompt="模"))
    only = item.__class__(item.id, item.content_hash, None, dict.fromkeys(TEXT_FIELDS, "模"))
    data = write_csv([only], "gb18030")
    assert data.startswith("\ufeff".encode("gb18030"))
    assert _read(data, tmp_path)[0]["zh_prompt"] == "模"


def test_columns_may_be_moved_added_missing_and_named_in_any_case(tmp_path: Path) -> None:
    rows = exported_rows(candidates(2))
    kept = ["verdict", "note", "zh_prompt", "content_hash", "id"]
    header = [" VERDICT ", "my own column", "Note", "ZH prompt", "Content-Hash", "ＩＤ"]
    lines = [header] + [[row[kept[0]], "x", *(row[name] for name in kept[1:])] for row in rows]
    data = "\n".join(",".join(line) for line in lines).encode()
    assert _read(data, tmp_path) == [{name: row[name] for name in kept} for row in rows]


@pytest.mark.parametrize("column", ["id", "content_hash", "verdict"])
def test_the_error_names_a_missing_required_column(column: str, tmp_path: Path) -> None:
    columns = [name for name in COLUMNS if name != column]
    data = csv_bytes(exported_rows(candidates(1)), columns=columns)
    with pytest.raises(InputFileError, match=f"'{column}' is missing"):
        _read(data, tmp_path)


def test_the_error_names_a_duplicate_column(tmp_path: Path) -> None:
    data = csv_bytes(exported_rows(candidates(1)), columns=[*COLUMNS, "verdict"])
    with pytest.raises(InputFileError, match="'verdict' appears twice"):
        _read(data, tmp_path)


def test_empty_rows_are_skipped_and_row_numbers_match_the_spreadsheet(tmp_path: Path) -> None:
    rows = exported_rows(candidates(2))
    data = csv_bytes([rows[0], {}, {"note": "  "}, rows[1]])
    path = tmp_path / "sheet.csv"
    path.write_bytes(data + b"\r\n\r\n")
    assert [row.number for row in read_sheet(path)] == [2, 5]


def test_missing_cells_at_the_end_of_a_row_are_empty(tmp_path: Path) -> None:
    data = csv_bytes(exported_rows(candidates(1))).rstrip(b"\r\n,")
    assert _read(data, tmp_path)[0]["reviewer"] == ""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\r\n \r\n", "empty"),
        (b"\xd0\xcf\x11\xe0old", "xls"),
        (b"PK\x03\x04broken", "XLSX"),
        (b"id,\xff\xff\xff", "nor does it read as GB18030"),
        (b'id,content_hash,verdict\r\n1,2,"cut', "not valid CSV"),
    ],
)
def test_a_file_that_is_not_a_sheet_is_a_one_line_error(
    data: bytes, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputFileError, match=words) as caught:
        _read(data, tmp_path)
    assert "\n" not in str(caught.value)


def test_the_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.csv"):
        read_sheet(tmp_path / "gone.csv")


def test_xlsx_has_text_cells_a_frozen_header_a_verdict_list_and_the_guidelines() -> None:
    data = write_xlsx([item_of(candidate(1, prompt="=1+1", subject="#N/A"))], "规则\n=rule")
    book = openpyxl.load_workbook(io.BytesIO(data))
    sheet = book["review"]
    assert sheet.freeze_panes == "B2"
    assert {cell.number_format for row in sheet.iter_rows() for cell in row} == {"@"}
    assert {cell.data_type for cell in sheet[2] if cell.value is not None} == {"s"}
    (choice,) = sheet.data_validations.dataValidation
    assert choice.formula1 == '"accept,reject,fix"'
    assert sheet.cell(1, next(iter(choice.sqref.ranges)).min_col).value == "verdict"
    assert [row[0].value for row in book["guidelines"].iter_rows()] == ["规则", "'=rule"]


def test_equal_items_give_equal_xlsx_bytes() -> None:
    items = [item_of(content) for content in candidates(2)]
    first = write_xlsx(items, "guide")
    assert first == write_xlsx(items, "guide")
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}


def test_an_edited_workbook_is_read_and_retyped_cells_are_marked(tmp_path: Path) -> None:
    contents = candidates(2)
    book = openpyxl.load_workbook(io.BytesIO(write_xlsx(map(item_of, contents), "guide")))
    sheet = book["review"]
    at = {name: index for index, name in enumerate(COLUMNS, 1)}
    sheet.cell(2, at["verdict"]).value = "fix"
    sheet.cell(2, at["zh_ground_truth"]).value = datetime(1949, 10, 1)
    sheet.cell(2, at["en_ground_truth"]).value = 7
    sheet.cell(2, at["en_target_new"]).value = True
    sheet.insert_rows(3)
    path = tmp_path / "saved.xlsx"
    book.save(path)
    first, second = read_sheet(path)
    assert (first.number, second.number) == (2, 4)
    assert first.cells["zh_ground_truth"] == "1949-10-01"
    assert first.cells["en_ground_truth"] == "7"
    assert first.cells["en_target_new"] == "TRUE"
    assert first.retyped == {"zh_ground_truth", "en_ground_truth", "en_target_new"}
    assert second.cells["zh_prompt"] == contents[1].zh.prompt  # type: ignore[union-attr]


def test_write_sheet_chooses_the_format_by_name_and_does_not_overwrite(tmp_path: Path) -> None:
    items = [item_of(candidate(1))]
    for name in ("a.csv", "a.XLSX"):
        write_sheet(items, tmp_path / name)
        assert read_sheet(tmp_path / name)[0].cells["id"] == items[0].id
    with pytest.raises(UserError, match="may contain verdicts"):
        write_sheet(items, tmp_path / "a.csv")
    write_sheet([], tmp_path / "a.csv", force=True)
    assert read_sheet(tmp_path / "a.csv") == []
    with pytest.raises(UserError, match=r"\.csv or \.xlsx"):
        write_sheet(items, tmp_path / "a.txt")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.XLSX"}


def test_the_xlsx_sheet_contains_the_guidelines_in_both_languages(tmp_path: Path) -> None:
    write_sheet([], tmp_path / "a.xlsx")
    lines = openpyxl.load_workbook(tmp_path / "a.xlsx")["guidelines"].iter_rows(values_only=True)
    text = "\n".join(str(line[0] or "") for line in lines)
    for lang in ("zh", "en"):
        assert read_text("review", f"guidelines.{lang}.md").splitlines()[0] in text
