"""Models behind an endpoint with OpenAI's chat API.

Only ``model``, ``messages`` and, if it is set, ``max_tokens`` are sent: reasoning models accept
neither a ``system`` role nor sampling parameters. Callers decide when to retry.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from clm_data.errors import ModeratedError, PermanentError, TransientError
from clm_data.llm.base import Completion, Message, Usage
from clm_data.llm.failures import error_in
from clm_data.llm.transport import Endpoint, Transport

_THINK = re.compile(r"<think(?:ing)?>(.*?)(?:</think(?:ing)?>|\Z)", re.DOTALL)
_THINK_TAIL = re.compile(r"\A(.*)</think(?:ing)?>", re.DOTALL)
_FILTERED = frozenset(
    {"content_filter", "sensitive", "refusal", "safety", "recitation", "blocklist", "spii"}
    | {"prohibited_content", "content_filtered", "guardrail_intervened"}
)
_TOOLS = frozenset({"tool_calls", "function_call", "tool_use", "malformed_function_call"})
_FAILED = frozenset(
    {"error", "insufficient_system_resource", "network_error", "abort", "aborted", "cancelled"}
    | {"timeout", "other", "unknown"}
)
"""Values of ``finish_reason`` that say that there is no whole answer, in lower case."""


class OpenAICompatibleModel:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        endpoint: Where it is, and the key.
        model: Name of the model at the provider.
        timeout: Seconds until the last byte of an answer.
    """

    def __init__(self, endpoint: Endpoint, model: str, *, timeout: float) -> None:
        self.provider = endpoint.provider
        self.model = model
        self._transport = Transport(endpoint, timeout)

    async def complete(
        self, messages: Sequence[Message], max_tokens: int | None = None
    ) -> Completion:
        """Send one request.

        Raises:
            RateLimitError: Too many requests, with the requested pause.
            TransientError: A timeout, a broken connection, an overload, or a body with no answer.
            PermanentError: The endpoint refuses this request, or answers without an answer.
            UserError: The endpoint refuses every request: the key, balance, model or address.
        """
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        if max_tokens is not None:
            body["max_tokens"] = max_tokens
        return self._completion(await self._transport.post("/chat/completions", body))

    async def close(self) -> None:
        """Close all connections; a later request opens new ones."""
        await self._transport.close()

    def _completion(self, body: Any) -> Completion:
        try:
            choice = body["choices"][0]
            message = choice.get("message")
            self._check_choice(choice, message if isinstance(message, dict) else {})
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
        if not completion.text and not completion.reasoning:
            raise self._empty(completion.finish_reason)
        return completion

    def _check_choice(self, choice: Mapping[str, Any], message: Mapping[str, Any]) -> None:
        """Raise the failure that a choice reports in place of an answer."""
        if error := choice.get("error") or message.get("error"):
            code, words, status = error_in({"error": error}) or ("", str(error), None)
            raise self._transport.failure(status or 500, code, words)
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal.strip():
            raise ModeratedError(f"the model refused: {self._transport.safe(refusal)}")
        reason = str(choice.get("finish_reason") or "").lower()
        if reason in _FILTERED:
            raise ModeratedError(f"the endpoint's content filter blocked the answer ({reason})")
        if reason in _TOOLS:
            raise PermanentError(f"the model called a tool in place of answering ({reason})")
        if reason in _FAILED:
            raise TransientError(f"the endpoint could not finish the answer ({reason})")

    @staticmethod
    def _empty(reason: str | None) -> TransientError | PermanentError:
        if reason == "length":
            return PermanentError(
                "the answer was cut off at the token limit before its first word; raise "
                "generation.max_tokens"
            )
        return TransientError(f"the answer is empty (finish_reason {reason or 'missing'})")


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
