"""The suite of the models that hear and speak, and what its checks share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from media_bridge.providers.base import (
    RealtimeEvent,
    RealtimeProfile,
    RealtimeRequest,
    RealtimeSession,
    ResponseDone,
)
from stayline.models import InterruptionMode, Message
from tests.conformance.realtime_benches import SUBJECTS, RealtimeBench
from tests.conformance.suite import Suite
from tests.fakes.sound import BYTES_PER_MS
from tests.media_bridge.providers.llm import END_CALL, WEATHER
from tests.media_bridge.providers.speech import FRAME

SUITE: Suite[RealtimeBench] = Suite("realtime", "voice-to-voice models", SUBJECTS)
PATIENCE = {True: 10, False: 40}
"""Seconds for an event, with a fake and without."""


class Line:
    """One session on a bench."""

    def __init__(
        self,
        bench: RealtimeBench,
        session: RealtimeSession,
        profile: RealtimeProfile,
        interruption: InterruptionMode,
    ) -> None:
        self.bench = bench
        self.session = session
        self.profile = profile
        self.interruption = interruption

    async def caller(self, words: str) -> bytes:
        """The caller says something, in 20 ms frames; to a fake as fast as it goes, to a vendor in their time."""
        sound = await self.bench.says(words)
        for begin in range(0, len(sound), FRAME):
            await self.session.send(sound[begin : begin + FRAME])
            if self.bench.vendor is None:
                await asyncio.sleep(FRAME / BYTES_PER_MS / 1000)
        return sound

    async def hear(self, *kinds: type[RealtimeEvent], count: int = 1) -> list[RealtimeEvent]:
        """Events until each of these kinds has come `count` times."""
        events: list[RealtimeEvent] = []
        missing = dict.fromkeys(kinds, count)
        async with asyncio.timeout(PATIENCE[self.bench.vendor is not None]):
            while any(left > 0 for left in missing.values()):
                event = await anext(aiter(self.session))
                events.append(event)
                if type(event) in missing:
                    missing[type(event)] -= 1
        return events

    async def ask(self, words: str, *kinds: type[RealtimeEvent]) -> list[RealtimeEvent]:
        """The caller says something; events until it is answered (and until these have come)."""
        await self.caller(words)
        return await self.hear(ResponseDone, *kinds)


def request(
    *messages: Message, interruption: InterruptionMode = "immediate", resume: str = "", call_id: str = "CA123"
) -> RealtimeRequest:
    instructions = "You are on the phone. Speak English. Answer in one short sentence."
    return RealtimeRequest(instructions, messages, (WEATHER, END_CALL), call_id, interruption, resume)


@asynccontextmanager
async def line(
    bench: RealtimeBench,
    *messages: Message,
    interruption: InterruptionMode = "immediate",
    resume: str = "",
    call_id: str = "CA123",
) -> AsyncIterator[Line]:
    """A session, closed at the end; the vendor must have refused nothing."""
    provider = bench.make()
    session = await provider.connect(request(*messages, interruption=interruption, resume=resume, call_id=call_id))
    try:
        yield Line(bench, session, provider.profile, interruption)
    finally:
        await session.aclose()
        await provider.aclose()
    if bench.vendor is not None:
        assert not bench.vendor.refused()


def of(events: Sequence[RealtimeEvent], kind: type[Any]) -> list[Any]:
    """The events of a kind."""
    return [event for event in events if isinstance(event, kind)]


def like(bench: RealtimeBench, said: str, wanted: str) -> bool:
    """Whether these are the words; of a vendor itself, most of them will do."""
    given, words = _words(said), _words(wanted)
    if bench.vendor is not None:
        return given == words
    return len(set(words) & set(given)) >= 0.6 * len(set(words))


def _words(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c.isalnum() or c == " ").split()
