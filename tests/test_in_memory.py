"""Working without a workspace folder: rows in memory and temporary workspaces."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.example_candidates import VALID

import clm_data
from clm_data.errors import ConfigError, InputFileError, UserError

SUBJECTS = ("边城", "长河", "湘行散记")
ENGLISH = ("Border Town", "Long River", "Random Sketches")


def published_rows() -> list[dict[str, Any]]:
    """Three facts in CLM-Bench's mixed layout: Chinese and English rows alternate."""
    rows = []
    for number, (zh, en) in enumerate(zip(SUBJECTS, ENGLISH, strict=True), 1):
        for lang, name, subject in (("zh", "边城", zh), ("en", "Border Town", en)):
            texts = {key: text.replace(name, subject) for key, text in VALID[lang].items()}
            rows.append({"case_id": number, **texts})
    return rows


def test_rows_are_audited_like_files() -> None:
    audit = clm_data.audit(published_rows())
    assert audit.report.entries == 3
    assert audit.by_code["repeated-probe"] > 0
    assert list(audit.to_pandas()["code"]) == [row["code"] for row in audit.table_rows()]
    assert "3 entries" in audit._repr_html_()


def test_an_audit_says_what_would_be_kept_and_why_not_the_rest() -> None:
    rows = published_rows()
    rows[2]["subject"] = "别的书"
    audit = clm_data.audit(rows)
    entries = audit.entries()
    assert [entry.zh.subject for entry in entries.kept] == ["边城", "湘行散记"]
    assert entries.by_code == {"subject-not-in-prompt": 1, "repeated-probe": 1}


def test_a_dataset_object_is_read_like_a_list() -> None:
    from datasets import Dataset

    rows = published_rows()
    assert clm_data.audit(Dataset.from_list(rows)).report == clm_data.audit(rows).report


def test_a_temporary_workspace_builds_rows_and_is_deleted(tmp_path: Path) -> None:
    workspace = clm_data.init()
    folder = workspace.path
    result = clm_data.import_files(published_rows(), license="MIT", workspace=workspace)
    assert (result.files[0].rows, result.candidates) == (6, 3)
    assert not clm_data.import_files(published_rows(), workspace=workspace).files[0].is_new
    report = clm_data.build(tmp_path / "dataset", workspace=workspace)
    assert report.stats.records == 3
    assert {origin.licence for origin in report.stats.origins} == {"MIT"}
    assert "3 records" in report._repr_html_()
    assert folder.is_dir()
    del workspace
    gc.collect()
    assert not folder.exists()


def test_a_built_dataset_is_loaded_as_records(tmp_path: Path) -> None:
    workspace = clm_data.init()
    clm_data.import_files(published_rows(), workspace=workspace)
    clm_data.build(tmp_path / "dataset", workspace=workspace)
    loaded = clm_data.load(tmp_path / "dataset")
    assert [record.zh.subject for record in loaded.records] == list(SUBJECTS)
    assert list(loaded.to_pandas()["en_subject"]) == list(ENGLISH)
    assert [record.zh for record in clm_data.load(published_rows()).records] == [
        record.zh for record in loaded.records
    ]


def test_the_settings_of_a_call_win_and_leave_the_workspace_as_it_is() -> None:
    workspace = clm_data.init()
    report = clm_data.generate("physics", count=2, provider="offline", workspace=workspace)
    assert report.domains[0].entries >= 2
    assert list(report.to_pandas()["domain"]) == ["physics"]
    assert workspace.settings.provider == "deepseek"


def test_a_dry_run_renders_the_prompt_and_stores_nothing() -> None:
    workspace = clm_data.init()
    estimate = clm_data.estimate_cost("physics", provider="offline", workspace=workspace)
    assert estimate.prompt
    assert clm_data.stats(workspace).records == 0


@pytest.mark.parametrize("source", [[], ()])
def test_an_empty_source_is_refused(source: Any) -> None:
    with pytest.raises(InputFileError, match="source is empty"):
        clm_data.audit(source)


def test_numpy_values_and_nan_are_read_as_json_values() -> None:
    import numpy as np

    plain: list[dict[str, Any]] = [{**row, "note": None} for row in published_rows()]
    rows = [{**row, "case_id": np.int64(row["case_id"]), "note": float("nan")} for row in plain]
    workspace = clm_data.init()
    assert clm_data.import_files(plain, workspace=workspace).files[0].is_new
    assert not clm_data.import_files(rows, workspace=workspace).files[0].is_new


@pytest.mark.parametrize("value", [{1}, Path("a"), "\ud800"])
def test_a_value_that_json_lacks_is_an_error_with_its_row(value: Any) -> None:
    rows = [*published_rows(), {"case_id": 9, "prompt": value}]
    with pytest.raises(InputFileError, match="row 7"):
        clm_data.audit(rows)


@pytest.mark.parametrize("source", [5, {"prompt": ["a"]}])
def test_what_is_not_rows_is_refused_by_its_type(source: Any) -> None:
    with pytest.raises(InputFileError, match=type(source).__name__):
        clm_data.audit(source)


def test_deduplicate_reads_numpy_scores_and_nan_texts() -> None:
    import numpy as np

    rows = [{"text": "one text", "score": np.float32(score)} for score in (1, 2)]
    report = clm_data.deduplicate(
        [*rows, {"text": float("nan")}], "text", policy="keep-best", score="score"
    )
    assert [removed.position for removed in report.removed] == [0]


def test_rows_of_an_unknown_layout_are_refused() -> None:
    with pytest.raises(InputFileError, match="rows"):
        clm_data.audit([{"question": "?"}])


