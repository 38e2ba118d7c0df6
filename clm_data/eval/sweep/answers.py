"""Asking a model: what it puts at the places of an answer, and what it says when left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clm_data.eval.errors import PlacementError, edit_errors
from clm_data.eval.model.batching import batches_by_length, padded
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.partial_forward import run_layers
from clm_data.eval.placement import encode
from clm_data.eval.protocols import EditProtocol
from clm_data.records import Language


@dataclass(frozen=True)
class Question:
    """A prompt and an answer to it, in one language."""

    lang: Language
    prompt: str
    answer: str


@dataclass(frozen=True)
class Reading:
    """What a model says at the places of an answer, given the prompt and the answer before it.

    Attributes:
        labels: The answer's tokens.
        predicted: The likeliest token at each of their places.
        log_probabilities: Of each label.
    """

    labels: tuple[int, ...]
    predicted: tuple[int, ...]
    log_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Asked:
    """A question as tokens.

    Attributes:
        ids: Input tokens, up to the last that is read.
        reads: Where the next-token prediction is compared with a label.
        labels: The answer's tokens.
    """

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    labels: tuple[int, ...]


def place_question(tokenizer: Any, question: Question, protocol: EditProtocol) -> Asked:
    """Put prompt and answer together and find the answer's tokens.

    ``native``: the language's own joiner, and every token that holds a character of the answer.
    ``easyedit``: always a blank, and every token after as many as the prompt alone has.

    Raises:
        PlacementError: The answer has no tokens of its own behind a first token.
    """
    before = question.prompt + protocol.join(question.lang)
    encoded = encode(tokenizer, before + question.answer)
    if protocol.labels == "offsets":
        at = encoded.covering(len(before), len(before) + len(question.answer))
    else:
        at = list(range(len(tokenizer(question.prompt)["input_ids"]), len(encoded.ids)))
    if not at or at[0] == 0:
        raise PlacementError(f"the answer «{question.answer}» has no tokens behind the prompt")
    labels = tuple(encoded.ids[i] for i in at)
    return Asked(encoded.ids[: at[-1]], tuple(i - 1 for i in at), labels)


def read_answers(
    loaded: LoadedModel,
    questions: Sequence[Question],
    protocol: EditProtocol,
    *,
    tokens_per_batch: int = 4096,
) -> list[Reading | None]:
    """Read a model's predictions for many answers at once; None where one cannot be placed.

    The head is applied at the answers' places only.
    """
    import torch

    placed: list[Asked | None] = []
    for question in questions:
        try:
            placed.append(place_question(loaded.tokenizer, question, protocol))
        except PlacementError:
            placed.append(None)
    known = [asked for asked in placed if asked is not None]
    found: list[Reading] = [Reading((), (), ())] * len(known)
    with torch.no_grad(), edit_errors(f"evaluation of {loaded.name}"):
        for batch in batches_by_length([len(asked.ids) for asked in known], tokens_per_batch):
            for index, reading in zip(batch, _read(loaded, [known[i] for i in batch]), strict=True):
                found[index] = reading
    readings = iter(found)
    return [None if asked is None else next(readings) for asked in placed]


def _read(loaded: LoadedModel, batch: Sequence[Asked]) -> list[Reading]:
    import torch

    hidden = run_layers(loaded, padded([a.ids for a in batch], loaded.device), 0, loaded.depth)
    device = hidden.device
    rows = torch.tensor([i for i, a in enumerate(batch) for _ in a.reads], device=device)
    at = torch.tensor([place for a in batch for place in a.reads], device=device)
    logits = loaded.logits(hidden[rows, at])
    labels = torch.tensor([x for a in batch for x in a.labels], device=logits.device)
    chosen = logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(dim=1)
    predicted, likely = logits.argmax(1).tolist(), chosen.tolist()
    out, start = [], 0
    for asked in batch:
        end = start + len(asked.labels)
        out.append(Reading(asked.labels, tuple(predicted[start:end]), tuple(likely[start:end])))
        start = end
    return out


def generate_answers(
    loaded: LoadedModel,
    questions: Sequence[Question],
    *,
    spare: int = 4,
    tokens_per_batch: int = 4096,
) -> list[str]:
    """Let a model go on from each prompt, greedily, a little longer than the answer is.

    Args:
        loaded: The model.
        questions: Prompts; the answers only say how long to go on.
        spare: Tokens beyond the answer's, so that one sees whether the word ends there.
        tokens_per_batch: Tokens run at once.
    """
    tokenizer = loaded.tokenizer
    prompts = [list(tokenizer(question.prompt)["input_ids"]) for question in questions]
    lengths = [
        len(tokenizer(" " + question.answer, add_special_tokens=False)["input_ids"]) + spare
        for question in questions
    ]
    total = [len(prompt) + length for prompt, length in zip(prompts, lengths, strict=True)]
    out = [""] * len(questions)
    with edit_errors(f"generation with {loaded.name}"):
        for batch in batches_by_length(total, tokens_per_batch):
            rows = [prompts[i] for i in batch]
            texts = _generate(loaded, rows, max(lengths[i] for i in batch))
            for index, text in zip(batch, texts, strict=True):
                out[index] = text
    return out


def _generate(loaded: LoadedModel, rows: Sequence[Sequence[int]], steps: int) -> list[str]:
    import torch
    from transformers import GenerationConfig

    longest = max(map(len, rows))
    filler = loaded.tokenizer.pad_token_id
    filler = 0 if filler is None else filler
    ids = [[filler] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=steps,
        pad_token_id=filler,
        eos_token_id=loaded.tokenizer.eos_token_id,
    )
    with torch.no_grad():
        said = loaded.model.generate(
            input_ids=torch.tensor(ids, device=loaded.device),
            attention_mask=torch.tensor(mask, device=loaded.device),
            generation_config=config,
        )
    tails = said[:, longest:].tolist()
    return [loaded.tokenizer.decode(tail, skip_special_tokens=True) for tail in tails]
