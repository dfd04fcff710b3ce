"""ElevenLabs text to speech, 8 kHz μ-law: the adapter, its options and its request.

The conversation on the socket is in `elevenlabs_voice`.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from pydantic import Field
from websockets.asyncio.client import ClientConnection

from media_bridge.providers.base import ProviderConfig, TtsProfile
from media_bridge.providers.elevenlabs_voice import ElevenLabsVoice
from media_bridge.providers.options import Options, read_options
from media_bridge.providers.vendor_socket import open_socket, warm_origin
from stayline.catalog import PROVIDERS
from stayline.errors import ConfigError

INACTIVITY: Final = 60  #: seconds that we ask ElevenLabs to bear; its default is 20


class ElevenLabsOptions(Options):
    """Options of ElevenLabs' voices, by ElevenLabs' own names."""

    stability: float | None = Field(None, ge=0, le=1)
    similarity_boost: float | None = Field(None, ge=0, le=1)
    style: float | None = Field(None, ge=0, le=1)
    use_speaker_boost: bool | None = None
    speed: float | None = Field(None, ge=0.7, le=1.2)
    apply_text_normalization: str | None = Field(None, pattern="^(auto|on|off)$")
    enable_logging: bool | None = None  #: False: zero retention, where the account may

    def voice_settings(self) -> dict[str, Any]:
        return self.model_dump(
            include={"stability", "similarity_boost", "style", "use_speaker_boost", "speed"}, exclude_none=True
        )


class ElevenLabsTts:
    """Adapter of ElevenLabs' streaming models."""

    profile = TtsProfile(native_mulaw=True)

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._options = read_options(ElevenLabsOptions, config, "tts")
        if not config.voice:
            raise ConfigError("elevenlabs needs a voice.", fix="Give the agent voice= with an ElevenLabs voice id.")
        self._base_url = config.base_url or PROVIDERS["elevenlabs"].default_base_url

    async def warm(self) -> None:
        await warm_origin(self._base_url)

    async def connect(self, *, call_id: str) -> ElevenLabsVoice:
        """Open one call's voice.

        Raises:
            ProviderError: ElevenLabs refused or could not be reached.
        """
        config, options = self._config, self._options
        query: list[tuple[str, str | int | float | bool]] = [
            ("model_id", config.model),
            ("output_format", "ulaw_8000"),
            ("inactivity_timeout", INACTIVITY),
            ("sync_alignment", True),
        ]
        if config.model.endswith("_v2_5"):  # the other models refuse a language
            query.append(("language_code", config.language))
        query += options.model_dump(
            include={"apply_text_normalization", "enable_logging"}, exclude_none=True
        ).items()

        async def open_() -> ClientConnection:
            return await open_socket(
                "elevenlabs",
                self._base_url,
                f"/v1/text-to-speech/{quote(config.voice, safe='')}/multi-stream-input",
                query=query,
                headers={"xi-api-key": config.api_key},
                secret=config.api_key,
            )

        voice = ElevenLabsVoice(open_, options.voice_settings(), config.api_key)
        await voice.connect()
        return voice

    async def aclose(self) -> None:
        """Nothing is shared between calls."""
