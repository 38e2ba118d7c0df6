"""Reasons to stop a run, limits, and failing endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.scripted_generation import (
    NAMES,
    ScriptedModel,
    answer_with,
    entry,
    generate_with,
    generation_settings,
    rivers,
)

from clm_data.config import Settings
from clm_data.errors import (
    ConfigError,
    CredentialsError,
    PermanentError,
    RateLimitError,
    TransientError,
)
from clm_data.llm import Completion, Message, Usage
from clm_data.store import Store


def test_batches_without_new_entries_stop_the_domain(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: answer_with())
    (domain,) = generate_with(
        model, tmp_path, [rivers(4)], generation_settings(dry_waves=2)
    ).domains
    assert domain.stopped.startswith("2 batches in a row with no new entries (")
    assert domain.requests == 2
    assert (
        generate_with(model, tmp_path, [rivers(4)], generation_settings(dry_waves=2)).requests == 0
    )


def test_another_model_can_continue_where_one_found_nothing_new(tmp_path: Path) -> None:
    generate_with(ScriptedModel(lambda *_: answer_with()), tmp_path, [rivers(1)])
    other = ScriptedModel(lambda *_: answer_with(entry("青山绿")))
    other.model = "other"
    assert generate_with(other, tmp_path, [rivers(1)]).domains[0].new == 1


def test_max_requests_stops_the_run_and_the_next_run_resumes(tmp_path: Path) -> None:
    names = iter(NAMES)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names)), entry(next(names))))
    first = generate_with(model, tmp_path, [rivers(6)], max_requests=1)
    assert first.stopped == "limit of 1 requests reached"
    assert first.domains[0].stopped == first.stopped
    assert first.requests == 1
    second = generate_with(model, tmp_path, [rivers(6)])
    assert (second.requests, second.domains[0].entries) == (2, 6)
    assert len(model.requests[1]) == 3  # the same dialogue is continued


def test_max_requests_limits_concurrent_dialogues(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: answer_with())
    report = generate_with(
        model, tmp_path, [rivers(20)], generation_settings(turns=1), max_requests=2
    )
    assert (report.requests, len(model.requests)) == (2, 2)


def test_max_cost_limits_concurrent_dialogues(tmp_path: Path) -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=1_000_000)
    model = ScriptedModel(lambda *_: answer_with(usage=usage))
    settings = Settings(generation=generation_settings(turns=1))
    report = generate_with(model, tmp_path, [rivers(20)], settings=settings, max_cost=0.01)
    assert (report.requests, len(model.requests)) == (1, 1)


def test_max_cost_stops_the_run(tmp_path: Path) -> None:
    names = iter(NAMES)
    usage = Usage(prompt_tokens=1, completion_tokens=1_000_000)
    model = ScriptedModel(lambda *_: answer_with(entry(next(names)), usage=usage))
    settings = Settings(generation=generation_settings(entries_per_turn=1, turns=8))
    report = generate_with(model, tmp_path, [rivers(8)], settings=settings, max_cost=10.0)
    assert report.cost == pytest.approx(3 * 3.96)
    assert report.stopped == "limit of 10 USD reached"


def test_max_cost_without_a_known_price_is_an_error(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: answer_with())
    with pytest.raises(ConfigError, match="max-requests"):
        generate_with(model, tmp_path, [rivers()], max_cost=1.0)


def test_a_refused_dialogue_does_not_stop_the_others(tmp_path: Path) -> None:
    def answer(messages: Sequence[Message], number: int) -> Completion | Exception:
        refused = "（1/2）" in messages[0]["content"]
        return (
            PermanentError("HTTP 400: no")
            if refused
            else answer_with(entry("青山绿"), entry("长河落"))
        )

    model = ScriptedModel(answer)
    (domain,) = generate_with(model, tmp_path, [rivers(4)], generation_settings(turns=1)).domains
    assert domain.entries == 2
    assert any("HTTP 400: no" in loss for loss in domain.lost)


def test_a_batch_of_refusals_stops_the_domain_and_the_next_run_tries_again(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: PermanentError("HTTP 404: no such model"))
    (domain,) = generate_with(model, tmp_path, [rivers(4)]).domains
    assert domain.stopped == "every dialogue of a batch was refused: HTTP 404: no such model"
    assert domain.requests == 1
    fixed = ScriptedModel(lambda *_: answer_with(entry("青山绿"), entry("长河落")))
    assert generate_with(fixed, tmp_path, [rivers(2)]).domains[0].entries == 2


def test_temporary_failures_are_retried_and_lasting_ones_left_for_the_next_run(
    tmp_path: Path,
) -> None:
    flaky = ScriptedModel(
        lambda _, number: TransientError("cut") if number < 3 else answer_with(entry("青山绿"))
    )
    report = generate_with(flaky, tmp_path, [rivers(1)], generation_settings(attempts=3))
    assert (report.retries, report.requests, report.domains[0].entries) == (2, 3, 1)
    broken = ScriptedModel(lambda *_: TransientError("cut"))
    report = generate_with(broken, tmp_path, [rivers(2)], generation_settings(attempts=3))
    assert report.domains[0].stopped == "dialogues left unfinished for the next run: 1"
    assert report.lost == ("rivers/1 left unfinished for the next run: cut",)
    fixed = ScriptedModel(lambda *_: answer_with(entry("长河落")))
    generate_with(fixed, tmp_path, [rivers(2)])
    assert fixed.requests[0] == broken.requests[0]


def test_a_refused_key_stops_the_run_and_keeps_earlier_answers(tmp_path: Path) -> None:
    model = ScriptedModel(
        lambda _, number: (
            answer_with(entry("青山绿")) if number == 1 else CredentialsError("check X")
        )
    )
    with pytest.raises(CredentialsError, match="check X"):
        generate_with(model, tmp_path, [rivers(4)])
    with Store(f"sqlite:///{tmp_path}/clm.db") as store:
        answers = [exchange.completion is not None for exchange in store.exchanges()]
    assert answers == [True, False]


def test_rate_limited_requests_are_counted_and_retried(tmp_path: Path) -> None:
    model = ScriptedModel(
        lambda _, number: (
            RateLimitError("slow", 0.01) if number < 3 else answer_with(entry("青山绿"))
        )
    )
    report = generate_with(model, tmp_path, [rivers(1)])
    assert (report.rate_limits, report.retries, report.domains[0].entries) == (2, 2, 1)


def test_a_requested_pause_of_an_hour_stops_the_run(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: RateLimitError("slow", 3600))
    report = generate_with(model, tmp_path, [rivers(1)], generation_settings(attempts=1))
    assert "3600 s" in (report.stopped or "")
