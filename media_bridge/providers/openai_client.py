"""OpenAI's SDK for the speech adapters: loaded on first use in a thread, one client for all calls of a provider."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from media_bridge.providers.base import ProviderConfig
from media_bridge.providers.llm_client import CONNECTIONS, KEEPALIVE
from media_bridge.providers.llm_http import provider_errors
from stayline.catalog import PROVIDERS
from stayline.errors import ConfigError

if TYPE_CHECKING:
    from openai import AsyncOpenAI


def require_key(config: ProviderConfig) -> None:
    """
    Raises:
        ConfigError: there is no key.
    """
    if not config.api_key:
        raise ConfigError("OpenAI has no key.", fix="Set OPENAI_API_KEY.")


def versioned_origin(config: ProviderConfig) -> str:
    """The origin with `/v1`; an address that already has a path is left as it is."""
    origin = (config.base_url or PROVIDERS["openai"].default_base_url).rstrip("/")
    return origin if "/" in origin.partition("://")[2] else f"{origin}/v1"


def request_id(call_id: str, role: str, number: int) -> dict[str, str]:
    """The header by which OpenAI's support finds a request: an id of ours, unique and in ASCII."""
    name = f"{call_id}-{role}-{number}".encode("ascii", "replace").decode()
    return {"X-Client-Request-Id": name[:512]}


class OpenAIClient:
    """The SDK's client when somebody needs it.

    Args:
        connect_timeout, read_timeout: seconds; the latter is the longest gap between two pieces of an answer.
    """

    def __init__(self, config: ProviderConfig, *, connect_timeout: float, read_timeout: float) -> None:
        self._config = config
        self._timeouts = (connect_timeout, read_timeout)
        self._client: AsyncOpenAI | None = None
        self._loading = asyncio.Lock()

    async def ready(self) -> AsyncOpenAI:
        async with self._loading:
            if self._client is None:
                # The import takes 1.5-3 s; on the event loop every call of the process would hear it.
                self._client = await asyncio.to_thread(self._load)
            return self._client

    async def warm(self) -> None:
        """Load the SDK and open a connection; asks for the model, so a wrong key or name shows here.

        Raises:
            ProviderError: OpenAI refused or could not be reached.
        """
        with provider_errors(self._config):
            client = await self.ready()
            await client.models.retrieve(self._config.model)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _load(self) -> AsyncOpenAI:
        import httpx2
        import openai

        connect, read = self._timeouts
        timeout = httpx2.Timeout(read, connect=connect)
        # The SDK keeps idle connections 5 s, less than a caller's turn often takes.
        limits = httpx2.Limits(
            max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS // 4, keepalive_expiry=KEEPALIVE
        )
        client = openai.AsyncOpenAI(
            api_key=self._config.api_key,
            base_url=versioned_origin(self._config),
            max_retries=0,
            timeout=timeout,  # the SDK wants it on its client as well as on the HTTP client
            http_client=openai.DefaultAsyncHttpxClient(limits=limits, timeout=timeout),
        )
        # The SDK imports the types of an endpoint when it is first touched.
        _ = client.models, client.audio.transcriptions, client.audio.speech.with_streaming_response
        return client
