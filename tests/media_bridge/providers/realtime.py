"""What the tests of the voice-to-voice adapters share."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from media_bridge.providers.base import (
    RealtimeEvent,
    RealtimeRequest,
    RealtimeSession,
    ResponseAudio,
    ResponseText,
    ToolCallDelta,
)
from stayline.models import InterruptionMode, Message, ToolSpec
from tests.fakes.sound import silence, tone
from tests.media_bridge.providers.llm import END_CALL, WEATHER
from tests.media_bridge.providers.speech import FRAME


def session_request(
    *messages: Message,
    interruption: InterruptionMode = "immediate",
    tools: tuple[ToolSpec, ...] = (WEATHER, END_CALL),
    resume: str = "",
) -> RealtimeRequest:
    return RealtimeRequest("Be brief.", messages, tools, "CA123", interruption, resume)


async def hear(session: RealtimeSession, last: type[RealtimeEvent], count: int = 1) -> list[RealtimeEvent]:
    """Events up to and including the `count`-th of type `last`."""
    events: list[RealtimeEvent] = []
    async with asyncio.timeout(10):
        while sum(isinstance(event, last) for event in events) < count:
            events.append(await anext(aiter(session)))
    return events


async def speak(session: RealtimeSession, audio: bytes) -> None:
    """The caller's audio in 20 ms frames, as a phone line has it, but as fast as it goes."""
    for begin in range(0, len(audio), FRAME):
        await session.send(audio[begin : begin + FRAME])


def turn(speech_ms: int = 1000, pause_ms: int = 700) -> bytes:
    """A turn of the caller: some silence, speech, and a pause that ends it."""
    return silence(400) + tone(speech_ms) + silence(pause_ms)


def text_of(events: Sequence[RealtimeEvent], response: str = "") -> str:
    return "".join(e.text for e in events if isinstance(e, ResponseText) and response in ("", e.response))


def audio_of(events: Sequence[RealtimeEvent], response: str = "") -> bytes:
    return b"".join(e.audio for e in events if isinstance(e, ResponseAudio) and response in ("", e.response))


def calls_of(events: Sequence[RealtimeEvent]) -> list[ToolCallDelta]:
    return [event for event in events if isinstance(event, ToolCallDelta)]
