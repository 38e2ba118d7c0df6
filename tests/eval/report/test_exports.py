"""Tables of the report as CSV and LaTeX files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from clm_data.eval.bilingual import BilingualText
from clm_data.eval.report import exports
from clm_data.eval.report.parts import (
    NO_VALUE,
    MissingPart,
    Paragraph,
    Section,
    Table,
    columns,
    decimals,
    percent,
)

TABLE = Table(
    "some",
    BilingualText("一些", "Some"),
    columns(("name_zh", "名", "name (Chinese)", False), ("n", "数", "n, %")),
    (("中_文", "1.5"), ("a,b", NO_VALUE)),
    best=frozenset({(0, 1)}),
)


def test_csv_has_keys_and_cells_and_leaves_missing_values_empty() -> None:
    rows = list(csv.reader(io.StringIO(exports.as_csv(TABLE))))
    assert rows == [["name_zh", "n"], ["中_文", "1.5"], ["a,b", ""]]


def test_latex_is_escaped_and_sets_the_best_values_in_bold() -> None:
    text = exports.as_latex(TABLE)
    assert r"中\_文 & \textbf{1.5} \\" in text
    assert r"n, \% \\" in text
    assert "ctex" in text
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 1


def test_rows_of_another_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        Table("t", TABLE.title, TABLE.columns, (("only",),))


def test_columns_without_values_are_omitted_from_the_page() -> None:
    table = Table("t", TABLE.title, TABLE.columns, (("a", NO_VALUE), ("b", NO_VALUE)))
    assert table.filled_columns == (0,)


def test_the_language_of_a_column_follows_from_its_key() -> None:
    assert [column.lang for column in TABLE.columns] == ["zh", None]


def test_values_in_paragraphs_and_missing_parts_are_exported(tmp_path: Path) -> None:
    paragraph = Paragraph(BilingualText("有{n}条", "{n} facts"), {"n": "7"})
    missing = MissingPart(BilingualText("没有", "nothing"), "clm-data analyze x")
    section = Section("s", BilingualText("章", "S"), (paragraph, missing))
    exports.write_tables(tmp_path, exports.all_tables([section]))
    assert paragraph.text == BilingualText("有7条", "7 facts")
    assert "s,1,n,7" in (tmp_path / "statements.csv").read_text(encoding="utf-8")
    assert "clm-data analyze x" in (tmp_path / "missing.csv").read_text(encoding="utf-8")
    assert not (tmp_path / "examples.csv").exists()  # there are none


def test_missing_values_are_a_dash() -> None:
    assert (percent(None), decimals(None)) == (NO_VALUE, NO_VALUE)


def test_numbers_are_rounded_and_negative_ones_keep_their_sign() -> None:
    assert percent(0.125) == "12.5"
    assert decimals(-0.25, 2) == "-0.25"
    assert decimals(-0.001, 2) == "0.00"
