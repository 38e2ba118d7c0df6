"""What providers' refusals mean: each is classed by the provider's own code and words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llm.test_openai_compatible import KEY, RawServer, model_at, send_once

from clm_data.errors import (
    ConfigError,
    CredentialsError,
    ModeratedError,
    PermanentError,
    RateLimitError,
    TransientError,
    UserError,
)
from clm_data.llm.failures import Kind, error_in, kind_of


def error_of(status: int, body: Any, content_type: str = "application/json") -> Exception:
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    headers = {"Content-Type": content_type}
    with RawServer(status, text, headers) as server, pytest.raises(Exception) as caught:  # noqa: PT011
        send_once(model_at(server.url))
    return caught.value


def openai(message: str, kind: str | None = None, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


REFUSALS = [
    # The balance or quota: ends the run.
    (402, openai("Insufficient Balance"), UserError),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, UserError),
    (429, openai("You exceeded your current quota", "insufficient_quota"), UserError),
    (429, openai("suspended", "exceeded_current_quota_error"), UserError),
    (400, {"code": "Arrearage", "message": "Access denied"}, UserError),
    (200, {"code": "Arrearage", "message": "Access denied"}, UserError),
    (429, {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试"}}, UserError),
    (403, openai("overdue balance", "Forbidden", "AccountOverdueError"), UserError),
    (403, openai("用户额度不足", "new_api_error", "insufficient_user_quota"), UserError),
    (200, {"error": {"code": 402, "message": "needs more credits"}}, UserError),
    (500, openai("账户余额不足"), UserError),
    (429, openai("Rate limit exceeded: free-models-per-day", None, 429), UserError),
    (200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, UserError),
    (500, openai("upstream: Insufficient Balance", "new_api_error", "bad_response"), UserError),
    # The key: ends the run.
    (400, [{"error": {"code": 400, "message": "API key not valid."}}], CredentialsError),
    (401, openai("Authentication Fails"), CredentialsError),
    (400, {"code": "InvalidApiKey", "message": "Invalid API-key provided."}, CredentialsError),
    (200, openai("身份验证失败", None, "1000"), CredentialsError),
    (400, openai("无效的令牌", "new_api_error"), CredentialsError),
    (403, {"detail": "Not authenticated"}, CredentialsError),
    # The model: ends the run.
    (400, {"code": 20012, "message": "Model does not exist.", "data": None}, ConfigError),
    (404, openai("The model `x` does not exist", None, "model_not_found"), ConfigError),
    (404, openai("x", "NotFound", "InvalidEndpointOrModel.NotFound"), ConfigError),
    (404, {"error": "model 'x' not found"}, ConfigError),
    (400, openai("模型 x 不存在"), ConfigError),
    # The address: ends the run.
    (404, {"detail": "Not Found"}, ConfigError),
    (404, "404 page not found", ConfigError),
    (404, "", ConfigError),
    (405, {"detail": "Method Not Allowed"}, ConfigError),
    (200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, ConfigError),
    (404, openai("Invalid URL (POST /chat/completions)"), ConfigError),
    # One prompt: ends the dialogue.
    (403, openai("your input was flagged", None, 403), ModeratedError),
    (400, openai("Content Exists Risk"), ModeratedError),
    (400, {"code": "DataInspectionFailed", "message": "x"}, ModeratedError),
    (200, {"code": "data_inspection_failed", "message": "x"}, ModeratedError),
    (400, openai("x", "BadRequest", "SensitiveContentDetected.Violence"), ModeratedError),
    (400, openai("系统检测到输入包含敏感内容", None, "1301"), ModeratedError),
    (400, openai("considered high risk", "content_filter"), ModeratedError),
    (400, openai("x", "invalid_request_error", "context_length_exceeded"), PermanentError),
    (
        400,
        openai("too long", "invalid_request_error", "tokens_too_long"),
        PermanentError,
    ),
    (413, "", PermanentError),
    (400, openai("temperature is out of range", "invalid_request_error"), PermanentError),
    (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, PermanentError),
    (418, {"reason": "teapot"}, PermanentError),
    (400, openai("unknown author field"), PermanentError),
    (200, openai("something new"), PermanentError),
    # Passing failures: repeated.
    (400, openai("The model is temporarily not available"), TransientError),
    (
        429,
        {"code": "Throttling.AllocationQuota", "message": "Allocated quota exceeded"},
        RateLimitError,
    ),
    (429, {"code": 50603, "message": "System is busy", "data": None}, RateLimitError),
    (429, openai("engine is overloaded", "engine_overloaded_error"), RateLimitError),
    (429, openai("您当前使用该API的并发数过高", None, "1302"), RateLimitError),
    (
        429,
        {
            "error": {
                "code": 429,
                "message": "You exceeded your current quota",
                "status": "RESOURCE_EXHAUSTED",
            }
        },
        RateLimitError,
    ),
    (400, {"error_code": "ratelimitexceeded", "error_msg": "qps"}, RateLimitError),
    (200, {"error": {"code": 502, "message": "Upstream error"}}, TransientError),
    (200, {"error": "overloaded"}, TransientError),
    (503, openai("No available channel", "new_api_error"), TransientError),
    (500, openai("x is sensitive to case", "server_error"), TransientError),
    (503, "<html><title>503 busy</title></html>", TransientError),
    (424, {"error": "downstream"}, TransientError),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS)
def test_a_refusal_is_classed_by_what_the_provider_says(
    status: int, body: Any, kind: type[Exception]
) -> None:
    error = error_of(status, body)
    assert type(error) is kind
    assert "\n" not in str(error)
    found = error_in(body)
    if found is not None:
        assert found[1] in str(error)  # the provider's own words


@pytest.mark.parametrize(
    ("status", "page"),
    [
        (200, "<!doctype html><html><head><title>New API</title></head></html>"),
        (200, "\ufeff  <HTML><body>One API</body></HTML>"),
        (404, "<html><body>404</body></html>"),
    ],
)
@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
def test_a_web_page_says_that_v1_may_be_missing(status: int, page: str, content_type: str) -> None:
    error = error_of(status, page, content_type)
    assert isinstance(error, ConfigError)
    assert "web page" in str(error)
    assert "/v1" in str(error)


CHOICES: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"finish_reason": "error", "error": {"code": 502, "message": "from X"}},
        TransientError,
        "502: from X",
    ),
    ({"finish_reason": "error"}, TransientError, "error"),
    ({"message": {"content": "half"}, "finish_reason": "error"}, TransientError, "error"),
    ({"error": {"code": 403, "message": "flagged"}}, ModeratedError, "flagged"),
    ({"message": {"content": "", "error": {"message": "余额不足"}}}, UserError, "余额不足"),
    ({"message": {"content": None, "refusal": "I cannot"}}, ModeratedError, "I cannot"),
    ({"message": {"content": "[]"}, "finish_reason": "content_filter"}, ModeratedError, "filter"),
    ({"message": {"content": "[]"}, "finish_reason": "sensitive"}, ModeratedError, "sensitive"),
    ({"message": {"content": "[]"}, "finish_reason": "refusal"}, ModeratedError, "refusal"),
    ({"message": {"content": "[]"}, "finish_reason": "SAFETY"}, ModeratedError, "safety"),
    ({"message": {"content": None}, "finish_reason": "tool_calls"}, PermanentError, "tool"),
    ({"message": {"content": None}, "finish_reason": "function_call"}, PermanentError, "tool"),
    ({"message": {"content": ""}, "finish_reason": None}, TransientError, "missing"),
    ({"message": {"content": ""}, "finish_reason": "stop"}, TransientError, "empty"),
    ({"message": {"content": ""}, "finish_reason": "length"}, PermanentError, "max_tokens"),
    ({"message": {"content": "[]"}, "finish_reason": "network_error"}, TransientError, "network"),
]


@pytest.mark.parametrize(("choice", "kind", "words"), CHOICES)
def test_a_choice_without_an_answer_is_a_failure(
    choice: dict[str, Any], kind: type[Exception], words: str
) -> None:
    error = error_of(200, {"model": "m", "choices": [{"message": {"content": ""}, **choice}]})
    assert type(error) is kind
    assert words in str(error)


BODIES: list[tuple[str, str, type[Exception], str]] = [
    ("[" * 200_000, "application/json", PermanentError, "nested too deeply"),
    ('{"a":' * 100_000, "application/json", PermanentError, "nested too deeply"),
    ("data: {}\n\n", "text/event-stream", PermanentError, "stream"),
    ("data: {}\n\n", "application/json", PermanentError, "stream"),
    ("", "application/json", TransientError, "empty"),
    ("ok", "text/plain", TransientError, "text/plain"),
    ('{"choices": [', "application/json", TransientError, "not complete JSON"),
]


@pytest.mark.parametrize(("body", "content_type", "kind", "words"), BODIES)
def test_a_body_that_is_no_answer_fails_its_request(
    body: str, content_type: str, kind: type[Exception], words: str
) -> None:
    error = error_of(200, body, content_type)
    assert type(error) is kind
    assert words in str(error)


def test_the_words_are_masked_before_they_are_shortened() -> None:
    error = error_of(400, openai("x" * 295 + KEY))
    assert KEY[:5] not in str(error)


def test_an_error_next_to_an_answer_is_a_failure_and_an_empty_one_is_not() -> None:
    choices = [{"message": {"content": "A"}, "finish_reason": "stop"}]
    answer = {"model": "m", "choices": choices}
    assert type(error_of(200, answer | openai("overloaded"))) is TransientError
    for empty in (None, {}, "", {"message": "", "code": None}):
        with RawServer(200, json.dumps(answer | {"error": empty})) as server:
            assert send_once(model_at(server.url)).text == "A"


def test_codes_decide_before_words_and_words_before_the_status() -> None:
    assert kind_of(403, "Throttling.RateQuota", "余额不足") is Kind.RATE
    assert kind_of(403, "", "余额不足") is Kind.BALANCE
    assert kind_of(403, "", "") is Kind.KEY
    assert kind_of(429, "", "invalid api key") is Kind.RATE
    assert kind_of(502, "", "invalid api key of upstream") is Kind.OVERLOAD


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "model_length", "max_output_tokens"])
def test_a_cut_off_answer_is_recognized_by_every_name(reason: str) -> None:
    choices = [{"message": {"content": "[{"}, "finish_reason": reason}]
    with RawServer(200, json.dumps({"model": "m", "choices": choices})) as server:
        assert send_once(model_at(server.url)).finish_reason == "length"


def test_an_overload_that_names_a_pause_pauses_all_requests() -> None:
    with (
        RawServer(503, "{}", {"Retry-After": "5000"}) as server,
        pytest.raises(RateLimitError) as e,
    ):
        send_once(model_at(server.url))
    assert e.value.retry_after == 5000
