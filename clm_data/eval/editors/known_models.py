"""Which hyperparameters fit a model, by its config: never by the name of a folder or file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clm_data.errors import ConfigError

KNOWN_MODELS: Mapping[str, Mapping[str, Any]] = {
    # Before Llama-3, whose sizes it has: it is trained on longer texts.
    "llama-3.1-8b": {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    },
    "llama-3-8b": {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
    "qwen2-7b": {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "intermediate_size": 18944,
    },
    # The config of Qwen2-7B, which comes first; the hyperparameters of both are the same but for
    # their sources.
    "qwen2.5-7b": {
        "model_type": "qwen2",
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "intermediate_size": 18944,
    },
    "qwen3-8b": {
        "model_type": "qwen3",
        "num_hidden_layers": 36,
        "hidden_size": 4096,
        "intermediate_size": 12288,
    },
    "mistral-7b": {
        "model_type": "mistral",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 14336,
    },
    # The sizes of Llama-2-7B, whose hyperparameters in EasyEdit these are.
    "llama2-chinese-7b": {
        "model_type": "llama",
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    },
    # These two configs have names of their own for the sizes.
    "gpt-j-6b": {"model_type": "gptj", "n_layer": 28, "n_embd": 4096, "vocab_size": 50400},
    "gpt2-xl": {"model_type": "gpt2", "n_layer": 48, "n_embd": 1600},
    "smollm2-135m": {
        "model_type": "llama",
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "tiny": {
        "model_type": "llama",
        "num_hidden_layers": 4,
        "hidden_size": 192,
        "intermediate_size": 768,
    },
}
"""By name of the hyperparameters: the settings in `config.json` of the models that they are for."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Settings of a config that give the number of experts."""


def params_for_config(name: str, config: Mapping[str, Any]) -> str:
    """The name of the hyperparameters for a model.

    Args:
        name: Name of the model, for the message.
        config: The model's `config.json`.

    Raises:
        ConfigError: No hyperparameters are for a model with this config; the message lists the
            known ones.
    """
    for params, expected in KNOWN_MODELS.items():
        if all(config.get(key) == value for key, value in expected.items()):
            return params
    sizes = dict.fromkeys(key for expected in KNOWN_MODELS.values() for key in expected)
    about = ", ".join(f"{key} {config[key]}" for key in sizes if config.get(key) is not None)
    experts = next((f"{key} {config[key]}" for key in _EXPERTS if config.get(key)), "")
    if experts:
        experts = f"a mixture of experts ({experts}), of which only dense layers can be edited; "
    raise ConfigError(
        f"model {name}: {experts}no hyperparameters are known for its config "
        f"({about or 'no sizes'}); choose some with --params: {', '.join(sorted(KNOWN_MODELS))}"
    )
