"""Unknown is not zero: endpoints that leave out, or garble, the usage of an answer."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from helpers.chat_server import ChatServer
from helpers.scripted_generation import (
    NAMES,
    ScriptedModel,
    answer_with,
    entry,
    generate_with,
    generation_settings,
    rivers,
)

from clm_data.config import Settings, parse_settings
from clm_data.errors import ConfigError
from clm_data.generation import GenerationReport
from clm_data.generation.tokens import REASONING_PER_ANSWER, Tokens, estimated_usage, token_count
from clm_data.llm import Completion, Price, Usage, open_model, price_of

MISSING = "missing"
FULL = {"prompt_tokens": 1500, "completion_tokens": 3000, "total_tokens": 4500}
WITHOUT_COUNTS = [
    pytest.param(MISSING, id="no usage"),
    pytest.param(None, id="null"),
    pytest.param({}, id="empty"),
    pytest.param({"prompt_tokens": 0, "completion_tokens": 0}, id="zeros"),
    pytest.param({"prompt_tokens": -1, "completion_tokens": -1}, id="negative"),
    pytest.param({"prompt_tokens": 2.5, "completion_tokens": "many"}, id="no counts"),
    pytest.param({"prompt_tokens": True, "completion_tokens": [3]}, id="other types"),
    pytest.param("none", id="a text"),
    pytest.param([1500, 3000], id="a list"),
    pytest.param({"total_tokens": 4500, "completion_tokens_details": [1]}, id="details a list"),
    pytest.param({"prompt_tokens": 10**40, "completion_tokens": 10**40}, id="huge"),
]


class _Server(ChatServer):
    """A chat server that sends a `usage` as given."""

    usage: Any = MISSING

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        response = await super()._chat(request)
        body = json.loads(response.text or "") if isinstance(response, web.Response) else {}
        del body["usage"]
        if self.usage != MISSING:
            body["usage"] = self.usage
        return web.json_response(body)


def _generate(folder: Path, usage: Any, **options: Any) -> GenerationReport:
    names = iter(NAMES)
    server = _Server(lambda *_: answer_with(entry(next(names))))
    server.usage = usage
    with server:
        sizes = generation_settings(
            entries_per_turn=1,
            turns=8,
            concurrency=1,
            price={"prompt": 1.32, "completion": 3.96, "currency": "USD"},
        )
        settings = Settings(
            provider="custom", model="scripted", base_url=server.url, generation=sizes
        )
        model = open_model(settings, {})
        return generate_with(model, folder, [rivers(8)], settings=settings, **options)


@pytest.mark.parametrize("usage", WITHOUT_COUNTS)
def test_max_cost_is_kept_without_usage(usage: Any, tmp_path: Path) -> None:
    report = _generate(tmp_path, usage, max_cost=0.03)
    assert report.requests == 3
    assert report.stopped == "limit of 0.03 USD reached (cost estimated from the text)"
    shown = report.as_json()
    assert shown["usage"]["prompt_tokens"] is None
    assert shown["usage"]["completion_tokens"] is None
    assert shown["cost"] is None
    assert shown["cost_estimated"] >= 0.03
    assert shown["answers_without_usage"] == 3


def test_max_cost_spends_the_same_with_usage(tmp_path: Path) -> None:
    report = _generate(tmp_path, FULL, max_cost=0.03)
    assert report.requests == 3
    assert report.stopped == "limit of 0.03 USD reached"
    assert report.cost == pytest.approx(3 * (1500 * 1.32 + 3000 * 3.96) / 1e6)
    assert report.as_json()["usage"] == {
        "prompt_tokens": 4500,
        "completion_tokens": 9000,
        "reasoning_tokens": None,
    }


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 7}, Usage(prompt_tokens=7)),
        ({"completion_tokens": 9}, Usage(completion_tokens=9)),
        (
            {"prompt_tokens": 7.0, "completion_tokens": "9"},
            Usage.reported({"prompt_tokens": 7, "completion_tokens": 9}),
        ),
        (
            {"prompt_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 0}},
            Usage(prompt_tokens=7, reasoning_tokens=0),
        ),
        ({"prompt_tokens": 7, "completion_tokens_details": None}, Usage(prompt_tokens=7)),
    ],
)
def test_each_count_is_known_or_unknown_by_itself(usage: Any, expected: Usage) -> None:
    assert Usage.reported(usage) == expected


def test_zeros_of_stored_answers_are_unknown_where_there_is_text() -> None:
    stored = {
        "text": "[]",
        "reasoning": "hm",
        "model": "m",
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "reasoning_tokens": 0},
    }
    assert Completion.model_validate(stored).usage == Usage()
    counted = {**stored, "reasoning": None, "usage": {"prompt_tokens": 5, "reasoning_tokens": 0}}
    assert Completion.model_validate(counted).usage == Usage(prompt_tokens=5, reasoning_tokens=0)


def test_sums_are_unknown_at_least_and_estimated() -> None:
    messages = [{"role": "user", "content": "问" * 100}]
    known = Completion(text="[]", model="m", usage=Usage(prompt_tokens=10, completion_tokens=20))
    tokens = Tokens().plus(messages, known).plus(messages, Completion(text="答" * 50, model="m"))
    assert tokens.total == Usage()
    assert tokens.at_least == Usage(prompt_tokens=10, completion_tokens=20)
    assert tokens.unreported == 1
    assert tokens.estimated.prompt_tokens is not None
    assert tokens.estimated.prompt_tokens >= 110
    assert tokens.estimated.completion_tokens == 20 + token_count("答" * 50) + REASONING_PER_ANSWER
    assert Price(1, 1, "USD").of(tokens.total) is None


def test_reasoning_that_is_shown_is_estimated_from_its_text() -> None:
    shown = Completion(text="", reasoning="想" * 30, model="m")
    assert estimated_usage([], shown).completion_tokens == token_count("想" * 30)


@pytest.mark.parametrize("wrong", [math.nan, 0, -1, math.inf, "1"])
def test_an_impossible_max_cost_is_refused_before_the_first_request(
    wrong: Any, tmp_path: Path
) -> None:
    model = ScriptedModel(lambda *_: answer_with(entry(NAMES[0])))
    with pytest.raises(ConfigError, match="pass an amount above 0"):
        generate_with(model, tmp_path, [rivers()], max_cost=wrong)
    assert model.requests == []


def test_max_cost_without_a_price_names_the_setting(tmp_path: Path) -> None:
    model = ScriptedModel(lambda *_: answer_with(entry(NAMES[0])))
    with pytest.raises(ConfigError, match=r"generation: \{price: \{prompt: "):
        generate_with(model, tmp_path, [rivers()], max_cost=1.0)
    assert model.requests == []


def test_the_price_in_the_settings_wins() -> None:
    price = {"prompt": 1, "completion": 2, "currency": "CNY"}
    settings = parse_settings({"generation": {"price": price}}, "clm.yaml")
    assert price_of(settings) == Price(1, 2, "CNY")


@pytest.mark.parametrize("wrong", [{"prompt": -1, "completion": 2}, {"prompt": 1}])
def test_a_wrong_price_is_one_line(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"generation\.price"):
        parse_settings({"generation": {"price": wrong}}, "clm.yaml")
