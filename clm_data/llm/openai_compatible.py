"""Models behind an endpoint with OpenAI's chat API.

Only ``model``, ``messages`` and, if it is set, ``max_tokens`` are sent: reasoning models accept
neither a ``system`` role nor sampling parameters. Callers decide when to retry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clm_data.errors import ModeratedError, PermanentError, TransientError
from clm_data.llm.base import Completion, Message, Usage
from clm_data.llm.failures import error_in
from clm_data.llm.transport import Endpoint, Transport
from clm_data.reasoning import answer_in_reasoning, split_reasoning

_FILTERED = frozenset(
    {"content_filter", "sensitive", "refusal", "safety", "recitation", "blocklist", "spii"}
    | {"prohibited_content", "content_filtered", "guardrail_intervened"}
)
_TOOLS = frozenset({"tool_calls", "function_call", "tool_use", "malformed_function_call"})
_CUT_OFF = frozenset(
    {"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit"}
    | {"model_context_window_exceeded", "context_length_exceeded"}
)
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
            content = message.get("content")
            text, thought = split_reasoning(_text(content))
            reasoning = _reasoning(message) or _text(content, thoughts=True) or thought
            completion = Completion(
                text=text if text.strip() else answer_in_reasoning(reasoning or ""),
                reasoning=reasoning,
                finish_reason=_finish_reason(choice),
                model=str(body.get("model") or self.model),
                usage=Usage.reported(body.get("usage")),
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


def _reasoning(message: Mapping[str, Any]) -> str:
    """The reasoning that a message keeps apart from its content."""
    for key in ("reasoning_content", "reasoning", "thinking", "reasoning_details"):
        if text := _text(message.get(key)) or _text(message.get(key), thoughts=True):
            return text
    return ""


def _finish_reason(choice: Mapping[str, Any]) -> str | None:
    """Why an answer ended; ``length`` by whatever name an endpoint gives it."""
    reason = choice.get("finish_reason")
    return "length" if str(reason).lower() in _CUT_OFF else reason


def _text(content: Any, *, thoughts: bool = False) -> str:
    """The text of a message, which may be a list of parts; or of its parts with reasoning."""
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list):
        return "" if content is None or thoughts else str(content)
    return "".join(
        part if isinstance(part, str) else _text_of_part(part)
        for part in content
        if thoughts == _is_thought(part)
    )


def _is_thought(part: Any) -> bool:
    kind = str(part.get("type") or "").lower() if isinstance(part, Mapping) else ""
    return any(word in kind for word in ("reason", "think", "thought"))


def _text_of_part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return ""
    for key in ("text", "thinking", "reasoning", "content", "summary"):
        value = part.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list):
            return "".join(v if isinstance(v, str) else str(v.get("text") or "") for v in value)
    return ""
