"""OpenAI's file transcription against a wire-level OpenAI: a request per utterance."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media_bridge.audio import mulaw
from media_bridge.providers.base import EndOfTurn, SpeechStarted
from stayline.errors import ProviderError
from tests.fakes import misbehaviour
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_heard import Heard
from tests.media_bridge.providers.openai_hearing import FILE, TURNS, adapter, ear, needs_vad, sentence, turn
from tests.media_bridge.providers.speech import hear, own_tasks, talk, until


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


@needs_vad
async def test_warming_a_file_model_asks_for_it(fake: FakeOpenAI) -> None:
    provider = adapter(fake, FILE)
    await provider.warm()
    assert [request.path for request in fake.requests] == ["/v1/models/whisper-1"]
    fake.misbehave(misbehaviour.unauthorized())
    with pytest.raises(ProviderError, match="Check OPENAI_API_KEY"):
        await provider.warm()
    await provider.aclose()


@needs_vad
async def test_an_utterance_is_one_request_with_all_its_sound(fake: FakeOpenAI) -> None:
    fake.hears += ["Where is my order?"]
    provider = adapter(fake, FILE, prompt="A bakery.")
    assert not provider.profile.native_mulaw
    stream = await provider.connect(call_id="CA1")
    line = sentence()
    await talk(stream, line)
    start, end = await hear(stream, EndOfTurn)
    assert isinstance(start, SpeechStarted)
    assert isinstance(end, EndOfTurn)
    assert end.text == "Where is my order?"
    assert end.speech_end_ms == start.at_ms + end.speech_ms
    [file] = fake.files.taken
    assert file.fields == {
        "model": [FILE],
        "language": ["en"],
        "prompt": ["A bakery."],
        "response_format": ["json"],
    }
    assert file.samples in mulaw.decode(line).astype("<i2").tobytes()
    assert file.ms > end.speech_ms
    assert fake.requests[0].headers["x-client-request-id"] == "CA1-stt-1"
    await stream.aclose()
    await provider.aclose()


@needs_vad
@pytest.mark.parametrize(
    ("model", "options", "fields"),
    [
        (
            TURNS,
            {"api": "file", "keywords": ["bread", "cake"], "languages": ["en", "es"]},
            {"keywords[]": ["bread", "cake"], "languages[]": ["en", "es"]},
        ),
        (
            "gpt-4o-transcribe",
            {"api": "file", "logprobs": True},
            {"include[]": ["logprobs"], "language": ["en"]},
        ),
        ("gpt-4o-transcribe-diarize", {}, {"chunking_strategy": ["auto"], "language": ["en"]}),
    ],
)
async def test_openai_accepts_the_files_that_the_options_ask_for(
    fake: FakeOpenAI, model: str, options: dict[str, Any], fields: dict[str, list[str]]
) -> None:
    fake.hears += [Heard("Yes.", logprob=math.log(0.9))]
    stream = await ear(fake, model, **options)
    await talk(stream, sentence())
    assert (await turn(stream)).confidence == (pytest.approx(0.9) if "logprobs" in options else None)
    assert fake.files.taken[0].fields == {"model": [model], "response_format": ["json"], **fields}
    await stream.aclose()


@needs_vad
async def test_the_next_utterance_does_not_wait_for_the_first_but_is_told_after_it(fake: FakeOpenAI) -> None:
    written = asyncio.Event()
    fake.hears += [Heard("One moment.", until=written), "Here it is."]
    stream = await ear(fake, FILE)
    await talk(stream, sentence("One moment."))
    await until(lambda: len(fake.requests) == 1)
    await talk(stream, sentence("Here it is."))
    await until(lambda: len(fake.files.taken) == 1)
    written.set()
    assert [(await turn(stream)).text for _ in range(2)] == ["One moment.", "Here it is."]
    await stream.aclose()


@needs_vad
@pytest.mark.parametrize(
    "fault",
    [misbehaviour.server_error(), misbehaviour.rate_limited(0.01), misbehaviour.reset(), misbehaviour.disconnect()],
    ids=lambda fault: f"{fault.what}-{fault.status}",
)
async def test_a_request_that_fails_is_made_again(fake: FakeOpenAI, fault: misbehaviour.Misbehaviour) -> None:
    fake.hears += ["Where is my order?"]
    fake.misbehave(fault)
    stream = await ear(fake, FILE)
    await talk(stream, sentence())
    assert (await turn(stream)).text == "Where is my order?"
    assert len(fake.requests) == 2
    await stream.aclose()


@needs_vad
@pytest.mark.parametrize(
    ("faults", "status", "requests"),
    [
        ([misbehaviour.unauthorized()], 401, 1),
        ([misbehaviour.rate_limited(30)], 429, 1),
        ([misbehaviour.server_error(), misbehaviour.server_error()], 503, 2),
        ([misbehaviour.garbage(), misbehaviour.garbage()], None, 2),
        ([misbehaviour.hang(), misbehaviour.hang()], None, 2),
    ],
    ids=lambda value: value[0].what if isinstance(value, list) else None,
)
async def test_a_request_that_fails_for_good_is_an_error(
    fake: FakeOpenAI, faults: list[misbehaviour.Misbehaviour], status: int | None, requests: int
) -> None:
    fake.misbehave(*faults)
    stream = await ear(fake, FILE, final_timeout=0.2 if faults[0].what == "hang" else 5)
    await talk(stream, sentence())
    assert (await turn(stream)).text == ""
    with pytest.raises(ProviderError) as caught:
        await anext(aiter(stream))
    assert caught.value.status == status
    assert len(fake.requests) == requests
    assert fake.key not in str(caught.value)
    await stream.send(b"\xff" * 160)
    await stream.aclose()
    assert not own_tasks()


@needs_vad
async def test_a_call_that_ends_cuts_off_its_request(fake: FakeOpenAI) -> None:
    fake.hears += [Heard("Never mind.", until=asyncio.Event())]
    stream = await ear(fake, FILE)
    await talk(stream, sentence())
    await until(lambda: len(fake.requests) == 1)
    await stream.aclose()
    await asyncio.wait_for(fake.hung_up.wait(), 5)
    assert not own_tasks()
