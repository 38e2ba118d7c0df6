"""What is read of a row, what is listed as not read, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.example_candidates import VALID

from clm_data import audit, import_files
from clm_data.config import Workspace, open_workspace
from clm_data.errors import InputFileError
from clm_data.parse import parse_entries
from clm_data.records import FACT_FIELDS, Origin
from clm_data.sources import FORMATS, candidates_of, read_file
from clm_data.sources.files import rows_in_memory
from clm_data.sources.notices import reading_of

ZH, EN = VALID["zh"], VALID["en"]
FACT = {name: EN[name] for name in FACT_FIELDS}
ANSWERS = ["Shen Congwen", "Shen Yuehuan", "S. Congwen"]


def saved(folder: Path, rows: Any, name: str = "made.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def saved_csv(folder: Path, row: dict[str, str]) -> Path:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(row))
    writer.writeheader()
    writer.writerow(row)
    path = folder / "made.csv"
    path.write_text(out.getvalue(), encoding="utf-8")
    return path


def zsre(**changes: Any) -> dict[str, Any]:
    row = {"src": EN["prompt"], "subject": EN["subject"], "alt": EN["target_new"]}
    return {**row, "rephrase": EN["rephrase_prompt"], **changes}


def rewrite(true: Any, new: Any) -> dict[str, Any]:
    edit = {"prompt": "The novel {} was written by", "subject": EN["subject"]}
    return {"requested_rewrite": {**edit, "target_true": true, "target_new": new}}


TARGET = "the Shen Yuehuan"
EQUAL_TO_A_LATER_ANSWER: dict[str, Any] = {
    "knowedit": {**FACT, "ground_truth": ANSWERS, "target_new": TARGET, "locality": {}},
    "knowedit, nested": {**FACT, "ground_truth": [ANSWERS], "target_new": TARGET, "locality": {}},
    "knowedit, first one empty": {
        **FACT,
        "ground_truth": ["", *ANSWERS],
        "target_new": TARGET,
        "portability": {},
    },
    "zsre": zsre(answers=ANSWERS, alt=TARGET),
    "zsre, aliases": zsre(answers=ANSWERS[:1], answers_aliases=ANSWERS[1:], alt=[TARGET]),
    "counterfact, list": rewrite(ANSWERS, {"str": TARGET}),
    "counterfact, aliases": rewrite({"str": ANSWERS[0], "str_aliases": ANSWERS[1:]}, TARGET),
    "mquake, one edit": {
        "requested_rewrite": [rewrite(ANSWERS, {"str": TARGET})["requested_rewrite"]]
    },
    "clm-data": {"en": {**FACT, "ground_truth": ANSWERS, "target_new": TARGET}},
}


@pytest.mark.parametrize("label", EQUAL_TO_A_LATER_ANSWER)
def test_the_target_is_compared_with_every_accepted_answer(tmp_path: Path, label: str) -> None:
    found = audit(saved(tmp_path, [EQUAL_TO_A_LATER_ANSWER[label]]))
    assert found.by_code["target-equals-truth"] == 1
    (problem,) = [p for p in found.report.problems if p.code == "target-equals-truth"]
    assert '"Shen Yuehuan"' in problem.examples[0].message
    assert found.candidates[0].accepted == {"en": ("Shen Yuehuan", "S. Congwen")}
    assert found.reading.with_accepted == 1


def test_accepted_answers_in_a_csv_cell_are_compared_too(tmp_path: Path) -> None:
    for cell in (json.dumps(ANSWERS), str(ANSWERS)):
        row = {**FACT, "ground_truth": cell, "target_new": TARGET}
        assert audit(saved_csv(tmp_path, row)).by_code["target-equals-truth"] == 1
    row = {**FACT, "ground_truth": "[a title in brackets]"}
    (found,) = candidates_of([read_file(saved_csv(tmp_path, row))]).kept
    assert found.en is not None
    assert found.en.ground_truth == "[a title in brackets]"


def test_a_target_close_to_a_later_answer_is_a_warning(tmp_path: Path) -> None:
    row = {**FACT, "ground_truth": ["Zhou", "Shen Congwen"], "target_new": "Shen Congwen the elder"}
    found = audit(saved(tmp_path, [{**row, "locality": {}}]))
    assert found.by_code["target-near-truth"] == 1
    assert "target-equals-truth" not in found.by_code


def test_accepted_answers_do_not_change_ids_or_rejected_content(tmp_path: Path) -> None:
    one = {**FACT, "ground_truth": ["Shen Congwen"], "locality": {}}
    several = {**one, "ground_truth": ANSWERS}
    ids = {candidates_of([read_file(saved(tmp_path, [row]))]).kept[0].id for row in (one, several)}
    assert len(ids) == 1
    (single,) = candidates_of([read_file(saved(tmp_path, [one]))]).kept
    assert "accepted" not in single.model_dump()


LEFT: list[tuple[Any, dict[str, int]]] = [
    (
        [{**FACT, "locality": {}, "portability": {"x": 1}, "source_url": "u"}] * 2,
        {"portability": 2, "source_url": 2},
    ),
    (
        [{**FACT, "locality": {}, "rephrase_prompt": ["a", "b"]}],
        {"rephrase_prompt after the first": 1},
    ),
    ([{**FACT, "locality": {}, "target_new": ["a", "b"]}], {"target_new after the first": 1}),
    (
        [
            {
                **FACT,
                "locality": {
                    "a": [{"prompt": "p", "ground_truth": "g", "note": "n"}],
                    "b": [{}, {"prompt": "q"}],
                },
            }
        ],
        {"locality after the first": 1, "locality.note": 1},
    ),
    ([zsre(pred="x", answers=["a"])], {"pred": 1}),
    ([{"en": zsre(), "zh-CN": zsre(cond="c"), "de": zsre()}], {"de": 1, "zh-CN.cond": 1}),
    ([rewrite({"str": "a", "id": "Q1"}, {"str": "b"})], {"requested_rewrite.target_true.id": 1}),
    ([{"case_id": 1, **ZH, "note": "n"}, {"case_id": 2, **ZH, "note": None}], {"note": 1}),
    ([{"id": "x", "zh": {**ZH, "pinyin": "p"}}], {"id": 1, "zh.pinyin": 1}),
    ([{"zh_prompt": "a", "zh_target_new": "b", "zh_subject": "s", "zh_note": "n"}], {"zh_note": 1}),
]


@pytest.mark.parametrize(("rows", "expected"), LEFT)
def test_what_is_not_read_is_listed(
    tmp_path: Path, rows: list[Any], expected: dict[str, int]
) -> None:
    path = saved(tmp_path, rows)
    assert audit(path).as_json()["unread"] == expected
    workspace = open_workspace(tmp_path / "w", create=True)
    (file,) = import_files(path, workspace=workspace).as_json()["files"]
    assert file["unread"] == expected
    assert audit(workspace=workspace).reading.unread == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "answer": "b"}], "with prompt, answer; closest: "),
        ([{"src": "a", "answers": ["b"]}], r"closest: zsre \(also needs alt\)"),
        ([{"en": zsre(), "zh-tw": zsre()}], "the other language is missing: add an object 'zh'"),
        ([{"edit": {"prompt": "p"}, "example_type": "popular"}], "with edit, example_type; known"),
        (
            [{"question": "a", "answer": "b", "sub_question": []}],
            "no format has rows with question",
        ),
        (
            [{**FACT, "locality": {}}, zsre()],
            "row 1 has the fields of easyedit, row 2 those of zsre",
        ),
        ([{**FACT}, {"en": zsre(), "zh": zsre()}], "row 2 those of bi-zsre"),
    ],
)
def test_unknown_and_mixed_formats_are_refused(
    tmp_path: Path, rows: list[Any], message: str
) -> None:
    with pytest.raises(InputFileError, match=message):
        read_file(saved(tmp_path, rows))


@pytest.mark.parametrize(
    "key", ["zh", "zh-cn", "zh-CN", "zh_CN", "zh-Hans", "zh_Hans_CN", "cn", "Chinese", "中文"]
)
@pytest.mark.parametrize("english", ["en", "en-US", "English"])
def test_names_of_a_language(tmp_path: Path, key: str, english: str) -> None:
    (found,) = candidates_of([read_file(saved(tmp_path, [{english: zsre(), key: zsre()}]))]).kept
    assert found.zh is not None
    assert found.en is not None
    columns = {f"{key}_{name}": text for name, text in ZH.items()}
    columns |= {f"{name}.{english}": text for name, text in EN.items()}
    (row,) = candidates_of([read_file(saved_csv(tmp_path, columns))]).kept
    assert (row.zh and row.zh.rephrase_prompt) == ZH["rephrase_prompt"]
    assert (row.en and row.en.rephrase_prompt) == EN["rephrase_prompt"]
    assert (row.en_probe and row.en_probe.loc_ans) == EN["loc_ans"]


VALUES: list[tuple[str, str | None]] = [
    ("1881", "1881"),
    ("1881.0", "1881"),
    ("-3", "-3"),
    ("2.5", "2.5"),
    ("1e3", "1000"),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("true", None),
    ("[1]", None),
    ('{"a": 1}', None),
]


@pytest.mark.parametrize(("literal", "text"), VALUES)
def test_import_and_generate_read_the_same_values(
    tmp_path: Path, literal: str, text: str | None
) -> None:
    fact = json.dumps({**ZH, "target_new": "?"}, ensure_ascii=False).replace('"?"', literal)
    path = tmp_path / "made.json"
    path.write_text(f"[{fact}]", encoding="utf-8")
    imported = candidates_of([read_file(path)])
    origin = Origin(kind="model", name="m")
    fact = json.dumps(
        {name: ZH[name] for name in FACT_FIELDS} | {"target_new": "?"}, ensure_ascii=False
    )
    answer = f'{{"zh": {fact}}}'.replace('"?"', literal)
    generated = parse_entries(answer, domain=None, label="x", origin=origin)
    for result in (imported, generated):
        found = [item.zh.target_new for item in result.kept if item.zh is not None]
        assert found == ([] if text is None else [text])
        assert len(result.rejected) == (text is None)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path / "workspace", create=True)


def test_import_says_which_rows_cannot_be_used(tmp_path: Path, workspace: Workspace) -> None:
    rows = [{"case_id": 1.0, **ZH, "target_new": 1891}, {"case_id": 2.5, **ZH}, {"prompt": []}]
    (file,) = import_files(saved(tmp_path, rows), workspace=workspace).files
    assert (file.rows, file.reading.candidates, len(file.reading.unusable)) == (3, 1, 2)
    assert file.reading.unusable[0].startswith("row 2: case_id: expected a whole number")
    assert file.reading.notices()[0].startswith("1 candidate: 2 rows cannot be used: row 2: ")
    assert not file.is_useless
    bad = saved(tmp_path, [{"case_id": 1, **ZH, "prompt": {}}], "bad.json")
    result = import_files(bad, workspace=workspace)
    assert [each.file.name for each in result.useless] == ["bad.json"]


def test_every_row_is_a_candidate_or_a_rejection(tmp_path: Path) -> None:
    broken: list[Any] = [None, 5, "x", [], {}]
    for label, row in {**EQUAL_TO_A_LATER_ANSWER, "plain": {"case_id": 1, **ZH}}.items():
        rows = [row, *broken, {**row, "case_id": [1]}, row]
        file = read_file(saved(tmp_path, rows))
        result = candidates_of([file])
        assert len(result.kept) + len(result.rejected) == len(rows), label
        assert len(result.kept) >= 2
        assert reading_of([file]).candidates == len(result.kept)
        assert reading_of([file], result) == reading_of([file])
        numbers = [rejection.problems[0].message.split(":")[0] for rejection in result.rejected]
        assert numbers[:4] == ["row 2", "row 3", "row 4", "row 5"]


def test_the_page_of_formats_names_every_format() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/formats.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"`{name}`" not in page] == []


READERS: dict[str, list[Any]] = {
    "clm-bench-zh": [{"case_id": 1, **ZH}],
    "clm-bench-mix": [{"case_id": 1, **ZH}, {"case_id": 1, **EN}],
    "clm-bench-en": [{f"english_{name}": text for name, text in EN.items()}],
    "clm-data": [{"zh": ZH, "en": EN}],
    "bi-zsre": [{"en": zsre(), "zh-cn": zsre()}],
    "bi-counterfact": [{"en": rewrite("a", "b"), "zh": rewrite("a", "b")}],
    "counterfact": [rewrite({"str": "a"}, {"str": "b"})],
    "zsre": [zsre(answers=["a"])],
    "easyedit": [{**FACT, "locality": {}}],
    "csv": [{f"zh_{name}": text for name, text in ZH.items()}],
}


@pytest.mark.parametrize("ending", ["json", "jsonl", "memory"])
@pytest.mark.parametrize("name", READERS)
def test_no_reader_loses_a_row(tmp_path: Path, name: str, ending: str) -> None:
    good = READERS[name]
    broken: list[Any] = [None, 5, "x", [1], {"case_id": [1]}, {**good[0], "case_id": {}}]
    rows = [*good, *broken, *good]
    pair = len(good) == 2
    path = tmp_path / f"made.{ending}"
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if ending == "jsonl" else f"[{','.join(lines)}]")
    file = read_file(rows_in_memory(rows, "rows") if ending == "memory" else path)
    assert file.format == name
    result = candidates_of([file])
    assert len(result.kept) + len(result.rejected) == len(rows) - 2 * pair
    assert len(result.kept) == 2
    numbers = [rejection.problems[0].message.split(":")[0] for rejection in result.rejected]
    assert numbers == [f"row {number + pair}" for number in range(2, 8)]


def test_every_reader_is_in_the_test_above() -> None:
    assert READERS.keys() == FORMATS.keys()


def test_csv_rows_are_kept_or_rejected(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    path.write_text(f"{','.join(ZH)}\n{','.join(ZH.values())}\n,,,\nonly one\n", encoding="utf-8")
    file = read_file(path)
    result = candidates_of([file])
    assert (len(file.rows), len(result.kept) + len(result.rejected)) == (3, 3)


def test_a_row_in_one_language_after_the_same_row_in_both_is_kept() -> None:
    rows = [{"case_id": 1, **ZH}, {"case_id": 1, **EN}, {"case_id": 2, **ZH}]
    file = read_file(rows_in_memory(rows, "rows"))
    assert [item.case_id for item in candidates_of([file]).kept] == [1, 2]


def test_rows_inside_an_object_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="the rows are in 'data': save that list"):
        read_file(saved(tmp_path, {"version": 1, "data": [zsre()]}))


def test_columns_without_a_name_may_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "made.csv"
    cells = f"{','.join(ZH)},,\n{','.join(ZH.values())},,\n"
    path.write_text(cells, encoding="utf-8")
    assert reading_of([read_file(path)]).unread == {}
    path.write_text(cells.removesuffix(",\n") + ",stray\n", encoding="utf-8")
    assert list(reading_of([read_file(path)]).unread) == [f"column {len(ZH) + 2}"]


def test_a_locality_of_an_unknown_kind_does_not_reject_the_row(tmp_path: Path) -> None:
    reading = reading_of([read_file(saved(tmp_path, [{**FACT, "locality": {"a": "text"}}]))])
    assert (reading.candidates, reading.unread) == (1, {"locality": 1})


def test_the_field_of_a_value_in_memory_is_named() -> None:
    with pytest.raises(InputFileError, match=r"row 2 is not usable as JSON: tags: .*set"):
        rows_in_memory([{"a": 1}, {"a": 2, "tags": {"x"}}], "rows")
