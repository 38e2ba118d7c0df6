"""A failed request is never an answer, ends what it must end, and takes no other answer with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers.chat_server import ChatServer, as_openai
from helpers.scripted_generation import (
    ScriptedModel,
    answer_with,
    entry,
    generate_with,
    generation_settings,
    rivers,
)

from clm_data.config import Settings
from clm_data.errors import ModeratedError, RateLimitError, UserError
from clm_data.generation import GenerationReport
from clm_data.llm import Completion, Message, open_model
from clm_data.llm import transport as transport_module
from clm_data.store import Store


class ScriptedServer(ChatServer):
    """Answers requests in turn with raw responses, then with entries."""

    def __init__(self, *responses: web.Response) -> None:
        super().__init__(lambda _: answer_with(entry("青山绿"), entry("长河落")))
        self._responses = list(responses)
        self.bodies: list[dict[str, Any]] = []

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        if self._responses:
            return self._responses.pop(0)
        return web.json_response(as_openai(await self._answer([])))


def generate_at(url: str, folder: Path, quota: int = 2, **sizes: Any) -> GenerationReport:
    chosen = generation_settings(**{"turns": 1, "attempts": 3, "concurrency": 1} | sizes)
    settings = Settings(provider="vllm", model="m", base_url=url, generation=chosen)
    return generate_with(open_model(settings), folder, [rivers(quota)], settings=settings)


def choice(content: str | None, reason: str | None, **more: Any) -> web.Response:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 10, "completion_tokens": 20}
    choices = [{"message": message, "finish_reason": reason, **more}]
    return web.json_response({"model": "m", "choices": choices, "usage": usage})


def stored_answers(folder: Path) -> int:
    with Store(f"sqlite:///{folder}/clm.db") as store:
        return sum(exchange.completion is not None for exchange in store.exchanges())


@pytest.mark.parametrize(
    "response",
    [
        lambda: choice("", "error", error={"code": 502, "message": "Upstream error"}),
        lambda: choice("[]", "network_error"),
        lambda: choice(None, None),
        lambda: web.Response(text="{}", content_type="application/json"),
        lambda: web.Response(body=b"\xff\xfe\x80{", content_type="application/json"),
        lambda: web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_a_passing_failure_is_repeated_and_uses_no_turn(response: Any, tmp_path: Path) -> None:
    with ScriptedServer(response()) as server:
        report = generate_at(server.url, tmp_path)
        assert len(server.bodies) == 2
    assert (report.retries, report.requests, report.domains[0].entries) == (1, 2, 2)
    assert stored_answers(tmp_path) == 1


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.json_response(
            {"error": {"code": 403, "message": "input was flagged"}}, status=403
        ),
        lambda: choice("[]", "content_filter"),
        lambda: web.json_response({"code": "DataInspectionFailed", "message": "flagged"}),
    ],
)
def test_a_moderated_prompt_ends_its_dialogue_and_the_next_topic_is_asked(
    response: Any, tmp_path: Path
) -> None:
    with ScriptedServer(response()) as server:
        report = generate_at(server.url, tmp_path, dialogues_at_once=1, dry_waves=1)
    assert report.domains[0].entries == 2
    (loss,) = report.lost
    assert "blocked" in loss


def test_a_domain_whose_prompts_are_all_blocked_stops(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: ModeratedError("flagged"))
    settings = generation_settings(dialogues_at_once=1)
    (domain,) = generate_with(model, tmp_path, [rivers(4)], settings).domains
    assert domain.stopped == "every dialogue of 3 batches was blocked: flagged"
    assert domain.requests == 3


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.json_response(
            {"error": {"message": "quota", "code": "insufficient_quota"}}, status=429
        ),
        lambda: web.json_response({"code": 30001, "message": "balance"}, status=403),
        lambda: web.Response(
            text="<!doctype html><title>New API</title>", content_type="text/html"
        ),
    ],
)
def test_what_no_request_can_pass_stops_the_run_after_one(response: Any, tmp_path: Path) -> None:
    with ScriptedServer(response()) as server:
        with pytest.raises(UserError):
            generate_at(server.url, tmp_path, 20)
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b'{"a":' * 100_000, b" " * 3_000_000],
)
def test_a_bad_body_fails_its_request_and_the_others_are_stored(
    body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_BODY", 2_000_000)
    with ScriptedServer(web.Response(body=body, content_type="application/json")) as server:
        report = generate_at(server.url, tmp_path, 12, concurrency=16, dry_waves=1)
    assert any("nested too deeply" in loss or "larger than" in loss for loss in report.lost)
    assert stored_answers(tmp_path) == len(server.bodies) - 1 > 1


def test_an_unexpected_error_in_one_dialogue_leaves_the_others_alone(tmp_path: Path) -> None:
    def answer(_: Sequence[Message], number: int) -> Completion | Exception:
        if number == 1:
            return RecursionError("too deep\nto read")
        return answer_with(entry("青山绿"), entry("长河落"))

    settings = generation_settings(turns=1, dialogues_at_once=2)
    report = generate_with(ScriptedModel(answer), tmp_path, [rivers(4)], settings)
    assert report.domains[0].entries == 2
    (loss,) = report.lost
    assert loss.endswith("cannot be handled: RecursionError: too deep to read")
    assert stored_answers(tmp_path) > 0


def test_an_error_in_a_progress_callback_reaches_the_caller(tmp_path: Path) -> None:
    def progress(_: object) -> None:
        raise RuntimeError("from the caller")

    model = ScriptedModel(lambda *_: answer_with(entry("青山绿"), entry("长河落")))
    with pytest.raises(RuntimeError, match="from the caller"):
        generate_with(model, tmp_path, [rivers(2)], progress=progress)


@pytest.mark.parametrize("header", ["5000", "601.5", "1e300", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_long_pause_stops_at_once_and_says_when_to_come_back(header: str, tmp_path: Path) -> None:
    slow = [
        web.json_response({"error": "slow down"}, status=429, headers={"Retry-After": header})
        for _ in range(4)
    ]

    async def within_seconds() -> GenerationReport:
        return await asyncio.wait_for(asyncio.to_thread(go), 60)

    def go() -> GenerationReport:
        with ScriptedServer(*slow) as server:
            return generate_at(server.url, tmp_path, 20, concurrency=4)

    report = asyncio.run(within_seconds())
    assert report.stopped is not None
    assert "run the command again after 2" in report.stopped
    assert "generation.max_pause" in report.stopped
    assert report.requests <= 4


def test_other_waiting_requests_end_with_the_run(tmp_path: Path) -> None:
    """One dialogue waits for its next attempt when another is told to pause for an hour."""

    def answer(_: Sequence[Message], number: int) -> Exception:
        return RateLimitError("wait", 500.0 if number == 1 else 3600.0)

    settings = generation_settings(concurrency=2)
    report = generate_with(ScriptedModel(answer), tmp_path, [rivers(12)], settings)
    assert "3600 s" in (report.stopped or "")


def test_a_cut_off_answer_is_asked_for_again_with_twice_the_limit(tmp_path: Path) -> None:
    text = json.dumps([entry("青山绿"), entry("长河落")], ensure_ascii=False)
    answers = choice("[{", "length"), choice("[{", "length"), choice(text, "stop")
    with ScriptedServer(*answers) as server:
        report = generate_at(server.url, tmp_path, max_tokens=100)
        assert [body["max_tokens"] for body in server.bodies] == [100, 200, 400]
    assert (report.retries, report.domains[0].entries) == (2, 2)
    assert (report.usage.prompt_tokens, report.usage.completion_tokens) == (30, 60)
    assert stored_answers(tmp_path) == 1


def test_the_longest_cut_off_answer_is_kept_where_no_longer_one_comes(tmp_path: Path) -> None:
    text = json.dumps([entry("青山绿")], ensure_ascii=False)[:-1] + ', {"zh'
    refused = web.json_response({"error": {"message": "max_tokens is too large"}}, status=400)
    with ScriptedServer(choice(text, "length"), refused) as server:
        report = generate_at(server.url, tmp_path, 1, max_tokens=100)
    assert report.domains[0].entries == 1


def test_without_a_limit_nothing_is_sent_and_a_cut_off_answer_is_not_repeated(
    tmp_path: Path,
) -> None:
    text = json.dumps([entry("青山绿")], ensure_ascii=False)[:-1] + ', {"zh'
    with ScriptedServer(choice(text, "length")) as server:
        report = generate_at(server.url, tmp_path, 1)
        assert "max_tokens" not in server.bodies[0]
    assert (report.requests, report.domains[0].entries) == (1, 1)
