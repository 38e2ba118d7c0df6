"""Writing, reading and querying CSV tables of results."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.errors import InputFileError
from clm_data.eval.csv_tables import (
    float_or_none,
    largest_batch,
    of_variant,
    read_rows,
    unique,
    variants,
    where,
    write_rows,
)
from clm_data.eval.errors import EditError


def test_rows_are_read_back_as_text_sorted_numbers_before_words(tmp_path: Path) -> None:
    file = tmp_path / "new" / "table.csv"
    write_rows(
        file,
        [
            {"batch": "all", "name": "沈从文", "value": 2 / 3},
            {"batch": 10, "name": "b", "value": None},
            {"batch": 2, "name": "a,\n", "value": True},
        ],
    )
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


def test_a_table_without_rows_has_a_header(tmp_path: Path) -> None:
    write_rows(tmp_path / "empty.csv", [], ["layer", "value"])
    assert (tmp_path / "empty.csv").read_bytes() == b"layer,value\n"
    assert read_rows(tmp_path / "empty.csv") == []


def test_a_table_without_rows_or_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither rows nor columns"):
        write_rows(tmp_path / "empty.csv", [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused_and_nothing_is_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(EditError, match=r"table\.csv: mean is NaN or infinite"):
        write_rows(tmp_path / "table.csv", [{"mean": value}])
    assert list(tmp_path.iterdir()) == []


def test_rows_with_different_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns"):
        write_rows(tmp_path / "table.csv", [{"a": 1}, {"b": 2}])


def test_reading_a_missing_table_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.csv"):
        read_rows(tmp_path / "gone.csv")


def test_an_empty_cell_is_no_number() -> None:
    assert float_or_none("0.5") == 0.5
    assert float_or_none("") is None
    assert float_or_none(None) is None


def test_distinct_values_are_sorted_by_value_then_as_text() -> None:
    rows = [{"layer": value} for value in ("10", "all", "9", "10", "x")]
    assert unique(rows, "layer") == ["9", "10", "all", "x"]


def test_rows_are_selected_by_values_variant_and_largest_batch() -> None:
    common = {"protocol": "native", "mode": "batch", "layers": ""}
    rows = [
        {"method": method, "batch_size": size, **common}
        for method in ("rome", "memit")
        for size in ("4", "10")
    ]
    assert where(rows, method="memit", batch_size="4") == [rows[2]]
    assert variants(rows) == [
        ("memit", "native", "batch", ""),
        ("rome", "native", "batch", ""),
    ]
    assert of_variant(rows, ("rome", "native", "batch", "")) == rows[:2]
    assert largest_batch(rows) == [rows[1], rows[3]]
    assert largest_batch([]) == []
