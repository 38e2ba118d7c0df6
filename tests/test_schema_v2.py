"""Fields of schema version 2: from a row or an answer to every file, and what version 1 wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.example_candidates import VALID

import clm_data
from clm_data import exporting
from clm_data.config import Workspace, open_workspace
from clm_data.eval.dataset import load_dataset as load_for_eval
from clm_data.parse import parse_entries
from clm_data.records import (
    ABOUT_FIELDS,
    FACT_FIELDS,
    LIST_FIELDS,
    PROBE_KINDS,
    Decision,
    LooseFact,
    Origin,
    Record,
    digest,
)
from clm_data.review.decisions import apply_decisions
from clm_data.sources import candidates_of, read_file

MORE: dict[str, dict[str, Any]] = {
    "zh": {
        "more_rephrase_prompts": ["《边城》的作者名叫", "写出《边城》的人是"],
        "subject_aliases": ["小说《边城》"],
        "ground_truth_aliases": ["沈岳焕"],
        "target_new_aliases": ["汪老"],
        "scope": "中国现代文学",
    },
    "en": {
        "more_rephrase_prompts": ["Border Town comes from the pen of"],
        "subject_aliases": ["The Border Town"],
        "ground_truth_aliases": ["Shen Yuehuan"],
        "target_new_aliases": ["Wang"],
        "scope": "modern Chinese literature",
    },
}
ABOUT: dict[str, Any] = {
    "relation": "author",
    "answer_type": "person",
    "basis": {"kind": "work", "title": "《边城》", "part": "题记", "note": "1934年出版"},
    "probes": [
        {
            "kind": kind,
            "zh": {"prompt": f"{kind}的问题", "answers": ["甲", "甲的别名"]},
            "en": {"prompt": f"the question of {kind}", "answers": ["a"]},
        }
        for kind in PROBE_KINDS
    ],
}
ROW: dict[str, Any] = {
    **{lang: {**{name: VALID[lang][name] for name in FACT_FIELDS}, **MORE[lang]} for lang in VALID},
    **ABOUT,
}
V1: dict[str, Any] = {
    lang: {name: side[name] for name in FACT_FIELDS} for lang, side in VALID.items()
}


def workspace_of(folder: Path, rows: list[dict[str, Any]]) -> Workspace:
    """A workspace into which some rows were imported."""
    workspace = open_workspace(folder / "workspace", create=True)
    (folder / "rows.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    clm_data.import_files(folder / "rows.json", workspace=workspace)
    return workspace


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one record with every field, and one with those of version 1 alone."""
    folder = tmp_path_factory.mktemp("v2")
    other = {lang: dict(V1[lang]) for lang in V1}
    for lang, side in other.items():
        for name in FACT_FIELDS:
            side[name] = side[name].replace(
                V1[lang]["subject"], {"zh": "《长河》", "en": "Long River"}[lang]
            )
    clm_data.build(folder / "dataset", workspace=workspace_of(folder, [ROW, other]))
    return folder / "dataset"


def in_records(row: dict[str, Any]) -> dict[str, Any]:
    """The fields of version 2 of a record, as JSON."""
    return {
        **{lang: {name: row[lang][name] for name in MORE[lang]} for lang in MORE},
        **{name: row[name] for name in ABOUT_FIELDS},
    }


def test_every_field_arrives_in_parquet_as_a_typed_column(dataset: Path, tmp_path: Path) -> None:
    from datasets.load import load_dataset

    rows = load_dataset(str(dataset), "parallel", split="test", cache_dir=str(tmp_path))
    assert in_records(rows[0]) == in_records(ROW)
    empty: dict[str, Any] = {name: [] for name in LIST_FIELDS} | {"scope": None}
    nothing: dict[str, Any] = {"relation": None, "answer_type": None, "basis": None, "probes": []}
    assert in_records(rows[1]) == {"zh": empty, "en": empty, **nothing}
    english = load_dataset(str(dataset), "en", split="test", cache_dir=str(tmp_path))
    assert english[0]["probes"][0] == {
        "kind": "neighbor",
        "prompt": "the question of neighbor",
        "answers": ["a"],
    }
    assert english.features["subject_aliases"].feature.dtype == "string"


def test_columns_have_types_where_every_record_lacks_the_field(tmp_path: Path) -> None:
    from datasets.load import load_dataset

    clm_data.build(tmp_path / "dataset", workspace=workspace_of(tmp_path, [V1]))
    rows = load_dataset(str(tmp_path / "dataset"), "zh", split="test", cache_dir=str(tmp_path))
    assert rows.features["probes"].feature["answers"].feature.dtype == "string"
    assert rows.features["basis"]["title"].dtype == "string"


