"""The evaluation's tables for figures and other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.sweep_folder import write_example_dataset, write_example_sweep

from clm_data.eval.analysis.evaluation_tables import COLUMNS, write_evaluation_tables
from clm_data.eval.csv_tables import read_rows
from clm_data.eval.results import Results


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return write_example_sweep(tmp_path / "out", write_example_dataset(tmp_path / "set"))


def test_every_mean_has_a_row_with_its_interval(results: Results, tmp_path: Path) -> None:
    write_evaluation_tables(tmp_path, results)
    rows = read_rows(tmp_path / "evaluation_long.csv")
    cell = results.cells[0]
    reliability = cell.after["zh_reliability"]
    assert reliability is not None
    (row, _) = (  # the batch cell and the sequential run
        row
        for row in rows
        if (row["edit"], row["batch_size"]) == ("zh", "4")
        and (row["when"], row["measure"]) == ("after", "zh_reliability")
    )
    assert float(row["mean"]) == pytest.approx(reliability.mean, rel=1e-5)
    assert float(row["low"]) == pytest.approx(reliability.low, rel=1e-5)
    assert int(row["facts"]) == reliability.count


def test_rows_keep_the_order_of_the_cells(results: Results, tmp_path: Path) -> None:
    write_evaluation_tables(tmp_path, results)
    rows = read_rows(tmp_path / "evaluation_long.csv")
    cells = list(dict.fromkeys((row["edit"], row["batch_size"], row["note"]) for row in rows))
    done = [cell.setting for cell in results.cells if cell.status == "done"]
    assert [cell[:2] for cell in cells] == [(one.language, str(one.batch_size)) for one in done]


def test_domains_have_titles_in_both_languages_and_percentages(
    results: Results, tmp_path: Path
) -> None:
    write_evaluation_tables(tmp_path, results)
    rows = read_rows(tmp_path / "evaluation_domains.csv")
    titles = {(row["domain"], row["domain_zh"], row["domain_en"]) for row in rows}
    assert ("festivals_and_customs", "节日与民俗", "Festivals and customs") in titles
    assert ("rivers", "rivers", "rivers") in titles  # not a bundled domain
    assert {row["zh_locality"] for row in rows} == {"75.00"}


def test_sequential_runs_have_a_row_for_every_checkpoint(results: Results, tmp_path: Path) -> None:
    write_evaluation_tables(tmp_path, results)
    rows = read_rows(tmp_path / "evaluation_along.csv")
    assert {row["edited"] for row in rows} == {"4", "8", "12"}
    assert {row["note"] for row in rows} == {"sequential"}


def test_tables_without_rows_have_a_header(results: Results, tmp_path: Path) -> None:
    failed = results.model_copy(update={"cells": results.failed})
    files = write_evaluation_tables(tmp_path, failed)
    assert {file.stem: file.read_text(encoding="utf-8") for file in files} == {
        name: ",".join(columns) + "\n" for name, columns in COLUMNS.items()
    }
