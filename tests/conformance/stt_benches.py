"""The recognisers, each before its fake or its engine."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from media_bridge.audio import mulaw
from media_bridge.providers.base import SttProvider
from media_bridge.providers.deepgram_stt import DeepgramStt
from media_bridge.providers.elevenlabs_stt import ElevenLabsStt
from media_bridge.providers.offline.moonshine import MoonshineStt
from media_bridge.providers.openai_stt import OpenAIStt
from tests.conformance.suite import Subject, maker
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.misbehaviour import FakeServer
from tests.fakes.openai import FakeOpenAI
from tests.fakes.sound import silence, tone
from tests.media_bridge.audio.voices import spoken


@dataclasses.dataclass(slots=True)
class SttBench:
    """An adapter and its vendor.

    Attributes:
        make: the adapter, with these options and perhaps another key.
        fake: None: an engine that runs here, or the vendor itself.
        script: what the fake will hear; None: it hears what is said.
        human: what finds the turns is a detector of voices, so a tone will not do.
        speed: how much faster than it is spoken audio can be sent to be heard while it comes; 0: at once.
        tail_ms: silence after each turn: more than any rule for its end asks for.
    """

    make: Callable[..., SttProvider]
    fake: FakeServer | None = None
    script: list[Any] | None = None
    human: bool = False
    speed: float = 0
    tail_ms: int = 1500

    async def says(self, words: str) -> bytes:
        """A turn's sound and the silence after it, as the recogniser will understand it."""
        if self.script is not None:
            self.script.append(words)
        if self.human or self.script is None:
            return await asyncio.to_thread(spoken, words) + mulaw.silence(self.tail_ms)
        return tone(max(600, 60 * len(words))) + silence(self.tail_ms)


@asynccontextmanager
async def deepgram(model: str) -> AsyncIterator[SttBench]:
    async with FakeDeepgram() as fake:
        make = maker(DeepgramStt, "deepgram", model, key=fake.api_key, base_url=fake.url)
        yield SttBench(make, fake, fake.script)


@asynccontextmanager
async def openai(model: str, *, human: bool = False, **options: Any) -> AsyncIterator[SttBench]:
    async with FakeOpenAI() as fake:
        make = maker(OpenAIStt, "openai", model, key=fake.key, base_url=fake.url, **options)
        yield SttBench(make, fake, fake.hears, human)


@asynccontextmanager
async def elevenlabs(model: str, *, human: bool = False, **options: Any) -> AsyncIterator[SttBench]:
    async with FakeElevenLabs() as fake:
        make = maker(ElevenLabsStt, "elevenlabs", model, key=fake.api_key, base_url=fake.url, **options)
        yield SttBench(make, fake, fake.scribe.script, human)


@asynccontextmanager
async def moonshine() -> AsyncIterator[SttBench]:
    yield SttBench(maker(MoonshineStt, "offline", "moonshine"), speed=4)  # an engine needs time to think


_NOT_EAGER = {"eager_turns": "The vendor tells of no eager turns."}
_FILES = {
    **_NOT_EAGER,
    "partial_transcripts": "A turn is one request, which is answered with all of its words.",
    "an_unknown_message": "A turn is one request and one answer: there is no message to pass over.",
    "a_lost_connection_loses_no_words": "A turn is one request: before it there is no connection.",
    "a_connection_lost_in_mid_turn": "A turn is one request: before it there is no connection.",
}
_HERE = dict.fromkeys(
    (
        "a_wrong_key",
        "too_many_requests",
        "nobody_listens",
        "a_lost_connection_loses_no_words",
        "a_connection_lost_in_mid_turn",
        "an_unknown_message",
        "a_vendor_that_is_silent_can_be_left",
    ),
    "It runs here: there is no vendor, key or connection.",
)
SUBJECTS: Sequence[Subject[SttBench]] = (
    Subject("deepgram/nova-3", lambda: deepgram("nova-3"), _NOT_EAGER),
    Subject("deepgram/flux-general-en", lambda: deepgram("flux-general-en")),
    Subject("openai/gpt-transcribe", lambda: openai("gpt-transcribe"), _NOT_EAGER),
    Subject("openai/gpt-live-transcribe", lambda: openai("gpt-live-transcribe", human=True), _NOT_EAGER),
    Subject("openai/gpt-transcribe (api=file)", lambda: openai("gpt-transcribe", human=True, api="file"), _FILES),
    Subject("openai/whisper-1", lambda: openai("whisper-1", human=True), _FILES),
    Subject("elevenlabs/scribe_v2_realtime", lambda: elevenlabs("scribe_v2_realtime"), _NOT_EAGER),
    Subject(
        "elevenlabs/scribe_v2_realtime (commit_strategy=manual)",
        lambda: elevenlabs("scribe_v2_realtime", human=True, commit_strategy="manual"),
        _NOT_EAGER,
    ),
    Subject("elevenlabs/scribe_v2", lambda: elevenlabs("scribe_v2", human=True), _FILES),
    Subject("offline/moonshine", moonshine, {**_NOT_EAGER, **_HERE}),
)
