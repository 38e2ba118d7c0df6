"""What a model answers: its predictions at the tokens of a given answer, and free generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from clm_data.eval.editors.edits import EditedModel, Oracle
from clm_data.eval.errors import PlacementError, edit_errors
from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.hooks import without_generation_settings
from clm_data.eval.model.partial_forward import run_layers
from clm_data.eval.placement import answer_positions, asked
from clm_data.eval.protocols import NATIVE, EditProtocol
from clm_data.records import Language

EXTRA_TOKENS = 4
"""Tokens generated beyond the length of the answer."""


@dataclass(frozen=True)
class Question:
    """A prompt and an answer to it, in one language.

    Attributes:
        lang: The language.
        prompt: The prompt.
        answer: The answer.
        fact: Id of the record that the question belongs to, for an `Oracle`; no other model sees
            it.
    """

    lang: Language
    prompt: str
    answer: str
    fact: str = ""


@dataclass(frozen=True)
class TokenizedQuestion:
    """Prompt and answer as tokens.

    Attributes:
        ids: Input tokens, up to the last position whose prediction is read.
        positions: Positions whose next-token prediction is compared with a label.
        labels: The answer's tokens, one per position.
        prompt: Number of tokens of the prompt, special tokens before it included; a joiner that is
            a token of its own does not count.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    labels: tuple[int, ...]
    prompt: int


@dataclass(frozen=True)
class AnswerPrediction:
    """A model's predictions for the tokens of an answer, under teacher forcing.

    Attributes:
        labels: The answer's tokens.
        predicted: The most likely token in the place of each label.
        log_probabilities: Log-probability of each label.
    """

    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    log_probabilities: tuple[float, ...]


def tokenize_question(
    tokenizer: Any, question: Question, protocol: EditProtocol
) -> TokenizedQuestion:
    """Join prompt and answer, and find the answer's tokens.

    With the protocol `native` the joiner is that of the language, and the answer's tokens are those
    that overlap its characters. With `easyedit` the joiner is always a space, and the answer's
    tokens are all after the first N, where N is the number of tokens of the prompt alone.

    Raises:
        PlacementError: The answer has no token of its own after the first token.
    """
    joiner = protocol.join(question.lang)
    asking = asked(tokenizer, question.prompt, protocol)
    encoded, at = answer_positions(
        tokenizer,
        asking,
        joiner,
        question.answer,
        protocol.labels,
        special=protocol.special_tokens,
    )
    labels = tuple(encoded.ids[i] for i in at)
    prompt = min(encoded.before(len(asking)), at[0])
    return TokenizedQuestion(encoded.ids[: at[-1]], tuple(i - 1 for i in at), labels, prompt)


def predict_answers(
    model: EditedModel,
    questions: Sequence[Question],
    protocol: EditProtocol,
    *,
    tokens_per_batch: int = 4096,
) -> list[AnswerPrediction | None]:
    """Read a model's predictions at the tokens of many answers.

    The language model head is applied at those positions only.

    Args:
        model: The model, edited or not.
        questions: In any order and length; they are batched by length.
        protocol: How prompts and answers are joined and tokenized.
        tokens_per_batch: Maximum tokens per forward pass.

    Returns:
        One prediction per question; None if the answer has no tokens of its own.
    """
    import torch

    tokenized: list[TokenizedQuestion | None] = []
    for question in _rewritten(model, questions):
        try:
            tokenized.append(tokenize_question(model.base.tokenizer, question, protocol))
        except PlacementError:
            tokenized.append(None)
    inputs = [question for question in tokenized if question is not None]
    predictions = [AnswerPrediction((), (), ())] * len(inputs)
    with torch.no_grad(), edit_errors(f"evaluation of {model.base.name}"):
        for batch in batches_by_length([len(one.ids) for one in inputs], tokens_per_batch):
            of_batch = _predict_batch(model, [inputs[i] for i in batch])
            for index, prediction in zip(batch, of_batch, strict=True):
                predictions[index] = prediction
    remaining = iter(predictions)
    return [None if one is None else next(remaining) for one in tokenized]


