"""The chat models that can be asked, by provider name.

Addresses, model names and prices are those of the providers' own pages where those could be read;
where one could not be read the price is left out, and a run says so. Providers rename and re-price
models often: ``model`` and ``base_url`` are free settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from clm_data.config import Settings
from clm_data.errors import ConfigError, CredentialsError, UnknownNameError
from clm_data.llm.base import ChatModel, Completion, Message, Usage

__all__ = [
    "PROVIDERS",
    "ChatModel",
    "Completion",
    "Endpoint",
    "Message",
    "Price",
    "Provider",
    "Usage",
    "endpoint",
    "model_name",
    "open_model",
    "price_of",
]


@dataclass(frozen=True)
class Price:
    """What a model costs, per million tokens; reasoning is billed as output."""

    prompt: float
    completion: float
    currency: str

    def of(self, usage: Usage) -> float:
        """The cost of some tokens, in ``currency``."""
        tokens = usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion
        return tokens / 1_000_000


@dataclass(frozen=True)
class Provider:
    """Where a model is asked, and how.

    Attributes:
        name: As in ``--provider``.
        base_url: Address of its OpenAI-compatible API; None where it has none or the user gives it.
        key_variable: Environment variable that holds the key; None where there is no key.
        key_required: Whether it can be asked without a key.
        model: Default model; None where only the user can know.
        prices: By model name, where known.
    """

    name: str
    base_url: str | None
    key_variable: str | None = None
    key_required: bool = True
    model: str | None = None
    prices: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """Where requests go, and what they are let in by.

    Attributes:
        base_url: Address up to ``/chat/completions``, ``/embeddings`` ...
        key: Sent as a bearer token, and nowhere else; None: no key is needed.
        key_variable: Where the key came from, for error messages.
    """

    base_url: str
    key: str | None
    key_variable: str | None


_PRESETS = (
    # https://api-docs.deepseek.com/quick_start/pricing, its prices at peak hours (others are half)
    # and without cache hits: never less than what is billed. deepseek-reasoner answers no more
    # since 2026-07-24; these models think by default (guides/thinking_mode).
    Provider(
        "deepseek",
        "https://api.deepseek.com",
        "DEEPSEEK_API_KEY",
        model="deepseek-v4-pro",
        prices={
            "deepseek-v4-pro": Price(1.32, 3.96, "USD"),
            "deepseek-flash": Price(0.3, 1.2, "USD"),
        },
    ),
    # No page of SiliconFlow's own with a price was at hand.
    Provider(
        "siliconflow",
        "https://api.siliconflow.cn/v1",
        "SILICONFLOW_API_KEY",
        model="deepseek-ai/DeepSeek-R1",
    ),
    # https://openrouter.ai/deepseek/deepseek-r1
    Provider(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        model="deepseek/deepseek-r1",
        prices={"deepseek/deepseek-r1": Price(0.70, 2.50, "USD")},
    ),
    # Address: https://help.aliyun.com/zh/dashscope/developer-reference/compatibility-of-openai-with-dashscope/
    # No page with a price was at hand.
    Provider(
        "dashscope",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        model="deepseek-r1",
    ),
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    Provider("vllm", "http://localhost:8000/v1"),
    # https://docs.ollama.com/api/openai-compatibility
    Provider("ollama", "http://localhost:11434/v1", model="deepseek-r1"),
    # Any other endpoint that speaks the protocol; the key is sent where there is one.
    Provider("custom", None, "CLM_DATA_API_KEY", key_required=False),
    Provider("offline", None, model="bank"),
)

PROVIDERS: dict[str, Provider] = {preset.name: preset for preset in _PRESETS}


def open_model(settings: Settings, environ: Mapping[str, str] = os.environ) -> ChatModel:
    """The model that the settings name, ready to be asked; nothing is sent yet.

    Raises:
        UnknownNameError: No such provider.
        CredentialsError: The provider's key is not in the environment.
        ConfigError: A model or an address is missing or unusable.
    """
    provider = _provider(settings)
    if provider.name == "offline":
        from clm_data.llm.offline import OfflineModel

        return OfflineModel()
    from clm_data.llm.openai_compatible import OpenAICompatibleModel

    model, at = model_name(settings), endpoint(settings, environ)
    return OpenAICompatibleModel(
        provider.name,
        model,
        base_url=at.base_url,
        key=at.key,
        key_variable=at.key_variable,
        timeout=settings.generation.timeout,
    )


def endpoint(settings: Settings, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The endpoint that the settings name.

    Raises:
        UnknownNameError: No such provider.
        CredentialsError: The provider's key is not in the environment.
        ConfigError: An address is missing or unusable.
    """
    provider = _provider(settings)
    return Endpoint(_base_url(settings, provider), _key(provider, environ), provider.key_variable)


def model_name(settings: Settings) -> str:
    """The model that will be asked.

    Raises:
        UnknownNameError: No such provider.
        ConfigError: The provider has no default and the settings name none.
    """
    provider = _provider(settings)
    name = settings.model or provider.model
    if name is None:
        raise ConfigError(
            f"provider '{provider.name}' has no default model; "
            "name one with --model or with 'model:' in clm.yaml"
        )
    return name


def price_of(settings: Settings) -> Price | None:
    """The price of the model that will be asked; None where it is not known."""
    provider = _provider(settings)
    if settings.base_url is not None:
        return None
    return provider.prices.get(settings.model or provider.model or "")


def _provider(settings: Settings) -> Provider:
    if settings.provider not in PROVIDERS:
        raise UnknownNameError("provider", settings.provider, PROVIDERS)
    return PROVIDERS[settings.provider]


def _base_url(settings: Settings, provider: Provider) -> str:
    url = settings.base_url or provider.base_url
    if url is None:
        raise ConfigError(
            f"provider '{provider.name}' needs an address; "
            "give it with --base-url or with 'base_url:' in clm.yaml"
        )
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"base_url '{url}' is no http:// or https:// address; correct it")
    return url


def _key(provider: Provider, environ: Mapping[str, str]) -> str | None:
    if provider.key_variable is None:
        return None
    key = environ.get(provider.key_variable, "").strip()
    if not key and provider.key_required:
        raise CredentialsError(
            f"no key for {provider.name}: set {provider.key_variable}, "
            "or use --provider offline, which needs none"
        )
    return key or None
