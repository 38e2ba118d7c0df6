"""The interface of chat models.

A model raises subclasses of :class:`~clm_data.errors.ChatError` if a request fails, and
:class:`~clm_data.errors.UserError` if the user has to fix something first (a key, a balance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from clm_data.records import Frozen

Message = dict[str, str]
"""``{"role": "user" | "assistant", "content": text}``."""


class Usage(Frozen):
    """Tokens of one answer as counted by the endpoint; 0 if it does not report them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Tokens of the answer, reasoning included."""
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


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
