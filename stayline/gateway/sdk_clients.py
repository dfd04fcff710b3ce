"""A vendor's own SDK client as the language model: configured by the application, used as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from media_bridge.providers.anthropic_llm import AnthropicLlm
from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.llm_client import SdkClient
from media_bridge.providers.openai_llm import OpenAILlm
from stayline.catalog import DEFAULTS
from stayline.errors import ConfigError

_VENDORS: Final = ("anthropic", "openai")


def is_sdk_client(thing: object) -> bool:
    """Whether this is a client of a vendor's package. Nothing is imported: whoever has one has the package."""
    return _vendor(thing) in _VENDORS and hasattr(thing, "api_key") and hasattr(thing, "base_url")


def adapter_for(client: Any, model: str, options: Mapping[str, Any]) -> AnthropicLlm | OpenAILlm:
    """The language model behind a client.

    Args:
        model: default: the vendor's of `stayline.catalog.DEFAULTS`.
        options: the adapter's, e.g. {"max_tokens": 300}. Those of its connection are the client's own affair.
    Raises:
        ConfigError: the client is not asynchronous, or an option is wrong.
    """
    vendor = _vendor(client)
    name = type(client).__name__
    if not name.startswith("Async"):
        raise ConfigError(
            f"llm_client is a {name}: while it waits, the audio of every call would.", fix=f"Give an Async{name}."
        )
    config = ProviderConfig(
        provider=vendor,
        model=model or DEFAULTS["llm", vendor].models[0],
        api_key="the client's own",
        base_url=str(client.base_url).rstrip("/").removesuffix("/v1"),
        options=dict(options),
    )
    adapter = AnthropicLlm if vendor == "anthropic" else OpenAILlm
    return adapter(config, SdkClient(client))


def _vendor(thing: object) -> str:
    return type(thing).__module__.partition(".")[0]
