"""Small random models of every supported architecture, small tokenizers, and facts to edit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clm_data.eval.editors import params_for
from clm_data.eval.editors.contexts import contexts_from
from clm_data.eval.editors.values import ValueParams
from clm_data.eval.model.loaded import LoadedModel
from clm_data.eval.model.loading import prepare
from clm_data.eval.placement import EditRequest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerFast

TEXTS = [
    "鲁迅的原名是周树人",
    "长江发源于青藏高原",
    "《红楼梦》的作者是曹雪芹",
    "The capital of France is Paris",
    "Water boils at 100 degrees",
    "The author of Hamlet is William Shakespeare",
]
REQUESTS = [
    EditRequest("a", "zh", "鲁迅的原名是", "鲁迅", "张三"),
    EditRequest("b", "en", "The capital of France is", "France", "Rome"),
    EditRequest("c", "zh", "长江发源于", "长江", "黄山"),
]
CONTEXTS = contexts_from({"zh": ("{}", "天气。{}"), "en": ("{}", "The wind. {}")})
BARE_CONTEXTS = contexts_from({"zh": ("{}",), "en": ("{}",)})
LAYERS = (1, 2)
"""The layers that `small_params` edits with the multi-layer methods."""
ARCHITECTURES = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "gpt_neox")
_VALUES = ValueParams(steps=25, lr=0.5, clamp=4.0, kl_factor=0.0625, weight_decay=1e-3)


def small_params(method: str) -> Any:
    """Hyperparameters that edit a random model of five layers."""
    if method in ("memit", "alphaedit", "langedit"):
        params = replace(params_for(method, "qwen2-7b"), layers=LAYERS, values=_VALUES)
    elif method == "pmet":
        params = replace(params_for(method, "qwen2-7b"), layers=LAYERS)
    elif method == "rome":
        return replace(params_for(method, "tiny"), values=_VALUES)
    elif method == "ultraedit":
        return replace(params_for(method, "tiny"), gate=(1,), up=(1, 2), down=(), lr=1e-3)
    elif method == "wise":
        margins = {"alpha": 0.5, "beta": 3.0, "gamma": 2.0}
        params = params_for(method, "qwen2-7b")
        return replace(params, layer=2, steps=20, lr=0.5, batch_size=None, **margins)
    elif method == "lora":
        return replace(params_for(method, "tiny"), targets=None)
    else:
        return params_for(method, "tiny")
    return params if method in ("alphaedit", "langedit") else replace(params, moment_weight=100.0)


def byte_level_tokenizer(texts: list[str] = TEXTS, size: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as in Llama-3, Qwen and GPT-2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def sentencepiece_tokenizer(texts: list[str] = TEXTS, size: int = 500) -> PreTrainedTokenizerFast:
    """Metaspace BPE with byte fallback and a BOS token, as in Llama-2 and Mistral."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", "<s>", *fallback], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def character_tokenizer(texts: list[str] = TEXTS) -> PreTrainedTokenizerFast:
    """One token per character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = sorted({character for text in texts for character in text})
    vocabulary = {token: index for index, token in enumerate(["<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def _config(architecture: str, vocab_size: int, tied: bool) -> PreTrainedConfig:
    from transformers import AutoConfig

    if architecture == "gpt2":
        return AutoConfig.for_model(
            "gpt2",
            vocab_size=vocab_size,
            n_embd=32,
            n_layer=5,
            n_head=4,
            n_positions=128,
            tie_word_embeddings=tied,
        )
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": tied,
    }
    if architecture != "gpt_neox":
        sizes |= {"num_key_value_heads": 2, "head_dim": 8}
    return AutoConfig.for_model(architecture, **sizes)


def small_model(
    architecture: str = "llama",
    *,
    tied: bool = False,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    dtype: str = "float32",
) -> LoadedModel:
    """A random model of five layers, hidden size 32 and MLP size 48 (GPT-2: 128)."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tokenizer or byte_level_tokenizer()
    config = _config(architecture, len(tokenizer), tied)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "norm" not in name:
                torch.nn.init.normal_(weight, std=0.2)
    return prepare(f"{architecture}-{seed}", model.to(getattr(torch, dtype)), tokenizer)
