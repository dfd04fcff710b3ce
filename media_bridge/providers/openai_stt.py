"""OpenAI speech to text: which of its two ways a model goes.

| model | way | who finds the ends of turns |
|---|---|---|
| `gpt-live-transcribe`, `gpt-realtime-whisper` | live session | we do, with Silero: OpenAI does not for them |
| `gpt-transcribe`, `gpt-4o-(mini-)transcribe` | live session | OpenAI: `server_vad`, `semantic_vad` |
| the same with `api="file"`, and `whisper-1` | one request per utterance | we do |

The live session is in `openai_transcription`, the requests are in `openai_file_stt`.
"""

from __future__ import annotations

from media_bridge.providers.base import ProviderConfig, SttProfile, SttProvider, SttStream
from media_bridge.providers.openai_client import require_key
from media_bridge.providers.openai_file_stt import FileTranscription
from media_bridge.providers.openai_stt_options import OpenAISttOptions, check
from media_bridge.providers.openai_transcription import LiveTranscription
from media_bridge.providers.options import read_options
from media_bridge.providers.utterances import require_vad


class OpenAIStt:
    """See `SttProvider`."""

    profile: SttProfile

    def __init__(self, config: ProviderConfig) -> None:
        require_key(config)
        options = check(config.model, read_options(OpenAISttOptions, config, "stt"))
        if options.turn_detection == "local":
            require_vad("openai")
        way = FileTranscription if options.api == "file" else LiveTranscription
        self._way: SttProvider = way(config, options)
        self.profile = self._way.profile

    async def warm(self) -> None:
        await self._way.warm()

    async def connect(self, *, call_id: str) -> SttStream:
        """Open one call's ear.

        Raises:
            ProviderError: OpenAI refused or could not be reached.
        """
        return await self._way.connect(call_id=call_id)

    async def aclose(self) -> None:
        await self._way.aclose()
