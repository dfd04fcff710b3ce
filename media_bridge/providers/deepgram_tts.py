"""Deepgram text to speech (Aura), 8 kHz μ-law: the adapter, its options and its request.

The conversation on the socket is in `deepgram_voice`.
"""

from __future__ import annotations

from pydantic import Field
from websockets.asyncio.client import ClientConnection

from media_bridge.providers.base import ProviderConfig, TtsProfile
from media_bridge.providers.deepgram_voice import DeepgramVoice
from media_bridge.providers.options import Options, read_options
from media_bridge.providers.vendor_socket import Query, open_socket, warm_origin
from stayline.catalog import PROVIDERS


class AuraOptions(Options):
    """Options of Deepgram's voices, by Deepgram's own names."""

    speed: float | None = Field(None, ge=0.7, le=1.5)
    mip_opt_out: bool | None = None  #: keep the text out of Deepgram's model improvement


class DeepgramTts:
    """Adapter of Deepgram's Aura voices. The model names the voice; `voice`, if given, is such a name too."""

    profile = TtsProfile(native_mulaw=True)

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._options = read_options(AuraOptions, config, "tts")
        self._base_url = config.base_url or PROVIDERS["deepgram"].default_base_url

    async def warm(self) -> None:
        await warm_origin(self._base_url)

    async def connect(self, *, call_id: str) -> DeepgramVoice:
        """Open one call's voice.

        Raises:
            ProviderError: Deepgram refused or could not be reached.
        """
        query: Query = [
            ("model", self._config.voice or self._config.model),
            ("encoding", "mulaw"),
            ("sample_rate", 8000),
            *self._options.model_dump(exclude_none=True).items(),
        ]

        async def open_() -> ClientConnection:
            return await open_socket(
                "deepgram",
                self._base_url,
                "/v1/speak",
                query=query,
                headers={"Authorization": f"Token {self._config.api_key}"},
                secret=self._config.api_key,
            )

        return DeepgramVoice(await open_(), open_, self._config.api_key)

    async def aclose(self) -> None:
        """Nothing is shared between calls."""
