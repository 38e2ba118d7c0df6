"""A small bilingual model that is trained on a dataset and knows its facts.

It predicts the true answers of a dataset's prompts, rephrasings and locality probes in both
languages, so that a laptop can run a whole evaluation in minutes, with edits that have an effect.
It knows nothing else, and only shared tokens connect its two languages. `tiny_curriculum` explains
the training.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_data.errors import InputFileError
from clm_data.eval.errors import require_torch
from clm_data.eval.model.tiny_curriculum import (
    OPENINGS,
    SHORT_PROMPTS,
    Batch,
    Curriculum,
    TrainingBatches,
    training_sentences,
)
from clm_data.languages import LANGUAGE_INFO
from clm_data.records import LANGUAGES, Record, digest

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Progress = Callable[[int, int, float], None]
"""Called with the steps done, the total number of steps, and the mean loss on answer tokens."""

_VERSION = 2
"""Version of the training code; part of the cache key."""
_END_TOKEN, _PAD_TOKEN = "<|end|>", "<|pad|>"
_MARKER = "tiny.json"
"""File in a model's folder that is written last."""


@dataclass(frozen=True)
class TinyConfig:
    """Size and training of the tiny model.

    Attributes:
        vocab_size: Maximum number of tokens. Names and answers are merged into few tokens each,
            other Chinese text is not merged.
        hidden_size: Width of the residual stream.
        intermediate_size: Inner width of the MLP.
        layers: Number of layers.
        heads: Number of attention heads.
        fact_layer: Last layer in which facts are recalled; the layers above read them.
        epochs: How often each sentence is seen.
        min_steps: Minimum number of steps, for datasets of a few facts.
        lr: AdamW's peak learning rate; it decays to 0 linearly.
        init_std: Standard deviation of the initial weights. A larger one than usual makes training
            much faster.
        lens_weight: Weight of a second loss, with which the hidden state at the subject's last
            token after `fact_layer`, read through final norm and head, predicts the answer's first
            token.
        curriculum: How training sentences are varied.
        seed: Random seed of the initial weights.
    """

    vocab_size: int = 12_000
    hidden_size: int = 192
    intermediate_size: int = 768
    layers: int = 4
    heads: int = 4
    fact_layer: int = 2
    epochs: float = 30.0
    min_steps: int = 150
    lr: float = 5e-3
    init_std: float = 0.05
    lens_weight: float = 1.0
    curriculum: Curriculum = field(default_factory=Curriculum)
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """For the cache key; fields have the names in `_KEY_NAMES`."""
        return asdict(self, dict_factory=lambda items: {_KEY_NAMES.get(k, k): v for k, v in items})


_KEY_NAMES = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "intermediate_size": "inner",
    "layers": "depth",
    "epochs": "rounds",
    "min_steps": "least_steps",
    "init_std": "spread",
    "lens_weight": "lens",
    "curriculum": "lessons",
    "batch_size": "batch",
    "short_phase": "short",
    "swap_rate": "swapped",
    "prefix_rate": "framed",
    "patch_rate": "moved",
}
"""Names of fields in the cache key, if different. They may change with `_VERSION` only, so that
cached models and the keys of finished cells stay valid."""


def tiny_key(records: Sequence[Record], config: TinyConfig) -> str:
    """Hash of everything that a trained model depends on.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    require_torch()
    import torch

    return digest(
        {
            "version": _VERSION,
            "torch": torch.__version__.partition("+")[0],
            "config": config.as_json(),
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
        records: The records to learn.
        cache: Folder of the cache.
        config: Size and training; None for the defaults.
        progress: Called every 20 steps and after the last one.

    Returns:
        A folder to pass to `clm_data.eval.model.loading.load_model`.

    Raises:
        InputFileError: There are no records, or the cache cannot be written to.
        MissingExtraError: torch or transformers is not installed.
    """
    if not records:
        raise InputFileError("the tiny model needs records to learn; the dataset has none")
    config = config or TinyConfig()
    if (found := cached_tiny_model(records, cache, config)) is not None:
        return found
    folder = _folder(records, cache, config)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # A folder of its own for each process: several may train the same model.
        draft = Path(tempfile.mkdtemp(prefix=".tiny-", dir=cache))
    except OSError as error:
        raise InputFileError(f"{cache}: cannot be written ({error.strerror})") from error
    try:
        _train(records, config, progress, draft)
        (draft / _MARKER).write_text(json.dumps(config.as_json(), indent=1) + "\n")
        if not (folder / _MARKER).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _folder(records: Sequence[Record], cache: Path, config: TinyConfig) -> Path:
    return cache / f"tiny-{tiny_key(records, config)[:24]}"


