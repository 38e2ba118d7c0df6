"""Token positions of a fact's subject and answer in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from clm_data import languages
from clm_data.eval.chat import chat_turn
from clm_data.eval.errors import PlacementError
from clm_data.eval.protocols import EditProtocol
from clm_data.records import Language

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EditRequest:
    """One fact to edit into a model.

    Attributes:
        id: Identifies the fact in results and refusals.
        lang: The language of the texts.
        prompt: A cloze that the answer completes; contains the subject verbatim.
        subject: What the fact is about.
        target: The new answer.
        subject_start: Where the subject starts in the prompt, if not where :func:`subject_start`
            finds it.
    """

    id: str
    lang: Language
    prompt: str
    subject: str
    target: str
    subject_start: int | None = None


def subject_start(prompt: str, subject: str) -> int:
    """Where an edit is placed: the start of the subject in a prompt, or -1.

    In scripts with spaces it is the subject's last occurrence as a word of its own
    (:func:`clm_data.languages.occurrences`), or its first if it only occurs inside longer words.
    Chinese does not mark words, so there it is the first occurrence. `audit` lists prompts in which
    the place is not clear as `subject-ambiguous`.
    """
    found = languages.occurrences(prompt, subject)
    if found and not languages.has_han(subject):
        return found[-1]
    return prompt.find(subject) if subject else -1


@dataclass(frozen=True)
class Placement:
    """A tokenized sentence with the positions that an editor reads or changes.

    Attributes:
        ids: Input token ids, special tokens included, up to the last position that is read.
        subject: Index of the subject's last token.
        reads: Indices whose next-token predictions are compared with `labels`; empty for a prompt
            without an answer.
        labels: The answer's token ids, one per index in `reads`.
        prompt: Number of tokens of the context and the prompt, special tokens before them
            included; a joiner that is a token of its own does not count.
    """

    ids: tuple[int, ...]
    subject: int
    reads: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    prompt: int = 0

    @property
    def up_to_subject(self) -> tuple[int, ...]:
        """The token ids up to and including the subject's last token."""
        return self.ids[: self.subject + 1]


@dataclass(frozen=True)
class Encoded:
    """A tokenized text with the characters that each token covers.

    Attributes:
        ids: Token ids.
        spans: Character offsets `(start, end)` of each token; `(0, 0)` for special tokens.
    """

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    def covering(self, start: int, end: int) -> list[int]:
        """Indices of the tokens that cover a character in `[start, end)`."""
        return [i for i, (a, b) in enumerate(self.spans) if a < end and b > start and b > a]

    def before(self, end: int) -> int:
        """Number of leading tokens that start before character `end`, special tokens included."""
        return next((i for i, (start, _) in enumerate(self.spans) if start >= end), len(self.ids))


def encode(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True) -> Encoded:
    """Tokenize a text with character offsets.

    Args:
        tokenizer: A fast transformers tokenizer.
        text: The text.
        special: Whether the tokenizer adds its opening tokens.

    Raises:
        PlacementError: The tokenizer has no character offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise PlacementError("the tokenizer has no character offsets; load its fast version")
    found = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
    return Encoded(tuple(found["input_ids"]), tuple((a, b) for a, b in found["offset_mapping"]))


def answer_positions(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    joiner: str,
    answer: str,
    labels: Literal["offsets", "reencode"],
    *,
    special: bool = True,
) -> tuple[Encoded, list[int]]:
    """Tokenize a prompt with its answer once, and find the answer's tokens.

    Args:
        tokenizer: A fast transformers tokenizer.
        prompt: The prompt.
        joiner: Text between prompt and answer.
        answer: The answer.
        labels: `offsets`: the tokens that cover an answer character. `reencode`: all after the
            first N, where N is the number of tokens of the prompt alone, as in EasyEdit.
        special: Whether the tokenizer adds its opening tokens.

    Returns:
        The whole text, and the indices of the answer's tokens in it.

    Raises:
        PlacementError: The answer has no token after the first token of the text.
    """
    stem = prompt + joiner
    encoded = encode(tokenizer, stem + answer, special=special)
    if labels == "offsets":
        at = encoded.covering(len(stem), len(stem) + len(answer))
    else:
        at = list(range(len(tokenizer(prompt)["input_ids"]), len(encoded.ids)))
    if not at or at[0] == 0:
        raise PlacementError(f'the answer "{answer}" has no tokens after the prompt')
    return encoded, at


def place(
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    protocol: EditProtocol,
    template: str = "{}",
    *,
    joiner: str | None = None,
) -> Placement:
    """Place a prompt and its answer after a context.

    Args:
        tokenizer: A fast transformers tokenizer.
        request: The fact.
        protocol: How labels and subject are found.
        template: A context that ends in `{}`, the prompt's place.
        joiner: Text between prompt and answer; None for the protocol's.

    Raises:
        PlacementError: The fact cannot be placed; the message gives the reason.
    """
    context, subject_start = _context_and_subject(request, template)
    if protocol.turn == "chat":
        request, context, subject_start = _in_turn(tokenizer, request, context, subject_start)
    joiner = protocol.join(request.lang) if joiner is None else joiner
    find = _place_by_offsets if protocol.labels == "offsets" else _place_reencoded
    placement = find(tokenizer, request, protocol, context, subject_start, joiner)
    if placement.reads[0] < placement.subject:
        raise PlacementError(
            f'{request.id}: the answer "{request.target}" begins in or before the last token of '
            f'the subject "{request.subject}"'
        )
    return placement


def place_prompt(
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    protocol: EditProtocol,
    template: str = "{}",
) -> Placement:
    """Place a prompt without its answer after a context; `reads` and `labels` are empty.

    Raises:
        PlacementError: The subject cannot be placed.
    """
    context, subject_start = _context_and_subject(request, template)
    if protocol.turn == "chat":
        request, context, subject_start = _in_turn(tokenizer, request, context, subject_start)
    text = context + request.prompt
    encoded = encode(tokenizer, text, special=protocol.special_tokens)
    subject = _subject_token(tokenizer, request, protocol, encoded, text, subject_start)
    return Placement(encoded.ids, subject, prompt=len(encoded.ids))


def _context_and_subject(request: EditRequest, template: str) -> tuple[str, int]:
    """The context without `{}`, and where the subject starts in context + prompt."""
    if not template.endswith("{}"):
        raise PlacementError(f'the context "{template}" does not end in {{}}')
    context = template[:-2]
    start = request.subject_start
    if start is None:
        start = subject_start(request.prompt, request.subject)
    if not request.subject or start < 0:
        raise PlacementError(
            f'{request.id}: the subject "{request.subject}" is not in the prompt "{request.prompt}"'
        )
    if not request.target:
        raise PlacementError(f"{request.id}: the answer is empty")
    return context, len(context) + start


def asked(tokenizer: PreTrainedTokenizerBase, prompt: str, protocol: EditProtocol) -> str:
    """All that a model reads before the joiner: the prompt, or a conversation that ends in it."""
    if protocol.turn == "text":
        return prompt
    turn = chat_turn(tokenizer)
    return turn.before + prompt + turn.after


def _in_turn(
    tokenizer: PreTrainedTokenizerBase, request: EditRequest, context: str, subject_start: int
) -> tuple[EditRequest, str, int]:
    """The request, context and place of the subject with context and prompt as the user's turn."""
    turn = chat_turn(tokenizer)
    wrapped = replace(request, prompt=request.prompt + turn.after)
    return wrapped, turn.before + context, len(turn.before) + subject_start


