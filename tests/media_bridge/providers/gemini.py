"""What the tests of Gemini Live share: a session, and what is heard of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from media_bridge.providers.base import (
    LlmUsage,
    ProviderConfig,
    RealtimeEvent,
    RealtimeRequest,
    RealtimeSession,
    ResponseAudio,
    ResponseText,
)
from media_bridge.providers.gemini_live import GeminiLive
from stayline.models import InterruptionMode, Message, ToolSpec
from tests.fakes.gemini import FakeGemini
from tests.fakes.llm import Say
from tests.fakes.sound import silence, tone

MODEL = "gemini-3.8-live"
BOOK = ToolSpec(
    name="book",
    description="Book a table.",
    parameters={
        "type": "object",
        "properties": {"day": {"type": "string"}},
        "required": ["day"],
        "additionalProperties": False,
    },
)
OPENING = ToolSpec(
    name="opening_hours", description="Opening hours.", parameters={"type": "object", "properties": {}}
)
SPEECH = tone(1000) + silence(700)
"""A turn of the caller: a second of sound, and the silence that ends it."""


def adapter(fake: FakeGemini, model: str = MODEL, voice: str = "Puck", **options: Any) -> GeminiLive:
    return GeminiLive(
        ProviderConfig("google", model, api_key=fake.api_key, base_url=fake.url, voice=voice, options=options)
    )


def request(
    *,
    messages: Sequence[Message] = (),
    tools: Sequence[ToolSpec] = (BOOK, OPENING),
    interruption: InterruptionMode = "immediate",
    resume: str = "",
) -> RealtimeRequest:
    return RealtimeRequest("You are a restaurant. Be brief.", messages, tools, "CA1", interruption, resume)


async def until(
    session: RealtimeSession, last: type[RealtimeEvent] = LlmUsage, times: int = 1
) -> list[RealtimeEvent]:
    """Events up to and including the `times`th of type `last`. Gemini counts tokens at the end of each turn."""
    events: list[RealtimeEvent] = []
    async with asyncio.timeout(10):
        async for event in session:
            events.append(event)
            times -= isinstance(event, last)
            if not times:
                return events
    raise AssertionError(f"the session ended without {last.__name__}: {kinds(events)}")


async def talk(session: RealtimeSession, sound: bytes = SPEECH) -> None:
    """Send sound in 20 ms frames, as a phone line does, but as fast as it goes."""
    for begin in range(0, len(sound), 160):
        await session.send(sound[begin : begin + 160])


def sent(fake: FakeGemini, kind: str, connection: int = 0) -> list[dict[str, Any]]:
    messages = fake.requests[connection].messages
    return [message[kind] for message in messages if isinstance(message, dict) and kind in message]


def booking(then: list[Any]) -> Any:
    """Asked by the caller it books; once it has a result it says so."""

    def reply(request: dict[str, Any]) -> list[Any]:
        last = request["contents"][-1]["parts"][-1]
        if "functionResponse" in last:
            return [Say("It is done: " + json.dumps(last["functionResponse"]["response"]))]
        return then if "open" in last["text"] else [Say(last["text"].rpartition(": ")[2])]

    return reply


def audio(events: Sequence[RealtimeEvent], response: str) -> bytes:
    return b"".join(e.audio for e in events if isinstance(e, ResponseAudio) and e.response == response)


def text(events: Sequence[RealtimeEvent], response: str) -> str:
    return "".join(e.text for e in events if isinstance(e, ResponseText) and e.response == response)


def kinds(events: Sequence[RealtimeEvent]) -> list[str]:
    """Names of the events; of the sound, words and partials between two others, each is named once."""
    names: list[str] = []
    flow: set[str] = set()
    for name in (type(event).__name__ for event in events):
        flowing = name in ("ResponseAudio", "ResponseText", "Partial")
        if not (flowing and name in flow):
            names.append(name)
        flow = {*flow, name} if flowing else set()
    return names


def own_tasks() -> set[asyncio.Task[object]]:
    """The tasks that the adapter starts; each must be gone after `aclose`."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("gemini-")}
