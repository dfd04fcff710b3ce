"""OpenAI text to speech: which of its two ways a model goes, the voices and the options.

| model | way |
|---|---|
| `tts-1`, `tts-1-hd`, `gpt-4o-mini-tts` | the speech endpoint, in `openai_speech`; switched off on 2027-01-06 |
| `gpt-realtime-2.1-mini`, `gpt-realtime-2.1`, … | a Realtime session that reads out, in `openai_speech_realtime` |

The option `api` decides for a model whose name does not say it.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from media_bridge.providers.base import ProviderConfig, TtsProfile, TtsProvider, TtsSession
from media_bridge.providers.openai_client import require_key
from media_bridge.providers.options import Options, read_options
from stayline.errors import ConfigError
from stayline.suggest import closest

Api = Literal["speech", "realtime"]

VOICES: Final = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
SPEECH_ONLY_VOICES: Final = ("fable", "onyx", "nova")
DEFAULT_VOICE: Final = "alloy"
CUSTOM_VOICE: Final = "voice_"  #: ids of voices of one's own begin so

SPEECH_MODELS: Final = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15")
_REALTIME_PREFIX: Final = "gpt-realtime"
_FASTEST_REALTIME: Final = 1.5


class OpenAITtsOptions(Options):
    """`options={"tts": {...}}`, by OpenAI's own names; seconds where not said otherwise."""

    api: Api | None = None  #: None: as the model's name says
    speed: float | None = Field(None, ge=0.25, le=4)  #: realtime: at most 1.5
    instructions: str = ""  #: how to speak, in words; not for tts-1 and tts-1-hd
    connect_timeout: float = Field(2.0, gt=0, le=4)
    read_timeout: float = Field(5.0, gt=0)  #: speech endpoint: the longest gap between two pieces of audio


class OpenAITts:
    """See `TtsProvider`."""

    profile: TtsProfile

    def __init__(self, config: ProviderConfig) -> None:
        require_key(config)
        options = read_options(OpenAITtsOptions, config, "tts")
        api = which_api(config.model, options)
        chosen: dict[str, Any] = {"voice": check_voice(config.voice or DEFAULT_VOICE, api)}
        if options.speed is not None:
            chosen["speed"] = options.speed
        self._way: TtsProvider
        if api == "realtime":
            from media_bridge.providers.openai_speech_realtime import RealtimeSpeech

            self._way = RealtimeSpeech(config, chosen, manner=options.instructions, timeout=options.connect_timeout)
        else:
            from media_bridge.providers.openai_speech import SpeechEndpoint

            if options.instructions:
                chosen["instructions"] = options.instructions
            self._way = SpeechEndpoint(
                config, chosen, connect_timeout=options.connect_timeout, read_timeout=options.read_timeout
            )
        self.profile = self._way.profile

    async def warm(self) -> None:
        await self._way.warm()

    async def connect(self, *, call_id: str) -> TtsSession:
        """Open one call's voice.

        Raises:
            ProviderError: OpenAI refused or could not be reached. The speech endpoint is not asked before the
                first text, so there an utterance tells.
        """
        return await self._way.connect(call_id=call_id)

    async def aclose(self) -> None:
        await self._way.aclose()


def which_api(model: str, options: OpenAITtsOptions) -> Api:
    """Decide the way, and refuse what OpenAI would refuse. A model that is not known may do anything.

    Raises:
        ConfigError: the model and an option do not go together.
    """
    realtime = model.startswith(_REALTIME_PREFIX)
    api: Api = options.api or ("realtime" if realtime else "speech")
    name = f"openai/{model}"
    if api == "speech" and realtime:
        raise ConfigError(f"{name} is not for the speech endpoint.", fix='Leave out api="speech".')
    if api == "realtime" and model in SPEECH_MODELS:
        raise ConfigError(f"{name} has no Realtime session.", fix='Use "openai/gpt-realtime-2.1-mini".')
    if api == "realtime" and options.speed is not None and options.speed > _FASTEST_REALTIME:
        raise ConfigError(f"{name}: speed is at most {_FASTEST_REALTIME:g}.", fix=f"It was {options.speed:g}.")
    if options.instructions and model in ("tts-1", "tts-1-hd"):
        raise ConfigError(f"{name} takes no instructions.", fix='Use "openai/gpt-4o-mini-tts".')
    return api


def check_voice(voice: str, api: Api) -> str | dict[str, str]:
    """The voice as OpenAI wants it: a name, or the id of a voice of one's own.

    Raises:
        ConfigError: there is no such voice, or not this way.
    """
    if voice.startswith(CUSTOM_VOICE):
        return {"id": voice}
    if api == "realtime" and voice in SPEECH_ONLY_VOICES:
        raise ConfigError(
            f"OpenAI's voice {voice!r} is only on the speech endpoint, until 2027-01-06.",
            fix=f"For Realtime models: {', '.join(VOICES)}.",
        )
    known = VOICES if api == "realtime" else (*VOICES, *SPEECH_ONLY_VOICES)
    if voice not in known:
        raise ConfigError(f"OpenAI has no voice {voice!r}.", fix=closest(voice, known))
    return voice
