"""Settings of a checkpoint's tokenizer that would change a measurement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from clm_data.errors import InputFileError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAMPLE = "The capital of France is 长江发源于青藏高原"
"""Every tokenizer of a language model knows a part of it; transformers makes an empty tokenizer for
a folder that has settings of one but no vocabulary."""


def prepare_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, embeddings: int) -> None:
    """Turn off stored truncation, padding and closing tokens, and check the vocabulary.

    A closing token, such as an end-of-text token after each text, would be read as the answer's
    last token, and free generation would continue after it. Opening tokens stay.

    Args:
        name: The model's name, for messages.
        tokenizer: Changed in place.
        embeddings: Rows of the model's input embeddings.

    Raises:
        InputFileError: The tokenizer has no character offsets or tokens without an embedding, or
            adds closing tokens that cannot be turned off.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not tokenizer.is_fast:
        raise InputFileError(
            f"model {name}: its tokenizer has no character offsets (no tokenizer.json); choose a "
            "fast one with --tokenizer"
        )
    ids = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
    if all(index == tokenizer.unk_token_id for index in ids):
        raise InputFileError(
            f"model {name}: its tokenizer knows no text, as if tokenizer.json is missing; choose "
            "another with --tokenizer"
        )
    backend.no_truncation()
    backend.no_padding()
    _remove_closing_tokens(name, tokenizer)
    largest, token = max(
        (index, token)
        for token, index in tokenizer.get_vocab().items()
        if index != tokenizer.pad_token_id
    )
    if largest >= embeddings:
        raise InputFileError(
            f"model {name}: its tokenizer has the token {token!r} with number {largest}, but the "
            f"model has {embeddings} embeddings; choose the model's own tokenizer with --tokenizer"
        )


def closing_tokens(tokenizer: Any) -> list[str]:
    """Tokens that a tokenizer adds after each text."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    size = len(plain)
    starts = [i for i in range(len(whole) - size + 1) if whole[i : i + size] == plain]
    after = whole[starts[0] + size :] if starts else []
    return list(tokenizer.convert_ids_to_tokens(after))


def _remove_closing_tokens(name: str, tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    found = closing_tokens(tokenizer)
    if not found:
        return
    backend = tokenizer.backend_tokenizer
    definition = json.loads(backend.to_str())
    _cut_templates(definition["post_processor"])
    backend.post_processor = Tokenizer.from_str(json.dumps(definition)).post_processor
    if closing_tokens(tokenizer):
        raise InputFileError(
            f"model {name}: its tokenizer adds {found[0]} after each text; choose another "
            "with --tokenizer"
        )


def _cut_templates(processor: Any) -> None:
    """Remove what follows the text in each template of a post-processor's definition."""
    if not isinstance(processor, dict):
        return
    for part in processor.get("processors", ()):
        _cut_templates(part)
    if processor.get("type") == "TemplateProcessing":
        single = processor["single"]
        text = next(i for i, piece in enumerate(single) if "Sequence" in piece)
        processor["single"] = single[: text + 1]
