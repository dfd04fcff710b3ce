"""A realtime session with a fake OpenAI, for the tests of its adapter."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from media_bridge.providers.base import ProviderConfig, RealtimeProvider, RealtimeSession
from media_bridge.providers.openai_realtime import OpenAIRealtime
from stayline.models import InterruptionMode, Message
from tests.fakes.llm import Part
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime import Heard, Reply, VoiceModel, VoiceSession, obey
from tests.media_bridge.providers.realtime import session_request

MODEL = "gpt-realtime-2.1"


def adapter(fake: FakeOpenAI, *, model: str = MODEL, voice: str = "marin", **options: Any) -> RealtimeProvider:
    config = ProviderConfig("openai", model, api_key=fake.key, base_url=fake.url, voice=voice, options=options)
    return OpenAIRealtime(config)


class Line:
    """A session, and what OpenAI knows of it."""

    def __init__(self, session: RealtimeSession, fake: FakeOpenAI, voice: VoiceModel) -> None:
        self.session = session
        self.fake = fake
        self.voice = voice

    @property
    def there(self) -> VoiceSession:
        return self.voice.sessions[-1]

    @property
    def last(self) -> str:
        """Id of the last response."""
        return self.there.responses[-1]

    @property
    def sent(self) -> list[Any]:
        return self.fake.requests[-1].messages

    def count(self, kind: str) -> int:
        return sum(message["type"] == kind for message in self.sent)


@contextlib.asynccontextmanager
async def line(
    reply: Reply = obey,
    *messages: Message,
    hears: Sequence[str | Heard] = (),
    interruption: InterruptionMode = "immediate",
    refused: int = 0,
    **options: Any,
) -> AsyncIterator[Line]:
    voice = VoiceModel(reply, hears)
    async with FakeOpenAI(realtime=voice) as fake:
        session = await adapter(fake, **options).connect(session_request(*messages, interruption=interruption))
        talk = Line(session, fake, voice)
        yield talk
        await session.aclose()
        assert len(talk.there.refused) == refused, talk.there.refused


def saying(*parts: Part) -> Reply:
    return lambda asked: parts


def in_order(*replies: Sequence[Part]) -> Reply:
    """One reply after the other, whatever is asked."""
    left = list(replies)
    return lambda asked: left.pop(0)
