"""How an edit is set up: each difference between ``native`` and ``easyedit`` is one setting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clm_data.errors import UnknownNameError
from clm_data.languages import TABLE
from clm_data.records import Language


@dataclass(frozen=True)
class Protocol:
    """The choices that decide what is computed. ``dataclasses.replace`` varies one at a time."""

    name: str
    """For results and messages."""
    joiner: Literal["language", "space"]
    """Between prompt and answer: the language's own, or a blank even in Chinese."""
    labels: Literal["offsets", "reencode"]
    """Answer tokens: those that hold an answer character in one tokenisation of the sentence, or
    the answer tokenised alone, decoded but for its last token and tokenised again behind the prompt
    (misplaces labels wherever a character takes several tokens)."""
    subject: Literal["offsets", "prefix"]
    """Last subject token: by character offsets in the sentence, or the length of the tokenised text
    before it (off by some tokens where the subject's end merges with what follows)."""
    context_language: Literal["edit", "en"]
    """Language of the sentences put before a prompt: the fact's, or English always."""
    kl_language: Literal["edit", "en"]
    """Language of the prompt that keeps the subject's essence: the fact's, or English always."""
    statistics: Literal["balanced", "en"]
    """Text for the second moments: both languages with equal weight, or English."""
    pmet_joiner: Literal["same", "none"]
    """PMET's joiner while training: that of evaluation, or none at all."""
    ft_objective: Literal["answer", "prompt_last"]
    """What fine-tuning learns: each answer token behind those before it, or all of them at the
    prompt's last token, as if each came first."""

    def join(self, lang: Language) -> str:
        """What stands between a prompt and its answer."""
        return TABLE[lang].joiner if self.joiner == "language" else " "

    def context_lang(self, lang: Language) -> Language:
        """Language of the contexts of a fact."""
        return lang if self.context_language == "edit" else "en"

    def kl_lang(self, lang: Language) -> Language:
        """Language of the KL prompt of a fact."""
        return lang if self.kl_language == "edit" else "en"


NATIVE = Protocol(
    name="native",
    joiner="language",
    labels="offsets",
    subject="offsets",
    context_language="edit",
    kl_language="edit",
    statistics="balanced",
    pmet_joiner="same",
    ft_objective="answer",
)
EASYEDIT = Protocol(
    name="easyedit",
    joiner="space",
    labels="reencode",
    subject="prefix",
    context_language="en",
    kl_language="en",
    statistics="en",
    pmet_joiner="none",
    ft_objective="prompt_last",
)
PROTOCOLS = {protocol.name: protocol for protocol in (NATIVE, EASYEDIT)}


def protocol_named(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
