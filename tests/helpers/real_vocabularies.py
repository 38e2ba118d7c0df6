"""The vocabularies of Llama-3, Qwen and Mistral as fast tokenizers, from packages that ship them.

Each comes with its tokens' bytes, to check positions without the tokenizer's own offsets.
"""

from __future__ import annotations

import base64
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Vocabulary:
    """A fast tokenizer with the bytes of its tokens.

    Attributes:
        tokenizer: A transformers tokenizer.
        bytes_of: Token id to bytes; special tokens have none.
        dummy_prefix: Whether the tokenizer puts a space before the text, as SentencePiece does.
    """

    tokenizer: PreTrainedTokenizerFast
    bytes_of: dict[int, bytes]
    dummy_prefix: bool = False


def _file(package: str, *parts: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {package.replace('_', '-')} is not installed")
    path = Path(spec.origin).parent.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"{package} no longer ships {'/'.join(parts)}")
    return path


def llama3() -> Vocabulary:
    """The vocabulary of Llama-3, from `llama-models`."""
    ranks = _tiktoken(_file("llama_models", "llama3", "tokenizer.model"))
    return _byte_level(ranks, _SPLIT % "{1,3}", "<|begin_of_text|>")


def qwen() -> Vocabulary:
    """The vocabulary of Qwen and Qwen2, from `dashscope`."""
    return _byte_level(
        _tiktoken(_file("dashscope", "resources", "qwen.tiktoken")), _SPLIT % "", None
    )


def _tiktoken(path: Path) -> dict[bytes, int]:
    """Token bytes to rank, from a tiktoken file."""
    lines = path.read_bytes().splitlines()
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _byte_level(ranks: dict[bytes, int], split: str, bos: str | None) -> Vocabulary:
    """A byte-level BPE tokenizer with the merges that the ranks imply."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()

    def as_letters(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = []
    for token, rank in ranks.items():
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in ranks and right in ranks:
                merges.append(
                    (rank, ranks[left], ranks[right], as_letters(left), as_letters(right))
                )
    merges.sort()
    vocabulary = {as_letters(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, [pair[3:] for pair in merges], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos)
    if bos is not None:
        tokenizer = fast.backend_tokenizer
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, fast.bos_token_id)]
        )
    return Vocabulary(fast, {rank: token for token, rank in ranks.items()})


def mistral() -> Vocabulary:
    """The vocabulary of Mistral v1 (SentencePiece with byte fallback), from `mistral-common`."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    path = _file("mistral_common", "data", "tokenizer.model.v1")
    spm = SentencePieceProcessor(model_file=str(path))
    pieces = [spm.id_to_piece(i) for i in range(spm.get_piece_size())]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for rank, piece in enumerate(pieces):
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if left in vocabulary and right in vocabulary and not spm.is_byte(rank):
                merges.append(
                    (-spm.get_score(rank), vocabulary[left], vocabulary[right], left, right)
                )
    merges.sort()
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            [pair[3:] for pair in merges],
            byte_fallback=True,
            fuse_unk=True,
            unk_token="<unk>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    bytes_of = {
        i: bytes([int(piece[3:-1], 16)]) if spm.is_byte(i) else piece.replace("▁", " ").encode()
        for i, piece in enumerate(pieces)
        if not spm.is_control(i)
    }
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")
    return Vocabulary(fast, bytes_of, dummy_prefix=True)
