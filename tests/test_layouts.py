from __future__ import annotations

import pytest
from helpers.example_records import example_records

from clm_data import layouts
from clm_data.records import FACT_FIELDS

FIVE = ["prompt", "subject", "ground_truth", "target_new", "rephrase_prompt"]
PUBLISHED = ["prompt", "target_new", "subject", "ground_truth", "rephrase_prompt"]
PROBE = ["loc", "loc_ans"]


def test_parallel_rows_have_both_languages() -> None:
    records = example_records(2)
    rows = layouts.parallel_rows(records)
    assert [row["case_id"] for row in rows] == [1, 2]
    assert list(rows[0]) == ["id", "case_id", "domain", "zh", "en", "review", "origin"]
    assert list(rows[0]["zh"]) == list(rows[0]["en"]) == [*FIVE, *PROBE]
    assert rows[1]["en"]["loc_ans"] == records[1].en_probe.loc_ans
    assert rows[1]["origin"]["licence"] == "apache-2.0"


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_flat_rows_have_one_language(lang: str) -> None:
    records = example_records(2)
    rows = layouts.CONFIGURATIONS[lang](records)
    assert list(rows[0]) == ["id", "case_id", "domain", *FIVE, *PROBE, "review"]
    side = records[1].zh if lang == "zh" else records[1].en
    assert {name: rows[1][name] for name in FIVE} == side.model_dump()


def test_mixed_rows_alternate_between_languages() -> None:
    records = example_records(3)
    rows = layouts.mix_rows(records)
    assert [row.pop("language") for row in rows] == ["zh", "en"] * 3
    assert rows[::2] == layouts.zh_rows(records)
    assert rows[1::2] == layouts.en_rows(records)


def test_published_layouts_have_the_published_field_names_and_order() -> None:
    files = layouts.published(example_records(2))
    assert tuple(files) == layouts.PUBLISHED_FILES
    zh, en, mix = files.values()
    assert list(zh[0]) == ["case_id", *PUBLISHED, *PROBE]
    assert list(en[0]) == ["case_id", *[f"english_{name}" for name in PUBLISHED], *PROBE]
    assert mix[::2] == zh
    assert mix[1::2] == [layouts.with_plain_names(row) for row in en]
    assert en == [layouts.with_english_names(row) for row in mix[1::2]]
    assert not any("question" in row["loc"] for row in en)


def test_fields_are_in_the_order_of_the_record_type() -> None:
    assert tuple(FIVE) == FACT_FIELDS