def _rewritten(model: EditedModel, questions: Sequence[Question]) -> list[Question]:
    """The questions as the network reads them."""
    if isinstance(model, Oracle):
        return [
            replace(one, prompt=model.rewrite_about(one.prompt, one.lang, one.fact))
            for one in questions
        ]
    return [replace(one, prompt=model.rewrite(one.prompt, one.lang)) for one in questions]


def _predict_batch(
    model: EditedModel, batch: Sequence[TokenizedQuestion]
) -> list[AnswerPrediction]:
    import torch

    loaded = model.base
    ids = padded([one.ids for one in batch], loaded.device)
    prompts = torch.tensor([one.prompt for one in batch], device=ids.device)
    with model.routed(torch.arange(ids.shape[1], device=ids.device) < prompts[:, None]):
        hidden = run_layers(loaded, ids, 0, loaded.depth)
    device = hidden.device
    rows = torch.tensor([i for i, one in enumerate(batch) for _ in one.positions], device=device)
    positions = torch.tensor([at for one in batch for at in one.positions], device=device)
    logits = loaded.logits(hidden[rows, positions])
    labels = torch.tensor([x for one in batch for x in one.labels], device=logits.device)
    log_probabilities = logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(dim=1)
    predicted, likely = logits.argmax(1).tolist(), log_probabilities.tolist()
    out, start = [], 0
    for one in batch:
        end = start + len(one.labels)
        out.append(
            AnswerPrediction(one.labels, tuple(predicted[start:end]), tuple(likely[start:end]))
        )
        start = end
    return out


def generate_answers(
    model: EditedModel,
    questions: Sequence[Question],
    *,
    protocol: EditProtocol = NATIVE,
    extra_tokens: int = EXTRA_TOKENS,
    tokens_per_batch: int = 4096,
) -> list[str]:
    """Greedy continuations of the prompts, a little longer than the answers.

    Args:
        model: The model, edited or not.
        questions: The answers only set the length of the continuations.
        protocol: Whether prompts are turns of a chat.
        extra_tokens: Tokens beyond the answer's length, which show whether its last word ends
            there.
        tokens_per_batch: Maximum tokens per batch, generated ones included.
    """
    tokenizer = model.base.tokenizer
    special = protocol.special_tokens
    asking = [asked(tokenizer, one.prompt, protocol) for one in _rewritten(model, questions)]
    prompts = [list(tokenizer(text, add_special_tokens=special)["input_ids"]) for text in asking]
    lengths = [
        len(tokenizer(" " + question.answer, add_special_tokens=False)["input_ids"]) + extra_tokens
        for question in questions
    ]
    total = [len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)]
    out = [""] * len(questions)
    with edit_errors(f"generation with {model.base.name}"):
        for batch in batches_by_length(total, tokens_per_batch):
            rows = [prompts[i] for i in batch]
            texts = _generate(model, rows, max(lengths[i] for i in batch))
            for index, text in zip(batch, texts, strict=True):
                out[index] = text
    return out


def _generate(model: EditedModel, rows: Sequence[Sequence[int]], steps: int) -> list[str]:
    import torch
    from transformers import GenerationConfig

    loaded = model.base
    longest = max(map(len, rows))
    loaded.check_length(longest + steps)
    pad = loaded.tokenizer.pad_token_id
    if pad is None or pad >= loaded.model.get_input_embeddings().weight.shape[0]:
        pad = 0
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = torch.tensor(
        [[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=loaded.device
    )
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=steps,
        pad_token_id=pad,
        eos_token_id=loaded.tokenizer.eos_token_id,
    )
    with torch.no_grad(), without_generation_settings(loaded.model), model.routed(mask.bool()):
        generated = loaded.model.generate(
            input_ids=torch.tensor(ids, device=loaded.device),
            attention_mask=mask,
            generation_config=config,
        )
    tails = generated[:, longest:].tolist()
    return [loaded.tokenizer.decode(tail, skip_special_tokens=True) for tail in tails]
