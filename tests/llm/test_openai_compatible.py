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
    ConfigError,
    CredentialsError,
    PermanentError,
    RateLimitError,
    TransientError,
    UnknownNameError,
    UserError,
)
from clm_data.llm import PROVIDERS, Completion, Message, Usage, model_name, open_model, price_of
from clm_data.llm.address import parse_address
from clm_data.llm.openai_compatible import OpenAICompatibleModel
from clm_data.llm.transport import Endpoint, retry_after
from clm_data.reasoning import split_reasoning

KEY = "sk-test-9f8e7d"
MESSAGES: list[Message] = [{"role": "user", "content": "问"}]


def model_at(url: str, *, timeout: float = 5.0, key: str | None = KEY) -> OpenAICompatibleModel:
    endpoint = Endpoint("deepseek", parse_address(url), key, "DEEPSEEK_API_KEY")
    return OpenAICompatibleModel(endpoint, "m", timeout=timeout)


def send_once(model: OpenAICompatibleModel) -> Completion:
    async def run() -> Completion:
        try:
            return await model.complete(MESSAGES)
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


def error_for(status: int, body: str = "{}", headers: dict[str, str] | None = None) -> Exception:
    with RawServer(status, body, headers) as server, pytest.raises(Exception) as caught:  # noqa: PT011
        send_once(model_at(server.url))
    return caught.value


def body_with(**message: object) -> str:
    import json

    return json.dumps({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]})


def completion_from(body: str) -> Completion:
    with RawServer(200, body, {"Content-Type": "application/json"}) as server:
        return send_once(model_at(server.url))


def test_text_reasoning_and_usage_are_returned_separately() -> None:
    with ChatServer(answer) as server:
        assert send_once(model_at(server.url)) == answer(MESSAGES)


def test_the_body_has_only_model_and_messages_and_the_key_is_a_header() -> None:
    with ChatServer(answer) as server:
        send_once(model_at(server.url))
        (request,) = server.requests
    assert request.body == {"model": "m", "messages": MESSAGES}
    assert request.headers["Authorization"] == f"Bearer {KEY}"


def test_organization_and_project_of_the_openai_service_are_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-secret")
    with ChatServer(answer) as server:
        send_once(model_at(server.url))
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
def test_reasoning_is_separated_from_the_answer_in_every_format(
    message: dict[str, object], text: str, reasoning: str | None
) -> None:
    completion = completion_from(body_with(**message))
    assert (completion.text, completion.reasoning) == (text, reasoning)


@given(st.text(alphabet=st.characters(exclude_characters="<>")), st.text(alphabet="abc 答\n[]{}"))
def test_split_reasoning_loses_only_surrounding_whitespace(thought: str, reply: str) -> None:
    text, reasoning = split_reasoning(f"<think>{thought}</think>{reply}")
    assert text == reply.strip()
    assert (reasoning or "") == thought.strip()


def test_a_rate_limit_error_has_the_requested_pause() -> None:
    error = error_for(429, headers={"Retry-After": "7"})
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1.5", 1.5), ("0", 0), ("-3", 0), ("soon", None), (None, None), ("nan", None), ("inf", None)],
)
def test_retry_after_accepts_numbers(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_accepts_dates() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < (retry_after(soon) or 0) <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize("value", ["1e300", "99999999999", "Fri, 31 Dec 9999 23:59:59 -1200"])
def test_a_pause_of_absurd_length_is_still_a_pause(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or 0 < seconds <= 10 * 365 * 86_400


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
def test_each_status_raises_its_error(status: int, kind: type[Exception]) -> None:
    error = error_for(status, '{"error": {"message": "no"}}')
    assert type(error) is kind


def test_the_error_on_a_refused_key_names_its_variable_and_not_the_key() -> None:
    error = error_for(401, f'{{"error": {{"message": "wrong key {KEY}"}}}}')
    assert "DEEPSEEK_API_KEY" in str(error)
    assert KEY not in str(error)


def test_the_key_is_removed_from_messages_of_the_endpoint() -> None:
    error = error_for(400, f'{{"error": {{"message": "you sent {KEY}"}}}}')
    assert isinstance(error, PermanentError)
    assert KEY not in str(error)


def test_the_key_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with ChatServer(answer) as server:
        send_once(model_at(server.url))
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "body",
    [
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
def test_an_invalid_body_is_a_transient_error(body: str) -> None:
    with pytest.raises(TransientError):
        completion_from(body)


def test_an_error_in_a_body_with_status_200_is_raised_by_its_code() -> None:
    with pytest.raises(RateLimitError):
        completion_from('{"error": {"code": 429, "message": "upstream"}}')


def test_leading_empty_lines_in_a_body_are_ignored() -> None:
    assert completion_from("\n\n\n" + body_with(content="A")).text == "A"


def test_a_filtered_answer_without_text_is_a_permanent_error() -> None:
    body = '{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}'
    with pytest.raises(PermanentError, match="content filter"):
        completion_from(body)


@pytest.mark.parametrize("kind", ["hang", "cut", "garbage", "truncated", "500", "503"])
def test_connection_and_server_faults_are_transient_errors(kind: str) -> None:
    faults = Faults(share=1.0, kinds=(kind,), hang=3.0)
    with ChatServer(answer, faults) as server, pytest.raises(TransientError):
        send_once(model_at(server.url, timeout=0.5 if kind == "hang" else 5.0))


def test_an_unreachable_server_is_a_transient_error_with_its_address() -> None:
    with ChatServer(answer) as server:
        url = server.url
    with pytest.raises(TransientError, match=r"connection to http://127\.0\.0\.1.* failed"):
        send_once(model_at(url))


def test_the_error_on_a_missing_key_names_its_variable_and_the_offline_provider() -> None:
    with pytest.raises(CredentialsError) as caught:
        open_model(Settings(), {})
    assert "DEEPSEEK_API_KEY" in str(caught.value)
    assert "--provider offline" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_provider_opens_with_its_key(name: str) -> None:
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


def test_an_unknown_provider_gives_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="deepseek"):
        open_model(Settings(provider="deepsek"), {})


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x"])
def test_an_address_without_http_is_an_error(url: str) -> None:
    with pytest.raises(ConfigError, match="http"):
        open_model(Settings(provider="ollama", base_url=url), {})


def test_a_price_is_known_only_for_the_default_address_and_a_listed_model() -> None:
    price = price_of(Settings())
    assert price is not None
    million = Usage(prompt_tokens=1_000_000, completion_tokens=1_000_000)
    assert price.of(million) == pytest.approx(price.prompt + price.completion)
    assert price_of(Settings(base_url="http://127.0.0.1:1/v1")) is None
    assert price_of(Settings(model="another")) is None
    assert model_name(Settings(model="another")) == "another"
