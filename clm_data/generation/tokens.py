"""Token counts: what endpoints report, and estimates of what they do not.

An endpoint may leave out any count. A missing count is None, never 0, and a sum with a missing
count is None. Limits and prices then work with estimates that are rather too high than too low.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clm_data.config import GenerationSettings
from clm_data.languages import HAN
from clm_data.llm.base import Completion, Message, Usage
from clm_data.records import Frozen

TOKENS_PER_HAN = 1.0
TOKENS_PER_OTHER = 0.4
"""Tokens per character. Rather too many: https://api-docs.deepseek.com/quick_start/token_usage
gives 0.6 and 0.3 as rules of thumb for its own tokenizer; those of other models need more."""
TOKENS_PER_MESSAGE = 4
"""Tokens that mark the start and end of a message."""
TOKENS_PER_ENTRY = 300
"""Rough size of one bilingual entry as JSON."""
REASONING_PER_ANSWER = 2000
"""Rough number of reasoning tokens of an answer whose reasoning is not known."""


class Tokens(Frozen):
    """Tokens of several answers.

    Attributes:
        answers: Number of answers.
        unreported: Number of answers without a count of the tokens sent or received.
        total: Sums of the counts as reported; None if an answer lacks one.
        at_least: Sums of the counts that were reported; None if no answer has one.
        estimated: Sums with an estimate in place of each missing count. Its
            ``reasoning_tokens`` are None.
    """

    answers: int = 0
    unreported: int = 0
    total: Usage = Usage(prompt_tokens=0, completion_tokens=0, reasoning_tokens=0)
    at_least: Usage = Usage()
    estimated: Usage = Usage(prompt_tokens=0, completion_tokens=0)

    def plus(self, messages: Sequence[Message], answer: Completion) -> Tokens:
        """The sums with one more answer, to these messages."""
        usage = answer.usage
        known = usage.prompt_tokens is not None and usage.completion_tokens is not None
        return Tokens(
            answers=self.answers + 1,
            unreported=self.unreported + (not known),
            total=self.total + usage,
            at_least=_sum_of_known(self.at_least, usage),
            estimated=self.estimated + (usage if known else estimated_usage(messages, answer)),
        )


def estimated_usage(messages: Sequence[Message], answer: Completion) -> Usage:
    """The usage of an answer, with an estimate from the text for each missing count.

    Without a count, an answer whose reasoning is not shown is taken to have
    :data:`REASONING_PER_ANSWER` tokens of it, because reasoning is billed whether shown or not.
    """
    sent, received = answer.usage.prompt_tokens, answer.usage.completion_tokens
    if sent is None:
        sent = sum(TOKENS_PER_MESSAGE + token_count(each["content"]) for each in messages)
    if received is None:
        hidden = answer.usage.reasoning_tokens
        if hidden is None:
            hidden = token_count(answer.reasoning) if answer.reasoning else REASONING_PER_ANSWER
        received = token_count(answer.text) + hidden
    return Usage(prompt_tokens=sent, completion_tokens=received)


def expected_usage(sizes: GenerationSettings, prompt_tokens: int) -> Usage:
    """Average tokens of a turn, which sends the first prompt and all earlier answers."""
    answer = sizes.entries_per_turn * TOKENS_PER_ENTRY
    return Usage(
        prompt_tokens=prompt_tokens + answer * (sizes.turns - 1) // 2,
        completion_tokens=answer + REASONING_PER_ANSWER,
    )


def token_count(text: str) -> int:
    """Estimated tokens of a text, rather too many than too few."""
    han = len(HAN.findall(text))
    return math.ceil(han * TOKENS_PER_HAN + (len(text) - han) * TOKENS_PER_OTHER)


def _sum_of_known(before: Usage, usage: Usage) -> Usage:
    values = {
        name: count if (sofar := getattr(before, name)) is None else sofar + (count or 0)
        for name, count in usage.model_dump().items()
    }
    return Usage(**values)
