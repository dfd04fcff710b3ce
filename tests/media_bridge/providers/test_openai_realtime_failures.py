"""OpenAIRealtime when something is wrong: refusals, losses, failed responses, wrong options."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from media_bridge.providers.base import (
    ProviderConfig,
    RealtimeEvent,
    RealtimeRequest,
    RealtimeSession,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
)
from media_bridge.providers.openai_realtime import OpenAIRealtime
from media_bridge.providers.openai_realtime_messages import append, read, session_update
from media_bridge.providers.vendor_socket import open_socket
from stayline.errors import ConfigError, ProviderError
from stayline.models import ToolMessage, ToolSpec
from tests.fakes import misbehaviour
from tests.fakes.llm import Call, Ending, Part, Say, Wait
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime import Asked, VoiceModel
from tests.fakes.openai_realtime_wire import unknown_fields
from tests.fakes.sound import silence, tone
from tests.media_bridge.providers.openai_line import MODEL, adapter, in_order, line, saying
from tests.media_bridge.providers.realtime import audio_of, hear, session_request, speak, text_of
from tests.media_bridge.providers.speech import until


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI(realtime=VoiceModel()) as server:
        yield server


# --- connecting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        (misbehaviour.unauthorized(), 401, False),
        (misbehaviour.rate_limited(3), 429, True),
        (misbehaviour.server_error(500), 500, True),
        (misbehaviour.reset(), None, True),
        (misbehaviour.hang(), None, True),
        (misbehaviour.hang(1), None, True),  # between session.created and session.updated
        (misbehaviour.disconnect(1), None, True),
        (misbehaviour.half_message(1), None, True),
        (misbehaviour.error(1), 500, True),
    ],
    ids=lambda value: f"{value.what}-{value.after}" if isinstance(value, misbehaviour.Misbehaviour) else None,
)
async def test_no_session(
    fake: FakeOpenAI, fault: misbehaviour.Misbehaviour, status: int | None, retryable: bool
) -> None:
    fake.misbehave(fault)
    with pytest.raises(ProviderError) as caught:
        await adapter(fake, connect_timeout=0.3 if fault.what == "hang" else 4).connect(session_request())
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert caught.value.retry_after == fault.retry_after


async def test_a_wrong_key_is_final_and_shown_nowhere(fake: FakeOpenAI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = ProviderConfig("openai", MODEL, api_key="wrong-secret", base_url=fake.url)
    with pytest.raises(ProviderError) as caught:
        await OpenAIRealtime(config).connect(session_request())
    assert (caught.value.status, caught.value.retryable) == (401, False)
    assert "OPENAI_API_KEY" in caught.value.fix
    assert config.api_key not in str(caught.value) + caplog.text


@pytest.mark.parametrize("wrong", ["model", "tool"])
async def test_what_openai_refuses_in_a_configuration_is_final(fake: FakeOpenAI, wrong: str) -> None:
    tools = (ToolSpec(name="no good name", description="", parameters={}),) if wrong == "tool" else ()
    model = "gpt-realtime-99" if wrong == "model" else MODEL
    with pytest.raises(ProviderError) as caught:
        await adapter(fake, model=model).connect(session_request(tools=tools))
    assert not caught.value.retryable


async def test_whoever_stops_connecting_leaves_no_connection(fake: FakeOpenAI) -> None:
    fake.misbehave(misbehaviour.hang(1))
    connecting = asyncio.create_task(adapter(fake).connect(session_request()))
    await until(lambda: bool(fake.sockets) and fake.sockets[0].sent == 1)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    transport = fake.sockets[0].ws
    await until(lambda: transport._req is None or transport._req.transport is None)


# --- losses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [
        (misbehaviour.disconnect(14), True),
        (misbehaviour.half_message(14), True),
        (misbehaviour.error(14), False),  # closed with 1008: we are wrong, it says
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_loss_in_mid_audio(fake: FakeOpenAI, fault: misbehaviour.Misbehaviour, retryable: bool) -> None:
    fake.misbehave(fault)
    session = await adapter(fake).connect(session_request())
    await session.say("Seven plumbers are on their way to you now.")
    heard: list[RealtimeEvent] = []
    with pytest.raises(ProviderError) as caught:
        await _listen(session, heard)
    assert caught.value.retryable is retryable
    assert audio_of(heard)
    for lost in (session.send(tone(20)), session.respond(), session.say("Hello?"), session.note("x")):
        with pytest.raises(ProviderError):
            await lost
    with pytest.raises(ProviderError):
        await anext(aiter(session))
    await session.aclose()
    await session.aclose()


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(5), misbehaviour.garbage(5)], ids=lambda f: f.what)
async def test_messages_that_nobody_knows_are_ignored(fake: FakeOpenAI, fault: misbehaviour.Misbehaviour) -> None:
    fake.misbehave(fault)
    session = await adapter(fake).connect(session_request())
    await session.say("Hello there.")
    assert text_of(await hear(session, ResponseDone)) == "Hello there."
    await session.aclose()


async def test_a_session_lasts_an_hour() -> None:
    async with line() as talk:
        assert OpenAIRealtime.profile.session_seconds == 3600
        await talk.session.note("x")
        await talk.there.expire()
        with pytest.raises(ProviderError) as caught:
            await anext(aiter(talk.session))
        assert caught.value.retryable


async def test_closing_ends_the_iteration() -> None:
    async with line() as talk:
        reading = asyncio.create_task(anext(aiter(talk.session), None))
        await asyncio.sleep(0)
        await talk.session.aclose()
        async with asyncio.timeout(10):
            assert await reading is None
        await talk.session.send(tone(20))
        await talk.session.say("Nobody hears this.")
        await talk.session.aclose()
        assert talk.count("response.create") == 0


# --- responses that fail ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "status", "error"),
    [
        ([Say("It is sun"), Ending("max_output_tokens")], "completed", ""),
        ([Ending("max_output_tokens")], "failed", "the reply was cut (max_output_tokens)"),
        ([Say("It is"), Ending("content_filter")], "failed", "the reply was cut (content_filter)"),
        ([Ending("rate_limit_exceeded")], "failed", "It failed (rate_limit_exceeded)."),
    ],
)
async def test_how_a_response_may_end(parts: Sequence[Part], status: str, error: str) -> None:
    async with line(in_order(parts, [Say("Sorry.")])) as talk:
        await talk.session.respond()
        done = (await hear(talk.session, ResponseDone))[-1]
        assert isinstance(done, ResponseDone)
        assert (done.status, done.error) == (status, error)
        await talk.session.respond()
        assert text_of(await hear(talk.session, ResponseDone)) == "Sorry."


async def test_without_credit_the_session_is_of_no_use() -> None:
    async with line(saying(Ending("insufficient_quota"))) as talk:
        await talk.session.respond()
        with pytest.raises(ProviderError) as caught:
            await hear(talk.session, ResponseDone)
        assert not caught.value.retryable


async def test_a_response_that_openai_refuses_has_failed() -> None:
    """Metadata are at most 512 characters long."""
    async with FakeOpenAI(realtime=VoiceModel()) as fake:
        request = RealtimeRequest("", (), (), "C" * 600)
        session = await adapter(fake).connect(request)
        await session.respond()
        started, done = await hear(session, ResponseDone)
        assert isinstance(started, ResponseStarted)
        assert isinstance(done, ResponseDone)
        assert (done.response, done.status) == (started.response, "failed")
        assert "metadata" in done.error
        await session.aclose()


async def test_refusals_that_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A tool result that nobody asked for, and a cancel and a cut that come too late."""
    go = asyncio.Event()

    def reply(asked: Asked) -> Sequence[Part]:
        return [Say("One"), Wait(go)]

    async with line(reply, hears=["Stop."], refused=2) as talk:
        await talk.session.tool_result(ToolMessage(tool_call_id="x", name="x", content="x"), respond=False)
        await talk.session.respond()
        await hear(talk.session, ResponseStarted)
        await speak(talk.session, tone(300))
        await until(lambda: not talk.there.speaking)
        await talk.session.cancel()  # OpenAI has stopped by itself
        await until(lambda: len(talk.there.refused) == 2)
        events = await hear(talk.session, ResponseDone)
        assert SpeechStarted in [type(event) for event in events]
        await talk.session.note("x")
        await until(lambda: ("system", "x") in talk.there.memory)
    assert "not found in conversation" in caplog.text