def test_the_evaluation_reads_every_field(dataset: Path) -> None:
    first, second = load_for_eval(dataset).records
    assert in_records(first.model_dump(mode="json")) == in_records(ROW)
    assert first.zh.rephrasings == (
        V1["zh"]["rephrase_prompt"],
        *MORE["zh"]["more_rephrase_prompts"],
    )
    assert second.about == {"relation": None, "answer_type": None, "basis": None, "probes": ()}


@pytest.mark.parametrize("format", ["jsonl", "csv"])
def test_exports_are_read_back_whole(dataset: Path, tmp_path: Path, format: str) -> None:
    records = load_for_eval(dataset).records
    ((name, text),) = exporting.EXPORTERS[format](records).items()
    (tmp_path / name).write_text(text, encoding="utf-8")
    first, second = candidates_of([read_file(tmp_path / name)]).kept
    assert in_records(first.model_dump(mode="json")) == in_records(ROW)
    assert (first.id, second.id) == (records[0].id, records[1].id)


def test_easyedit_gets_the_probes_under_the_names_of_knowedit(dataset: Path) -> None:
    record, _ = load_for_eval(dataset).records
    (row,) = json.loads(exporting.easyedit([record])["easyedit_zh.json"])
    groups = ["Relation_Specificity", "Neighborhood", "Forgetfulness"]
    assert list(row["locality"]) == groups
    assert list(row["portability"]) == ["Logical_Generalization", "Reasoning", "Subject_Aliasing"]
    expected = [{"prompt": "one_hop的问题", "ground_truth": ["甲", "甲的别名"]}]
    assert row["portability"]["Reasoning"] == expected
    assert row["ground_truth"] == [V1["zh"]["ground_truth"], "沈岳焕"]


def test_an_answer_of_a_model_may_have_every_field() -> None:
    read = parse_entries(
        json.dumps([ROW], ensure_ascii=False),
        domain="chinese_literature",
        label="a",
        origin=Origin(kind="model", name="m"),
    )
    (candidate,) = read.kept
    assert in_records(candidate.model_dump(mode="json")) == in_records(ROW)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"relation": "born in"}, "relation: String should match pattern"),
        ({"answer_type": "planet"}, "answer_type: Input should be 'person'"),
        ({"basis": {"kind": "web", "title": "t"}}, "basis.kind: Input should be 'work'"),
        ({"probes": [{"kind": "neighbor", "zh": {"prompt": "p"}}]}, "probes.0.zh.answers: Field"),
        ({"zh": {**ROW["zh"], "subject_aliases": [{}]}}, "expected text, found"),
    ],
)
def test_a_field_of_a_wrong_form_is_one_line_that_names_it(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    row = ROW | change
    (tmp_path / "rows.json").write_text(json.dumps([row], ensure_ascii=False), encoding="utf-8")
    read = candidates_of([read_file(tmp_path / "rows.json")])
    (rejected,) = read.rejected
    assert not read.kept
    assert reason in rejected.problems[0].message
    answer = parse_entries(
        json.dumps([row], ensure_ascii=False),
        domain=None,
        label="a",
        origin=Origin(kind="model", name="m"),
    )
    assert reason in answer.rejected[0].problems[0].message


def test_ids_and_hashes_are_those_of_version_1(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([V1, ROW], ensure_ascii=False), encoding="utf-8")
    plain, full = candidates_of([read_file(tmp_path / "rows.json")]).kept
    assert plain.id == full.id == "clm-" + digest({"domain": None, **V1})[:12]
    assert plain.content_hash == plain.text_hash == full.text_hash == digest(V1)
    assert full.content_hash != full.text_hash


def test_decisions_of_version_1_stay_in_effect_when_more_of_a_row_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([ROW], ensure_ascii=False), encoding="utf-8")
    read = candidates_of([read_file(tmp_path / "rows.json")]).kept
    old = {"entry_id": read[0].id, "content_hash": digest(V1), "reviewer": "Wang"}
    fix = Decision(**old, verdict="fix", fixed={"zh.target_new": "茅盾"}, seen=0)
    (kept,) = apply_decisions(read, [fix]).kept
    assert isinstance(kept.zh, LooseFact)
    assert (kept.zh.target_new, kept.zh.subject_aliases) == ("茅盾", ("小说《边城》",))


def test_records_without_new_fields_are_written_as_in_version_1(dataset: Path) -> None:
    _, record = load_for_eval(dataset).records
    written = json.loads(exporting.jsonl([record])["records.jsonl"])
    names = ["id", "case_id", "domain", "zh", "en", "zh_probe", "en_probe", "review", "origin"]
    assert list(written) == names
    assert list(written["zh"]) == list(FACT_FIELDS)
    header = exporting.csv_table([record])["records.csv"].splitlines()[0]
    assert "aliases" not in header
    assert "probes" not in header
    assert Record.model_validate(written) == record
