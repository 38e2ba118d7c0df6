"""The page on real models shows what `generate` prints, and names every reason and exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from helpers.paths import ROOT
from helpers.tutorials import blocks_of

from clm_data.cli.generate import _show_generation
from clm_data.cli.generate_progress import generation_progress
from clm_data.codes import CODES
from clm_data.errors import RateLimitError, TransientError
from clm_data.generation import DomainReport, GenerationReport, Progress
from clm_data.generation.reasons import _FAILURES, Failure, Reason, reasons_for_failure
from clm_data.generation.tokens import Tokens
from clm_data.llm import Price
from clm_data.llm.base import Usage

PAGE = ROOT / "docs" / "how-to" / "real-model.md"
_USAGE = Usage(prompt_tokens=31_200, completion_tokens=10_000, reasoning_tokens=6_400)
_TOKENS = Tokens(answers=7, total=_USAGE, at_least=_USAGE, estimated=_USAGE)
_RATE = "HTTP 429: too many requests; code rate_limit"
_BUSY = "HTTP 503: overloaded"


def rejected(code: str, count: int, example: str) -> Reason:
    return Reason(code, CODES[code].en, count, example)


def report() -> GenerationReport:
    failures = [
        Failure("physics", "physics/0/1", RateLimitError(_RATE)),
        Failure("physics", "physics/0/2", RateLimitError(_RATE)),
        Failure("physics", "physics/1/0", TransientError(_BUSY)),
    ]
    near, empty = "'湖水的颜色是' is 93 % similar to clm-9e8d7c6b5a40", "en.target_new: is empty"
    physics = DomainReport(
        domain="physics", target=30, entries=12, new=12, read=15, requests=9, answers=7,
        stopped="limit of 9 requests reached",
        rejections=(
            rejected("near-duplicate", 2, f"clm-0a1b2c3d4e5f: zh.prompt: {near}"),
            rejected("empty-field", 1, f"clm-5f4e3d2c1b0a: {empty}"),
        ),
        failures=reasons_for_failure(failures),
    )  # fmt: skip
    price = Price(1.32, 3.96, "USD")
    return GenerationReport((physics,), _TOKENS, price, rate_limits=2, retries=3)


def shown_on_the_page() -> Iterator[str]:
    for block in blocks_of(PAGE):
        if block.language == "text":
            yield from block.text.splitlines()


def test_the_lines_on_the_page_are_what_generate_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = Progress("physics", 12, 30, 9, True, 3, _TOKENS, cost=0.08, seconds_left=120.0)
    wait = Progress("physics", 12, 30, 9, False, waiting=_RATE, wait=30.0)
    with generation_progress() as show:
        show(at)
        show(wait)
    _show_generation(report())
    printed = capsys.readouterr()
    lines = [*printed.err.splitlines(), *printed.out.splitlines()]
    shown = list(shown_on_the_page())
    assert len(shown) > 10
    assert [line for line in shown if line not in lines] == []


def test_the_page_names_every_reason_for_a_failed_request_and_every_exit_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", page, re.MULTILINE))
    for _, code, meaning in _FAILURES:
        assert rows[code] == meaning
    unknown = reasons_for_failure([Failure("physics", "physics/0/0", ValueError("x"))])[0]
    assert rows[unknown.code] == unknown.meaning
    codes = re.findall(r"^\| (\d+) \| ", page, re.MULTILINE)
    assert codes == ["0", "1", "2", "130"]
