from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.example_records import example_records
from jsonschema import Draft202012Validator

from clm_data.errors import InputFileError, UnknownNameError
from clm_data.json_schema import FOLDER, KINDS, VERSION, check, load, schema_file, text_of
from clm_data.records import Decision


def record() -> dict[str, Any]:
    value: dict[str, Any] = example_records(1)[0].model_dump(mode="json")
    return value


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_shipped_schema_matches_the_record_type(kind: str) -> None:
    shipped = schema_file(kind).read_text(encoding="utf-8")
    assert shipped == text_of(kind), "a model has changed; run: python -m clm_data.json_schema"
    Draft202012Validator.check_schema(json.loads(shipped))
    assert load(kind)["$id"] == f"urn:clm-data:schema:{kind}:{VERSION}"


def test_there_are_no_other_schema_files() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {schema_file(kind).name for kind in KINDS}


def test_each_field_of_a_fact_has_a_description() -> None:
    properties = load("record")["$defs"]["Fact"]["properties"]
    assert "cloze" in properties["prompt"]["description"]
    assert all("description" in field for field in properties.values())


def test_dumped_records_match_the_schema() -> None:
    check("record", record(), "here")
    verdict = Decision(entry_id="x", content_hash="y", verdict="accept", reviewer="王")
    check("decision", verdict.model_dump(mode="json"), "here")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"zh": {}}, "zh: 'prompt' is a required property"),
        ({"case_id": "7"}, "case_id: '7' is not of type 'integer'"),
        ({"english_prompt": "x"}, "the whole value: Additional properties are not allowed"),
        ({"review": "fine"}, "review: 'fine' is not one of"),
    ],
)
def test_a_mismatch_is_a_one_line_error_with_its_location(
    change: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputFileError) as caught:
        check("record", record() | change, "records.jsonl, line 3")
    assert str(caught.value).startswith(f"records.jsonl, line 3: {words}")
    assert "\n" not in str(caught.value)


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(InputFileError) as caught:
        check("record", record() | {"case_id": "长" * 5000}, "here")
    assert len(str(caught.value)) < 300


def test_an_unknown_schema_suggests_similar_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean record"):
        load("records")
