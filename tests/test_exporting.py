from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.example_records import example_records
from hypothesis import given
from hypothesis import strategies as st

from clm_data import layouts
from clm_data.errors import InputFileError
from clm_data.exporting import EXPORTERS, json_text, published_rows, write_folder
from clm_data.layouts import EN_FILE, MIX_FILE, PUBLISHED_FILES, ZH_FILE, with_english_names
from clm_data.records import LooseFact, Record
from clm_data.sources import SourceFile, candidates_of, read_file
from clm_data.store import Store


def exported(folder: Path, format: str, records: list[Record]) -> list[Path]:
    out = folder / format
    write_folder(out, EXPORTERS[format](records))
    return sorted(out.iterdir())


def halves(numbers: range) -> dict[str, list[dict[str, Any]]]:
    """Published rows of both languages, with extra fields, nulls and ids of two types."""
    zh = [
        {
            "case_id": n if n % 3 else str(n),
            "prompt": f"第{n}题是",
            "subject": None,
            "target_new": "",
        }
        for n in numbers
    ]
    en = [{**row, "prompt": f"question {row['case_id']} is", "loc": " x"} for row in zh]
    return {
        ZH_FILE: zh,
        EN_FILE: [with_english_names(row) for row in en],
        MIX_FILE: layouts.alternate(zh, en),
    }


FORMATS = dict(zip(PUBLISHED_FILES, ("clm-bench-zh", "clm-bench-en", "clm-bench-mix"), strict=True))


def source(name: str, rows: list[Any]) -> SourceFile:
    return SourceFile(name, FORMATS[name], json.dumps([name, rows]), rows)


BOTH = [
    {MIX_FILE},
    {ZH_FILE, EN_FILE},
    {ZH_FILE, MIX_FILE},
    {EN_FILE, MIX_FILE},
    set(PUBLISHED_FILES),
]


@pytest.mark.parametrize("names", BOTH, ids=lambda names: " + ".join(sorted(names)))
def test_any_layouts_with_both_languages_give_all_three_files(names: set[str]) -> None:
    rows = halves(range(1, 8))
    for order in itertools.permutations(sorted(names)):
        found = published_rows([source(name, rows[name]) for name in order])
        assert json.dumps(found) == json.dumps(rows)


@pytest.mark.parametrize("name", [ZH_FILE, EN_FILE])
def test_one_language_gives_only_its_own_file(name: str) -> None:
    rows = halves(range(1, 4))
    assert published_rows([source(name, rows[name])]) == {name: rows[name]}


def test_several_datasets_are_concatenated_in_order_of_import() -> None:
    first, second = halves(range(5, 8)), halves(range(1, 4))
    files = [source(MIX_FILE, first[MIX_FILE]), source(ZH_FILE, second[ZH_FILE])]
    files += [source(EN_FILE, second[EN_FILE]), source(ZH_FILE, first[ZH_FILE])]
    assert published_rows(files) == {name: first[name] + second[name] for name in PUBLISHED_FILES}


def test_unpaired_rows_and_rows_that_are_not_objects_stay_in_their_file() -> None:
    rows = [5, *halves(range(1, 3))[MIX_FILE], {"prompt": "alone in English", "case_id": 9}]
    found = published_rows([source(MIX_FILE, rows)])
    assert found[MIX_FILE] == rows
    assert [row["case_id"] for row in found[EN_FILE]] == [1, 2, 9]


VALUES = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)


@given(
    st.lists(st.fixed_dictionaries({"prompt": VALUES}, optional={"case_id": VALUES}), min_size=1)
)
def test_a_mixed_file_with_any_content_is_exported_unchanged(rows: list[Any]) -> None:
    found = published_rows([source(MIX_FILE, rows)])
    assert json.dumps(found[MIX_FILE]) == json.dumps(rows)
    halves = len(found.get(ZH_FILE, [])) + len(found.get(EN_FILE, []))
    assert halves == len(rows)


@pytest.mark.parametrize(
    "names", [{ZH_FILE}, {EN_FILE}, *BOTH], ids=lambda n: " + ".join(sorted(n))
)
def test_the_published_sample_round_trips(
    sample_folder: Path, tmp_path: Path, names: set[str]
) -> None:
    with Store("sqlite://") as store:
        for name in sorted(names):
            file = read_file(sample_folder / name)
            store.add_source(file.name, file.format, file.sha256, None, file.rows)
        stored = [
            SourceFile(item.name, item.format, item.sha256, store.source_rows(item.id))
            for item in store.sources()
        ]
    rows = published_rows(stored)
    write_folder(tmp_path / "out", {name: json_text(part) for name, part in rows.items()})
    expected = names if len(names) == 1 and MIX_FILE not in names else set(PUBLISHED_FILES)
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    for name in expected:
        before = json.loads((sample_folder / name).read_text(encoding="utf-8"))
        after = json.loads((tmp_path / "out" / name).read_text(encoding="utf-8"))
        assert len(after) == (600 if name == MIX_FILE else 300)
        assert json.dumps(after) == json.dumps(before)


@pytest.mark.parametrize("format", EXPORTERS)
def test_each_export_can_be_imported_again(tmp_path: Path, format: str) -> None:
    records = example_records(4)
    files = [read_file(path) for path in exported(tmp_path, format, records)]
    found = candidates_of(files)
    assert found.rejected == ()
    for lang in ("zh", "en"):
        facts = [item.fact(lang) for item in found.kept if item.fact(lang) is not None]
        assert facts == [LooseFact(**record.fact(lang).model_dump()) for record in records]
        probes = [probe.loc for item in found.kept if (probe := item.probe(lang)) is not None]
        assert probes == [record.probe(lang).loc for record in records]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_round_trips_through_csv(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    (record,) = example_records(1)
    changed = record.model_copy(update={"zh": record.zh.model_copy(update={"target_new": text})})
    (path,) = exported(tmp_path_factory.mktemp("csv"), "csv", [changed])
    (found,) = candidates_of([read_file(path)]).kept
    assert found.zh == LooseFact(**changed.zh.model_dump())
    assert found.domain == record.domain


def test_formulas_are_escaped_in_csv() -> None:
    (record,) = example_records(1)
    changed = record.model_copy(update={"zh": record.zh.model_copy(update={"target_new": "=1+1"})})
    assert ",'=1+1," in EXPORTERS["csv"]([changed])["records.csv"]


def test_each_jsonl_line_is_a_record(tmp_path: Path) -> None:
    records = example_records(3)
    (path,) = exported(tmp_path, "jsonl", records)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [Record.model_validate_json(line) for line in lines] == records


def test_a_folder_with_files_is_changed_only_with_force(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write_folder(out, {"a.json": "1", "b.json": "2"})
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputFileError, match="is not empty; choose another folder"):
        write_folder(out, {"a.json": "3"})
    write_folder(out, {"a.json": "3"}, force=True)
    content = {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}
    assert content == {"a.json": "3", "b.json": "2", "mine.txt": "mine"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    with pytest.raises(InputFileError, match="is a file"):
        write_folder(out / "a.json", {})


def test_an_empty_folder_is_used_and_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    leftover = tmp_path / ".out.clm-data-draft" / "new"
    leftover.mkdir(parents=True)
    (leftover / "half.json").write_text("[", encoding="utf-8")
    write_folder(out, {"a.json": "1"})
    assert [path.name for path in out.iterdir()] == ["a.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
