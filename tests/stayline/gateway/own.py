"""Providers of an application's own: the smallest that can hold a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from stayline.lab.voice import is_voiced
from stayline.providers import (
    CallerTranscript,
    LlmEvent,
    LlmProfile,
    LlmRequest,
    ProviderConfig,
    RealtimeEvent,
    RealtimeProfile,
    RealtimeRequest,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
    ToolMessage,
    UserMessage,
)
from tests.fakes.sound import tone


class Parrot:
    """A language model that says what it was told."""

    profile = LlmProfile()

    def __init__(self, config: ProviderConfig | None = None) -> None:
        self.model = config.model if config else ""
        self.requests: list[LlmRequest] = []
        self.warmed = self.closed = False

    async def warm(self) -> None:
        self.warmed = True

    async def stream(self, request: LlmRequest) -> AsyncIterator[LlmEvent]:
        self.requests.append(request)
        last = request.messages[-1]
        for word in (last.text if isinstance(last, UserMessage) else "hm").split():
            yield TextDelta(f"{word} ")
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.closed = True


class RealtimeParrot:
    """A voice-to-voice model that answers every stretch of sound with the same words."""

    profile = RealtimeProfile(native_mulaw=True, can_truncate=True, can_cancel=True)

    def __init__(self, config: ProviderConfig | None = None) -> None:
        self.sessions: list[RealtimeParrotSession] = []

    async def warm(self) -> None: ...

    async def connect(self, request: RealtimeRequest) -> RealtimeParrotSession:
        session = RealtimeParrotSession(request)
        self.sessions.append(session)
        return session

    async def aclose(self) -> None: ...


class RealtimeParrotSession:
    handle = ""

    def __init__(self, request: RealtimeRequest) -> None:
        self.request = request
        self._events: asyncio.Queue[RealtimeEvent | None] = asyncio.Queue()
        self._sent_ms = 0
        self._quiet_ms = 10**6
        self._responses = 0

    async def send(self, audio: bytes) -> None:
        self._sent_ms += len(audio) // 8
        if is_voiced(audio):
            if self._quiet_ms > 300:
                self._events.put_nowait(SpeechStarted(self._sent_ms))
            self._quiet_ms = 0
            return
        before, self._quiet_ms = self._quiet_ms, self._quiet_ms + len(audio) // 8
        if before <= 300 < self._quiet_ms:
            self._events.put_nowait(SpeechStopped(self._sent_ms - 300))
            self._events.put_nowait(CallerTranscript("some sound"))
            self._speak("I heard you.")

    async def say(self, text: str) -> None:
        self._speak(text)

    def _speak(self, text: str) -> None:
        self._responses += 1
        response = f"r{self._responses}"
        for event in (
            ResponseStarted(response),
            ResponseText(response, text),
            ResponseAudio(response, tone(400)),
            ResponseDone(response),
        ):
            self._events.put_nowait(event)

    async def respond(self) -> None: ...

    async def note(self, text: str) -> None: ...

    async def tool_result(self, result: ToolMessage, *, respond: bool) -> None: ...

    async def cancel(self) -> None: ...

    async def truncate(self, response: str, heard_ms: int) -> None: ...

    async def __aiter__(self) -> AsyncIterator[RealtimeEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def aclose(self) -> None:
        self._events.put_nowait(None)
