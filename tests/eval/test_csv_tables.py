"""The tables of numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.errors import InputFileError
from clm_data.eval.csv_tables import read_rows, write_rows
from clm_data.eval.errors import EditError


def test_rows_come_back_as_text_sorted_by_size_and_word(tmp_path: Path) -> None:
    file = tmp_path / "new" / "table.csv"
    rows = [
        {"batch": "all", "name": "沈从文", "value": 2 / 3},
        {"batch": 10, "name": "b", "value": None},
        {"batch": 2, "name": "a,\n", "value": True},
    ]
    write_rows(file, rows)
    assert read_rows(file) == [
        {"batch": "2", "name": "a,\n", "value": "true"},
        {"batch": "10", "name": "b", "value": ""},
        {"batch": "all", "name": "沈从文", "value": "0.666667"},
    ]
    assert [path.name for path in file.parent.iterdir()] == ["table.csv"]


def test_the_order_of_rows_does_not_change_the_bytes(tmp_path: Path) -> None:
    rows = [{"x": x, "y": y} for x in (3, 1, None) for y in (0.5, "w", -0.0)]
    write_rows(tmp_path / "a.csv", rows)
    write_rows(tmp_path / "b.csv", rows[::-1])
    written = (tmp_path / "a.csv").read_bytes()
    assert written == (tmp_path / "b.csv").read_bytes()
    assert b"-0" not in written
    assert b"\r" not in written


def test_a_table_without_rows_has_its_header(tmp_path: Path) -> None:
    write_rows(tmp_path / "empty.csv", [], ["layer", "value"])
    assert (tmp_path / "empty.csv").read_bytes() == b"layer,value\n"
    assert read_rows(tmp_path / "empty.csv") == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(EditError, match="NaN or infinite"):
        write_rows(tmp_path / "table.csv", [{"value": value}])
    assert list(tmp_path.glob("*.csv")) == []


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns"):
        write_rows(tmp_path / "table.csv", [{"a": 1}, {"b": 2}])


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.csv"):
        read_rows(tmp_path / "gone.csv")
