from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from helpers.chat_server import ChatServer, Faults
from hypothesis import given
from hypothesis import strategies as st

from clm_data.config import Settings
from clm_data.errors import (
    ChatError,
    ConfigError,
    CredentialsError,
    PermanentError,
    RateLimitError,
    TransientError,
    UnknownNameError,
    UserError,
)
from clm_data.llm import PROVIDERS, Completion, Message, Usage, model_name, open_model, price_of
from clm_data.llm.openai_compatible import OpenAICompatibleModel, retry_after, split_reasoning

KEY = "sk-test-9f8e7d"
ASK: list[Message] = [{"role": "user", "content": "问"}]


def model_at(url: str, *, timeout: float = 5.0, key: str | None = KEY) -> OpenAICompatibleModel:
    return OpenAICompatibleModel(
        "deepseek", "m", base_url=url, key=key, key_variable="DEEPSEEK_API_KEY", timeout=timeout
    )


def ask_once(model: OpenAICompatibleModel) -> Completion:
    async def run() -> Completion:
        try:
            return await model.complete(ASK)
        finally:
            await model.close()

    return asyncio.run(run())


def answer(_: Sequence[Message]) -> Completion:
    return Completion(
        text="答",
        reasoning="想",
        finish_reason="stop",
        model="r1",
        usage=Usage(prompt_tokens=3, completion_tokens=5, reasoning_tokens=4),
    )


class RawServer(ChatServer):
    """Answers every request with the same status, body and headers."""

    def __init__(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(answer)
        self._raw = (status, body, headers or {})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        status, body, headers = self._raw
        return web.Response(status=status, text=body, headers=headers)


def failure(status: int, body: str = "{}", headers: dict[str, str] | None = None) -> Exception:
    with RawServer(status, body, headers) as server, pytest.raises(Exception) as caught:  # noqa: PT011
        ask_once(model_at(server.url))
    return caught.value


def body_with(**message: object) -> str:
    import json

    return json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})


def received(body: str) -> Completion:
    with RawServer(200, body, {"Content-Type": "application/json"}) as server:
        return ask_once(model_at(server.url))


def test_answer_reasoning_and_usage_come_back_apart() -> None:
    with ChatServer(answer) as server:
        assert ask_once(model_at(server.url)) == answer(ASK)


def test_only_model_and_messages_are_sent_and_the_key_only_as_a_header() -> None:
    with ChatServer(answer) as server:
        ask_once(model_at(server.url))
        (arrived,) = server.requests
    assert arrived.body == {"model": "m", "messages": ASK}
    assert arrived.headers["Authorization"] == f"Bearer {KEY}"


def test_settings_of_another_service_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    with ChatServer(answer) as server:
        ask_once(model_at(server.url))
    assert "secret" not in str(server.requests[0].headers)


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "A", "reasoning": "R"}, "A", "R"),
        ({"content": "A", "reasoning_content": "R"}, "A", "R"),
        ({"content": "<think>R</think>\nA"}, "A", "R"),
        ({"content": "R</think>A"}, "A", "R"),
        ({"content": "<think>R, cut off"}, "", "R, cut off"),
        ({"content": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}, "AB", None),
        ({"content": None, "reasoning_content": "R"}, "", "R"),
        ({"content": "A"}, "A", None),
    ],
)
def test_reasoning_is_kept_apart_wherever_it_stands(
    message: dict[str, object], text: str, reasoning: str | None
) -> None:
    got = received(body_with(**message))
    assert (got.text, got.reasoning) == (text, reasoning)


@given(st.text(alphabet=st.characters(exclude_characters="<>")), st.text(alphabet="abc 答\n[]{}"))
def test_split_reasoning_loses_nothing_but_blanks(thought: str, said: str) -> None:
    text, reasoning = split_reasoning(f"<think>{thought}</think>{said}")
    assert text == said.strip()
    assert (reasoning or "") == thought.strip()


def test_a_429_carries_its_pause() -> None:
    error = failure(429, headers={"Retry-After": "7"})
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1.5", 1.5), ("0", 0), ("-3", 0), ("soon", None), (None, None), ("nan", None), ("inf", None)],
)
def test_retry_after_numbers(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_dates() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after(soon) or 0) <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, TransientError),
        (503, TransientError),
        (408, TransientError),
        (400, PermanentError),
        (404, PermanentError),
        (422, PermanentError),
        (401, CredentialsError),
        (403, CredentialsError),
        (402, UserError),
    ],
)
def test_statuses_map_to_our_errors(status: int, kind: type[Exception]) -> None:
    error = failure(status, '{"error": {"message": "no"}}')
    assert type(error) is kind


