"""Loading the records to evaluate on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers.example_records import example_records
from helpers.saved_folders import dataset_folder

from clm_data.errors import InputFileError
from clm_data.eval.dataset import EvalSet, load_dataset
from clm_data.layouts import MIX_FILE, parallel_rows, published

RECORDS = example_records(3)


def texts(dataset: EvalSet) -> list[Any]:
    """What an evaluation reads, without ids and provenance."""
    fields = {"zh", "en", "zh_probe", "en_probe"}
    return [record.model_dump(include=fields) for record in dataset.records]


def test_records_are_taken_as_they_are() -> None:
    assert load_dataset(RECORDS).records == tuple(RECORDS)


def test_dumped_records_and_parallel_rows_keep_their_ids() -> None:
    dumped = [record.model_dump(mode="json") for record in RECORDS]
    assert load_dataset(dumped).records == tuple(RECORDS)
    assert load_dataset(parallel_rows(RECORDS)).records == tuple(RECORDS)


def test_a_hugging_face_dataset_is_read_like_its_rows() -> None:
    rows = datasets.Dataset.from_list(parallel_rows(RECORDS))
    assert load_dataset(rows).records == tuple(RECORDS)
    assert load_dataset(rows).key == load_dataset(RECORDS).key


def test_rows_of_the_mixed_layout_are_read_like_a_file_of_them(tmp_path: Path) -> None:
    rows = published(RECORDS)[MIX_FILE]
    file = tmp_path / MIX_FILE
    file.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    assert texts(load_dataset(rows)) == texts(load_dataset(file)) == texts(load_dataset(RECORDS))


def test_an_evalset_is_returned_as_it_is() -> None:
    dataset = EvalSet("name", tuple(RECORDS))
    assert load_dataset(dataset) is dataset


def test_rows_that_lack_a_text_are_counted() -> None:
    rows = [record.model_dump(mode="json") for record in RECORDS]
    for row in rows:
        del row["case_id"]
    rows[1]["en_probe"]["loc"] = ""
    dataset = load_dataset(rows)
    assert (len(dataset.records), dataset.left_out) == (2, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["test", "train"], "expected records or mappings, found str; pass the rows of one split"),
        ([{"question": "?"}], "known formats: "),
        (
            [{"prompt": "鲁迅的原名是", "subject": "鲁迅", "target_new": "周作人"}],
            "no record with prompt",
        ),
        ([], "no record with prompt"),
    ],
)
def test_rows_that_cannot_be_used_are_an_error(rows: list[Any], message: str) -> None:
    with pytest.raises(InputFileError, match=message):
        load_dataset(rows)


def test_a_folder_and_its_records_have_the_same_texts(tmp_path: Path) -> None:
    folder = dataset_folder(tmp_path / "set", RECORDS)
    assert texts(load_dataset(folder)) == texts(load_dataset(RECORDS))


def test_first_keeps_the_first_records_and_needs_enough_of_them() -> None:
    dataset = load_dataset(RECORDS)
    assert dataset.first(2).records == tuple(RECORDS[:2])
    assert dataset.first(None) is dataset
    with pytest.raises(InputFileError, match="3 complete records, fewer than 4"):
        dataset.first(4)
