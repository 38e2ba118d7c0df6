"""Sends requests: so many at a time, one pause for all, again where it may help, within limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clm_data.config import GenerationSettings
from clm_data.errors import (
    PermanentError,
    RateLimitError,
    TransientError,
    UserError,
)
from clm_data.generation.journal import Journal
from clm_data.llm import Price
from clm_data.llm.base import ChatModel, Completion, Message, Usage
from clm_data.store import Dialogue, NewRequest, RequestOutcome

_LONGEST_BACKOFF = 60.0
_LONGEST_PAUSE = 600.0
"""Seconds; who is asked to wait longer than this had better run the command again later."""


class HaltedError(Exception):
    """Nothing more is sent in this run; :attr:`Asker.halted` says why."""


class Asker:
    """All requests of one run go through here.

    Args:
        journal: Every request is recorded there before it is sent, every answer before it is read.
        model: Who is asked.
        settings: ``concurrency`` and ``attempts``.
        max_requests: Requests to send at most, repetitions included.
        max_cost: Money to spend at most, in the currency of ``price``.
        price: Of the model; needed for ``max_cost``.
        expected_cost: Of one request, before the first answer tells.
        backoff: Seconds before the first repetition; doubles with each.
    """

    def __init__(
        self,
        journal: Journal,
        model: ChatModel,
        settings: GenerationSettings,
        *,
        max_requests: int | None = None,
        max_cost: float | None = None,
        price: Price | None = None,
        expected_cost: float = 0.0,
        backoff: float = 1.0,
    ) -> None:
        self._journal = journal
        self._model = model
        self._attempts = settings.attempts
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._pause = _Pause()
        self._max_requests = max_requests
        self._max_cost = max_cost
        self._price = price
        self._expected_cost = expected_cost
        self._backoff = backoff
        self._in_flight = 0
        self.halted: str | None = None
        self.error: UserError | None = None
        """What the user must mend before anything more can be asked."""
        self.usage = Usage()
        self.requests: Counter[str] = Counter()
        """By domain."""
        self.answers: Counter[str] = Counter()
        self.rate_limits = 0
        self.retries = 0

    async def ask(self, dialogue: Dialogue, turn: int, messages: list[Message]) -> Completion:
        """Record, send, repeat where it may help, and keep the answer.

        Raises:
            HaltedError: Nothing more is sent; the turn stays open.
            RateLimitError: Refused as often as may be tried; the turn stays open.
            TransientError: Failed as often as may be tried; the turn stays open.
            PermanentError: The endpoint will not answer this.
        """
        request_id: int | None = None
        failures = refusals = 0
        while True:
            try:
                async with self._slots:
                    await self._pause.over()
                    with self._within_limits(dialogue.domain):
                        if request_id is None:
                            request = NewRequest(dialogue.id, turn, messages)
                            request_id = await self._journal.write(request)
                        completion = await self._send(dialogue.domain, messages)
                await self._settle(request_id, completion=completion.model_dump())
                return completion
            except RateLimitError as error:
                refusals += 1
                last: RateLimitError | TransientError = error
                wait = self._wait_after(refusals, error.retry_after)
            except TransientError as error:
                failures += 1
                last = error
                wait = self._wait_after(failures)
            except PermanentError as error:
                await self._settle(request_id, error=str(error))
                raise
            if max(failures, refusals) >= self._attempts:
                await self._settle(request_id, error=str(last))
                raise last
            self.retries += 1
            await asyncio.sleep(wait)

    async def _settle(self, request_id: int | None, **outcome: Any) -> None:
        if request_id is not None:
            await self._journal.write(RequestOutcome(request_id, **outcome))

    @contextmanager
    def _within_limits(self, domain: str) -> Iterator[None]:
        """Count a request at the moment its limits are checked: others wait to be sent too."""
        self._check_limits()
        self.requests[domain] += 1
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _send(self, domain: str, messages: Sequence[Message]) -> Completion:
        """One call; its answer or refusal is counted."""
        sent_at = asyncio.get_running_loop().time()
        try:
            completion = await self._model.complete(messages)
        except RateLimitError as error:
            self.rate_limits += 1
            self._refused(sent_at, error.retry_after)
            raise
        except UserError as error:
            self.error = self.error or error
            self.halted = self.halted or str(error)
            raise HaltedError from error
        self._pause.served(sent_at)
        self.answers[domain] += 1
        self.usage += completion.usage
        return completion

    def _refused(self, sent_at: float, retry_after: float | None) -> None:
        if retry_after is not None and retry_after > _LONGEST_PAUSE:
            self.halted = self.halted or (
                f"the endpoint asks for a pause of {retry_after:.0f} s; run the command again then"
            )
        self._pause.start(sent_at, self._wait_after(1, retry_after))

    def _wait_after(self, failures: int, retry_after: float | None = None) -> float:
        if retry_after is not None:
            return min(retry_after, _LONGEST_PAUSE)
        return min(_LONGEST_BACKOFF, self._backoff * 2.0 ** (failures - 1))

    def _check_limits(self) -> None:
        if self.halted is None:
            self.halted = self._limit_reached()
        if self.halted is not None:
            raise HaltedError

    def _limit_reached(self) -> str | None:
        sent = self.requests.total()
        if self._max_requests is not None and sent >= self._max_requests:
            return f"limit of {self._max_requests} requests reached"
        if self._max_cost is None or self._price is None:
            return None
        spent = self._price.of(self.usage)
        answers = self.answers.total()
        each = spent / answers if answers else self._expected_cost
        # What is in flight will cost too; the first request is always sent.
        if spent >= self._max_cost or (
            self._in_flight and spent + (self._in_flight + 1) * each > self._max_cost
        ):
            return f"limit of {self._max_cost:g} {self._price.currency} reached"
        return None


class _Pause:
    """One pause for all requests.

    It ends early when a request that was sent *after* the refused one is answered: then the
    endpoint refuses some requests, not all, and only the refused ones wait.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._refused_at = 0.0
        self._lifted = asyncio.Event()

    async def over(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._until - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._lifted.wait()
            except TimeoutError:
                continue

    def start(self, sent_at: float, seconds: float) -> None:
        self._until = max(self._until, asyncio.get_running_loop().time() + seconds)
        self._refused_at = max(self._refused_at, sent_at)
        self._lifted.clear()

    def served(self, sent_at: float) -> None:
        if sent_at > self._refused_at:
            self._until = 0.0
            self._lifted.set()
