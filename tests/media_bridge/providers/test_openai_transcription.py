"""A live session at OpenAI that is refused, misbehaves, is lost, or has come to the end of its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media_bridge.audio import mulaw
from media_bridge.providers import openai_transcription_stream
from media_bridge.providers.base import EndOfTurn, ProviderConfig, SpeechStarted
from media_bridge.providers.openai_stt import OpenAIStt
from media_bridge.providers.openai_turns import ServerTurns
from stayline.errors import ProviderError
from tests.fakes import misbehaviour
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_heard import Heard
from tests.fakes.sound import silence, tone
from tests.media_bridge.providers.openai_hearing import FILE, LIVE, TURNS, ear, needs_vad, sentence, turn
from tests.media_bridge.providers.speech import hear, own_tasks, talk, until


@pytest.fixture
async def fake() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI() as server:
        yield server


# --- what goes wrong at the beginning --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "retryable", "retry_after"),
    [
        (misbehaviour.unauthorized(), 401, False, None),
        (misbehaviour.rate_limited(2.5), 429, True, 2.5),
        (misbehaviour.server_error(503), 503, True, None),
        (misbehaviour.reset(), None, True, None),
        (misbehaviour.hang(), None, True, None),
        (misbehaviour.hang(after=1), None, True, None),
        (misbehaviour.disconnect(after=1), None, True, None),
        (misbehaviour.error(after=1), 500, True, None),
    ],
    ids=lambda value: f"{value.what}-{value.status}" if isinstance(value, misbehaviour.Misbehaviour) else None,
)
async def test_a_refused_connection(
    fake: FakeOpenAI,
    fault: misbehaviour.Misbehaviour,
    status: int | None,
    retryable: bool,
    retry_after: float | None,
) -> None:
    fake.misbehave(fault)
    with pytest.raises(ProviderError) as caught:
        await ear(fake, connect_timeout=0.2 if fault.what == "hang" else 4)
    error = caught.value
    assert (error.provider, error.status, error.retryable, error.retry_after) == (
        "openai",
        status,
        retryable,
        retry_after,
    )
    assert fake.key not in str(error)
    assert not own_tasks()


async def test_nobody_listens(fake: FakeOpenAI) -> None:
    await fake.refuse_connections()
    with pytest.raises(ProviderError) as caught:
        await ear(fake)
    assert caught.value.retryable


async def test_a_wrong_key_says_what_to_check(fake: FakeOpenAI, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = ProviderConfig("openai", TURNS, api_key="wrong-secret", base_url=fake.url)
    with pytest.raises(ProviderError, match="Check OPENAI_API_KEY") as caught:
        await OpenAIStt(config).connect(call_id="CA1")
    assert not caught.value.retryable
    assert "wrong-secret" not in str(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("code", "status", "retryable", "says"),
    [
        ("invalid_api_key", 401, False, "Check OPENAI_API_KEY"),
        ("insufficient_quota", 429, False, "no credit"),
        ("rate_limit_exceeded", 429, True, "test"),
        ("model_not_found", 404, False, "Does the model"),
        ("invalid_value", 400, False, "test"),
        (None, 400, False, "test"),
    ],
)
async def test_a_session_that_is_refused_after_the_handshake(
    fake: FakeOpenAI, code: str | None, status: int, retryable: bool, says: str
) -> None:
    message = f"This is a test with {fake.key}."
    fake.hearing.refusal = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
    with pytest.raises(ProviderError, match=says) as caught:
        await ear(fake)
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert fake.key not in str(caught.value)


async def test_a_model_that_does_not_exist(fake: FakeOpenAI) -> None:
    fake.unknown_models.add("gpt-hears-all")
    with pytest.raises(ProviderError, match="Does the model 'gpt-hears-all' exist") as caught:
        await ear(fake, "gpt-hears-all")
    assert (caught.value.status, caught.value.retryable) == (404, False)


async def test_a_slow_handshake_is_waited_for(fake: FakeOpenAI) -> None:
    fake.misbehave(misbehaviour.slow(0.05))
    await (await ear(fake)).aclose()


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("fault", [misbehaviour.unknown_message, misbehaviour.garbage], ids=lambda f: f.__name__)
async def test_messages_that_nobody_knows_are_ignored(fake: FakeOpenAI, fault: Any, after: int) -> None:
    fake.hears += ["Still here."]
    fake.misbehave(fault(after))
    stream = await ear(fake)
    await talk(stream, tone(1200) + silence(600))
    assert (await turn(stream)).text == "Still here."
    await stream.aclose()
    assert len(fake.requests) == 1


async def test_malformed_messages_are_ignored_and_told_once(
    fake: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    fake.hears += ["Still here."]
    stream = await ear(fake)
    for _ in range(2):
        await fake.hearing.sessions[0].send_raw({"type": "input_audio_buffer.speech_started"})
    await fake.hearing.sessions[0].send_raw({"type": "error", "error": "what"})
    await talk(stream, tone(1200) + silence(600))
    assert (await turn(stream)).text == "Still here."
    await stream.aclose()
    told = [record for record in caplog.records if "malformed" in record.message]
    assert len(told) == 2


async def test_an_error_that_the_session_survives_is_logged(
    fake: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    fake.hears += ["Still here."]
    stream = await ear(fake)
    await fake.hearing.sessions[0].fail("odd", f"Something odd about {fake.key}.")
    await talk(stream, tone(1200) + silence(600))
    assert (await turn(stream)).text == "Still here."
    await stream.aclose()
    assert "Something odd about ***." in caplog.text


# --- what goes wrong in mid-call -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [misbehaviour.disconnect(3), misbehaviour.half_message(3)], ids=lambda fault: fault.what
)
async def test_a_session_that_is_lost_in_mid_utterance_is_replaced_and_the_words_are_heard(
    fake: FakeOpenAI, fault: misbehaviour.Misbehaviour
) -> None:
    fake.hears += ["My number is five five five."]
    fake.misbehave(fault)  # created, updated, speech_started; not speech_stopped
    stream = await ear(fake)
    await talk(stream, silence(500) + tone(1000) + silence(600))
    await until(lambda: len(fake.hearing.sessions) == 2)
    events = await hear(stream, EndOfTurn)
    assert [e for e in events if isinstance(e, SpeechStarted)] == [SpeechStarted(500)]
    assert events[-1] == EndOfTurn("My number is five five five.", None, speech_end_ms=1500, speech_ms=1000)
    await stream.aclose()
    assert not own_tasks()


@needs_vad
async def test_local_turns_survive_a_lost_session(fake: FakeOpenAI) -> None:
    fake.hears += ["Where is my order?"]
    fake.misbehave(misbehaviour.disconnect(3))  # after the first word
    stream = await ear(fake, LIVE)
    await talk(stream, sentence())
    assert (await turn(stream)).text == "Where is my order?"
    await stream.aclose()
    first, second = fake.hearing.sessions
    assert second.audio.startswith(first.audio[:1000])
    assert second.commits == 1


async def test_a_second_loss_is_one_too_many(fake: FakeOpenAI) -> None:
    fake.always = misbehaviour.disconnect(3)
    stream = await ear(fake)
    await talk(stream, tone(1000) + silence(600))
    assert (await turn(stream)).text == ""
    with pytest.raises(ProviderError) as caught:
        await anext(aiter(stream))
    assert caught.value.retryable
    assert len(fake.hearing.sessions) == 2
    await stream.send(b"\xff" * 160)  # a call that has not noticed yet does no harm
    await stream.aclose()
    assert not own_tasks()


async def test_what_was_understood_is_told_before_the_error(fake: FakeOpenAI) -> None:
    fake.hears += ["My number is five five five."]
    fake.misbehave(misbehaviour.disconnect(9), misbehaviour.unauthorized())
    stream = await ear(fake)  # created, updated, started, stopped, committed, added, done, two words
    await talk(stream, tone(1000) + silence(600))
    assert (await turn(stream)).text == "My number"
    with pytest.raises(ProviderError) as caught:
        await anext(aiter(stream))
    assert (caught.value.status, caught.value.retryable) == (401, False)
    await stream.aclose()


async def test_a_loss_long_after_the_first_is_a_first_one(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_transcription_stream, "LOSS_WINDOW", 0.0)
    fake.hears += ["Hello?"]
    fake.misbehave(misbehaviour.disconnect(3), misbehaviour.disconnect(3))
    stream = await ear(fake)
    await talk(stream, tone(1000) + silence(600))
    assert (await turn(stream)).text == "Hello?"
    await stream.aclose()
    assert len(fake.hearing.sessions) == 3


async def test_an_error_that_ends_the_session_is_told(fake: FakeOpenAI) -> None:
    fake.misbehave(misbehaviour.error(3))
    stream = await ear(fake)
    await talk(stream, tone(1000) + silence(600))
    assert (await turn(stream)).text == ""
    with pytest.raises(ProviderError, match=r"It broke\.") as caught:
        await anext(aiter(stream))
    assert caught.value.status == 1008
    await stream.aclose()


async def test_a_turn_that_could_not_be_written_down_is_heard_again(fake: FakeOpenAI) -> None:
    fake.hears += [Heard("", failed="server_error", again="Where is my order?"), "Thank you."]
    stream = await ear(fake)
    await talk(stream, tone(1000) + silence(600))
    assert (await turn(stream)).text == "Where is my order?"
    await talk(stream, tone(1000) + silence(600))
    assert (await turn(stream)).text == "Thank you."
    await stream.aclose()
    assert len(fake.hearing.sessions) == 2


@pytest.mark.parametrize(
    ("code", "sessions", "says"),
    [("server_error", 2, "Transcription failed"), ("insufficient_quota", 1, "no credit")],
)
async def test_a_turn_that_cannot_be_written_down_is_an_error(
    fake: FakeOpenAI, code: str, sessions: int, says: str
) -> None:
    failing = Heard("", failed=code)
    fake.hears += [Heard("", failed=code, again=failing)]
    stream = await ear(fake)
    await talk(stream, tone(1000) + silence(600))
    assert (await turn(stream)).text == ""  # whoever waits for it need wait no more
    with pytest.raises(ProviderError, match=says):
        await anext(aiter(stream))
    await stream.aclose()
    assert len(fake.hearing.sessions) == sessions


@pytest.mark.parametrize("model", [TURNS, pytest.param(LIVE, marks=needs_vad)])
async def test_words_that_do_not_come_are_asked_for_once_more(fake: FakeOpenAI, model: str) -> None:
    fake.hears += [Heard("Where is my order?", until=asyncio.Event())]
    stream = await ear(fake, model, final_timeout=0.2)
    await talk(stream, sentence() if model == LIVE else tone(1000) + silence(600))
    await turn(stream)
    with pytest.raises(ProviderError, match=r"no words within 0\.2 s") as caught:
        await anext(aiter(stream))
    assert caught.value.retryable
    assert len(fake.hearing.sessions) == 2
    await stream.aclose()
    assert not own_tasks()


async def test_a_turn_that_the_next_session_does_not_find_was_a_noise(fake: FakeOpenAI) -> None:
    fake.misbehave(misbehaviour.disconnect(2))
    stream = await ear(fake, final_timeout=0.2)
    session = fake.hearing.sessions[0]
    await talk(stream, silence(2000))
    await until(lambda: bool(session.audio))
    session.socket.sent = 0  # one more message before the line breaks
    await session.send_raw(
        {"type": "input_audio_buffer.speech_started", "item_id": "item_x", "audio_start_ms": 1500}
    )
    session.socket.abort()
    events = await hear(stream, EndOfTurn)
    assert events == [SpeechStarted(1800), EndOfTurn("")]
    await stream.aclose()


async def test_a_bug_in_the_adapter_is_an_error_and_not_silence(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    stream = await ear(fake)
    monkeypatch.setattr(ServerTurns, "handle", broken)
    await talk(stream, tone(1000))
    with pytest.raises(ProviderError, match="adapter failed"):
        await hear(stream, EndOfTurn)
    await stream.aclose()
    assert not own_tasks()


# --- the end of a session's time -------------------------------------------------------------------------


async def test_a_session_is_renewed_between_two_turns(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_transcription_stream, "RENEW_MS", 3000)
    fake.hears += ["One.", "Two."]
    stream = await ear(fake)
    await talk(stream, silence(500) + tone(2600) + silence(600))
    assert (await turn(stream)).text == "One."  # its time was over in the middle of this; nobody cut it short
    assert len(fake.hearing.sessions) == 1
    await talk(stream, silence(400))
    await until(lambda: fake.hearing.sessions[-1].config != {} and len(fake.hearing.sessions) == 2)
    await until(lambda: fake.hearing.sessions[0].socket.ws.closed)
    await talk(stream, tone(800) + silence(600))
    end = await turn(stream)
    assert end == EndOfTurn("Two.", None, speech_end_ms=4900, speech_ms=800)  # in the stream's time
    await stream.aclose()
    assert not own_tasks()


async def test_a_session_is_renewed_in_a_turn_that_does_not_end(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_transcription_stream, "RENEW_MS", 1000)
    monkeypatch.setattr(openai_transcription_stream, "RENEW_LATEST_MS", 2000)
    fake.hears += ["A very long story."]
    stream = await ear(fake)
    await talk(stream, silence(500) + tone(500))
    assert await hear(stream, SpeechStarted) == [SpeechStarted(500)]
    await talk(stream, tone(1500))
    await until(lambda: len(fake.hearing.sessions) == 2)
    monkeypatch.undo()
    await talk(stream, tone(500) + silence(600))
    events = await hear(stream, EndOfTurn)
    assert not any(isinstance(event, SpeechStarted) for event in events)
    assert events[-1] == EndOfTurn("A very long story.", None, speech_end_ms=3000, speech_ms=2500)
    await stream.aclose()


@needs_vad
async def test_local_turns_do_not_notice_a_renewal(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_transcription_stream, "RENEW_MS", 1000)
    fake.hears += ["One moment.", "Here it is."]
    stream = await ear(fake, LIVE)
    await talk(stream, sentence("One moment."))
    assert (await turn(stream)).text == "One moment."
    await talk(stream, mulaw.silence(100))
    await until(lambda: len(fake.hearing.sessions) == 2)
    monkeypatch.undo()
    await talk(stream, sentence("Here it is."))
    assert (await turn(stream)).text == "Here it is."
    await stream.aclose()
    assert [session.commits for session in fake.hearing.sessions] == [1, 1]


async def test_a_renewal_that_fails_is_tried_again_and_the_old_session_goes_on(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_transcription_stream, "RENEW_MS", 1000)
    monkeypatch.setattr(openai_transcription_stream, "RENEW_AGAIN_MS", 2000)
    fake.hears += ["One.", "Two."]
    stream = await ear(fake)
    fake.misbehave(misbehaviour.server_error())
    await talk(stream, silence(1000))
    await until(lambda: len(fake.requests) == 2)
    await talk(stream, tone(600) + silence(600))
    assert (await turn(stream)).text == "One."
    assert len(fake.hearing.sessions) == 1
    await talk(stream, silence(2000))
    await until(lambda: len(fake.hearing.sessions) == 2)
    monkeypatch.undo()
    await talk(stream, tone(600) + silence(600))
    assert (await turn(stream)).text == "Two."
    await stream.aclose()


@pytest.mark.parametrize("says_so", [True, False])
async def test_a_session_whose_time_is_over_is_no_loss(fake: FakeOpenAI, says_so: bool) -> None:
    fake.hears += ["My number is five five five."]
    stream = await ear(fake)
    await talk(stream, tone(500))
    await hear(stream, SpeechStarted)
    for count in (1, 2, 3):  # more often than losses are allowed
        await fake.hearing.sessions[-1].expire(says_so=says_so)
        await until(lambda count=count: len(fake.hearing.sessions) == count + 1)  # type: ignore[misc]
        await until(lambda: bool(fake.hearing.sessions[-1].audio))
    await talk(stream, tone(500) + silence(600))
    assert (await turn(stream)).text == "My number is five five five."
    await stream.aclose()


# --- the end of a call -----------------------------------------------------------------------------------


async def test_a_call_that_ends_while_connecting_leaves_nothing(fake: FakeOpenAI) -> None:
    for fault in (misbehaviour.hang(), misbehaviour.hang(1)):
        fake.misbehave(fault)
        connecting = asyncio.create_task(ear(fake))
        requests = len(fake.requests) + 1
        await until(lambda requests=requests: len(fake.requests) == requests)  # type: ignore[misc]
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        assert connecting.cancelled()
        assert not own_tasks()


async def test_a_call_that_ends_while_reconnecting_leaves_nothing(fake: FakeOpenAI) -> None:
    fake.misbehave(misbehaviour.disconnect(3), misbehaviour.hang())
    stream = await ear(fake)
    await talk(stream, tone(500) + silence(600))
    await until(lambda: len(fake.requests) == 2)
    await stream.aclose()
    assert [event async for event in stream] == []
    assert not own_tasks()


async def test_a_call_that_ends_while_its_session_is_renewed_leaves_nothing(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_transcription_stream, "RENEW_MS", 200)
    stream = await ear(fake)
    fake.misbehave(misbehaviour.hang(1))
    await talk(stream, silence(400))
    await until(lambda: len(fake.hearing.sessions) == 2)
    await stream.aclose()
    assert not own_tasks()
    await until(lambda: fake.hearing.sessions[0].socket.ws.closed)


@pytest.mark.parametrize("model", [TURNS, pytest.param(LIVE, marks=needs_vad), pytest.param(FILE, marks=needs_vad)])
async def test_closing_ends_the_iteration_and_leaves_nothing(fake: FakeOpenAI, model: str) -> None:
    stream = await ear(fake, model)
    await talk(stream, tone(200))
    await stream.aclose()
    await stream.aclose()
    assert [event async for event in stream] == []
    assert not own_tasks()
    await stream.send(b"\xff" * 160)
