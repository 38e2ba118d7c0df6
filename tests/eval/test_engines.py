"""EasyEdit's cells compared with ours of the same setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.cli import run
from clm_data.eval import tables
from clm_data.eval.engines import engine_pairs, engine_rows
from clm_data.eval.intervals import Interval
from clm_data.eval.report.chapters.evaluation import result_tables
from clm_data.eval.report.evaluation import Evaluation
from clm_data.eval.report.parts import Table
from clm_data.eval.results import (
    CellResult,
    Results,
    Setting,
    WeightDifference,
    read_results,
    write_results,
)


def cell(key: str, reliability: float, **setting: object) -> CellResult:
    given = {"model": "m", "method": "memit", "language": "zh", "batch_size": 2}
    interval = Interval(mean=reliability, low=0.0, high=1.0, count=4)
    theirs = setting.get("backend") == "easyeditor"
    return CellResult(
        key=key,
        setting=Setting.model_validate({**given, "protocol": "easyedit", **setting}),
        status="done",
        facts=4,
        after={"zh_reliability": interval},
        engine={"easyeditor": "0.0.1", "source": "abc"} if theirs else None,
    )


CELLS = (
    cell("a", 0.5),
    cell("b", 0.25, backend="easyeditor"),
    cell("c", 0.5, mode="sequential"),
    cell("d", 0.5, method="rome", backend="easyeditor"),
)
DIFFERENCES = {
    "b": {
        "layers.1": WeightDifference(relative=0.002, cosine=0.9999),
        "layers.2": WeightDifference(relative=0.001, cosine=0.99),
    }
}
RESULTS = Results(
    title="T", dataset="d", dataset_key="k", records=4, seed=1, cells=CELLS, differences=DIFFERENCES
)


def test_cells_of_one_setting_are_pairs() -> None:
    assert [(ours.key, theirs.key) for ours, theirs in engine_pairs(CELLS)] == [("a", "b")]
    failed = (CELLS[0].model_copy(update={"status": "failed"}), CELLS[1])
    assert engine_pairs(failed) == []


def test_a_row_has_the_differences_of_metrics_and_weights() -> None:
    [row] = engine_rows(RESULTS)
    assert row.differences["zh_reliability"] == pytest.approx(-25.0)
    assert row.differences["en_reliability"] is None
    assert (row.relative, row.cosine) == (0.002, 0.99)
    assert row.version == "EasyEdit 0.0.1"
    [without] = engine_rows(RESULTS.model_copy(update={"differences": {}}))
    assert (without.relative, without.cosine) == (None, None)


def test_pages_and_commands_show_the_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "## EasyEdit and clm-data on the same settings" in tables.page(RESULTS)
    line = "| m memit zh batch 2 easyedit | "
    shown = next(
        one for one in tables.page(RESULTS).splitlines() if one.endswith("| EasyEdit 0.0.1 |")
    )
    assert shown.startswith(line)
    assert "| -25.00 |" in shown
    assert "| 2.0e-03 | 0.990000 |" in shown
    write_results(tmp_path, RESULTS)
    assert read_results(tmp_path).differences == DIFFERENCES
    assert run(["report", str(tmp_path)]) == 0
    assert shown in capsys.readouterr().out.splitlines()
    found = [one for one in result_tables(Evaluation(tmp_path, RESULTS)) if isinstance(one, Table)]
    [engines] = [one for one in found if one.name == "engines"]
    assert engines.rows == (tables.engine_fields(engine_rows(RESULTS)[0]),)
    assert len(engines.columns) == len(engines.rows[0])


def test_results_of_one_engine_show_none() -> None:
    alone = RESULTS.model_copy(update={"cells": CELLS[:1], "differences": {}})
    assert "EasyEdit" not in tables.page(alone)
    assert "differences" not in alone.model_dump(mode="json")
