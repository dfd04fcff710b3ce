"""The voices, each before its fake or its engine."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from media_bridge.providers.base import TtsProvider
from media_bridge.providers.deepgram_tts import DeepgramTts
from media_bridge.providers.elevenlabs_tts import ElevenLabsTts
from media_bridge.providers.offline.hibari import HibariTts
from media_bridge.providers.openai_tts import OpenAITts
from tests.conformance.suite import Subject, maker
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.misbehaviour import FakeServer
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_speech import OpenAIVoice

MS_PER_CHAR = 60


@dataclasses.dataclass(slots=True)
class TtsBench:
    """An adapter and its vendor.

    Attributes:
        make: the adapter, with these options and perhaps another key.
        fake: speaks `MS_PER_CHAR` for each character. None: an engine that runs here, or the vendor itself.
        greeting: messages with which the fake accepts a session.
    """

    make: Callable[..., TtsProvider]
    fake: FakeServer | None = None
    greeting: int = 0


@asynccontextmanager
async def deepgram(model: str) -> AsyncIterator[TtsBench]:
    async with FakeDeepgram(ms_per_char=MS_PER_CHAR) as fake:
        yield TtsBench(maker(DeepgramTts, "deepgram", model, key=fake.api_key, base_url=fake.url), fake)


@asynccontextmanager
async def openai(model: str, *, greeting: int = 0) -> AsyncIterator[TtsBench]:
    voice = OpenAIVoice(ms_per_char=MS_PER_CHAR)
    async with FakeOpenAI(speech=voice.endpoint, realtime=voice.session) as fake:
        yield TtsBench(maker(OpenAITts, "openai", model, key=fake.key, base_url=fake.url), fake, greeting)


@asynccontextmanager
async def elevenlabs(**options: Any) -> AsyncIterator[TtsBench]:
    async with FakeElevenLabs(ms_per_char=MS_PER_CHAR) as fake:
        make = maker(
            ElevenLabsTts,
            "elevenlabs",
            "eleven_flash_v2_5",
            key=fake.api_key,
            base_url=fake.url,
            voice=fake.voices[0],
            **options,
        )
        yield TtsBench(make, fake)


@asynccontextmanager
async def hibari() -> AsyncIterator[TtsBench]:
    yield TtsBench(maker(HibariTts, "offline", "hibari", voice="heart"))


_HERE = dict.fromkeys(
    (
        "a_wrong_key",
        "too_many_requests",
        "nobody_listens",
        "one_second_is_one_second",
        "a_connection_is_kept_between_utterances",
        "a_lost_connection_in_mid_utterance",
        "an_unknown_message",
        "a_vendor_that_is_silent_can_be_left",
    ),
    "It runs here: there is no vendor, key or connection.",
)
_BARE = {"an_unknown_message": "The answer is bare audio, without messages."}
SUBJECTS: Sequence[Subject[TtsBench]] = (
    Subject("elevenlabs/eleven_flash_v2_5", elevenlabs),
    Subject("elevenlabs/eleven_flash_v2_5 (transport=http)", lambda: elevenlabs(transport="http")),
    Subject("deepgram/aura-2-thalia-en", lambda: deepgram("aura-2-thalia-en")),
    Subject("deepgram/flux-alexis-en", lambda: deepgram("flux-alexis-en")),
    Subject("openai/gpt-4o-mini-tts", lambda: openai("gpt-4o-mini-tts"), _BARE),
    Subject("openai/gpt-realtime-2.1-mini", lambda: openai("gpt-realtime-2.1-mini", greeting=2)),
    Subject("offline/hibari", hibari, _HERE),
)
