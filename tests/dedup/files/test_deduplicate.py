"""`deduplicate` called from Python: files, lists of dicts and Datasets in, a report out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from helpers.paths import ROOT
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import clm_data
from clm_data.dedup.files.run import deduplicate
from clm_data.errors import ConfigError, InputFileError

ROWS: list[dict[str, Any]] = [
    {"prompt": "世界上最大的海湾是", "subject": "海湾", "score": 1},
    {"prompt": "世界上最大的海峡是", "subject": "海峡", "score": 2},
    {"prompt": "世界上最大的海湾是", "subject": "海湾", "score": 3},
    {"prompt": "法国的首都是", "subject": "法国", "score": 4},
]


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), "utf-8")


def write_csv(path: Path) -> None:
    lines = ["prompt,subject,score", *(",".join(map(str, row.values())) for row in ROWS)]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, ensure_ascii=False), "utf-8")


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def test_a_list_is_split_into_kept_and_removed_rows() -> None:
    report = deduplicate(ROWS, "prompt", threshold=0.85)
    assert report.kept == [ROWS[0], ROWS[3]]
    assert report.kept[0] is ROWS[0]
    assert [(each.row, each.position, each.duplicate_of) for each in report.removed] == [
        (ROWS[1], 1, 0),
        (ROWS[2], 2, 0),
    ]
    assert report.removed[0].ratio == pytest.approx(16 / 18)
    assert report.removed[0].reason == "similarity 0.8889 to row 0 in prompt"
    assert str(report) == "4 rows: 2 kept, 2 removed"


def test_options_are_those_of_the_command() -> None:
    best = deduplicate(ROWS, "prompt", threshold=0.85, policy="keep-best", score="score")
    assert best.kept == [ROWS[2], ROWS[3]]
    assert [each.duplicate_of for each in best.removed] == [2, 2]
    by_subject = deduplicate(
        ROWS, ["prompt"], threshold=0.85, policy="by-subject", subject="subject"
    )
    assert by_subject.kept == [ROWS[0], ROWS[1], ROWS[3]]
    assert [each.row for each in by_subject.selection.flagged] == [1]
    joined = deduplicate(ROWS, ["prompt", "subject"], threshold=0.95)
    assert [each.field for each in joined.removed] == ["prompt + subject"]
    each_field = deduplicate(ROWS, ["prompt", "subject"], threshold=0.95, each_field=True)
    assert [each.field for each in each_field.removed] == ["prompt"]


@given(st.lists(st.text("甲乙a ", max_size=9), max_size=12), st.sampled_from([0.5, 0.7, 0.9]))
def test_every_row_is_either_kept_or_removed(texts: list[str], threshold: float) -> None:
    rows = [{"prompt": text, "number": number} for number, text in enumerate(texts)]
    report = deduplicate(iter(rows), "prompt", threshold=threshold)
    assert len(rows) == len(report.kept) + len(report.removed)
    numbers = [row["number"] for row in [*report.kept, *(each.row for each in report.removed)]]
    assert sorted(numbers) == list(range(len(rows)))
    kept = {row["number"] for row in report.kept}
    assert all(each.duplicate_of in kept for each in report.removed)


def test_nested_fields_are_dotted_paths() -> None:
    rows = [{"zh": {"prompt": "首都"}}, {"zh": {"prompt": "首都"}}, {"zh": None}]
    assert deduplicate(rows, "zh.prompt").kept == [rows[0], rows[2]]


def test_a_dataset_gives_a_dataset() -> None:
    dataset = Dataset.from_list(ROWS)
    report = deduplicate(dataset, "prompt", threshold=0.85)
    assert isinstance(report.kept, Dataset)
    assert report.kept.to_list() == [ROWS[0], ROWS[3]]
    assert [each.row for each in report.removed] == [ROWS[1], ROWS[2]]
    shuffled = deduplicate(dataset.select([3, 2, 1, 0]), "prompt", threshold=0.85)
    assert shuffled.kept[:]["score"] == [4, 3]


@pytest.mark.parametrize(
    ("ending", "write"),
    [
        ("jsonl", write_jsonl),
        ("json", write_json),
        ("csv", write_csv),
        ("parquet", write_parquet),
    ],
)
def test_rows_of_a_file_are_read_when_asked_for(
    tmp_path: Path, ending: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / f"rows.{ending}"
    write(path)
    report = deduplicate(path, "prompt", threshold=0.85)
    expected = [{**row, "score": str(row["score"])} for row in ROWS] if ending == "csv" else ROWS
    assert report.kept == [expected[0], expected[3]]
    assert [each.row for each in report.removed] == [expected[1], expected[2]]
    assert list(tmp_path.iterdir()) == [path]


def test_rows_of_a_file_that_has_changed_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path)
    report = deduplicate(path, "prompt")
    path.write_text('{"prompt": "x"}\n')
    with pytest.raises(InputFileError, match="has changed"):
        _ = report.kept


def test_lists_are_written_as_jsonl_and_datasets_as_parquet(tmp_path: Path) -> None:
    lines, page = tmp_path / "out.jsonl", tmp_path / "report.html"
    deduplicate(ROWS, "prompt", threshold=0.85, out=lines, report=page)
    found = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert found == [ROWS[0], ROWS[3]]
    assert "海湾" in lines.read_text("utf-8")
    assert "<del>" in page.read_text("utf-8")
    table = tmp_path / "out.parquet"
    deduplicate(Dataset.from_list(ROWS), "prompt", threshold=0.85, out=str(table))
    assert pq.read_table(table).to_pylist() == [ROWS[0], ROWS[3]]
    with pytest.raises(ConfigError, match=r"written as jsonl; use a \*.jsonl file"):
        deduplicate(ROWS, "prompt", out=tmp_path / "out.csv")
    with pytest.raises(InputFileError, match="--force"):
        deduplicate(ROWS, "prompt", out=lines)
    deduplicate(ROWS, "prompt", threshold=0.9, out=lines, force=True)
    assert len(lines.read_text("utf-8").splitlines()) == 3


def test_the_report_is_a_table_of_removed_rows() -> None:
    table = deduplicate(ROWS, "prompt", threshold=0.85).to_pandas()
    assert table["row"].tolist() == [1, 2]
    assert table["duplicate_of"].tolist() == [0, 0]
    assert table["text"][0] == ROWS[1]["prompt"]
    assert table["kept_text"][0] == ROWS[0]["prompt"]


def test_the_example_of_the_guide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clm_data, "deduplicate", deduplicate, raising=False)
    guide = (ROOT / "docs" / "how-to" / "dedup.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert str(names["report"]) in example
    assert names["report"].removed[0].reason in example


def test_a_report_is_written_in_the_format_of_the_file_name(tmp_path: Path) -> None:
    report = deduplicate(ROWS, "prompt", threshold=0.85)
    report.write(str(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["removed"] == 2
    report.write(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")
    report.write(tmp_path / "report.txt")
    assert "kept row" in (tmp_path / "report.txt").read_text("utf-8")


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    deduplicate(ROWS, "prompt")
    assert capfd.readouterr() == ("", "")


def test_progress_is_called_with_step_done_and_total() -> None:
    calls: list[tuple[str, int, int]] = []
    deduplicate(ROWS, "prompt", progress=lambda *call: calls.append(call))
    assert calls[-1] == ("reading", 4, 4)


def test_a_function_can_be_the_embedding_model() -> None:
    def count_characters(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[text.count("首都"), 0.1] for text in texts], dtype=np.float32)

    rows = [
        {"prompt": "法国的首都是", "subject": "法国"},
        {"prompt": "首都在法国的哪里", "subject": "法国"},
        {"prompt": "法国的面积是", "subject": "法国"},
    ]
    report = deduplicate(rows, "prompt", subject="subject", semantic=count_characters)
    assert [(pair.left, pair.right) for pair in report.semantic] == [(0, 1)]
    assert len(report.kept) == 3
    assert report.options.semantic == "count_characters"


def test_an_empty_list_gives_an_empty_report() -> None:
    report = deduplicate([], "prompt")
    assert (report.kept, report.removed) == ([], [])
    assert str(report) == "0 rows: 0 kept, 0 removed"


@pytest.mark.parametrize("source", [7, None, {"prompt": "x"}, DatasetDict()])
def test_an_unusable_source_is_an_error(source: Any) -> None:
    with pytest.raises(ConfigError, match="list of dicts"):
        deduplicate(source, "prompt")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "x"}, "y"], r"rows\[1\]: a row must be an object"),
        ([{"prompt": "x"}, {"prompt": 7}], r"rows\[1\]: 'prompt' is a number"),
        ([{"text": "x"}], "no row has the column 'prompt'"),
    ],
)
def test_errors_name_the_row_or_column(rows: list[Any], message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        deduplicate(rows, "prompt")


def test_rows_that_json_cannot_hold_are_an_error_and_leave_no_file(tmp_path: Path) -> None:
    rows = [{"prompt": "x"}, {"prompt": "y", "when": object()}]
    assert deduplicate(rows, "prompt").kept == rows
    with pytest.raises(InputFileError, match=r"rows\[1\]: cannot be written as JSON"):
        deduplicate(rows, "prompt", out=tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []
