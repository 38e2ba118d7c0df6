from __future__ import annotations

import json
from collections import Counter

import pytest
from helpers.example_records import example_domains, example_records
from hypothesis import given
from hypothesis import strategies as st

from clm_data.codes import CODES
from clm_data.dataset_stats import Stats, statistics
from clm_data.records import Origin, Problem, Record, Rejection, ReviewStatus, Stage

STATUSES: tuple[ReviewStatus, ...] = ("accepted", "fixed", "unreviewed")
STAGES: tuple[Stage, ...] = ("parse", "validate", "deduplicate", "review", "locality")
ORIGINS = (
    Origin(kind="model", name="a-model", prompt_hash="b" * 64),
    Origin(kind="model", name="a-model", prompt_hash="a" * 64),
    Origin(kind="import", name="rows.json", licence="mit"),
)


def rejection(stage: Stage, *codes: str) -> Rejection:
    problems = tuple(Problem(code=code, message="found") for code in codes)
    return Rejection(stage=stage, id="x", domain=None, problems=problems, content={})


@given(
    st.lists(st.sampled_from(["hills", "rivers", "unheard_of", None]), min_size=1),
    st.lists(st.sampled_from(STATUSES), min_size=1),
    st.integers(0, 40),
)
def test_each_record_is_counted_once_in_each_table(
    domains: list[str | None], review: list[ReviewStatus], count: int
) -> None:
    records = example_records(count, domains=domains, review=review, origins=ORIGINS)
    stats = statistics(records, [], [], example_domains())
    assert stats.records == count
    assert stats.accepted + stats.fixed + stats.unreviewed == count
    assert sum(origin.records for origin in stats.origins) == count
    by_domain = {domain.id: domain for domain in stats.domains}
    assert len(by_domain) == len(stats.domains)
    found = Counter(record.domain for record in records)
    assert {id_: d.records for id_, d in by_domain.items() if d.records} == found
    for status in STATUSES:
        expected = sum(record.review == status for record in records)
        assert getattr(stats, status) == expected
        assert sum(getattr(domain, status) for domain in stats.domains) == expected


def test_domains_are_in_file_order_followed_by_other_domains() -> None:
    records = example_records(4, domains=("zebras", None, "rivers", "apes"))
    stats = statistics(records, [], [], example_domains())
    assert [(d.id, d.quota, d.records) for d in stats.domains] == [
        ("hills", 5, 0),
        ("rivers", 3, 1),
        ("lakes", 2, 0),
        ("apes", None, 1),
        ("zebras", None, 1),
        (None, None, 1),
    ]
    assert [(d.zh, d.en) for d in stats.domains[-2:]] == [
        ("zebras", "zebras"),
        ("未注明", "not stated"),
    ]


def test_without_domains_only_domains_with_records_are_counted() -> None:
    assert [d.id for d in statistics(example_records(3), []).domains] == ["hills", "rivers"]


def test_each_rejection_counts_once_under_its_first_problem() -> None:
    rejected = [
        rejection("deduplicate", "near-duplicate"),
        rejection("validate", "length"),
        rejection("validate", "empty-field", "length"),
        rejection("validate", "empty-field"),
    ]
    counts = statistics([], rejected).rejected
    assert [(c.stage, c.code, c.count) for c in counts] == [
        ("validate", "empty-field", 2),
        ("validate", "length", 1),
        ("deduplicate", "near-duplicate", 1),
    ]


@given(st.lists(st.tuples(st.sampled_from(STAGES), st.sampled_from(sorted(CODES)))))
def test_all_rejections_are_counted(reasons: list[tuple[Stage, str]]) -> None:
    stats = statistics([], [rejection(*reason) for reason in reasons])
    assert sum(count.count for count in stats.rejected) == len(reasons)


def test_warnings_are_counted_by_code_with_their_severity() -> None:
    warnings = [
        ("a", Problem(code="length", message="")),
        ("a", Problem(code="number-mismatch", message="")),
        ("b", Problem(code="number-mismatch", message="")),
    ]
    counts = statistics([], [], warnings).warnings
    assert [(c.code, c.count) for c in counts] == [("number-mismatch", 2), ("length", 1)]
    assert all(count.severity == CODES[count.code].severity for count in counts)


def test_lengths_are_in_characters_by_field_and_language() -> None:
    records = [
        record.model_copy(update={"zh": record.zh.model_copy(update={"prompt": text})})
        for record, text in zip(example_records(4), ["山", "山水", "山水田", "𠮷" * 8], strict=True)
    ]
    lengths = {(length.lang, length.field): length for length in statistics(records, []).lengths}
    prompt = lengths["zh", "prompt"]
    assert (prompt.min, prompt.median, prompt.max) == (1, 2.5, 8)
    assert len(lengths) == 14
    assert lengths["en", "ground_truth"].min == len("East Hill")


def test_origins_are_grouped_by_source_with_prompt_hashes() -> None:
    origins = statistics(example_records(5, origins=ORIGINS), []).origins
    assert [(o.kind, o.name, o.licence, o.records) for o in origins] == [
        ("model", "a-model", None, 4),
        ("import", "rows.json", "mit", 1),
    ]
    assert origins[0].prompt_hashes == ("a" * 64, "b" * 64)
    assert origins[1].prompt_hashes == ()


@pytest.mark.parametrize("records", [[], example_records(3, origins=ORIGINS)])
def test_the_json_has_all_counts(records: list[Record]) -> None:
    stats = statistics(records, [rejection("parse", "unreadable-answer")], [], example_domains())
    assert Stats.model_validate_json(json.dumps(stats.as_json())) == stats
