"""Where the subject and the answer of a fact stand among the tokens of a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clm_data.eval.errors import PlacementError
from clm_data.eval.protocols import Protocol
from clm_data.records import Language


@dataclass(frozen=True)
class EditRequest:
    """One fact to edit in.

    Attributes:
        id: For results and refusals.
        lang: The language of the texts.
        prompt: A cloze that the answer completes; the subject stands literally in it.
        subject: What the fact is about.
        target: The answer to edit in.
    """

    id: str
    lang: Language
    prompt: str
    subject: str
    target: str


@dataclass(frozen=True)
class Placement:
    """A sentence as tokens.

    Attributes:
        ids: Input tokens, special ones included, up to the last that is read.
        subject: Index of the subject's last token.
        reads: Indices whose next-token prediction is compared with ``labels``.
        labels: The answer's tokens.
    """

    ids: tuple[int, ...]
    subject: int
    reads: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()

    @property
    def stem(self) -> tuple[int, ...]:
        """The tokens up to and with the subject's last."""
        return self.ids[: self.subject + 1]


@dataclass(frozen=True)
class Encoded:
    """A text as tokens with the characters each one holds.

    Attributes:
        ids: Token ids.
        spans: ``(first, end)`` character offsets; ``(0, 0)`` for special tokens.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def holding(self, start: int, end: int) -> list[int]:
        """Indices of the tokens that hold a character of ``[start, end)``."""
        return [i for i, (a, b) in enumerate(self.spans) if a < end and b > start and b > a]


def encode(tokenizer: Any, text: str) -> Encoded:
    """Tokenise a text once, with offsets.

    Raises:
        PlacementError: The tokenizer gives no character offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise PlacementError("the tokenizer gives no character offsets; load its fast version")
    found = tokenizer(text, return_offsets_mapping=True)
    return Encoded(tuple(found["input_ids"]), tuple((a, b) for a, b in found["offset_mapping"]))


def place(
    tokenizer: Any,
    request: EditRequest,
    protocol: Protocol,
    template: str = "{}",
    *,
    joiner: str | None = None,
) -> Placement:
    """Place prompt and answer behind a context.

    Args:
        tokenizer: A fast transformers tokenizer.
        request: The fact.
        protocol: How labels and subject are found.
        template: A context that ends in ``{}``, which stands for the prompt.
        joiner: Between prompt and answer, in place of the protocol's.

    Raises:
        PlacementError: The fact cannot be placed; the message says why.
    """
    head, at = _subject_offset(request, template)
    joiner = protocol.join(request.lang) if joiner is None else joiner
    if protocol.labels == "offsets":
        placement = _by_offsets(tokenizer, request, protocol, head, at, joiner)
    else:
        placement = _reencoded(tokenizer, request, protocol, head, at, joiner)
    if placement.reads[0] < placement.subject:
        raise PlacementError(
            f"{request.id}: the answer «{request.target}» begins in or before the last token of "
            f"the subject «{request.subject}»"
        )
    return placement


def place_prompt(
    tokenizer: Any, request: EditRequest, protocol: Protocol, template: str = "{}"
) -> Placement:
    """Place a prompt alone behind a context; nothing is read.

    Raises:
        PlacementError: The subject cannot be placed.
    """
    head, at = _subject_offset(request, template)
    text = head + request.prompt
    encoded = encode(tokenizer, text)
    return Placement(encoded.ids, _subject_token(tokenizer, request, protocol, encoded, text, at))


def _subject_offset(request: EditRequest, template: str) -> tuple[str, int]:
    if not template.endswith("{}"):
        raise PlacementError(f"the context «{template}» does not end in {{}}")
    head = template[:-2]
    at = request.prompt.find(request.subject)
    if not request.subject or at < 0:
        raise PlacementError(
            f"{request.id}: the subject «{request.subject}» does not stand in the prompt "
            f"«{request.prompt}»"
        )
    if not request.target:
        raise PlacementError(f"{request.id}: the answer is empty")
    return head, len(head) + at


def _subject_token(
    tokenizer: Any,
    request: EditRequest,
    protocol: Protocol,
    encoded: Encoded,
    text: str,
    at: int,
) -> int:
    end = at + len(request.subject)
    if protocol.subject == "prefix":
        return min(len(tokenizer(text[:end])["input_ids"]), len(encoded.ids)) - 1
    tokens = encoded.holding(end - 1, end)
    if not tokens:
        raise PlacementError(f"{request.id}: no token holds the end of «{request.subject}»")
    return tokens[-1]


def _by_offsets(
    tokenizer: Any,
    request: EditRequest,
    protocol: Protocol,
    head: str,
    at: int,
    joiner: str,
) -> Placement:
    before = head + request.prompt + joiner
    text = before + request.target
    encoded = encode(tokenizer, text)
    answer = encoded.holding(len(before), len(text))
    if not answer or answer != list(range(answer[0], answer[-1] + 1)) or answer[0] == 0:
        raise PlacementError(f"{request.id}: the answer «{request.target}» has no clear tokens")
    subject = _subject_token(tokenizer, request, protocol, encoded, text, at)
    return Placement(
        encoded.ids[: answer[-1]],
        subject,
        tuple(i - 1 for i in answer),
        tuple(encoded.ids[i] for i in answer),
    )


def _reencoded(
    tokenizer: Any,
    request: EditRequest,
    protocol: Protocol,
    head: str,
    at: int,
    joiner: str,
) -> Placement:
    target = request.target if request.target.startswith(joiner) else joiner + request.target
    labels = list(tokenizer(target, add_special_tokens=False)["input_ids"])
    if joiner and labels and labels[0] in (tokenizer.bos_token_id, tokenizer.unk_token_id):
        labels = labels[1:]
    if not labels:
        raise PlacementError(f"{request.id}: the answer «{request.target}» has no tokens")
    text = head + request.prompt + tokenizer.decode(labels[:-1])
    encoded = encode(tokenizer, text)
    if len(encoded.ids) < len(labels):
        raise PlacementError(
            f"{request.id}: the answer «{request.target}» does not survive decoding"
        )
    subject = _subject_token(tokenizer, request, protocol, encoded, text, at)
    first = len(encoded.ids) - len(labels)
    return Placement(encoded.ids, subject, tuple(range(first, len(encoded.ids))), tuple(labels))
