from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clm_data.records import TEXT_FIELDS
from clm_data.review.cells import damage, decode, encode, new_text
from clm_data.review.queue import Item
from clm_data.review.returned import read_sheet
from clm_data.review.sheet import ENCODINGS, TEXT_COLUMNS, write_csv, write_xlsx

ROWS = 10
PIECES = st.sampled_from(
    [
        *"=+-@＝＋－＠'\"“”,;\t\n\r，。；？《》 　", "\r\n", "''", "'=", "鲁迅的原名是", "周树人",
        "𠮷", "㐀", "😀", "\U0001f468\u200d\U0001f469", "é", "Ω", "\u200b", "\ufeff",
        "\x00", "\x01", "\x1f", "\x7f", "\x85", "\u2028", "\ud800", "\udfff", "\ufffe",
        "_x0041_", "_x005F_", "_x", "x000D_", "007", "12345678901234567890", "1.50", "1E5", "2-1",
        "1949-10-01", "1949年10月1日", "October 1, 1949", "10:30", "TRUE", "#N/A",
        "=cmd|'/C calc'!A0", "NULL", "None", "nan",
    ]
)  # fmt: skip
CELLS = st.one_of(
    st.lists(PIECES, max_size=4).map("".join),
    st.text(max_size=12),
    st.from_regex(r"\A['=+\-@＝＋－＠\s]{0,3}[0-9.\-/:eE年月]{0,8}\Z"),
)
TABLES = st.lists(CELLS, min_size=ROWS * len(TEXT_FIELDS), max_size=ROWS * len(TEXT_FIELDS))
PATIENT = [HealthCheck.large_base_example, HealthCheck.too_slow, HealthCheck.data_too_large]
PATIENT.append(HealthCheck.function_scoped_fixture)


def _items(cells: list[str]) -> list[Item]:
    width = len(TEXT_FIELDS)
    return [
        Item(f"clm-{n}", "0" * 64, None, dict(zip(TEXT_FIELDS, cells[n : n + width], strict=True)))
        for n in range(0, len(cells), width)
    ]


def _assert_round_trip(items: list[Item], data: bytes, path: Path) -> int:
    """Check that every cell is read unchanged, and return their number."""
    path.write_bytes(data)
    rows = read_sheet(path)
    assert [row.cells["id"] for row in rows] == [item.id for item in items]
    for item, row in zip(items, rows, strict=True):
        assert {name: row.cells[column] for column, name in TEXT_COLUMNS.items()} == item.texts
    return len(items) * len(TEXT_FIELDS)


def test_ten_thousand_cells_round_trip_through_csv_in_every_encoding(tmp_path: Path) -> None:
    compared = dict.fromkeys(ENCODINGS, 0)

    @settings(max_examples=105, deadline=None, suppress_health_check=PATIENT)
    @given(TABLES)
    def check(cells: list[str]) -> None:
        items = _items(cells)
        for encoding in ENCODINGS:
            compared[encoding] += _assert_round_trip(
                items, write_csv(items, encoding), tmp_path / "sheet.csv"
            )

    check()
    assert set(compared) == {"utf-8-sig", "utf-8", "gb18030"}
    assert min(compared.values()) >= 10_000


def test_cells_round_trip_through_xlsx(tmp_path: Path) -> None:
    compared = 0

    @settings(max_examples=15, deadline=None, suppress_health_check=PATIENT)
    @given(TABLES)
    def check(cells: list[str]) -> None:
        nonlocal compared
        items = _items(cells)
        compared += _assert_round_trip(items, write_xlsx(items, "guide"), tmp_path / "sheet.xlsx")

    check()
    assert compared >= 1_000


@settings(max_examples=500, deadline=None)
@given(CELLS)
def test_decode_inverts_encode_and_no_cell_starts_a_formula(text: str) -> None:
    cell = encode(text)
    assert decode(cell) == text
    assert cell[:1] not in set("\t\r\n")
    assert cell.lstrip()[:1] not in set("=+-@＝＋－＠")


@settings(max_examples=500, deadline=None)
@given(CELLS)
def test_an_unchanged_cell_is_never_an_edit(text: str) -> None:
    assert new_text(text, decode(encode(text))) == text


@pytest.mark.parametrize(
    "text", ["=1+1", "+86", "-5", "@home", "\t=1", "  =1", "＝1", "－5", "＠家", "＋1", "\n=1"]
)
def test_texts_that_start_a_formula_get_an_apostrophe(text: str) -> None:
    assert encode(text) == "'" + text


@pytest.mark.parametrize("text", ["007", "1949-10-01", "October 1, 1949", "2-1", "10:30", "1E5"])
def test_texts_that_a_spreadsheet_would_reformat_get_an_apostrophe(text: str) -> None:
    assert encode(text) == "'" + text


@pytest.mark.parametrize("text", ["周树人", "1949", "3.14", "'tis", "''quoted''", "May", "", " "])
def test_other_texts_are_written_unchanged(text: str) -> None:
    assert encode(text) == text


@pytest.mark.parametrize(
    ("old", "returned", "new"),
    [
        ("-5", "-5", "-5"),
        ("-5", "-6", "-6"),
        ("-5", "'five", "five"),
        ("a\r\nb", "a\nb", "a\r\nb"),
        ("a\nb", "a\r\nc", "a\r\nc"),
        ("tis", "'tis", "'tis"),
    ],
)
def test_an_edit_is_read_without_the_added_apostrophe(old: str, returned: str, new: str) -> None:
    assert new_text(old, returned) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("007", "7"),
        ("1.50", "1.5"),
        ("12345678901234567890", "12345678901234500000"),
        ("12345678901234567890", "1.23457E+19"),
        ("1918-05", "May-18"),
        ("2-1", "1-Feb"),
        ("2-1", "2月1日"),
        ("3/4", "2026/3/4"),
        ("1949年10月1日", "1949/10/1"),
        ("1949-10-01", "1949/10/1"),
        ("October 1, 1949", "1-Oct-49"),
        ("October 1, 1949", "18172"),
        ("10:30", "10:30:00"),
        ("true", "TRUE"),
        ("-name", "#NAME?"),
        ("周树人", "???"),
        ("王𠮷", "王??"),
        ("王㐀a", "王?a"),
    ],
)
def test_changes_made_by_excel_are_recognized(old: str, new: str) -> None:
    assert damage(old, new) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1949", "1950"),
        ("1949年10月1日", "1949年10月2日"),
        ("1949-10-01", "1949年10月1日"),
        ("1949-10-01", "1950-10-02"),
        ("October 1, 1949", "October 2, 1949"),
        ("2-1", "1-2"),
        ("周树人", "周作人"),
        ("鲁迅的原名是？", "鲁迅的原名是?"),
        ("Is it so", "Is it so?"),
        ("007", "008"),
    ],
)
def test_edits_by_people_are_not_taken_for_damage(old: str, new: str) -> None:
    assert damage(old, new) is None