# --- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"options": {"treshold": 0.5}}, "Did you mean 'threshold'"),
        ({"options": {"speed": 2}}, "speed"),
        ({"options": {"temperature": 0.8}}, "take no temperature"),
        ({"options": {"eagerness": "low"}}, "semantic_vad"),
        ({"options": {"turn_detection": "semantic_vad", "threshold": 0.5}}, "eagerness"),
        ({"options": {"transcription_model": "whisper-1", "transcription_keywords": ("x",)}}, "keywords"),
        ({"options": {"transcription_model": "gpt-realtime-whisper", "transcription_prompt": "x"}}, "prompt"),
        ({"options": {"transcription_model": ""}}, "transcription_model"),
        ({"model": "gpt-realtime", "options": {"effort": "low"}}, "does not reason"),
        ({"model": "gpt-realtime-mini-2025-12-15", "options": {"parallel_tools": False}}, "does not reason"),
        ({"model": "gpt-live-1"}, "another protocol"),
        ({"voice": "onyx"}, "has no voice 'onyx'"),
        ({"voice": "Alloy"}, "Did you mean 'alloy'"),
        ({"api_key": ""}, "OPENAI_API_KEY"),
    ],
)
def test_what_openai_would_refuse_is_refused_at_start(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        OpenAIRealtime(ProviderConfig(**{"provider": "openai", "model": MODEL, "api_key": "k"} | config))


@pytest.mark.parametrize("voice", ["", "cedar", "voice_1234"])
def test_a_voice_may_be_left_out_or_be_ones_own(voice: str) -> None:
    OpenAIRealtime(ProviderConfig("openai", MODEL, api_key="k", voice=voice))


# --- the fake --------------------------------------------------------------------------------------------


async def test_what_the_fake_sends_is_what_openai_documents(fake: FakeOpenAI) -> None:
    fake.realtime = VoiceModel(saying(Say("Hi."), Call("end_call"), Ending("max_output_tokens")), ["Hello?"])
    config = ProviderConfig("openai", MODEL, api_key=fake.key)
    socket = await open_socket(
        "openai",
        f"{fake.url}/v1",
        "/realtime",
        query=[("model", MODEL)],
        headers={"Authorization": f"Bearer {fake.key}"},
    )
    await socket.send(session_update(config, read(config), session_request(tools=())))
    session = await _replies(socket, "session.updated")
    await socket.send(append(tone(300) + silence(700)).decode())
    messages = session + await _replies(socket, "response.done")
    await socket.send('{"type":"response.create"}')
    await socket.send('{"type":"response.cancel"}')
    await socket.send('{"type":"response.cancel","response_id":"resp_0"}')
    messages += await _replies(socket, "response.done")
    await socket.close()
    server_event: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
    for message in messages:
        event = server_event.validate_json(message)
        assert set(unknown_fields(event)) <= {"object", "id"}, message  # a session's, as recorded
    kinds = {server_event.validate_json(message).type for message in messages}
    assert {"input_audio_buffer.committed", "response.output_audio.delta", "error"} <= kinds


async def _listen(session: RealtimeSession, heard: list[RealtimeEvent]) -> None:
    async with asyncio.timeout(10):
        async for event in session:
            heard.append(event)


async def _replies(socket: Any, last: str) -> list[str]:
    messages: list[str] = []
    async with asyncio.timeout(10):
        while not messages or f'"type": "{last}"' not in messages[-1]:
            messages.append(await socket.recv())
    return messages
