"""A run says why entries and requests were lost, and counts each of them once."""

from __future__ import annotations

from collections.abc import Callable
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

from clm_data.errors import ModeratedError, PermanentError, RateLimitError, TransientError
from clm_data.generation import Progress
from clm_data.generation.reasons import Failure, reasons_for_failure
from clm_data.llm import Completion, Usage
from clm_data.store import DialogueEnd, NewDialogue, NewRequest, RequestOutcome, Store


def test_rejections_are_counted_by_code_with_an_example(tmp_path: Path) -> None:
    bad = [entry(name, target_new="昆仑山") for name in NAMES[:2]]
    answers = iter([answer_with(*bad, entry(NAMES[2])), answer_with(entry(NAMES[3]))])
    report = generate_with(
        ScriptedModel(lambda *_: next(answers)), tmp_path, [rivers(2)], generation_settings()
    )
    domain = report.domains[0]
    assert (domain.read, domain.new, domain.rejected) == (4, 2, 2)
    (reason,) = report.rejections
    assert (reason.code, reason.count) == ("target-equals-truth", 2)
    assert "zh.target_new" in reason.example
    assert report.as_json()["rejections"][0]["count"] == 2


def test_entries_of_another_process_are_not_counted_as_this_runs(tmp_path: Path) -> None:
    """A negative number of rejected entries was reported: the difference of two totals."""

    def answer(*_: object) -> Completion:
        with Store(f"sqlite:///{tmp_path}/clm.db") as store:
            other = NewDialogue("rivers", 50, 0, "vllm", "scripted", "p", "0" * 64, 3)
            if not any(dialogue.number == 50 for dialogue in store.dialogues("rivers")):
                store.add_dialogues([other])
                id_ = next(each.id for each in store.dialogues("rivers") if each.number == 50)
                (request,) = store.write([NewRequest(id_, 0, [])])
                told = answer_with(*(entry(name) for name in NAMES[:3])).model_dump()
                store.write([RequestOutcome(request, completion=told), DialogueEnd(id_, "done")])
        return answer_with(entry(NAMES[4]), entry(NAMES[0]))

    report = generate_with(ScriptedModel(answer), tmp_path, [rivers(4)], generation_settings())
    domain = report.domains[0]
    assert domain.entries == 4
    assert domain.new <= domain.read
    assert domain.rejected == sum(reason.count for reason in domain.rejections) >= 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: Completion(text="[]", model="m"), "an empty list"),
        (lambda: Completion(text="I cannot.", model="m"), "no complete entry could be parsed"),
        (
            lambda: Completion(text='[{"zh": {', model="m", finish_reason="length"),
            "cut off at the token limit (finish_reason length)",
        ),
        (
            lambda: answer_with(entry(NAMES[0], target_new="昆仑山")),
            "the target is the true answer",
        ),
    ],
)
def test_a_domain_without_new_entries_says_what_the_answers_were(
    answer: Callable[[], Completion], words: str, tmp_path: Path
) -> None:
    model = ScriptedModel(lambda *_: answer())
    report = generate_with(model, tmp_path, [rivers()], generation_settings(turns=1))
    stopped = report.domains[0].stopped
    assert stopped.startswith("2 batches in a row with no new entries (")
    assert words in stopped


def test_failed_requests_are_grouped_whatever_their_numbers() -> None:
    errors = [
        RateLimitError("HTTP 429: slow down (request 8f2a1)"),
        RateLimitError("HTTP 429: slow down (request 77b3c)"),
        TransientError("HTTP 503: overloaded"),
        ModeratedError("the model refused: no"),
        PermanentError("HTTP 400: too long\x1b[2J"),
    ]
    found = reasons_for_failure(
        Failure("rivers", f"rivers/0/{turn}", error) for turn, error in enumerate(errors)
    )
    assert [(each.code, each.count) for each in found] == [
        ("rate-limit", 2),
        ("temporary", 1),
        ("moderated", 1),
        ("refused", 1),
    ]
    assert found[0].example == "rivers/0/0: HTTP 429: slow down (request 8f2a1)"
    assert "\x1b" not in found[3].example


def test_failures_of_requests_that_were_repeated_are_reported(tmp_path: Path) -> None:
    def answer(_: object, number: int) -> Completion | Exception:
        if number == 1:
            return TransientError("HTTP 503: overloaded")
        return answer_with(*(entry(name) for name in NAMES[:4]))

    report = generate_with(ScriptedModel(answer), tmp_path, [rivers()], generation_settings())
    assert [(each.code, each.count) for each in report.failures] == [("temporary", 1)]
    assert report.unanswered == 1


def test_progress_says_why_it_waits_and_what_was_spent(tmp_path: Path) -> None:
    seen: list[Progress] = []

    def answer(_: object, number: int) -> Completion | Exception:
        if number == 1:
            return RateLimitError("HTTP 429: slow down", retry_after=1.2)
        usage = Usage(prompt_tokens=10, completion_tokens=20)
        return answer_with(*(entry(name) for name in NAMES[:4]), usage=usage)

    generate_with(ScriptedModel(answer), tmp_path, [rivers()], progress=seen.append)
    (wait,) = [each for each in seen if each.waiting is not None]
    assert (wait.waiting, wait.wait) == ("HTTP 429: slow down", 1.2)
    assert seen[-1].tokens.total.completion_tokens == 20
