"""Sends the requests of a run: with limited concurrency, retries, shared pauses and a budget."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from clm_data.config import GenerationSettings
from clm_data.errors import (
    ChatError,
    PermanentError,
    RateLimitError,
    StoreError,
    TransientError,
    UserError,
)
from clm_data.generation.journal import Journal
from clm_data.generation.reasons import Failure
from clm_data.generation.tokens import Tokens
from clm_data.llm import Price
from clm_data.llm.base import ChatModel, Completion, Message
from clm_data.store import Dialogue, NewRequest, RequestOutcome

_MAX_BACKOFF = 60.0
"""Seconds."""
_LONG_WAIT = 1.0
"""Seconds; shorter waits are not reported."""
_LONGER_ANSWERS = 2
"""How often the token limit of an answer that was cut off is doubled."""


class HaltedError(Exception):
    """The run sends no more requests; :attr:`ModelClient.stop_reason` says why."""


@dataclass(frozen=True)
class Budget:
    """Limits of one run.

    Attributes:
        max_requests: Maximum number of requests, retries included; None: no limit.
        max_cost: Maximum cost in the currency of ``price``; None: no limit.
        price: Price of the model; required for ``max_cost``.
        expected_cost: Expected cost of a request, used until the first answer arrives.
    """

    max_requests: int | None = None
    max_cost: float | None = None
    price: Price | None = None
    expected_cost: float = 0.0

    def limit_reached(self, *, sent: int, in_flight: int, tokens: Tokens) -> str | None:
        """Why no further request may be sent; None if one may.

        Args:
            sent: Requests sent so far.
            in_flight: Requests sent and not answered yet.
            tokens: Tokens of the answers received; what is not reported is estimated.
        """
        if self.max_requests is not None and sent >= self.max_requests:
            return f"limit of {self.max_requests} requests reached"
        if self.max_cost is None or self.price is None:
            return None
        spent = self.price.of(tokens.estimated) or 0.0
        each = spent / tokens.answers if tokens.answers else self.expected_cost
        # Requests in flight will cost too. The first request is always sent.
        if spent >= self.max_cost or (in_flight and spent + (in_flight + 1) * each > self.max_cost):
            note = " (cost estimated from the text)" if tokens.unreported else ""
            return f"limit of {self.max_cost:g} {self.price.currency} reached{note}"
        return None


class ModelClient:
    """Sends all requests of one run and counts them.

    Args:
        journal: Records each request before it is sent, and each answer before it is parsed.
        model: The chat model.
        settings: ``concurrency`` and ``attempts`` are used.
        budget: Limits of the run.
        backoff: Seconds before the first retry; doubles with each failure.

    Attributes:
        stop_reason: Why the run sends no more requests; None while it does.
        error: The error that stopped the run, if the user has to fix something first.
        tokens: Tokens of the answers.
        failures: The requests that failed, those that were repeated included.
        on_wait: Called with domain, reason and seconds when requests have to wait.
        requests: Number of requests by domain, retries included.
        answers: Number of answers by domain.
        cut_off: Number of answers that were cut off at the token limit.
        rate_limits: Number of responses with status 429.
        retries: Number of requests that were repeated.
    """

    def __init__(
        self,
        journal: Journal,
        model: ChatModel,
        settings: GenerationSettings,
        budget: Budget,
        *,
        backoff: float = 1.0,
    ) -> None:
        self._journal = journal
        self._model = model
        self._attempts = settings.attempts
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._pause = _SharedPause()
        self._budget = budget
        self._backoff = backoff
        self._max_pause = settings.max_pause
        self._max_tokens = settings.max_tokens
        self._halted = asyncio.Event()
        self._in_flight = 0
        self.stop_reason: str | None = None
        self.error: UserError | None = None
        self.tokens = Tokens()
        self.failures: list[Failure] = []
        self.on_wait: Callable[[str, str, float], None] = lambda *_: None
        self._announced_until = 0.0
        self.requests: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.cut_off = 0
        self.rate_limits = 0
        self.retries = 0

    async def complete(self, dialogue: Dialogue, turn: int, messages: list[Message]) -> Completion:
        """Record and send a request, retry it on temporary failures, and store the answer.

        Raises:
            HaltedError: The run sends no more requests; the turn stays open.
            RateLimitError: All attempts were rate-limited; the turn stays open.
            TransientError: All attempts failed; the turn stays open.
            PermanentError: The endpoint refuses to answer this request.
        """
        request_id: int | None = None
        failures = refusals = 0
        limit, longest = self._max_tokens, (self._max_tokens or 0) * 2**_LONGER_ANSWERS
        cut: Completion | None = None
        while True:
            try:
                async with self._slots:
                    await self._pause.wait()
                    with self._within_budget(dialogue.domain):
                        if request_id is None:
                            request = NewRequest(dialogue.id, turn, messages)
                            request_id = await self._journal.write(request)
                        answer = await self._send(dialogue, turn, messages, limit)
                if answer.finish_reason == "length" and limit is not None and limit < longest:
                    cut, limit = answer, limit * 2
                    self.retries += 1
                    continue
                return await self._stored(request_id, answer)
            except RateLimitError as error:
                refusals += 1
                last: RateLimitError | TransientError = error
                wait = self._wait_after(refusals, error.retry_after)
            except TransientError as error:
                failures += 1
                last = error
                wait = self._wait_after(failures)
            except StoreError as error:
                self.fail(error)
                raise HaltedError from error
            except (PermanentError, HaltedError) as error:
                return await self._given_up(request_id, error, cut)
            if max(failures, refusals) >= self._attempts or self.stop_reason is not None:
                return await self._given_up(request_id, last, cut)
            self.retries += 1
            self._announce(dialogue.domain, last, wait)
            await self._sleep(wait)

    async def _given_up(
        self, request_id: int | None, error: Exception, cut: Completion | None
    ) -> Completion:
        """Store and return the answer that was cut off, if there is one, else raise the error."""
        if cut is not None:
            return await self._stored(request_id, cut)
        if not isinstance(error, HaltedError):
            await self._settle(request_id, error=str(error))
        raise error

    async def _stored(self, request_id: int | None, answer: Completion) -> Completion:
        await self._settle(request_id, completion=answer.model_dump())
        return answer

    def fail(self, error: UserError) -> None:
        """Send no more requests because of an error that the user has to fix first."""
        self.error = self.error or error
        self._stop(str(error))

    async def _sleep(self, seconds: float) -> None:
        """Wait, but no longer than the run sends requests."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._halted.wait()

    def _stop(self, reason: str) -> None:
        """Send no more requests; those in flight are awaited, and nothing else is."""
        self.stop_reason = self.stop_reason or reason
        self._halted.set()
        self._pause.end()

    async def _settle(self, request_id: int | None, **outcome: Any) -> None:
        if request_id is not None:
            await self._journal.write(RequestOutcome(request_id, **outcome))

    @contextmanager
    def _within_budget(self, domain: str) -> Iterator[None]:
        """Check the budget and count the request in one step, as other requests are waiting."""
        if self.stop_reason is None:
            self.stop_reason = self._budget.limit_reached(
                sent=self.requests.total(),
                in_flight=self._in_flight,
                tokens=self.tokens,
            )
        if self.stop_reason is not None:
            raise HaltedError
        self.requests[domain] += 1
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    @property
    def estimated_cost(self) -> float | None:
        """Cost so far, estimated where counts are missing; None if the price is not known."""
        price = self._budget.price
        return None if price is None else price.of(self.tokens.estimated)

    def _announce(self, domain: str, reason: Exception, seconds: float) -> None:
        """Report a wait, unless an earlier one that was reported lasts about as long."""
        end = asyncio.get_running_loop().time() + seconds
        if seconds >= _LONG_WAIT and end > self._announced_until + _LONG_WAIT:
            self._announced_until = end
            self.on_wait(domain, str(reason), seconds)

    async def _send(
        self,
        dialogue: Dialogue,
        turn: int,
        messages: Sequence[Message],
        max_tokens: int | None,
    ) -> Completion:
        """Send a request once, and count its answer or refusal."""
        sent_at = asyncio.get_running_loop().time()
        options = {} if max_tokens is None else {"max_tokens": max_tokens}
        try:
            completion = await self._model.complete(messages, **options)
        except (ChatError, UserError) as error:
            place = f"{dialogue.domain}/{dialogue.number}/{turn}"
            self.failures.append(Failure(dialogue.domain, place, error))
            if isinstance(error, RateLimitError):
                self.rate_limits += 1
                self._pause_all(sent_at, error.retry_after)
            if isinstance(error, UserError):
                self.fail(error)
                raise HaltedError from error
            raise
        self._pause.end_if_sent_later(sent_at)
        self.answers[dialogue.domain] += 1
        self.tokens = self.tokens.plus(messages, completion)
        self.cut_off += completion.finish_reason == "length"
        return completion

    def _pause_all(self, sent_at: float, retry_after: float | None) -> None:
        if retry_after is not None and retry_after > self._max_pause:
            over = datetime.now().astimezone() + timedelta(seconds=retry_after)
            self._stop(
                f"the endpoint asks for a pause of {retry_after:.0f} s; run the command again "
                f"after {over:%Y-%m-%d %H:%M}, or set generation.max_pause to wait that long"
            )
            return
        self._pause.start(sent_at, self._wait_after(1, retry_after))

    def _wait_after(self, failures: int, retry_after: float | None = None) -> float:
        if retry_after is not None:
            return retry_after
        return min(_MAX_BACKOFF, self._backoff * 2.0 ** (failures - 1))


class _SharedPause:
    """A pause of all requests after one of them was rate-limited.

    It ends early if a request that was sent *after* the rate-limited one is answered: then the
    endpoint limits only some requests, and the others need not wait.
    """

    def __init__(self) -> None:
        self._until = 0.0
        self._refused_at = 0.0
        self._ended_early = asyncio.Event()

    async def wait(self) -> None:
        """Return when there is no pause."""
        loop = asyncio.get_running_loop()
        while (left := self._until - loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._ended_early.wait()
            except TimeoutError:
                continue

    def start(self, sent_at: float, seconds: float) -> None:
        """Start or extend the pause because a request sent at ``sent_at`` was rate-limited."""
        self._until = max(self._until, asyncio.get_running_loop().time() + seconds)
        self._refused_at = max(self._refused_at, sent_at)
        self._ended_early.clear()

    def end_if_sent_later(self, sent_at: float) -> None:
        """End the pause if an answered request was sent after the last rate-limited one."""
        if sent_at > self._refused_at:
            self.end()

    def end(self) -> None:
        """End the pause now."""
        self._until = 0.0
        self._ended_early.set()
