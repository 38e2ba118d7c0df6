from __future__ import annotations

import io
from pathlib import Path

import pytest
from helpers.review_sheets import candidates, csv_bytes, exported_rows

from clm_data.csv_text import CsvFaultError, CsvRecord, CsvText
from clm_data.dedup.files.run import deduplicate
from clm_data.errors import InputFileError
from clm_data.review.returned import read_sheet
from clm_data.sources.files import read_rows

ENDS = ["\n", "\r\n", "\r"]


def records(text: str, max_cell: int = 100) -> list[CsvRecord]:
    return list(CsvText(io.StringIO(text, newline=""), max_cell))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("start", ["", "sep=;{}", "SEP=;{}"])
def test_records_know_their_lines_with_every_line_end(start: str, end: str) -> None:
    text = start.format(end) + end.join(["a;b", '"c;', ';c";d', "", "e,e,e;f", ""])
    found = records(text)
    assert [record.cells for record in found] == [
        ["a", "b"],
        [f"c;{end};c", "d"],
        [],
        ["e,e,e", "f"],
    ]
    shift = 1 if start else 0
    assert [(r.first - shift, r.last - shift) for r in found] == [(1, 1), (2, 3), (4, 4), (5, 5)]


def test_the_delimiter_is_that_of_the_first_line_with_text() -> None:
    assert CsvText(io.StringIO(',,;\n""\na\tb\tc,d\n'), 10).delimiter == "\t"
    assert CsvText(io.StringIO("sep=|\na|b\n"), 10).delimiter == "|"
    assert not list(CsvText(io.StringIO(""), 10))


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        (["a,b", 'c,"d', "e,f", "g,h"], 2, "is never closed"),
        (["a,b", 'c,"d', "e,f", 'g,"h,h"'], 2, r"\(line 4, before 'h,h\"'\)"),
        (["a,b", "c,d", 'c,"d "e" f"', "g,h"], 3, r"\(before 'e\" f\"'\)"),
        (['"a', '","b"', '"c', 'd', 'e","f', 'g,h'], 5, "is never closed"),
        (["sep=,", "a,b", '"x', '","d', "e,f"], 4, "is never closed"),
        (["a,b", 'c,"d""', "e,f"], 2, "is never closed"),
        (["a,b", f'"x","{"d" * 101}', "e,f"], 2, "more than 100 characters"),
        (["a,b", f"c,{'d' * 101}"], 2, "more than 100 characters"),
    ],
)  # fmt: skip
def test_a_fault_names_the_line_where_the_cell_opens(
    lines: list[str], line: int, words: str, end: str
) -> None:
    with pytest.raises(CsvFaultError, match=words) as caught:
        records(end.join(lines))
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", ENDS)
def test_rows_of_a_sheet_are_numbered_as_a_spreadsheet_shows_them(tmp_path: Path, end: str) -> None:
    sheet = csv_bytes(exported_rows(candidates(2)), delimiter=";", encoding="utf-8", line_end=end)
    for start in (b"", f"sep=;{end}".encode()):
        (tmp_path / "x.csv").write_bytes(start + sheet)
        assert [row.number for row in read_sheet(tmp_path / "x.csv")] == [2, 3]


@pytest.mark.parametrize("end", ENDS)
def test_a_source_with_a_separator_line_is_read_with_every_line_end(
    tmp_path: Path, end: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(end.join(["sep=;", "zh_prompt;zh_subject", "a,b;c", ""]), newline="")
    assert read_rows(path).rows == [{"zh_prompt": "a,b", "zh_subject": "c"}]
    path.write_text(end.join(["sep=;", "zh_prompt;zh_subject", "a;b", "a;b;c"]), newline="")
    with pytest.raises(InputFileError, match=r"x\.csv:4: row 2: 3 cells"):
        read_rows(path)


def test_dedup_copies_a_separator_line_and_blank_lines_before_the_header(tmp_path: Path) -> None:
    path, out = tmp_path / "x.csv", tmp_path / "out.csv"
    path.write_bytes(b"sep=;\nid;p\n1;same text\n\n2;same text\n3;other\n")
    deduplicate(path, "p", out=out)
    assert out.read_bytes() == b"sep=;\nid;p\n1;same text\n3;other\n"
    path.write_bytes(b'\n\nid;p\n1;"same\n')
    with pytest.raises(InputFileError, match=r"x\.csv:4: not valid CSV: .*never closed"):
        deduplicate(path, "p")
    path.write_bytes(b"\nid;p\n1;same text\n2;same text\n")
    deduplicate(path, "p", out=out, force=True)
    assert out.read_bytes() == b"id;p\n1;same text\n"


def broken(end: str = "\r\n", **notes: str) -> bytes:
    """A sheet of four rows with verdicts, of which the second row's note has an open mark."""
    rows = exported_rows(candidates(4))
    for row in rows:
        row |= {"verdict": "accept", "note": "NOTE", "reviewer": "Li Na"}
    lines = csv_bytes(rows, line_end=end, encoding="utf-8").decode().split(end)
    lines[2] = lines[2].replace("NOTE", '"open')
    for line, note in notes.items():
        lines[int(line.removeprefix("line"))] = lines[int(line[4:])].replace("NOTE", note)
    return end.join(lines).encode()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({}, r"x\.csv:3: .*never closed"),
        ({"line4": '"quoted, text"'}, r"x\.csv:3: .*\(line 5, before 'quoted, te'\)"),
        (
            {"line4": '",starts with a comma"'},
            r"x\.csv:3: .*row 3 hides another .* [0-9a-f]{8}\.",
        ),
    ],
)
def test_a_sheet_with_an_open_quotation_mark_is_refused_with_the_line_of_the_mark(
    tmp_path: Path, notes: dict[str, str], words: str, end: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(broken(end, **notes))
    with pytest.raises(InputFileError, match=words) as caught:
        read_sheet(path)
    assert "\n" not in str(caught.value)


def test_notes_with_line_breaks_and_quotation_marks_are_read(tmp_path: Path) -> None:
    rows = exported_rows(candidates(2))
    rows[0]["note"] = 'a "b",\r\nc;d\ne' + "\n" + "0" * 65
    (tmp_path / "x.csv").write_bytes(csv_bytes(rows))
    assert [dict(row.cells) for row in read_sheet(tmp_path / "x.csv")] == rows
