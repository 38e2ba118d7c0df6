"""What every chat model offers, whatever stands behind it.

A model raises :class:`~clm_data.errors.ChatError` subclasses for what may pass or concerns one
call, and :class:`~clm_data.errors.UserError` for what only the user can mend (a key, a balance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from clm_data.records import Frozen

Message = dict[str, str]
"""``{"role": "user" | "assistant", "content": text}``."""


class Usage(Frozen):
    """Tokens that one answer cost, as the endpoint counts them; 0 where it does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Reasoning included."""
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
    """What was said, without the reasoning."""
    reasoning: str | None = None
    """What was thought first; kept, and never sent back."""
    finish_reason: str | None = None
    """``stop``; ``length`` for an answer cut off at the token limit."""
    model: str
    """The model that answered, as it calls itself."""
    usage: Usage = Usage()


class ChatModel(Protocol):
    """Something that answers a conversation."""

    provider: str
    model: str

    async def complete(self, messages: Sequence[Message]) -> Completion:
        """Answer the last message.

        Raises:
            ChatError: This call failed; the subclass says whether to ask again.
            UserError: No call can succeed until the user mends something.
        """
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...
