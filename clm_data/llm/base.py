"""The interface of chat models.

A model raises subclasses of :class:`~clm_data.errors.ChatError` if a request fails, and
:class:`~clm_data.errors.UserError` if the user has to fix something first (a key, a balance).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationInfo, field_validator

from clm_data.records import Frozen

_MAX_DIGITS = 12
"""A token count with more digits is not one."""

Message = dict[str, str]
"""``{"role": "user" | "assistant", "content": text}``."""


class Usage(Frozen):
    """Tokens of one answer as counted by the endpoint.

    None means unknown: the endpoint did not report the count, or reported something else than a
    count. It never means 0, and the sum of an unknown and a known count is unknown.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    """Tokens of the answer, reasoning included."""
    reasoning_tokens: int | None = None

    @classmethod
    def reported(cls, usage: Any) -> Usage:
        """Read the ``usage`` of a response, whatever it is; what is not a count is unknown."""
        values = usage if isinstance(usage, Mapping) else {}
        details = values.get("completion_tokens_details")
        return cls(
            prompt_tokens=_count(values.get("prompt_tokens")),
            completion_tokens=_count(values.get("completion_tokens")),
            reasoning_tokens=_count(
                details.get("reasoning_tokens") if isinstance(details, Mapping) else None
            ),
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=_sum(self.prompt_tokens, other.prompt_tokens),
            completion_tokens=_sum(self.completion_tokens, other.completion_tokens),
            reasoning_tokens=_sum(self.reasoning_tokens, other.reasoning_tokens),
        )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _count(value: Any) -> int | None:
    """A count in any JSON form (3, 3.0, "3"); None for anything else, such as -1 or 2.5."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value) < _MAX_DIGITS else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 10**_MAX_DIGITS else None


class Completion(Frozen):
    """One answer of a model."""

    text: str
    """The answer without its reasoning."""
    reasoning: str | None = None
    """The reasoning, which is stored and never sent back; None if there is none."""
    finish_reason: str | None = None
    """``stop``, or ``length`` if the answer was cut off at the token limit."""
    model: str
    """Name of the model as given by the endpoint."""
    usage: Usage = Usage()

    @field_validator("usage")
    @classmethod
    def _without_impossible_zeros(cls, usage: Usage, info: ValidationInfo) -> Usage:
        """Make counts unknown that are 0 for a text that is there.

        Some endpoints report 0 for what they do not count, and older versions of this package
        stored missing counts as 0.
        """
        zeros = {
            "prompt_tokens": True,
            "completion_tokens": bool(info.data.get("text") or info.data.get("reasoning")),
            "reasoning_tokens": usage.prompt_tokens == 0 or bool(info.data.get("reasoning")),
        }
        unknown = {name: None for name, wrong in zeros.items() if wrong and _is_zero(usage, name)}
        return usage.model_copy(update=unknown) if unknown else usage


def _is_zero(usage: Usage, name: str) -> bool:
    return bool(getattr(usage, name) == 0)


class ChatModel(Protocol):
    """A model that answers conversations."""

    provider: str
    model: str

    async def complete(
        self, messages: Sequence[Message], max_tokens: int | None = None
    ) -> Completion:
        """Answer the last message, with at most some tokens (None: the endpoint's own limit).

        Raises:
            ChatError: The request failed; the subclass says whether to retry it.
            UserError: No request can succeed until the user fixes something.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
