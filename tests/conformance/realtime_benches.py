"""The models that hear and speak, each before its fake."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from media_bridge.audio import mulaw
from media_bridge.providers.base import RealtimeProvider
from media_bridge.providers.gemini_live import GeminiLive
from media_bridge.providers.openai_realtime import OpenAIRealtime
from tests.conformance.suite import Subject, maker
from tests.fakes.gemini import FakeGemini, echo
from tests.fakes.llm import Part
from tests.fakes.misbehaviour import FakeServer
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime import VoiceModel, obey
from tests.fakes.openai_realtime_wire import audio_sent
from tests.fakes.sound import silence, tone
from tests.media_bridge.audio.voices import spoken

MS_PER_CHAR = 60
BEFORE_MS, AFTER_MS = 400, 1000
"""Silence before and after the words of a turn; after them it is more than any rule for its end asks for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Vendor:
    """The fake of a voice-to-voice model, the same for all of them.

    Attributes:
        fake: the server.
        hears: what the caller's coming turns will say.
        greeting: messages with which it accepts a session.
        known: everything that the model of the last session knows.
        heard_ms: how much of the caller's sound has reached the last session.
        expire: ends the last session, because it is too old; `announce` says so some seconds before.
        refused: what it refused; must be empty at the end.
    """

    fake: FakeServer
    hears: list[Any]
    greeting: int
    known: Callable[[], str]
    heard_ms: Callable[[], float]
    expire: Callable[[], Awaitable[None]]
    refused: Callable[[], Sequence[object]]
    reference: Callable[[], object] = lambda: None  #: where a session names its call
    announce: Callable[[float], Awaitable[None]] | None = None


@dataclasses.dataclass(slots=True)
class RealtimeBench:
    """An adapter and its vendor.

    Attributes:
        make: the adapter, with these options and perhaps another key.
        vendor: None: no fake, but the vendor itself.
        reply: makes what the fake answers of what its model knows; None: it repeats what the caller said. What it
            is told to say it says in any case.
    """

    make: Callable[..., RealtimeProvider]
    vendor: Vendor | None = None
    reply: Callable[[str], Sequence[Part]] | None = None

    @property
    def there(self) -> Vendor:
        assert self.vendor is not None
        return self.vendor

    async def says(self, words: str) -> bytes:
        """A turn's sound, between silence, as the model will understand it."""
        if self.vendor is None:
            return mulaw.silence(BEFORE_MS) + await asyncio.to_thread(spoken, words) + mulaw.silence(2 * AFTER_MS)
        self.vendor.hears.append(words)
        return silence(BEFORE_MS) + tone(max(600, MS_PER_CHAR * len(words))) + silence(AFTER_MS)


@asynccontextmanager
async def openai() -> AsyncIterator[RealtimeBench]:
    def reply(asked: dict[str, Any]) -> Sequence[Part]:
        told = bool(asked["response"].get("instructions"))
        if bench.reply is None or told:
            return obey(asked)
        return bench.reply("\n".join(text for _, text in asked["memory"]))

    voice = VoiceModel(reply, ms_per_char=MS_PER_CHAR)
    async with FakeOpenAI(realtime=voice) as fake:
        vendor = Vendor(
            fake,
            voice.hears,
            greeting=2,
            known=lambda: "\n".join(text for _, text in voice.sessions[-1].memory),
            heard_ms=lambda: mulaw.bytes_to_ms(len(audio_sent(fake.requests[-1].messages))),
            expire=lambda: voice.sessions[-1].expire(),
            refused=lambda: [refused for session in voice.sessions for refused in session.refused],
            reference=lambda: fake.requests[-1].headers.get("openai-safety-identifier"),
        )
        make = maker(OpenAIRealtime, "openai", "gpt-realtime-2.1", key=fake.key, base_url=fake.url)
        bench = RealtimeBench(make, vendor)
        yield bench


@asynccontextmanager
async def gemini() -> AsyncIterator[RealtimeBench]:
    def reply(request: dict[str, Any]) -> Sequence[Part]:
        told = "word for word" in str(request["contents"][-1]["parts"][-1].get("text"))
        if bench.reply is None or told:
            return echo(request)
        return bench.reply(_texts(request["contents"]))

    async with FakeGemini(reply, ms_per_char=MS_PER_CHAR) as fake:
        vendor = Vendor(
            fake,
            fake.lines,
            greeting=1,
            known=lambda: _texts(fake.connections[-1].contents),
            heard_ms=lambda: fake.connections[-1].audio_bytes / 32,
            expire=lambda: fake.connections[-1].end(1001, "The session is too old."),
            refused=lambda: fake.closed_with,
            announce=lambda seconds: fake.connections[-1].go_away(seconds),
        )
        make = maker(GeminiLive, "google", "gemini-3.8-live", key=fake.api_key, base_url=fake.url)
        bench = RealtimeBench(make, vendor)
        yield bench


def _texts(contents: Sequence[dict[str, Any]]) -> str:
    parts = [part for content in contents for part in content["parts"]]
    return "\n".join(part["text"] if "text" in part else json.dumps(part) for part in parts)


SUBJECTS: Sequence[Subject[RealtimeBench]] = (
    Subject(
        "openai/gpt-realtime-2.1",
        openai,
        {
            "a_session_is_taken_up_again": "The vendor keeps nothing of a session that has ended.",
            "the_end_of_a_session_is_announced": "The vendor does not; the bridge counts `session_seconds`.",
        },
    ),
    Subject(
        "google/gemini-3.8-live",
        gemini,
        {
            "it_answers_when_asked": "The vendor answers each turn of the caller by itself.",
            "a_cancelled_response": "The vendor has no message for it.",
            "what_was_not_heard_is_forgotten": "The vendor cuts its memory by itself.",
            "the_call_can_be_found": "The vendor has no field for it.",
        },
    ),
)