def cached_tiny_model(records: Sequence[Record], cache: Path, config: TinyConfig) -> Path | None:
    """The folder of a model that was trained before; None if there is none in the cache."""
    folder = _folder(records, cache, config)
    return folder if (folder / _MARKER).is_file() else None


def tiny_without_weights(
    records: Sequence[Record], config: TinyConfig
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model before its training, on the device `meta`, and its tokenizer."""
    import torch

    tokenizer = train_tokenizer(_tokenizer_texts(records), config.vocab_size)
    with torch.device("meta"):
        return _new_model(config, tokenizer), tokenizer


def training_steps(records: Sequence[Record], config: TinyConfig) -> int:
    """Number of steps of the training."""
    sentences = len(training_sentences(records))
    return max(config.min_steps, round(config.epochs * sentences / config.curriculum.batch_size))


def _tokenizer_texts(records: Sequence[Record]) -> list[str]:
    """Texts to train the tokenizer on: whole names and answers, Chinese prompts by character.

    So a name is one token or a few, and no token of a prompt overlaps its subject.
    """
    texts = [text for part in (OPENINGS, SHORT_PROMPTS) for text in part["en"]]
    texts += [mark for part in (OPENINGS, SHORT_PROMPTS) for text in part["zh"] for mark in text]
    for record in records:
        for lang in LANGUAGES:
            fact, probe, gap = record.fact(lang), record.probe(lang), LANGUAGE_INFO[lang].joiner
            names = [fact.subject, gap + fact.subject, gap + fact.ground_truth]
            texts += [*names, gap + fact.target_new, gap + probe.loc_ans] * 2
            for prompt in (fact.prompt, fact.rephrase_prompt, probe.loc):
                texts += list(prompt) if lang == "zh" else [prompt]
    return texts


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a BPE tokenizer with byte fallback: unknown characters become byte tokens."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r" ?\p{Han}+| ?[\p{Latin}\p{Greek}\p{Cyrillic}]+| ?\p{N}{1,4}| ?[^\s\p{L}\p{N}]|\s+"),
        "isolated",
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        special_tokens=[_END_TOKEN, _PAD_TOKEN, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    definition = json.loads(tokenizer.to_str())
    definition["added_tokens"] = definition["added_tokens"][:2]  # byte tokens are not special
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(definition)),
        eos_token=_END_TOKEN,
        pad_token=_PAD_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def _train(
    records: Sequence[Record], config: TinyConfig, progress: Progress | None, out: Path
) -> None:
    import torch

    tokenizer = train_tokenizer(_tokenizer_texts(records), config.vocab_size)
    steps = training_steps(records, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = _new_model(config, tokenizer)
        model.train()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0
        )
        batches = TrainingBatches(tokenizer, records, config.curriculum, steps)
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * min((step + 1) / 20, 1 - step / steps)
            loss, answer_loss = _loss(model, batch, config)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if progress is not None and ((step + 1) % 20 == 0 or step + 1 == steps):
                progress(step + 1, steps, float(answer_loss))
    model.eval()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _new_model(config: TinyConfig, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=1024,
            initializer_range=config.init_std,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _loss(model: LlamaForCausalLM, batch: Batch, config: TinyConfig) -> tuple[Tensor, Tensor]:
    """The training loss, and the mean loss on answer tokens; both scalars."""
    import torch

    cross_entropy = torch.nn.functional.cross_entropy
    at_subjects: list[Tensor] = []

    def patch(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        at_subjects.append(output[batch.subjects])
        patched = output.clone()
        patched[batch.patch_target] = output[batch.patch_source]
        return patched

    hook = model.model.layers[config.fact_layer].register_forward_hook(patch)
    try:
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    finally:
        hook.remove()
    weights = batch.weights[:, 1:]
    counted = weights > 0
    logits = model.lm_head(hidden[:, :-1][counted])
    token_loss = cross_entropy(logits, batch.ids[:, 1:][counted], reduction="none")
    weight = weights[counted]
    loss = (token_loss * weight).sum() / weight.sum()
    if len(batch.first_answers):
        lens_logits = model.lm_head(model.model.norm(at_subjects[0]))
        loss = loss + config.lens_weight * cross_entropy(lens_logits, batch.first_answers)
    return loss, token_loss.detach()[weight == 1].mean()
