"""What the tests of OpenAI's speech to text share."""

from __future__ import annotations

from typing import Any

import pytest

from media_bridge.audio import mulaw
from media_bridge.providers.base import EndOfTurn, ProviderConfig, SttStream
from media_bridge.providers.openai_stt import OpenAIStt
from media_bridge.providers.utterances import require_vad
from stayline.errors import ConfigError
from tests.fakes.openai import FakeOpenAI
from tests.media_bridge.audio.voices import spoken
from tests.media_bridge.providers.speech import hear

LIVE, TURNS, FILE = "gpt-live-transcribe", "gpt-transcribe", "whisper-1"

try:
    require_vad("test")
    HAS_VAD = True
except ConfigError:
    HAS_VAD = False
needs_vad = pytest.mark.skipif(not HAS_VAD, reason="the extra `offline` is not installed")


def adapter(fake: FakeOpenAI, model: str = TURNS, **options: Any) -> OpenAIStt:
    config = ProviderConfig("openai", model, api_key=fake.key, base_url=fake.url, language="en-US", options=options)
    return OpenAIStt(config)


async def ear(fake: FakeOpenAI, model: str = TURNS, **options: Any) -> SttStream:
    return await adapter(fake, model, **options).connect(call_id="CA1")


def sentence(text: str = "Where is my order?") -> bytes:
    """What a caller says, and the silence that ends it."""
    return mulaw.silence(400) + spoken(text) + mulaw.silence(800)


async def turn(stream: SttStream) -> EndOfTurn:
    end = (await hear(stream, EndOfTurn))[-1]
    assert isinstance(end, EndOfTurn)
    return end
