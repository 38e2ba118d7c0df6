"""Prompts as the user's turn of a conversation, as instruct models are trained to read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clm_data.eval.errors import EditError

_QUESTION, _ANSWER = "clmquestion", "clmanswer"
_DATE = "26 Jul 2024"
"""The date in templates that show one, so that numbers do not depend on the day: Llama-3.1's."""


@dataclass(frozen=True)
class ChatTurn:
    """What a chat template puts around a prompt.

    Attributes:
        before: The text before the prompt, with special tokens, and the template's own system text
            if it has a default.
        after: The text between the prompt and the answer, which is the assistant's turn.
    """

    before: str
    after: str


def chat_turn(tokenizer: Any) -> ChatTurn:
    """What a tokenizer's chat template puts around a prompt without a system message.

    The conversation of a question and its answer is rendered as a whole, and everything before the
    answer is what the model reads. So a template that puts an empty chain of thought before answers
    does it here, too.

    Args:
        tokenizer: A transformers tokenizer.

    Raises:
        EditError: There is no template, it does not show both texts, or it shows today's date.
    """
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        raise EditError(
            "the tokenizer has no chat template; use an instruct model, or the protocol native"
        )
    return _rendered(tokenizer, str(template))


@lru_cache(maxsize=8)
def _rendered(tokenizer: Any, template: str) -> ChatTurn:
    """See `chat_turn`; the template is the tokenizer's, for the cache."""
    if "strftime_now" in template and "date_string" not in template:
        raise EditError(
            "the tokenizer's chat template shows today's date, so that results depend on the day; "
            "use the protocol native"
        )
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, date_string=_DATE)
    except Exception as error:  # whatever a template raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EditError(f"the tokenizer's chat template cannot be used: {reason}") from error
    before, question, rest = str(text).partition(_QUESTION)
    after, answer, _ = rest.partition(_ANSWER)
    if not question or not answer:
        raise EditError(
            "the tokenizer's chat template does not show a question and its answer; use the "
            "protocol native"
        )
    return ChatTurn(before, after)
