"""Tables of a report as CSV and LaTeX, and which facts are shown as examples."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from helpers.sweep_folder import make_dataset, make_results

from clm_data.eval.dataset import load_dataset
from clm_data.eval.report import exports
from clm_data.eval.report.chapters import examples as about_examples
from clm_data.eval.report.chapters import geometry as about_geometry
from clm_data.eval.report.chapters.evaluation import Evaluation, hit
from clm_data.eval.report.parts import (
    NONE,
    BilingualText,
    Examples,
    Missing,
    Section,
    Table,
    Text,
    columns,
    percent,
)
from clm_data.eval.results import FactResult

TABLE = Table(
    "some",
    BilingualText("一些", "Some"),
    columns(("name_zh", "名", "name (Chinese)", False), ("n", "数", "n, %")),
    (("中_文", "1.5"), ("a,b", NONE)),
    best=frozenset({(0, 1)}),
)


def test_csv_has_keys_and_cells_and_nothing_where_there_is_no_value() -> None:
    rows = list(csv.reader(io.StringIO(exports.as_csv(TABLE))))
    assert rows == [["name_zh", "n"], ["中_文", "1.5"], ["a,b", ""]]


def test_latex_escapes_sets_off_the_best_and_says_what_chinese_needs() -> None:
    text = exports.as_latex(TABLE)
    assert r"中\_文 & \textbf{1.5} \\" in text
    assert r"n, \% \\" in text
    assert "ctex" in text
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 1


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        Table("t", TABLE.title, TABLE.columns, (("only",),))


def test_columns_without_any_value_are_left_out_and_languages_of_columns_are_known() -> None:
    empty = Table("t", TABLE.title, TABLE.columns, (("a", NONE), ("b", NONE)))
    assert empty.filled == (0,)
    assert [column.lang for column in TABLE.columns] == ["zh", None]


def test_values_of_texts_and_what_is_missing_are_in_tables(tmp_path: Path) -> None:
    parts = (
        Text(BilingualText("有{n}条", "{n} facts"), {"n": "7"}),
        Missing(BilingualText("没有", "nothing"), "clm-data analyze x"),
    )
    exports.write_tables(
        tmp_path, exports.all_tables([Section("s", BilingualText("章", "S"), parts)])
    )
    assert parts[0].filled == BilingualText("有7条", "7 facts")
    assert "s,1,n,7" in (tmp_path / "statements.csv").read_text(encoding="utf-8")
    assert "clm-data analyze x" in (tmp_path / "missing.csv").read_text(encoding="utf-8")
    assert not (tmp_path / "examples.csv").exists()  # there are none


def test_none_is_a_dash() -> None:
    assert (percent(None), percent(0.125)) == (NONE, "12.5")


def fact(**zh: float | None) -> FactResult:
    return FactResult(id="f", domain=None, batch=0, zh=dict(zh), en={})


def test_an_edit_took_where_the_model_says_it_or_else_puts_every_token_first() -> None:
    assert hit(fact(exact_match=1.0, reliability=0.5), "zh") is True
    assert hit(fact(exact_match=0.0, reliability=1.0), "zh") is False
    assert hit(fact(reliability=1.0), "zh") is True
    assert hit(fact(reliability=0.9), "zh") is False
    assert hit(fact(reliability=None), "zh") is None


@pytest.fixture
def evaluation(tmp_path: Path) -> Evaluation:
    dataset = make_dataset(tmp_path / "set")
    return Evaluation(tmp_path / "out", make_results(tmp_path / "out", dataset, sizes=(12,)))


def examples(evaluation: Evaluation, dataset: Path | None) -> list[Examples]:
    records = {} if dataset is None else {r.id: r for r in load_dataset(str(dataset)).records}
    parts = about_examples.parts(evaluation, records)
    return [part for part in parts if isinstance(part, Examples)]


def test_examples_are_of_cells_edited_in_one_language_and_few_of_each_kind(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    shown = [one for part in examples(evaluation, tmp_path / "set") for one in part.examples]
    assert {one.cell.split()[2] for one in shown} == {"zh", "en"}
    for one in shown:
        assert [side.lang for side in one.sides] == ["zh", "en"]
        assert [side.edited for side in one.sides].count(True) == 1
        assert all(side.prompt and side.before and side.after for side in one.sides)
    kinds = [(one.group, one.cell) for one in shown]
    assert max(kinds.count(kind) for kind in kinds) == 2


def test_without_the_dataset_the_answers_are_shown_without_their_prompts(
    evaluation: Evaluation,
) -> None:
    shown = [one for part in examples(evaluation, None) for one in part.examples]
    assert shown
    assert {side.prompt for one in shown for side in one.sides} == {NONE}
    assert all(side.after for one in shown for side in one.sides)


def geometry_row(
    layer: int, comparison: str, value: float, low: float, high: float
) -> dict[str, str]:
    names = ("model", "method", "protocol", "mode", "layers", "batch_size", "batch", "measure")
    words = ("tiny", "memit", "native", "batch", "", "10", "all", "cosine")
    ends = {"value": value, "low": low, "high": high}
    place = {"layer": str(layer), "comparison": comparison}
    return dict(zip(names, words, strict=True)) | place | {k: str(v) for k, v in ends.items()}


@pytest.mark.parametrize(
    ("values", "against", "like"),
    [
        ((0.03, 0.04), "above chance", "yes"),
        ((0.03, 0.005), "differs by layer", "differs by layer"),
        ((0.0, 0.001), "like chance", "no"),
        ((-0.5, -0.4), "below chance", "no"),
    ],
)
def test_each_measure_is_judged_against_chance_and_the_paper_layer_by_layer(
    values: tuple[float, float], against: str, like: str
) -> None:
    rows = [geometry_row(i, "zh-en", value, value, value) for i, value in enumerate(values)]
    rows += [geometry_row(i, "null-zh-en", 0.0, -0.01, 0.01) for i in range(2)]
    (table, _) = about_geometry.parts({"geometry.csv": rows})
    assert isinstance(table, Table)
    (row,) = table.rows
    cell = dict(zip((column.key for column in table.columns), row, strict=True))
    assert (cell["verdict_en"], cell["like_paper_en"]) == (against, like)
    assert (cell["lowest"], cell["null_high"]) == (f"{min(values):.3f}", "0.010")
