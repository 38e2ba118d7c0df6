"""A real HTTP server on loopback with OpenAI's chat API and optional faults.

In a test::

    with ChatServer(OfflineModel(), Faults(seed=1)) as server:
        ...  # server.url is the base_url; server.requests are the requests received

``python tests/helpers/chat_server.py --seed 1`` runs the server as a separate process that prints
its address and serves the bundled bank until it is stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

from aiohttp import web

from clm_data.llm.base import ChatModel, Completion, Message
from clm_data.records import canonical_json

Answer = Callable[[Sequence[Message]], Completion]
KINDS = ("429", "500", "503", "hang", "cut", "garbage", "truncated")


@dataclass(frozen=True)
class Faults:
    """Faults that depend only on the requests, not on their order.

    Attributes:
        seed: Random seed for the choice of requests and faults.
        share: Share of attempts that fail.
        kinds: Possible faults; see :meth:`ChatServer._fail`.
        retry_after: Seconds in the ``Retry-After`` header of a 429.
        hang: Seconds that a hanging request takes.
        times: Maximum number of failing attempts per conversation.
    """

    seed: int = 0
    share: float = 0.3
    kinds: tuple[str, ...] = KINDS
    retry_after: float = 0.05
    hang: float = 5.0
    times: int = 2

    def of(self, conversation: str, attempt: int) -> str | None:
        """The fault of an attempt (from 0) at a conversation; None if it succeeds."""
        text = f"{self.seed}/{conversation}/{attempt}"
        value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
        if attempt >= self.times or value % 1000 >= 1000 * self.share:
            return None
        return self.kinds[value // 1000 % len(self.kinds)]


@dataclass
class ReceivedRequest:
    """A request that the server received."""

    body: dict[str, Any]
    headers: dict[str, str]
    fault: str | None

    @property
    def conversation(self) -> str:
        """Digest of the messages."""
        return digest(self.body["messages"])


def digest(messages: Sequence[Message]) -> str:
    """The sha256 of messages, which identifies a conversation."""
    return hashlib.sha256(canonical_json(list(messages)).encode()).hexdigest()


@dataclass
class ChatServer:
    """Serves a model, or a function of the messages, on 127.0.0.1.

    Attributes:
        model: The model, or function of the messages, that answers.
        faults: Faults to simulate.
        latency: Seconds before each answer.
        port: Port; 0 chooses a free one.
        requests: The requests received.
    """

    model: ChatModel | Answer
    faults: Faults | None = None
    latency: float = 0.0
    port: int = 0
    requests: list[ReceivedRequest] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    """Number of complete answers by conversation, which a provider would bill."""

    @property
    def url(self) -> str:
        """The base_url."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ChatServer:
        self._attempts: Counter[str] = Counter()
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(started)))
        self._thread.start()
        if not started.wait(30):
            raise RuntimeError("the chat server did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        conversation = digest(body["messages"])
        attempt = self._attempts[conversation]
        self._attempts[conversation] += 1
        fault = self.faults.of(conversation, attempt) if self.faults else None
        self.requests.append(ReceivedRequest(body, dict(request.headers), fault))
        if self.latency:
            await asyncio.sleep(self.latency)
        answer = json.dumps(as_openai(await self._answer(body["messages"])), ensure_ascii=False)
        if fault is not None:
            return await self._fail(fault, request, answer.encode())
        self.answered[conversation] += 1
        return web.json_response(text=answer)

    async def _answer(self, messages: Sequence[Message]) -> Completion:
        if hasattr(self.model, "complete"):
            return await cast(Awaitable[Completion], self.model.complete(messages))
        return cast(Answer, self.model)(messages)

    async def _fail(self, kind: str, request: web.Request, answer: bytes) -> web.StreamResponse:
        faults = cast(Faults, self.faults)
        if kind == "429":
            headers = {"Retry-After": f"{faults.retry_after:g}"}
            return web.json_response(_error("slow down"), status=429, headers=headers)
        if kind == "garbage":
            return web.Response(text="upstream connect error", content_type="text/plain")
        if kind == "truncated":
            return web.Response(body=answer[: len(answer) // 2], content_type="application/json")
        if kind == "hang":
            await asyncio.sleep(faults.hang)
            return web.json_response(_error("too late"), status=504)
        if kind == "cut":
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            response.content_length = len(answer)
            await response.prepare(request)
            await response.write(answer[: len(answer) // 2])
            cast(asyncio.Transport, request.transport).abort()
            return response
        return web.json_response(_error(f"fault {kind}"), status=int(kind))


def as_openai(completion: Completion) -> dict[str, Any]:
    """The response body of an endpoint for a completion."""
    usage = completion.usage
    message = {"role": "assistant", "content": completion.text}
    if completion.reasoning is not None:
        message["reasoning_content"] = completion.reasoning
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": completion.model,
        "choices": [
            {"index": 0, "message": message, "finish_reason": completion.finish_reason or "stop"}
        ],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": (usage.prompt_tokens or 0) + (usage.completion_tokens or 0),
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        },
    }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "test"}}


def main() -> None:
    """Serve the bank until the process is stopped."""
    from clm_data.llm.offline import OfflineModel

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, help="simulate faults with this seed")
    parser.add_argument("--latency", type=float, default=0.0)
    given = parser.parse_args()
    faults = None if given.seed is None else Faults(given.seed)
    with ChatServer(OfflineModel(), faults, given.latency, given.port) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
