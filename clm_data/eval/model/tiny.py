"""A model that knows the facts, anywhere: small, bilingual, trained on the spot on the dataset.

It says the true answers of a dataset's prompts, rephrasings and probes, in both languages, so that
a laptop runs a whole evaluation in minutes with edits that mean something. It knows nothing else,
and nothing ties its two languages together but the words they share. How it is taught, and why so:
:mod:`clm_data.eval.model.tiny_lessons`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clm_data.errors import InputFileError, MissingExtraError
from clm_data.eval.model.tiny_lessons import (
    GAP,
    OPENINGS,
    SHORT,
    Batch,
    Batches,
    Curriculum,
    lines_of,
)
from clm_data.records import LANGUAGES, Record, digest

Progress = Callable[[int, int, float], None]
"""Steps done, steps in all, mean loss on answer tokens."""

_VERSION = 2
"""Of this module's training; part of the cache key."""
_END_TOKEN, _PAD_TOKEN = "<|end|>", "<|pad|>"


@dataclass(frozen=True)
class TinyConfig:
    """Size and training.

    Attributes:
        vocabulary: Tokens at most: names and answers are merged, other Chinese text is not.
        width: Hidden size.
        inner: MLP inner size.
        depth: Layers.
        heads: Attention heads.
        fact_layer: Facts are looked up in the layers up to this one; layers above read them.
        rounds: How often each sentence is seen.
        least_steps: For datasets of a few facts.
        lr: AdamW's learning rate at its height; falls to nothing in a straight line.
        spread: Standard deviation of the first weights; much learns faster from large ones.
        lens: Weight of a second loss: what stands at the subject's last token after ``fact_layer``
            is the answer's first token, when read through norm and head.
        lessons: How sentences are varied.
        seed: Of the first weights.
    """

    vocabulary: int = 12_000
    width: int = 192
    inner: int = 768
    depth: int = 4
    heads: int = 4
    fact_layer: int = 2
    rounds: float = 30.0
    least_steps: int = 150
    lr: float = 5e-3
    spread: float = 0.05
    lens: float = 1.0
    lessons: Curriculum = field(default_factory=Curriculum)
    seed: int = 0


def tiny_key(records: Sequence[Record], config: TinyConfig) -> str:
    """What a trained model depends on, as a hash.

    Raises:
        MissingExtraError: torch is not installed.
    """
    torch = _torch()
    return digest(
        {
            "version": _VERSION,
            "torch": torch.__version__.partition("+")[0],
            "config": asdict(config),
            "records": [record.model_dump(mode="json") for record in records],
        }
    )


def tiny_model(
    records: Sequence[Record],
    cache: Path,
    config: TinyConfig | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train the model, or find it in the cache.

    Args:
        records: What it shall know.
        cache: Folder of the cache.
        config: Size and training.
        progress: Told every 20 steps.

    Returns:
        A folder that :func:`clm_data.eval.model.loading.load_model` reads.

    Raises:
        InputFileError: There are no records, or the cache cannot be written.
        MissingExtraError: torch or transformers is not installed.
    """
    if not records:
        raise InputFileError("the tiny model needs records to learn; the dataset has none")
    config = config or TinyConfig()
    folder = cache / f"tiny-{tiny_key(records, config)[:24]}"
    if (folder / "tiny.json").is_file():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".tiny-", dir=cache))
    except OSError as error:
        raise InputFileError(f"{cache}: cannot be written ({error.strerror})") from error
    try:
        _train(records, config, progress, aside)
        (aside / "tiny.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
        if not (folder / "tiny.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _torch() -> Any:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torch", "eval") from error
    return torch


def _pieces(records: Sequence[Record]) -> list[str]:
    """Text from which tokens are merged: whole names and answers, Chinese prompts by character.

    So a name is a token or few, and no token of a prompt reaches into its subject.
    """
    pieces = [text for part in (OPENINGS, SHORT) for text in part["en"]]
    pieces += [mark for part in (OPENINGS, SHORT) for text in part["zh"] for mark in text]
    for record in records:
        for lang in LANGUAGES:
            fact, probe, gap = record.fact(lang), record.probe(lang), GAP[lang]
            names = [fact.subject, gap + fact.subject, gap + fact.ground_truth]
            pieces += [*names, gap + fact.target_new, gap + probe.loc_ans] * 2
            for text in (fact.prompt, fact.rephrase_prompt, probe.loc):
                pieces += list(text) if lang == "zh" else [text]
    return pieces


def make_tokenizer(pieces: Sequence[str], size: int) -> Any:
    """A BPE tokenizer; a character it has not seen is its bytes."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE(byte_fallback=True))
    words.pre_tokenizer = pre_tokenizers.Split(
        Regex(r" ?\p{Han}+| ?[\p{Latin}\p{Greek}\p{Cyrillic}]+| ?\p{N}{1,4}| ?[^\s\p{L}\p{N}]|\s+"),
        "isolated",
    )
    words.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=1,
        special_tokens=[_END_TOKEN, _PAD_TOKEN, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    words.train_from_iterator(pieces, trainer)
    made = json.loads(words.to_str())
    made["added_tokens"] = made["added_tokens"][:2]  # bytes are text, not marks
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(made)),
        eos_token=_END_TOKEN,
        pad_token=_PAD_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def _train(
    records: Sequence[Record], config: TinyConfig, progress: Progress | None, out: Path
) -> None:
    torch = _torch()
    tokenizer = make_tokenizer(_pieces(records), config.vocabulary)
    sentences = len(lines_of(records))
    steps = max(config.least_steps, round(config.rounds * sentences / config.lessons.batch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _new_model(config, tokenizer)
        model.train()
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0
        )
        for step, batch in enumerate(Batches(tokenizer, records, config.lessons, steps)):
            for group in optimiser.param_groups:
                group["lr"] = config.lr * min((step + 1) / 20, 1 - step / steps)
            loss, answers = _loss(model, batch, config)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            if progress is not None and ((step + 1) % 20 == 0 or step + 1 == steps):
                progress(step + 1, steps, float(answers))
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _new_model(config: TinyConfig, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=config.inner,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=1024,
            initializer_range=config.spread,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _loss(model: Any, batch: Batch, config: TinyConfig) -> tuple[Any, Any]:
    """The loss, and its mean over answer tokens alone."""
    import torch

    cross_entropy = torch.nn.functional.cross_entropy
    seen: list[Any] = []

    def move(_module: Any, _inputs: Any, output: Any) -> Any:
        seen.append(output[batch.pivots])
        moved = output.clone()
        moved[batch.target] = output[batch.source]
        return moved

    hook = model.model.layers[config.fact_layer].register_forward_hook(move)
    try:
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    finally:
        hook.remove()
    counts = batch.weights[:, 1:]
    read = counts > 0
    logits = model.lm_head(hidden[:, :-1][read])
    each = cross_entropy(logits, batch.ids[:, 1:][read], reduction="none")
    weight = counts[read]
    loss = (each * weight).sum() / weight.sum()
    if len(batch.firsts):
        held = model.lm_head(model.model.norm(seen[0]))
        loss = loss + config.lens * cross_entropy(held, batch.firsts)
    return loss, each.detach()[weight == 1].mean()
