"""OpenAIStt against a wire-level OpenAI: turns, what it asks for, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai.types.realtime import (
    ConversationItemAdded,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompletedEvent,
    ConversationItemInputAudioTranscriptionDeltaEvent,
    ConversationItemInputAudioTranscriptionFailedEvent,
    InputAudioBufferCommittedEvent,
    InputAudioBufferSpeechStartedEvent,
    InputAudioBufferSpeechStoppedEvent,
    RealtimeErrorEvent,
    SessionCreatedEvent,
    SessionUpdatedEvent,
)
from websockets.asyncio.client import connect

from media_bridge.audio import mulaw
from media_bridge.providers import vendor_socket
from media_bridge.providers.base import EndOfTurn, Partial, ProviderConfig, SpeechStarted, SttProvider
from media_bridge.providers.openai_stt import OpenAIStt
from media_bridge.providers.openai_stt_options import OpenAISttOptions, check, session_update
from media_bridge.providers.openai_turns import append
from stayline.errors import ConfigError
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_heard import Heard
from tests.fakes.sound import silence, tone
from tests.media_bridge.audio.voices import spoken
from tests.media_bridge.providers.openai_hearing import FILE, LIVE, TURNS, adapter, ear, needs_vad, sentence, turn
from tests.media_bridge.providers.speech import hear, own_tasks, talk, until


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


# --- live, OpenAI finds the turns ------------------------------------------------------------------------


async def test_a_turn_has_a_start_partials_and_an_end_with_its_times(fake: FakeOpenAI) -> None:
    fake.hears += ["I need to book a plumber."]
    provider: SttProvider = adapter(fake)
    assert provider.profile.native_mulaw
    stream = await provider.connect(call_id="CA1")
    await talk(stream, silence(500) + tone(2000) + silence(600))
    events = await hear(stream, EndOfTurn)
    assert events[0] == SpeechStarted(500)
    assert [e.text for e in events if isinstance(e, Partial)][-1] == "I need to book a plumber."
    assert events[-1] == EndOfTurn("I need to book a plumber.", None, speech_end_ms=2500, speech_ms=2000)
    await stream.aclose()
    await provider.aclose()
    assert not own_tasks()


async def test_what_it_asks_for(fake: FakeOpenAI) -> None:
    options: dict[str, Any] = {"prompt": "A bakery.", "keywords": ["Stayline"], "noise_reduction": "near_field"}
    stream = await ear(fake, silence_duration_ms=400, **options)
    request = fake.requests[0]
    assert request.query == [("intent", "transcription")]
    assert request.headers["authorization"] == f"Bearer {fake.key}"
    assert request.headers["x-client-request-id"] == "CA1-stt-1"
    assert "sec-websocket-extensions" not in request.headers
    assert fake.hearing.sessions[0].config == {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "noise_reduction": {"type": "near_field"},
                "transcription": {
                    "model": TURNS,
                    "language": "en",
                    "prompt": "A bakery.",
                    "keywords": ["Stayline"],
                },
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 400,
                },
            }
        },
    }
    await stream.aclose()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (TURNS, {"languages": ["en", "es"]}),
        (TURNS, {"turn_detection": "semantic_vad", "eagerness": "high"}),
        (TURNS, {"threshold": 0.8, "prefix_padding_ms": 0}),
        ("gpt-4o-transcribe", {"logprobs": True, "prompt": "expect words related to bread"}),
        ("whisper-1", {"api": "live", "prompt": "bread, cake"}),
        pytest.param("gpt-realtime-whisper", {"delay": "minimal"}, marks=needs_vad),
        pytest.param(LIVE, {"keywords": ["bread"], "languages": ["en", "es"]}, marks=needs_vad),
        pytest.param(TURNS, {"turn_detection": "local", "threshold": 0.6}, marks=needs_vad),
    ],
)
async def test_openai_accepts_what_the_options_ask_for(
    fake: FakeOpenAI, model: str, options: dict[str, Any]
) -> None:
    stream = await ear(fake, model, **options)
    await stream.aclose()
    assert fake.hearing.sessions[0].config


async def test_a_semantic_turn_and_a_confidence(fake: FakeOpenAI) -> None:
    fake.hears += [Heard("Yes please.", logprob=math.log(0.8))]
    stream = await ear(fake, "gpt-4o-transcribe", turn_detection="semantic_vad", logprobs=True)
    await talk(stream, tone(1000) + silence(800))
    end = await turn(stream)
    assert end.text == "Yes please."
    assert end.confidence == pytest.approx(0.8)
    await stream.aclose()


async def test_several_turns_and_noise_between_them(fake: FakeOpenAI) -> None:
    fake.hears += ["One.", "", Heard("Mhm?", failed="audio_unintelligible"), "Two."]
    stream = await ear(fake)
    await talk(stream, (tone(600) + silence(900)) * 4)
    assert [(await turn(stream)).text for _ in range(4)] == ["One.", "", "", "Two."]
    await stream.aclose()
    assert len(fake.hearing.sessions) == 1


async def test_turns_are_told_in_order_even_if_the_later_one_is_written_first(fake: FakeOpenAI) -> None:
    written = asyncio.Event()
    fake.hears += [Heard("One.", until=written), "Two."]
    stream = await ear(fake)
    await talk(stream, (tone(600) + silence(900)) * 2)
    await until(lambda: fake.hearing.sessions[0].commits == 2)
    written.set()
    assert [(await turn(stream)).text for _ in range(2)] == ["One.", "Two."]
    await stream.aclose()


async def test_one_second_of_audio_is_sent_as_one_second(fake: FakeOpenAI) -> None:
    stream = await ear(fake)
    line = silence(300) + tone(700)
    await talk(stream, line)
    await until(lambda: fake.hearing.sessions[0].audio == line)
    await stream.aclose()


# --- live, we find the turns -----------------------------------------------------------------------------


@needs_vad
async def test_the_callers_words_come_while_they_speak_and_the_turn_ends_by_our_commit(fake: FakeOpenAI) -> None:
    fake.hears += ["Where is my order?"]
    stream = await ear(fake, LIVE)
    line = mulaw.silence(2000) + spoken("Where is my order?")
    await talk(stream, line)
    events = await hear(stream, Partial)
    assert [type(event) for event in events] == [SpeechStarted, Partial]
    await talk(stream, mulaw.silence(1000))
    end = await turn(stream)
    assert end.text == "Where is my order?"
    assert end.speech_end_ms is not None
    assert abs(end.speech_end_ms - len(line) // 8) < 150
    await stream.aclose()
    session = fake.hearing.sessions[0]
    assert session.config["audio"]["input"]["turn_detection"] is None
    assert len(session.audio) < len(line) - 1000 * 8  # silence is not sent
    assert session.commits == 1


@needs_vad
async def test_a_model_with_a_detection_of_its_own_can_be_told_the_turns(fake: FakeOpenAI) -> None:
    fake.hears += ["One moment.", "Here it is."]
    stream = await ear(fake, TURNS, turn_detection="local", silence_duration_ms=300)
    await talk(stream, sentence("One moment.") + sentence("Here it is."))
    assert [(await turn(stream)).text for _ in range(2)] == ["One moment.", "Here it is."]
    await stream.aclose()


# --- warm ------------------------------------------------------------------------------------------------


async def test_warming_a_live_model_asks_nothing_of_openai(fake: FakeOpenAI) -> None:
    provider = adapter(fake, TURNS)
    await provider.warm()
    assert fake.requests == []
    await provider.aclose()


# --- configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (TURNS, {"treshold": 0.5}, "Did you mean 'threshold'"),
        (TURNS, {"threshold": 2}, "threshold"),
        (TURNS, {"api": "websocket"}, "api"),
        (TURNS, {"connect_timeout": 5}, "connect_timeout"),
        (LIVE, {"api": "file"}, 'Use "gpt-transcribe"'),
        (LIVE, {"turn_detection": "server_vad"}, "no turn detection 'server_vad'"),
        ("gpt-realtime-whisper", {"turn_detection": "semantic_vad"}, "no turn detection"),
        (FILE, {"turn_detection": "server_vad"}, "no turn detection"),
        (TURNS, {"api": "file", "turn_detection": "semantic_vad"}, "no turn detection"),
        (TURNS, {"eagerness": "high"}, 'turn_detection="semantic_vad"'),
        (LIVE, {"eagerness": "high"}, "belongs to semantic_vad"),
        (TURNS, {"turn_detection": "semantic_vad", "threshold": 0.5}, "takes no threshold"),
        (TURNS, {"turn_detection": "semantic_vad", "silence_duration_ms": 300}, "no silence_duration_ms"),
        (TURNS, {"turn_detection": "semantic_vad", "prefix_padding_ms": 0}, "no prefix_padding_ms"),
        ("gpt-4o-transcribe", {"keywords": ["a"]}, "takes no keywords"),
        (FILE, {"keywords": ["a"]}, "takes no keywords"),
        ("gpt-4o-mini-transcribe", {"languages": ["en"]}, "takes no languages"),
        ("gpt-realtime-whisper", {"prompt": "a"}, "takes no prompt"),
        ("gpt-4o-transcribe-diarize", {"prompt": "a"}, "takes no prompt"),
        (LIVE, {"delay": "low"}, "takes no delay"),
        (TURNS, {"delay": "low"}, "takes no delay"),
        (TURNS, {"logprobs": True}, "gives no logprobs"),
        (FILE, {"logprobs": True}, "gives no logprobs"),
        (FILE, {"noise_reduction": "near_field"}, "noise_reduction is for live sessions"),
        ("my-model", {"api": "file", "delay": "low"}, "delay is for live sessions"),
    ],
)
def test_wrong_options_are_refused_at_start(model: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        OpenAIStt(ProviderConfig("openai", model, api_key="key", options=options))


def test_a_missing_key_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="Set OPENAI_API_KEY"):
        OpenAIStt(ProviderConfig("openai", TURNS))


def test_a_model_that_is_not_known_may_do_anything() -> None:
    options = OpenAISttOptions(keywords=("a",), delay="low", logprobs=True, prompt="b")
    checked = check("gpt-hears-all", options)
    assert (checked.api, checked.turn_detection) == ("live", "server_vad")


@pytest.mark.parametrize(("language", "sent"), [("en-US", "en"), ("DE", "de"), ("yue", None), ("multi", None)])
def test_the_language_is_told_by_its_two_letters(language: str, sent: str | None) -> None:
    config = ProviderConfig("openai", TURNS, language=language)
    update = session_update(config, check(TURNS, OpenAISttOptions()))
    assert update["session"]["audio"]["input"]["transcription"].get("language") == sent


# --- the fake --------------------------------------------------------------------------------------------


async def test_what_the_fake_sends_is_what_openai_documents(fake: FakeOpenAI) -> None:
    """Its messages pass OpenAI's own types."""
    types: dict[str, Any] = {
        "session.created": SessionCreatedEvent,
        "session.updated": SessionUpdatedEvent,
        "input_audio_buffer.speech_started": InputAudioBufferSpeechStartedEvent,
        "input_audio_buffer.speech_stopped": InputAudioBufferSpeechStoppedEvent,
        "input_audio_buffer.committed": InputAudioBufferCommittedEvent,
        "conversation.item.added": ConversationItemAdded,
        "conversation.item.done": ConversationItemDone,
        "conversation.item.input_audio_transcription.delta": ConversationItemInputAudioTranscriptionDeltaEvent,
        "conversation.item.input_audio_transcription.completed": (
            ConversationItemInputAudioTranscriptionCompletedEvent
        ),
        "conversation.item.input_audio_transcription.failed": ConversationItemInputAudioTranscriptionFailedEvent,
        "error": RealtimeErrorEvent,
    }
    fake.hears += ["One.", Heard("Two.", failed="server_error")]
    update = session_update(ProviderConfig("openai", TURNS), check(TURNS, OpenAISttOptions()))
    url = vendor_socket.socket_url(fake.url, "/v1/realtime", [("intent", "transcription")])
    seen: set[str] = set()
    headers = {"Authorization": f"Bearer {fake.key}"}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.send(json.dumps(update))
        audio = (tone(800) + silence(800)) * 2
        await socket.send(append(audio))
        await socket.send('{"type":"input_audio_buffer.clean"}')
        while seen != set(types):
            message = json.loads(await asyncio.wait_for(socket.recv(), 5))
            types[message["type"]].model_validate(message)
            seen.add(message["type"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "gpt-realtime"}, "turn_detection"),
        ({"rate": 8000}, "audio.input.format.rate"),
        ({"bogus": 1}, "Unknown parameter"),
    ],
)
async def test_the_fake_is_strict(fake: FakeOpenAI, change: dict[str, Any], says: str) -> None:
    update = session_update(ProviderConfig("openai", TURNS), check(TURNS, OpenAISttOptions()))
    asked = update["session"]["audio"]["input"]
    if "model" in change:
        asked["transcription"]["model"] = LIVE
    elif "rate" in change:
        asked["format"] |= change
    else:
        asked |= change
    url = vendor_socket.socket_url(fake.url, "/v1/realtime", [("intent", "transcription")])
    headers = {"Authorization": f"Bearer {fake.key}"}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.recv()
        await socket.send(json.dumps(update))
        error = json.loads(await asyncio.wait_for(socket.recv(), 5))
        assert says in error["error"]["message"] + str(error["error"]["param"])
