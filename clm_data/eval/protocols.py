"""Editing protocols: each difference between them is one setting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from clm_data.errors import ConfigError, UnknownNameError
from clm_data.languages import LANGUAGE_INFO
from clm_data.records import Language


@dataclass(frozen=True)
class EditProtocol:
    """Choices that affect what is computed. `dataclasses.replace` varies one at a time."""

    name: str
    """Shown in results and messages."""
    joiner: Literal["language", "space"]
    """Text between prompt and answer: the language's own joiner, or a space even in Chinese."""
    labels: Literal["offsets", "reencode"]
    """How answer tokens are found. `offsets`: tokens that cover an answer character when the whole
    sentence is tokenized once. `reencode`: all tokens after as many as the prompt alone has; for
    target values, the answer is tokenized alone, decoded without its last token, and tokenized
    again after the prompt, which misplaces labels if a character takes several tokens."""
    subject: Literal["offsets", "prefix"]
    """How the subject's last token is found. `offsets`: by character offsets in the sentence.
    `prefix`: by the token count of the text up to the subject's end, which is off if the subject's
    last character shares a token with the next one."""
    context_language: Literal["edit", "en"]
    """Language of the contexts put before a prompt: the fact's, or always English."""
    kl_language: Literal["edit", "en"]
    """Language of the KL prompt (`{} is a`): the fact's, or always English."""
    statistics: Literal["balanced", "en"]
    """Text for second moments: both languages with equal weight, or English only."""
    pmet_joiner: Literal["same", "none"]
    """Joiner in PMET's training: the one used in evaluation, or none."""
    ft_objective: Literal["answer", "prompt_last"]
    """What fine-tuning predicts: each answer token after the ones before it (teacher forcing), or
    every answer token at the prompt's last token, as if each came first."""
    ultraedit_tokens: Literal["answer", "all"]
    """Tokens at which UltraEdit reads keys and gradients: those that predict a token of the answer,
    or every token of prompt and answer."""
    ultraedit_normalizer: Literal["sequence", "edit"]
    """What UltraEdit's normalizer has seen: all edits of a sequence, or only the present one."""
    ultraedit_deviation: Literal["sample", "by_fact"]
    """UltraEdit's deviations: the sample standard deviation of all tokens, or one that counts the
    squared deviations within a fact of k tokens k / (k - 1) times."""

    turn: Literal["text", "chat"] = "text"
    """How a model reads a prompt. `text`: as it is, for base models. `chat`: as the user's turn in
    the tokenizer's chat template, without a system message; the answer is the assistant's turn.
    Contexts and KL prompts are in the user's turn; the text of second moments is not changed."""

    def __post_init__(self) -> None:
        if self.turn == "chat" and (self.labels, self.subject) != ("offsets", "offsets"):
            raise ConfigError(
                f"protocol {self.name}: the turn chat needs labels and subject by offsets"
            )

    @property
    def special_tokens(self) -> bool:
        """Whether the tokenizer adds opening tokens; a chat template writes them itself."""
        return self.turn == "text"

    def join(self, lang: Language) -> str:
        """The text between a prompt and its answer; in a chat, the template's text is there."""
        if self.turn == "chat":
            return ""
        return LANGUAGE_INFO[lang].joiner if self.joiner == "language" else " "

    def context_lang(self, lang: Language) -> Language:
        """Language of the contexts for a fact in `lang`."""
        return lang if self.context_language == "edit" else "en"

    def kl_lang(self, lang: Language) -> Language:
        """Language of the KL prompt for a fact in `lang`."""
        return lang if self.kl_language == "edit" else "en"


NATIVE = EditProtocol(
    name="native",
    joiner="language",
    labels="offsets",
    subject="offsets",
    context_language="edit",
    kl_language="edit",
    statistics="balanced",
    pmet_joiner="same",
    ft_objective="answer",
    ultraedit_tokens="answer",
    ultraedit_normalizer="sequence",
    ultraedit_deviation="sample",
)
EASYEDIT = EditProtocol(
    name="easyedit",
    joiner="space",
    labels="reencode",
    subject="prefix",
    context_language="en",
    kl_language="en",
    statistics="en",
    pmet_joiner="none",
    ft_objective="prompt_last",
    ultraedit_tokens="all",
    ultraedit_normalizer="edit",
    ultraedit_deviation="by_fact",
)
CHAT = replace(NATIVE, name="chat", turn="chat")
PROTOCOLS = {protocol.name: protocol for protocol in (NATIVE, EASYEDIT, CHAT)}


def get_protocol(name: str) -> EditProtocol:
    """The protocol with this name.

    Raises:
        UnknownNameError: No protocol has this name.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
