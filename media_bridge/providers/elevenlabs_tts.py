"""ElevenLabs text to speech, 8 kHz μ-law: the adapter, its options and its requests.

The conversation on the websocket is in `elevenlabs_voice`, the requests over HTTP are in `elevenlabs_http`, and the
change from one to the other is in `elevenlabs_transport`.
"""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import Field
from websockets.asyncio.client import ClientConnection

from media_bridge.providers.base import ProviderConfig, TtsProfile, TtsSession
from media_bridge.providers.elevenlabs_client import ElevenLabsClient, origin
from media_bridge.providers.elevenlabs_http import HttpSpeech, HttpVoice
from media_bridge.providers.elevenlabs_transport import SteadyVoice, WebsocketHealth
from media_bridge.providers.elevenlabs_voice import ElevenLabsVoice
from media_bridge.providers.options import Options, read_options
from media_bridge.providers.vendor_socket import open_socket, warm_origin
from stayline.errors import ConfigError

INACTIVITY: Final = 60  #: seconds that we ask ElevenLabs to bear; its default is 20
WITHOUT_WEBSOCKET: Final = "eleven_v3"
"""Models so named are refused on the websocket with 403 (livekit/agents#4901), and take no text before as context
(home-assistant/core#182944)."""


class ElevenLabsOptions(Options):
    """Options of ElevenLabs' voices, by ElevenLabs' own names."""

    stability: float | None = Field(None, ge=0, le=1)
    similarity_boost: float | None = Field(None, ge=0, le=1)
    style: float | None = Field(None, ge=0, le=1)
    use_speaker_boost: bool | None = None
    speed: float | None = Field(None, ge=0.7, le=1.2)
    apply_text_normalization: str | None = Field(None, pattern="^(auto|on|off)$")
    enable_logging: bool | None = None  #: False: zero retention, where the account may
    transport: Literal["auto", "websocket", "http"] = "auto"
    """`auto`: the websocket where the model has one; when it was refused or lost twice, HTTP."""

    def voice_settings(self) -> dict[str, Any]:
        return self.model_dump(
            include={"stability", "similarity_boost", "style", "use_speaker_boost", "speed"}, exclude_none=True
        )


class ElevenLabsTts:
    """Adapter of ElevenLabs' streaming models."""

    profile = TtsProfile(native_mulaw=True)

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._options = options = read_options(ElevenLabsOptions, config, "tts")
        if not config.voice:
            raise ConfigError("elevenlabs needs a voice.", fix="Give the agent voice= with an ElevenLabs voice id.")
        without_socket = config.model.startswith(WITHOUT_WEBSOCKET)
        if without_socket and options.transport == "websocket":
            raise ConfigError(
                f"elevenlabs/{config.model} has no websocket.", fix='Leave out transport="websocket".'
            )
        self._transport = "http" if without_socket else options.transport
        self._base_url = origin(config)
        self._client = ElevenLabsClient(config)
        self._speech = HttpSpeech(
            self._client, config.voice, self._logging(), self._body(), stitched=not without_socket
        )
        self._health = WebsocketHealth()

    async def warm(self) -> None:
        await warm_origin(self._base_url)

    async def connect(self, *, call_id: str) -> TtsSession:
        """Open one call's voice. Over HTTP there is nothing to open; a refusal comes with the first utterance.

        Raises:
            ProviderError: ElevenLabs refused or could not be reached.
        """
        if self._transport == "http":
            return HttpVoice(self._speech)
        socket = ElevenLabsVoice(self._open, self._options.voice_settings(), self._config.api_key)
        if self._transport == "websocket":
            await socket.connect()
            return socket
        voice = SteadyVoice(socket, HttpVoice(self._speech), self._health)
        await voice.connect()
        return voice

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _open(self) -> ClientConnection:
        config, options = self._config, self._options
        query: list[tuple[str, str | int | float | bool]] = [
            ("model_id", config.model),
            ("output_format", "ulaw_8000"),
            ("inactivity_timeout", INACTIVITY),
            ("sync_alignment", True),
            *self._language().items(),
            *options.model_dump(include={"apply_text_normalization"}, exclude_none=True).items(),
            *self._logging(),
        ]
        return await open_socket(
            "elevenlabs",
            self._base_url,
            f"/v1/text-to-speech/{quote(config.voice, safe='')}/multi-stream-input",
            query=query,
            headers={"xi-api-key": config.api_key},
            secret=config.api_key,
        )

    def _body(self) -> dict[str, Any]:
        """What is the same in all requests over HTTP."""
        settings = self._options.voice_settings()
        return {
            "model_id": self._config.model,
            **self._language(),
            **self._options.model_dump(include={"apply_text_normalization"}, exclude_none=True),
            **({"voice_settings": settings} if settings else {}),
        }

    def _language(self) -> dict[str, str]:
        """Only these models take one; the others refuse it."""
        return {"language_code": self._config.language} if self._config.model.endswith("_v2_5") else {}

    def _logging(self) -> list[tuple[str, bool]]:
        return [] if self._options.enable_logging is None else [("enable_logging", self._options.enable_logging)]