def _subject_token(
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    protocol: EditProtocol,
    encoded: Encoded,
    text: str,
    subject_start: int,
) -> int:
    """Index of the subject's last token in the encoded text."""
    end = subject_start + len(request.subject)
    if protocol.subject == "prefix":
        return min(len(tokenizer(text[:end])["input_ids"]), len(encoded.ids)) - 1
    tokens = encoded.covering(end - 1, end)
    if not tokens:
        raise PlacementError(f'{request.id}: no token covers the end of "{request.subject}"')
    return tokens[-1]


def _place_by_offsets(
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    protocol: EditProtocol,
    context: str,
    subject_start: int,
    joiner: str,
) -> Placement:
    """Labels are the tokens that cover an answer character."""
    before = context + request.prompt + joiner
    text = before + request.target
    encoded = encode(tokenizer, text, special=protocol.special_tokens)
    answer = encoded.covering(len(before), len(text))
    if not answer or answer != list(range(answer[0], answer[-1] + 1)) or answer[0] == 0:
        raise PlacementError(
            f'{request.id}: the answer "{request.target}" has no contiguous tokens of its own'
        )
    subject = _subject_token(tokenizer, request, protocol, encoded, text, subject_start)
    return Placement(
        encoded.ids[: answer[-1]],
        subject,
        tuple(i - 1 for i in answer),
        tuple(encoded.ids[i] for i in answer),
        min(encoded.before(len(context + request.prompt)), answer[0]),
    )


def _place_reencoded(
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    protocol: EditProtocol,
    context: str,
    subject_start: int,
    joiner: str,
) -> Placement:
    """Labels are the answer's tokens encoded alone, read at the last positions of the text.

    As EasyEdit's `compute_z`: the text holds the answer decoded without its last token.
    """
    target = request.target if request.target.startswith(joiner) else joiner + request.target
    labels = list(tokenizer(target, add_special_tokens=False)["input_ids"])
    if joiner and labels and labels[0] in (tokenizer.bos_token_id, tokenizer.unk_token_id):
        labels = labels[1:]
    if not labels:
        raise PlacementError(f'{request.id}: the answer "{request.target}" has no tokens')
    text = context + request.prompt + tokenizer.decode(labels[:-1])
    encoded = encode(tokenizer, text, special=protocol.special_tokens)
    if len(encoded.ids) < len(labels):
        raise PlacementError(
            f'{request.id}: the answer "{request.target}" changes when decoded and encoded again'
        )
    subject = _subject_token(tokenizer, request, protocol, encoded, text, subject_start)
    first = len(encoded.ids) - len(labels)
    end = min(encoded.before(len(context + request.prompt)), first + 1)
    reads = tuple(range(first, len(encoded.ids)))
    return Placement(encoded.ids, subject, reads, tuple(labels), end)
