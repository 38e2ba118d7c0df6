"""The edits and batches of a cell."""

from __future__ import annotations

import pytest
from helpers.example_records import example_records

from clm_data.eval.errors import EditError
from clm_data.eval.results import Setting
from clm_data.eval.sweep.cell import batches_of, failed_cell, requests_for

RECORDS = example_records(2)
SETTING = Setting(model="m", method="memit", language="zh", batch_size=2)


def test_mix_edits_each_fact_in_both_languages() -> None:
    requests = requests_for(RECORDS, "mix")
    assert [request.id.rpartition(":")[2] for request in requests] == ["zh", "en", "zh", "en"]
    assert requests[1].prompt == RECORDS[0].en.prompt
    assert requests[1].target == RECORDS[0].en.target_new
    assert [request.lang for request in requests_for(RECORDS, "en")] == ["en", "en"]


def test_batches_are_full_disjoint_and_in_order() -> None:
    assert batches_of(7, 3) == [range(3), range(3, 6)]
    assert batches_of(7, 3, max_batches=1) == [range(3)]


def test_too_few_records_for_a_batch_is_an_error() -> None:
    with pytest.raises(EditError, match="lower the batch size"):
        batches_of(2, 3)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EditError("a\nb"), "a b"),
        (MemoryError(), "out of memory; lower tokens_per_batch"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_the_reason_of_a_failure_is_one_line(error: Exception, reason: str) -> None:
    cell = failed_cell("key", SETTING, error)
    assert (cell.key, cell.status, cell.error) == ("key", "failed", reason)
