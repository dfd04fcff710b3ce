"""Deepgram text to speech, 8 kHz μ-law: the adapter, its options and its requests.

The voice's name is the model and decides the way: `flux-{voice}-{language}` is Flux TTS (`/v2/speak`, the
conversation is in `deepgram_flux_voice`), anything else is Aura (`/v1/speak`, in `deepgram_voice`). Neither takes
the other's names.
"""

from __future__ import annotations

import functools

from pydantic import Field
from websockets.asyncio.client import ClientConnection

from media_bridge.providers.base import ProviderConfig, TtsProfile, TtsSession
from media_bridge.providers.deepgram_flux_voice import FluxVoice
from media_bridge.providers.deepgram_voice import DeepgramVoice
from media_bridge.providers.options import Options, read_options
from media_bridge.providers.vendor_socket import Query, open_socket, warm_origin
from stayline.catalog import PROVIDERS


class AuraOptions(Options):
    """Options of Deepgram's Aura voices, by Deepgram's own names."""

    speed: float | None = Field(None, ge=0.7, le=1.5)
    mip_opt_out: bool | None = None  #: keep the text out of Deepgram's model improvement


class FluxVoiceOptions(Options):
    """Options of Deepgram's Flux voices, by Deepgram's own names."""

    speed: float | None = Field(None, ge=0.5, le=1.5, multiple_of=0.05)
    expressivity: int | None = Field(None, ge=-2, le=2)  #: calm to animated; 0 is the voice's own
    mip_opt_out: bool | None = None  #: keep the text out of Deepgram's model improvement
    tag: tuple[str, ...] = ()  #: besides the call id


class DeepgramTts:
    """Adapter of Deepgram's voices. The model names the voice; `voice`, if given, is such a name too."""

    profile = TtsProfile(native_mulaw=True)

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._voice = config.voice or config.model
        self._flux = self._voice.startswith("flux-")
        self._options = read_options(FluxVoiceOptions if self._flux else AuraOptions, config, "tts")
        self._base_url = config.base_url or PROVIDERS["deepgram"].default_base_url

    async def warm(self) -> None:
        await warm_origin(self._base_url)

    async def connect(self, *, call_id: str) -> TtsSession:
        """Open one call's voice.

        Raises:
            ProviderError: Deepgram refused or could not be reached.
        """
        open_ = functools.partial(self._open, call_id)
        if not self._flux:
            return DeepgramVoice(await open_(), open_, self._config.api_key)
        voice = FluxVoice(open_, self._config.api_key)
        await voice.connect()
        return voice

    async def _open(self, call_id: str) -> ClientConnection:
        options = self._options.model_dump(exclude_none=True)
        tags = (call_id, *options.pop("tag", ())) if self._flux else ()
        query: Query = [
            ("model", self._voice),
            ("encoding", "mulaw"),
            ("sample_rate", 8000),
            *options.items(),
            *(("tag", tag) for tag in tags),
        ]
        return await open_socket(
            "deepgram",
            self._base_url,
            "/v2/speak" if self._flux else "/v1/speak",
            query=query,
            headers={"Authorization": f"Token {self._config.api_key}"},
            secret=self._config.api_key,
        )

    async def aclose(self) -> None:
        """Nothing is shared between calls."""
