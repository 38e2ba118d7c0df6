"""Models behind an endpoint with OpenAI's chat API.

Only ``model`` and ``messages`` are sent: reasoning models accept neither a ``system`` role nor
sampling parameters. The retries of the SDK are disabled; callers decide when to retry.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from clm_data.errors import (
    ChatError,
    CredentialsError,
    PermanentError,
    RateLimitError,
    TransientError,
    UserError,
)
from clm_data.llm.base import Completion, Message, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_THINK = re.compile(r"<think(?:ing)?>(.*?)(?:</think(?:ing)?>|\Z)", re.DOTALL)
_THINK_TAIL = re.compile(r"\A(.*)</think(?:ing)?>", re.DOTALL)
_TEMPORARY = frozenset({408, 409, 425})
"""Temporary 4xx statuses: request timeout, conflict, too early."""
_MAX_MESSAGE = 300
"""Maximum characters of an endpoint's message that are shown to the user."""


class OpenAICompatibleModel:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        provider: Name of the provider.
        model: Name of the model at the provider.
        base_url: Address without ``/chat/completions``.
        key: Sent only as a bearer token; None if no key is needed.
        key_variable: Environment variable of the key, named in error messages.
        timeout: Seconds until the last byte of an answer.
    """

    def __init__(
        self,
        provider: str,
        model: str,
        *,
        base_url: str,
        key: str | None,
        key_variable: str | None,
        timeout: float,
    ) -> None:
        self.provider = provider
        self.model = model
        self._base_url = base_url
        self._key = key
        self._key_variable = key_variable
        self._timeout = timeout
        self._opened: AsyncOpenAI | None = None

    async def complete(self, messages: Sequence[Message]) -> Completion:
        """Send one request.

        Raises:
            RateLimitError: Status 429, with the requested pause.
            TransientError: A timeout, a broken connection, a 5xx status, or an invalid body.
            PermanentError: Any other status.
            CredentialsError: Status 401 or 403.
            UserError: Status 402: the balance is used up.
        """
        import aiohttp
        import openai

        try:
            async with asyncio.timeout(self._timeout):
                body = await self._client().post(
                    "/chat/completions",
                    cast_to=object,
                    body={"model": self.model, "messages": list(messages)},
                )
        except openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.message, error.response.headers) from error
        except TimeoutError as error:
            raise TransientError(f"no answer within {self._timeout:g} s") from error
        except ValueError as error:
            raise TransientError("the answer is not complete JSON") from error
        except (openai.OpenAIError, aiohttp.ClientError, OSError) as error:
            reason = self._safe(str(_root(error)) or type(error).__name__)
            raise TransientError(f"connection to {self._base_url} failed: {reason}") from error
        return self._completion(body)

    async def close(self) -> None:
        """Close all connections; a later request opens new ones."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    def _client(self) -> AsyncOpenAI:
        if self._opened is None:
            from openai import AsyncOpenAI, DefaultAioHttpClient

            self._opened = AsyncOpenAI(
                api_key=self._key or "none",
                base_url=self._base_url,
                timeout=self._timeout,
                max_retries=0,
                http_client=DefaultAioHttpClient(timeout=self._timeout),
            )
            # The SDK reads these from environment variables for the OpenAI service.
            self._opened.organization = None
            self._opened.project = None
        return self._opened

    def _completion(self, body: Any) -> Completion:
        if isinstance(body, dict) and body.get("error") and not body.get("choices"):
            raise self._error_in(body["error"])
        try:
            choice = body["choices"][0]
            message = choice["message"]
            content = _text(message.get("content"))
            reasoning = message.get("reasoning_content") or message.get("reasoning")
            text, thought = split_reasoning(content)
            completion = Completion(
                text=text,
                reasoning=_text(reasoning) or thought,
                finish_reason=choice.get("finish_reason"),
                model=str(body.get("model") or self.model),
                usage=_usage(body.get("usage")),
            )
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise TransientError("the answer contains no message") from error
        if completion.finish_reason == "insufficient_system_resource":
            raise TransientError("the endpoint ran out of resources")
        if completion.finish_reason == "content_filter" and not completion.text:
            raise PermanentError("the endpoint's content filter blocked the answer")
        return completion

    def _error_in(self, error: Any) -> ChatError | UserError:
        """The error in a body with status 200; OpenRouter reports upstream failures this way."""
        details = error if isinstance(error, dict) else {"message": error}
        code, message = details.get("code"), str(details.get("message"))
        if isinstance(code, int) and 400 <= code < 600:
            return self._refusal(code, message, {})
        return TransientError(f"the endpoint answered with an error: {self._safe(message)}")

    def _refusal(
        self, status: int, message: str, headers: Mapping[str, str]
    ) -> ChatError | UserError:
        reason = f"HTTP {status}: {self._safe(message)}"
        if status == 429:
            return RateLimitError(reason, retry_after(headers.get("retry-after")))
        if status in (401, 403):
            fix = (
                f"check {self._key_variable}"
                if self._key_variable
                else "it requires a key: use --provider custom and set CLM_DATA_API_KEY"
            )
            return CredentialsError(
                f"{self.provider} ({self._base_url}) refused access (HTTP {status}); {fix}"
            )
        if status == 402:
            return UserError(
                f"{self.provider}: the balance is used up (HTTP 402); "
                "top it up, then run the command again"
            )
        if status >= 500 or status in _TEMPORARY:
            return TransientError(reason)
        return PermanentError(reason)

    def _safe(self, message: str) -> str:
        """An endpoint's message as one line of limited length, without the key."""
        line = " ".join(message.split())
        if self._key:
            line = line.replace(self._key, "***")
        return line[:_MAX_MESSAGE]


def split_reasoning(text: str) -> tuple[str, str | None]:
    """Separate an answer from ``<think>`` reasoning in it.

    The opening tag may be missing (in DeepSeek-R1 it is part of the chat template), and so may the
    closing tag (if the answer was cut off).

    Returns:
        The answer, and the reasoning or None.
    """
    thoughts = [match.group(1) for match in _THINK.finditer(text)]
    rest = _THINK.sub("", text)
    if tail := _THINK_TAIL.match(rest):
        thoughts.append(tail.group(1))
        rest = rest[tail.end() :]
    if not thoughts:
        return text, None
    return rest.strip(), "\n".join(thought.strip() for thought in thoughts) or None


def retry_after(value: str | None) -> float | None:
    """Parse a ``Retry-After`` header, a number or an HTTP date (RFC 9110, 10.2.3), to seconds.

    Returns:
        The seconds, at least 0; None if there is no header or it cannot be parsed.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None


def _root(error: BaseException) -> BaseException:
    """The original error; the SDK reports a refused connection as a timeout."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _text(content: Any) -> str:
    """The text of a message, which may be a list of parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("completion_tokens_details")
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        reasoning_tokens=_count((details or {}).get("reasoning_tokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
