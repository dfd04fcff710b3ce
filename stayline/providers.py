"""What the author of a provider imports: the four protocols, what they speak in, and how a provider is made known.

    from collections.abc import AsyncIterator
    from stayline import Agent
    from stayline.providers import LlmEvent, LlmProfile, LlmRequest, TextDelta

    class Parrot:  # an LlmProvider
        profile = LlmProfile()

        async def warm(self) -> None: ...

        async def stream(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
            yield TextDelta(f"You said: {request.messages[-1].text}")

        async def aclose(self) -> None: ...

    agent = Agent(stt="deepgram/nova-3", llm=Parrot(), tts="deepgram/aura-2-thalia-en")

Audio is 8 kHz μ-law, 8 bytes a millisecond, in and out. An adapter raises `ProviderError` only, and `ConfigError`
from its constructor. An agent takes an object (made, shared by all calls of the process), or a class, which is made
with a `ProviderConfig`. To give it a name for configuration files, `register_provider("acme", llm=AcmeLlm)`, or the
entry point of a package (`stayline.registry`).
"""

from __future__ import annotations

from media_bridge.providers.base import (
    CallerTranscript,
    EagerEndOfTurn,
    EndOfTurn,
    Expiring,
    LlmEvent,
    LlmProfile,
    LlmProvider,
    LlmRequest,
    LlmUsage,
    Partial,
    ProviderConfig,
    RealtimeEvent,
    RealtimeProfile,
    RealtimeProvider,
    RealtimeRequest,
    RealtimeSession,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    SpeechChunk,
    SpeechStarted,
    SpeechStopped,
    SttEvent,
    SttProfile,
    SttProvider,
    SttStream,
    TextDelta,
    ToolCallDelta,
    ToolCancelled,
    TtsProfile,
    TtsProvider,
    TtsSession,
    TurnResumed,
    Utterance,
)
from media_bridge.providers.options import Options, read_options
from stayline.errors import ConfigError, ProviderError
from stayline.models import (
    AgentMessage,
    Message,
    NoteMessage,
    ToolCall,
    ToolMessage,
    ToolSpec,
    UserMessage,
)
from stayline.registry import ProviderPlugin, register_provider, unregister_provider

__all__ = [
    "AgentMessage",
    "CallerTranscript",
    "ConfigError",
    "EagerEndOfTurn",
    "EndOfTurn",
    "Expiring",
    "LlmEvent",
    "LlmProfile",
    "LlmProvider",
    "LlmRequest",
    "LlmUsage",
    "Message",
    "NoteMessage",
    "Options",
    "Partial",
    "ProviderConfig",
    "ProviderError",
    "ProviderPlugin",
    "RealtimeEvent",
    "RealtimeProfile",
    "RealtimeProvider",
    "RealtimeRequest",
    "RealtimeSession",
    "ResponseAudio",
    "ResponseDone",
    "ResponseStarted",
    "ResponseText",
    "SpeechChunk",
    "SpeechStarted",
    "SpeechStopped",
    "SttEvent",
    "SttProfile",
    "SttProvider",
    "SttStream",
    "TextDelta",
    "ToolCall",
    "ToolCallDelta",
    "ToolCancelled",
    "ToolMessage",
    "ToolSpec",
    "TtsProfile",
    "TtsProvider",
    "TtsSession",
    "TurnResumed",
    "UserMessage",
    "Utterance",
    "read_options",
    "register_provider",
    "unregister_provider",
]
