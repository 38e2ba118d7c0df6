from __future__ import annotations

import pytest
from helpers.example_records import example_fact
from helpers.review_sheets import candidate

from clm_data.records import (
    TEXT_FIELDS,
    Candidate,
    Decision,
    Entry,
    Origin,
    Problem,
    Rejection,
    Stage,
)
from clm_data.review.cells import MAX_CELL
from clm_data.review.queue import build_queue, count_by_domain, describe, item_of

WARNING = Problem(code="length", message="long", lang="zh", field="prompt")


def _entry(number: int, domain: str | None = "rivers") -> Entry:
    return Entry(
        id=f"clm-{number:012x}",
        domain=domain,
        origin=Origin(kind="bank", name="bank-1"),
        zh=example_fact("zh", number),
        en=example_fact("en", number),
    )


def _rejection(content: Candidate, stage: Stage = "validate") -> Rejection:
    problem = Problem(code="empty-field", message="no subject", lang="zh", field="subject")
    return Rejection(
        stage=stage, id=content.id, domain=content.domain, problems=(problem,), content={}
    )


ENTRIES = [_entry(1), _entry(2, "hills"), _entry(3), _entry(4, None)]
IDS = [entry.id for entry in ENTRIES]


def test_an_item_shows_the_ten_texts_of_exactly_its_hash() -> None:
    item = item_of(ENTRIES[0])
    assert item.content_hash == ENTRIES[0].content_hash == candidate(1).content_hash
    assert list(item.texts) == list(TEXT_FIELDS)
    assert item.texts["en.subject"] == ENTRIES[0].en.subject


def test_missing_texts_are_empty() -> None:
    texts = item_of(candidate(1, subject=None).model_copy(update={"en": None})).texts
    assert (texts["zh.subject"], texts["en.prompt"]) == ("", "")


def test_the_queue_contains_unreviewed_entries_in_order_with_their_warnings() -> None:
    queue = build_queue(ENTRIES, [(IDS[2], WARNING)], {IDS[0]: "accepted", IDS[1]: "fixed"})
    assert [item.id for item in queue.items] == IDS[2:]
    assert [item.problems for item in queue.items] == [(WARNING,), ()]


def test_reviewed_entries_have_a_status_and_a_number_of_decisions() -> None:
    decision = Decision(entry_id=IDS[0], content_hash="0", verdict="accept", reviewer="Li")
    queue = build_queue(
        ENTRIES, [], {IDS[0]: "accepted"}, decisions=[decision, decision], unreviewed_only=False
    )
    assert [item.status for item in queue.items] == ["accepted", *["unreviewed"] * 3]
    assert [item.decisions for item in queue.items] == [2, 0, 0, 0]


def test_domains_and_limit_restrict_the_queue() -> None:
    rivers = build_queue(ENTRIES, [], {}, domains=["rivers"])
    assert [item.id for item in rivers.items] == [IDS[0], IDS[2]]
    assert [item.id for item in build_queue(ENTRIES, [], {}, limit=3).items] == IDS[:3]


def test_rejected_entries_that_can_be_fixed_come_last() -> None:
    fixable, refused = candidate(8, subject=""), candidate(9)
    queue = build_queue(
        ENTRIES,
        [],
        {},
        rejected=[
            Rejection(stage="parse", id="x#1", domain=None, problems=(WARNING,), content="text"),
            _rejection(fixable),
            _rejection(refused, "review"),
        ],
        contents={fixable.id: fixable, refused.id: refused},
        unreviewed_only=False,
    )
    assert [item.id for item in queue.items] == [*IDS, fixable.id, refused.id]
    assert queue.items[-2].problems[0].code == "empty-field"
    assert [item.status for item in queue.items[-2:]] == ["unreviewed", "rejected"]


def test_entries_too_long_for_a_cell_are_left_out_and_listed() -> None:
    long = candidate(8, prompt="长" * (MAX_CELL + 1))
    queue = build_queue(ENTRIES, [], {}, rejected=[_rejection(long)], contents={long.id: long})
    assert [item.id for item in queue.items] == IDS
    assert queue.too_long == (long.id,)


def test_problems_are_described_in_both_languages_one_per_line() -> None:
    number = Problem(code="duplicate-id", message="clm-1", field="id")
    first, second = describe([WARNING, number]).split("\n")
    assert first == (
        "错误 error | zh.prompt | length | 文字过长 / longer than the limit for this field | long"
    )
    assert second.startswith("提醒 warning | id | duplicate-id |")


def test_every_entry_is_counted_once_by_domain_in_the_order_of_the_domains() -> None:
    rows = count_by_domain(
        ENTRIES,
        {IDS[0]: "accepted", IDS[1]: "fixed"},
        [_rejection(candidate(9), "review"), _rejection(candidate(11))],
        ["hills", "rivers", "lakes"],
    )
    assert [row.domain for row in rows] == ["hills", "rivers", None]
    rivers = rows[1]
    assert (rivers.entries, rivers.accepted, rivers.unreviewed, rivers.rejected) == (2, 1, 1, 1)
    assert rows[0].fixed == 1
    for row in rows:
        assert row.entries == row.accepted + row.fixed + row.unreviewed


@pytest.mark.parametrize("count", [0, 1])
def test_only_domains_with_entries_are_counted(count: int) -> None:
    assert len(count_by_domain(ENTRIES[:count], {}, [])) == count