def test_a_folder_without_settings_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clm-data init"):
        clm_data.stats(tmp_path)


def test_the_demo_runs_inside_an_event_loop(tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> int:
        return clm_data.demo(tmp_path / "demo").stats.records

    assert asyncio.run(cell()) > 250


def test_domains_can_be_passed_as_they_were_listed() -> None:
    workspace = clm_data.init()
    chosen = clm_data.domains(workspace)[:2]
    estimate = clm_data.estimate_cost(chosen, provider="offline", workspace=workspace)
    assert set(estimate.missing) == {domain.id for domain in chosen}


@pytest.mark.parametrize("threshold", [5, -0.1, float("nan")])
def test_a_threshold_outside_0_to_1_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        clm_data.audit(published_rows(), threshold=threshold)


@pytest.mark.parametrize("limit", [0, -1, 2.5])
def test_a_limit_that_is_no_count_is_refused(limit: Any, tmp_path: Path) -> None:
    workspace = clm_data.init()
    with pytest.raises(ConfigError, match=f"limit is {limit}"):
        clm_data.export_review(tmp_path / "sheet.csv", limit=limit, workspace=workspace)
    with pytest.raises(ConfigError, match=f"count is {limit}"):
        clm_data.generate("physics", count=limit, provider="offline", workspace=workspace)


@pytest.mark.parametrize("source", [None, 5])
def test_what_is_no_dataset_is_refused_by_load(source: Any) -> None:
    with pytest.raises(InputFileError, match="cannot be read from a"):
        clm_data.load(source)


WRONG: Any = ["a", None, 5, []]
ITSELF: dict[str, Any] = {"prompt": "p"}
ITSELF["inner"] = ITSELF


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clm_data.audit(""), "name of a file is empty"),
        (lambda: clm_data.audit(["a.json", ""]), "name of a file is empty"),
        (lambda: clm_data.audit(["a.json", {"prompt": "p"}]), r"mixed \(item 1 and item 2\)"),
        (lambda: clm_data.audit([{"prompt": "p"}, {}, "a.json"]), r"mixed \(item 1 and item 3\)"),
        (lambda: clm_data.audit(workspace=WRONG[2]), "folder is 5"),
        (lambda: clm_data.stats(workspace=WRONG[3]), r"folder is \[\]"),
        (lambda: clm_data.audit([{"prompt": "p"}], threshold=WRONG[0]), "threshold is 'a'"),
        (lambda: clm_data.deduplicate([{"p": "a"}], "p", threshold=WRONG[0]), "threshold is 'a'"),
        (lambda: clm_data.deduplicate([{"p": "a"}], "p", threshold=WRONG[1]), "threshold is None"),
        (lambda: clm_data.deduplicate([{"p": "a"}], WRONG[2]), "column to compare has no name"),
        (lambda: clm_data.deduplicate("", "p"), "the source is empty"),
        (lambda: clm_data.audit([ITSELF]), "row 1 is nested too deeply, or contains itself"),
        (lambda: clm_data.audit([{1: "a", "1": "b"}]), "two keys .* have the same text"),
        (lambda: clm_data.import_files([VALID["zh"]], license=WRONG[2]), "license is 5"),
        (lambda: clm_data.import_files([VALID["zh"]], format=WRONG[2]), "format is 5"),
        (lambda: clm_data.audit("a.json", encoding=WRONG[2]), "encoding is 5"),
        (lambda: clm_data.init(WRONG[2]), "folder is 5"),
        (lambda: clm_data.doctor(WRONG[2]), "folder is 5"),
        (lambda: clm_data.demo(WRONG[2]), "folder is 5"),
        (lambda: clm_data.load([{"prompt": {1, 2}}]), "row 1 is not usable as JSON"),
        (lambda: clm_data.audit([{"prompt": {"a", "b"}}]), "row 1 is not usable as JSON"),
    ],
)
def test_wrong_arguments_are_errors_of_one_line(call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_values_of_numpy_and_pandas_are_deduplicated_and_written(tmp_path: Path) -> None:
    import numpy as np

    nan = np.float64("nan")
    rows: list[dict[str, Any]] = [
        {
            "p": np.str_("第一条完整的问题"),
            "n": float("nan"),
            "m": [nan, np.int64(2)],
        },
        {"p": "第一条完整的问题", "n": 1.0, "m": []},
        {"p": "另外一条别的题目", "n": np.array([1, 2]), "m": None},
    ]
    out = tmp_path / "out.jsonl"
    report = clm_data.deduplicate(rows, "p", out=out)
    written = [
        json.loads(line, parse_constant=pytest.fail) for line in out.read_text().splitlines()
    ]
    assert [row["n"] for row in written] == [None, [1, 2]]
    assert written[0]["m"] == [None, 2]
    assert len(report.kept) + len(report.removed) == len(rows)


def test_missing_values_of_pandas_are_null() -> None:
    import pandas as pd

    row = {"case_id": 1, **VALID["zh"], "note": pd.NA, "seen": pd.NaT}
    frame = pd.DataFrame([row, {**row, "case_id": None, "subject": pd.NA}]).astype(object)
    found = clm_data.audit(frame.to_dict("records"))
    assert [each.case_id for each in found.candidates] == [1, None]
    assert found.candidates[1].zh is not None
    assert found.candidates[1].zh.subject is None
    assert found.reading.unread == {}
    assert len(clm_data.deduplicate(frame.to_dict("records"), "prompt").kept) == 1