def test_refused_key_is_named_by_its_variable_and_never_shown() -> None:
    error = failure(401, f'{{"error": {{"message": "wrong key {KEY}"}}}}')
    assert "DEEPSEEK_API_KEY" in str(error)
    assert KEY not in str(error)


def test_an_endpoint_that_repeats_the_key_does_not_make_us_repeat_it() -> None:
    error = failure(400, f'{{"error": {{"message": "you sent {KEY}"}}}}')
    assert isinstance(error, PermanentError)
    assert KEY not in str(error)


def test_the_key_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer(answer) as server:
        ask_once(model_at(server.url))
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "",
        "[]",
        "null",
        "{}",
        '{"choices": []}',
        '{"choices": [{"message": null}]}',
        '{"choices": [{"message": {"content": "ha',
        '{"error": "overloaded"}',
    ],
)
def test_a_body_that_is_no_answer_may_pass(body: str) -> None:
    with pytest.raises(TransientError):
        received(body)


def test_an_error_in_a_200_body_counts_as_its_code() -> None:
    with pytest.raises(RateLimitError):
        received('{"error": {"code": 429, "message": "upstream"}}')


def test_leading_blank_lines_are_no_garbage() -> None:
    assert received("\n\n\n" + body_with(content="A")).text == "A"


def test_content_filter_without_text_is_final() -> None:
    body = '{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}'
    with pytest.raises(PermanentError, match="content filter"):
        received(body)


@pytest.mark.parametrize("kind", ["hang", "cut", "garbage", "truncated", "500", "503"])
def test_faults_on_the_way_are_transient(kind: str) -> None:
    faults = Faults(share=1.0, kinds=(kind,), hang=3.0)
    with ChatServer(answer, faults) as server, pytest.raises(TransientError):
        ask_once(model_at(server.url, timeout=0.5 if kind == "hang" else 5.0))


def test_a_server_that_is_not_there_is_transient_and_named() -> None:
    with ChatServer(answer) as server:
        url = server.url
    with pytest.raises(TransientError, match=r"connection to http://127\.0\.0\.1"):
        ask_once(model_at(url))


def test_no_key_names_the_variable_and_the_way_without() -> None:
    with pytest.raises(CredentialsError) as caught:
        open_model(Settings(), {})
    assert "DEEPSEEK_API_KEY" in str(caught.value)
    assert "--provider offline" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_preset_opens_with_its_key(name: str) -> None:
    preset = PROVIDERS[name]
    environ = {preset.key_variable: KEY} if preset.key_variable else {}
    url = None if preset.base_url or name == "offline" else "http://127.0.0.1:1/v1"
    model = preset.model or "m"
    opened = open_model(Settings(provider=name, model=model, base_url=url), environ)
    assert opened.provider == name
    if name != "offline":
        assert opened.model == model


def test_local_servers_need_no_key_but_vllm_needs_a_model() -> None:
    assert open_model(Settings(provider="ollama"), {}).provider == "ollama"
    with pytest.raises(ConfigError, match="--model"):
        open_model(Settings(provider="vllm"), {})


def test_unknown_provider_suggests_its_neighbour() -> None:
    with pytest.raises(UnknownNameError, match="deepseek"):
        open_model(Settings(provider="deepsek"), {})


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x"])
def test_an_address_without_http_is_one_clear_line(url: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        open_model(Settings(provider="ollama", base_url=url), {})


def test_prices_hold_for_the_preset_address_and_model_only() -> None:
    price = price_of(Settings())
    assert price is not None
    million = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000)
    assert price.of(million) == pytest.approx(price.prompt + price.completion)
    assert price_of(Settings(base_url="http://127.0.0.1:1/v1")) is None
    assert price_of(Settings(model="another")) is None
    assert model_name(Settings(model="another")) == "another"


def test_every_chat_error_is_one_of_ours() -> None:
    assert issubclass(RateLimitError, ChatError)
    assert not issubclass(CredentialsError, ChatError)
