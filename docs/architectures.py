"""Write ``docs/reference/architectures.md``: which architectures the editors support.

For each decoder-only architecture of the installed transformers that can be built small, with
random weights: whether it passes the proof that ``load_model`` runs. Run
``python docs/architectures.py``; a test repeats the proof and compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from clm_data.eval.model.loaded import LoadedModel

PAGE = Path(__file__).parent / "reference" / "architectures.md"
_LARGEST = 8_000_000
"""Parameters of the largest model that is built."""
_MOE = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}
_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "decoder_layers": 4,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    **_MOE,
}
_OVERRIDES: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "dots1": {"first_k_dense_replace": 1, "n_shared_experts": 1, "n_routed_experts": 4},
    "falcon": {"head_dim": None},
    "falcon_h1": {
        "mlp_multipliers": [0.5, 0.3],
        "lm_head_multiplier": 0.25,
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_state": 8,
        "mamba_chunk_size": 16,
    },
    "gemma3_text": {"num_hidden_layers": 12},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gptj": {"rotary_dim": 8},
    "granite": {"residual_multiplier": 0.22, "logits_scaling": 8.0},
    "granite_swa": {"residual_multiplier": 0.22, "logits_scaling": 8.0},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4},
    "qwen3_5_text": {
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
}
"""Settings that differ for one architecture; None leaves a size at its default."""
_LATENT = ("axk", "deepseek", "glm4_moe_lite", "glm_moe_dsa", "minicpm3", "sarvam_mla", "youtu")
"""Architectures with latent attention, which has as many heads for keys as for queries."""


class Row(NamedTuple):
    """The outcome for one architecture: a layout and layers, or a reason."""

    architecture: str
    supported: bool
    text: str


def small_config(architecture: str) -> Any:
    """A config with small sizes."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(architecture)
    names = getattr(type(default), "attribute_map", {}) or {}
    sizes = {k: v for k, v in _SIZES.items() if hasattr(default, k) or k in names}
    if architecture.startswith(_LATENT):
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    sizes |= _OVERRIDES.get(architecture, {})
    return AutoConfig.for_model(architecture, **{k: v for k, v in sizes.items() if v is not None})


def small_random(architecture: str) -> PreTrainedModel | None:
    """A small random model; None if it cannot be built small with the common settings."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        config = small_config(architecture)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
        if sum(weight.numel() for weight in empty.parameters()) > _LARGEST:
            return None
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    except Exception:  # whatever an unusual config raises
        return None
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "norm" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    try:
        model.eval()(input_ids=torch.tensor([[1, 2, 3, 5]]), use_cache=False)
    except Exception:  # sizes that do not fit together
        return None
    return model


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def architectures() -> list[str]:
    """Model types with a causal language model in the installed transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def survey(names: Iterable[str]) -> Iterator[Row]:
    """Try architectures; those that cannot be built small are left out."""
    from clm_data.errors import ClmDataError
    from clm_data.eval.model.layout import NAME_THEM
    from clm_data.eval.model.loading import prepare

    tokenizer = bytes_tokenizer()
    for name in names:
        model = small_random(name)
        if model is None:
            continue
        try:
            loaded = prepare(name, model, tokenizer)
        except ClmDataError as error:
            reason = str(error).removesuffix(NAME_THEM)
            yield Row(name, False, reason.partition(" is not supported: ")[2] or reason)
            continue
        yield Row(name, True, _how(loaded))


def _how(loaded: LoadedModel) -> str:
    """Cells of the table: the edited module, its layers, and the limits."""
    from clm_data.eval.model.layout import layers_with, numbers

    layout, layers = loaded.layout, loaded.editable
    attention = layers_with(loaded.model, layout.layers, layout.attn_out)
    limits = []
    bent = [layer for layer in layers if loaded.gains and loaded.gains[layer] is None]
    if bent:
        where = "" if bent == layers else f" in {numbers(bent)}"
        limits.append(f"not memit and alphaedit{where}, {loaded.no_gain}")
    if not layout.attn_out:
        limits.append("not pmet, because no layer has an attention output projection")
    elif len(attention) < loaded.depth:
        limits.append(f"pmet in {numbers(attention)} only")
    if not loaded.packs:
        limits.append("rows run one by one")
    where = "all" if len(layers) == loaded.depth else f"{numbers(layers)} of {loaded.depth}"
    return f"`{layout.mlp_out}` | {where} | {'; '.join(limits)}"


def page(rows: Iterable[Row]) -> str:
    """The page's text."""
    import transformers

    rows = list(rows)
    exact = [row for row in rows if row.supported]
    refused = [row for row in rows if not row.supported]
    return "\n".join(
        [
            "<!-- Generated by `python docs/architectures.py`; edit the code, not this page. -->",
            "",
            "# Supported architectures",
            "",
            "Before a number is reported, `evaluate` and `analyze` prove that they can edit the "
            "model: each layer run alone, and rows packed together with stored keys and values, "
            "give what the whole model gives. They also measure how a vector added at the edited "
            "weight's output arrives in the hidden states: as it is, multiplied by a constant, by "
            "which MEMIT's and AlphaEdit's changes are divided, or normalized, which these two "
            "methods refuse. A model that fails is refused in one line. If only the names of its "
            "parts are unknown, `--layout` names them ([models](../../eval/README.md#models)). "
            f"Below is the outcome for each decoder of transformers {transformers.__version__} "
            "that can be built small with random weights. A checkpoint's config can change it.",
            "",
            f"## Supported ({len(exact)})",
            "",
            "Edits change the weight of this module. In a mixture of experts, only the dense "
            "layers can be edited. Rows that run one by one take more time and give the same "
            "numbers.",
            "",
            "| architecture | edited module | layers | limits |",
            "|---|---|---|---|",
            *(f"| {row.architecture} | {row.text} |" for row in exact),
            "",
            f"## Refused ({len(refused)})",
            "",
            "| architecture | reason |",
            "|---|---|",
            *(
                f"| {row.architecture} | {row.text.replace('|', chr(92) + '|')} |"
                for row in refused
            ),
            "",
        ]
    )


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    PAGE.write_text(page(survey(sys.argv[1:] or architectures())), "utf-8")
