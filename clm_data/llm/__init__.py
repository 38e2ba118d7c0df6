"""Chat models by provider name.

Addresses, model names and prices are taken from the providers' own pages. If such a page was not
available, the price is left out, and a run reports that the cost is not known. Providers often
change names and prices of models, so ``model`` and ``base_url`` accept any value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from clm_data.config import Settings
from clm_data.errors import ConfigError, CredentialsError, UnknownNameError
from clm_data.llm.address import Address, check_recipient, parse_address
from clm_data.llm.base import ChatModel, Completion, Message, Usage
from clm_data.llm.transport import Endpoint

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
    "key_problem",
    "model_name",
    "open_model",
    "price_of",
]


@dataclass(frozen=True)
class Price:
    """Price of a model per million tokens; reasoning is billed as output."""

    prompt: float
    completion: float
    currency: str

    def of(self, usage: Usage) -> float | None:
        """The cost of tokens, in ``currency``; None if a count is not known."""
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        tokens = usage.prompt_tokens * self.prompt + usage.completion_tokens * self.completion
        return tokens / 1_000_000


@dataclass(frozen=True)
class Provider:
    """A provider of chat models.

    Attributes:
        name: Value of ``--provider``.
        base_url: Address of its OpenAI-compatible API; None if there is none or the user gives it.
        key_variable: Environment variable with the key; None if no key is used.
        key_required: Whether requests require the key.
        model: Default model; None if the user must name one.
        hosts: Its other hosts (https), which may get the key too.
        prices: Known prices by model name.
    """

    name: str
    base_url: str | None
    key_variable: str | None = None
    key_required: bool = True
    model: str | None = None
    hosts: tuple[str, ...] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)


_PRESETS = (
    # https://api-docs.deepseek.com/quick_start/pricing: prices at peak hours (twice the others) and
    # without cache hits, so never less than what is billed. deepseek-reasoner is not available
    # since 2026-07-24; these models reason by default (guides/thinking_mode).
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
    # No price: SiliconFlow's own page was not available.
    Provider(
        "siliconflow",
        "https://api.siliconflow.cn/v1",
        "SILICONFLOW_API_KEY",
        model="deepseek-ai/DeepSeek-R1",
        hosts=("api.siliconflow.com", "api-st.siliconflow.cn", "api.ap.siliconflow.com"),
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
    # No price: no page with prices was available.
    Provider(
        "dashscope",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        model="deepseek-r1",
        hosts=("dashscope-intl.aliyuncs.com", "dashscope-us.aliyuncs.com"),
    ),
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    Provider("vllm", "http://localhost:8000/v1"),
    # https://docs.ollama.com/api/openai-compatibility
    Provider("ollama", "http://localhost:11434/v1", model="deepseek-r1"),
    # Any other OpenAI-compatible endpoint; the key is optional.
    Provider("custom", None, "CLM_DATA_API_KEY", key_required=False),
    Provider("offline", None, model="bank"),
)

PROVIDERS: dict[str, Provider] = {preset.name: preset for preset in _PRESETS}


def open_model(settings: Settings, environ: Mapping[str, str] = os.environ) -> ChatModel:
    """Open the model of the settings; sends nothing.

    Raises:
        UnknownNameError: There is no such provider.
        CredentialsError: The provider's key is not in the environment.
        ConfigError: The model or the address is missing or invalid.
    """
    provider = _provider(settings)
    if provider.name == "offline":
        from clm_data.llm.offline import OfflineModel

        return OfflineModel()
    from clm_data.llm.openai_compatible import OpenAICompatibleModel

    return OpenAICompatibleModel(
        endpoint(settings, environ), model_name(settings), timeout=settings.generation.timeout
    )


def endpoint(settings: Settings, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The address and key of the provider in the settings.

    Raises:
        UnknownNameError: There is no such provider.
        CredentialsError: The provider's key is not in the environment, or cannot be sent.
        ConfigError: The address is missing or invalid, or is not one that may get the key.
    """
    provider = _provider(settings)
    address = _address(settings, provider)
    return Endpoint(provider.name, address, _key(provider, environ), provider.key_variable)


def model_name(settings: Settings) -> str:
    """The name of the model in the settings, or the provider's default.

    Raises:
        UnknownNameError: There is no such provider.
        ConfigError: The settings name no model, and the provider has no default.
    """
    provider = _provider(settings)
    name = settings.model or provider.model
    if name is None:
        raise ConfigError(
            f"provider '{provider.name}' has no default model; "
            "set it with --model or with 'model:' in clm.yaml"
        )
    return name


def price_of(settings: Settings) -> Price | None:
    """The price of the model in the settings; None if it is not known."""
    provider = _provider(settings)
    if (given := settings.generation.price) is not None:
        return Price(given.prompt, given.completion, given.currency)
    if settings.base_url is not None:
        return None
    return provider.prices.get(settings.model or provider.model or "")


def _provider(settings: Settings) -> Provider:
    if settings.provider not in PROVIDERS:
        raise UnknownNameError("provider", settings.provider, PROVIDERS)
    return PROVIDERS[settings.provider]


def _address(settings: Settings, provider: Provider) -> Address:
    """The checked address; a required key is sent to the provider's own origins only."""
    url = provider.base_url if settings.base_url is None else settings.base_url
    if url is None:
        raise ConfigError(
            f"provider '{provider.name}' needs an address; "
            "set it with --base-url or with 'base_url:' in clm.yaml"
        )
    address = parse_address(url)
    if provider.base_url is not None and provider.key_variable is not None:
        own = parse_address(provider.base_url).origin
        origins = {own, *(("https", host, 443) for host in provider.hosts)}
        check_recipient(address, provider.name, provider.key_variable, origins)
    return address


def _key(provider: Provider, environ: Mapping[str, str]) -> str | None:
    variable = provider.key_variable
    if variable is None:
        return None
    key = environ.get(variable, "").strip()
    if not key and provider.key_required:
        raise CredentialsError(
            f"no API key for {provider.name}: set {variable}, "
            "or use --provider offline, which needs no key"
        )
    if problem := key_problem(key):
        raise CredentialsError(f"{variable} cannot be sent: {problem}")
    return key or None


def key_problem(key: str) -> str | None:
    """Why a key cannot be sent as a header, without repeating it; None if it can."""
    for place, character in enumerate(key, start=1):
        if not "!" <= character <= "~":
            return (
                f"its character {place} of {len(key)} is U+{ord(character):04X}, "
                "not a printable ASCII character; copy the key again"
            )
    return None
