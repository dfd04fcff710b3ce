"""ElevenLabsStt against a wire-level ElevenLabs: Scribe live and Scribe by the file, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from elevenlabs import AsyncElevenLabs
from elevenlabs.types import (
    CommittedTranscriptPayload,
    CommittedTranscriptWithTimestampsPayload,
    InputAudioChunkPayload,
    PartialTranscriptPayload,
    SessionStartedPayload,
)

from media_bridge.audio import mulaw
from media_bridge.providers import elevenlabs_scribe_stream, vendor_socket
from media_bridge.providers.base import EndOfTurn, Partial, ProviderConfig, SpeechStarted, SttProvider, SttStream
from media_bridge.providers.elevenlabs_scribe_turns import Commits, Committed, LocalTurns
from media_bridge.providers.elevenlabs_stt import ElevenLabsStt
from media_bridge.providers.utterances import UtteranceRule, warm_vad
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.elevenlabs_scribe import Heard
from tests.fakes.misbehaviour import Misbehaviour
from tests.fakes.sound import silence, tone
from tests.media_bridge.audio.voices import spoken
from tests.media_bridge.providers.speech import hear, own_tasks, talk, until

LIVE = "scribe_v2_realtime"
FILE = "scribe_v2"


@pytest.fixture
async def fake() -> AsyncIterator[FakeElevenLabs]:
    async with FakeElevenLabs() as server:
        yield server


def adapter(fake: FakeElevenLabs, model: str = LIVE, *, language: str = "en", **options: Any) -> ElevenLabsStt:
    return ElevenLabsStt(
        ProviderConfig(
            "elevenlabs", model, api_key=fake.api_key, base_url=fake.url, language=language, options=options
        )
    )


async def ear(fake: FakeElevenLabs, model: str = LIVE, **options: Any) -> SttStream:
    return await adapter(fake, model, **options).connect(call_id="CA1")


async def end_of_turn(stream: SttStream) -> EndOfTurn:
    end = (await hear(stream, EndOfTurn))[-1]
    assert isinstance(end, EndOfTurn)
    return end


# --- live sessions ---------------------------------------------------------------------------------------


async def test_a_turn_has_a_start_partials_and_an_end_with_its_times(fake: FakeElevenLabs) -> None:
    fake.scribe.script += [Heard("I need to book a plumber.", logprob=-0.1)]
    provider: SttProvider = adapter(fake)
    assert provider.profile.native_mulaw
    await provider.warm()
    stream = await provider.connect(call_id="CA1")
    await talk(stream, silence(500) + tone(2000) + silence(600))
    events = await hear(stream, EndOfTurn)
    assert isinstance(events[0], SpeechStarted)
    assert 500 <= events[0].at_ms <= 3100  # with the first words, which come while the audio flows
    partials = [event.text for event in events if isinstance(event, Partial)]
    assert partials[-1] == "I need to book a plumber."
    assert len(partials) > 2
    end = events[-1]
    assert isinstance(end, EndOfTurn)
    assert end == EndOfTurn("I need to book a plumber.", end.confidence, speech_end_ms=2500, speech_ms=2000)
    assert end.confidence == pytest.approx(np.exp(-0.1))
    await stream.aclose()
    await provider.aclose()
    assert not own_tasks()


async def test_what_it_asks_for(fake: FakeElevenLabs) -> None:
    stream = await ear(
        fake,
        language="en-US",
        keyterms=["Stayline", "plumber"],
        vad_threshold=0.4,
        secondary_languages=["es"],
        no_verbatim=True,
        enable_logging=False,
    )
    (request,) = fake.requests
    assert request.path == "/v1/speech-to-text/realtime"
    assert request.headers["xi-api-key"] == fake.api_key
    assert "sec-websocket-extensions" not in request.headers
    assert sorted(request.query) == sorted(
        [
            ("model_id", LIVE),
            ("audio_format", "ulaw_8000"),
            ("commit_strategy", "vad"),
            ("vad_silence_threshold_secs", "0.5"),
            ("vad_threshold", "0.4"),
            ("language_code", "en"),
            ("secondary_languages", "es"),
            ("keyterms", "Stayline"),
            ("keyterms", "plumber"),
            ("no_verbatim", "true"),
            ("include_timestamps", "true"),
            ("enable_logging", "false"),
        ]
    )
    await talk(stream, tone(100))
    await until(lambda: fake.scribe.listened[0].audio_bytes == 800)
    for message in request.messages:
        assert not InputAudioChunkPayload.model_validate(message).model_extra
    await stream.aclose()


async def test_options_that_exclude_one_another_are_left_out(fake: FakeElevenLabs) -> None:
    """What is not said by the user is not asked for where the vendor would refuse it."""
    fake.scribe.script += ["Hello."]
    stream = await ear(fake, "scribe_v3_live", commit_strategy="turn_prediction", filter_background_audio=True)
    query = dict(fake.requests[0].query)
    assert query["commit_strategy"] == "turn_prediction"
    assert query["include_timestamps"] == "false"
    assert "vad_silence_threshold_secs" not in query
    await talk(stream, tone(1000) + silence(1600))
    assert await end_of_turn(stream) == EndOfTurn("Hello.")
    await stream.aclose()


async def test_no_language_is_told_where_it_is_to_be_found_out(fake: FakeElevenLabs) -> None:
    await (await ear(fake, language="multi")).aclose()
    assert fake.requests[0].param("language_code") == []


async def test_several_turns_and_noise_between_them(fake: FakeElevenLabs) -> None:
    fake.scribe.script += ["One.", Heard(""), Heard("Two.", twin="before"), "Three."]
    stream = await ear(fake)
    await talk(stream, (tone(600) + silence(800)) * 4)
    ends = [await end_of_turn(stream) for _ in range(3)]
    assert [(end.text, end.speech_end_ms) for end in ends] == [("One.", 600), ("Two.", 3400), ("Three.", 4800)]
    await stream.aclose()


@pytest.mark.parametrize("twin", ["never", "before", "after"])
async def test_a_commit_that_is_answered_twice_ends_one_turn(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch, twin: Any
) -> None:
    monkeypatch.setattr(elevenlabs_scribe_stream, "TWIN_TIMEOUT", 0.05 if twin == "never" else 5)
    fake.scribe.script += [Heard("One.", twin=twin), "Two."]
    stream = await ear(fake)
    await talk(stream, tone(600) + silence(700))
    first = await end_of_turn(stream)
    assert (first.text, first.speech_end_ms) == ("One.", None if twin == "never" else 600)
    await talk(stream, tone(600) + silence(700))
    assert (await end_of_turn(stream)).text == "Two."
    await stream.aclose()


async def test_one_second_of_audio_is_counted_as_one_second_and_comes_in_small_pieces(fake: FakeElevenLabs) -> None:
    stream = await ear(fake)
    await stream.send(tone(3000))
    await until(lambda: fake.scribe.listened[0].audio_bytes == 24000)
    assert fake.scribe.listened[0].largest <= 8000
    await stream.aclose()


async def test_a_silent_line_is_kept_alive_and_times_stay_those_of_the_call(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ElevenLabs ends a session in which nothing came for about 15 s."""
    monkeypatch.setattr(elevenlabs_scribe_stream, "KEEPALIVE", 0.01)
    fake.scribe.script += ["Hello."]
    stream = await ear(fake)
    await until(lambda: len(fake.requests[0].messages) >= 3)
    monkeypatch.setattr(elevenlabs_scribe_stream, "KEEPALIVE", 30)
    await talk(stream, silence(200) + tone(600) + silence(700))
    end = await end_of_turn(stream)
    assert fake.scribe.listened[0].audio_bytes > 1500 * 8
    assert end.speech_end_ms is not None
    assert abs(end.speech_end_ms - 800) <= 20  # one that was on its way when the audio came
    await stream.aclose()


async def test_it_may_be_us_who_find_the_ends_of_turns(fake: FakeElevenLabs) -> None:
    fake.scribe.script += ["Where is my order?", "Never mind."]
    provider = adapter(fake, commit_strategy="manual", vad_threshold=0.6)
    await provider.warm()
    stream = await provider.connect(call_id="CA1")
    assert fake.requests[0].param("commit_strategy") == ["manual"]
    assert fake.requests[0].param("vad_threshold") == []
    speech = spoken("Where is my order?")
    await talk(stream, silence(600) + speech + silence(1000))
    events = await hear(stream, EndOfTurn)
    assert isinstance(events[0], SpeechStarted)
    assert abs(events[0].at_ms - 600) < 150  # heard, not read off the first words
    end = events[-1]
    assert isinstance(end, EndOfTurn)
    assert end.text == "Where is my order?"
    assert end.speech_end_ms is not None
    assert abs(end.speech_end_ms - 600 - len(speech) // 8) < 150
    assert end.confidence is not None
    await talk(stream, spoken("Never mind.") + silence(1000))
    assert (await end_of_turn(stream)).text == "Never mind."
    assert fake.scribe.listened[0].commits == 2
    await stream.aclose()


async def test_a_commit_that_came_too_soon_is_asked_for_again(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.fakes.elevenlabs_scribe.LEAST_COMMIT_MS", 2500)
    fake.scribe.script += ["Where is my order?"]
    stream = await ear(fake, commit_strategy="manual")
    await talk(stream, spoken("Where is my order?") + silence(700))
    ending = asyncio.create_task(end_of_turn(stream))
    while not ending.done():
        await talk(stream, silence(20))
        await asyncio.sleep(0.001)
    assert (await ending).text == "Where is my order?"
    assert fake.scribe.listened[0].commits > 1
    await stream.aclose()


async def test_the_session_by_which_elevenlabs_finds_a_call_is_in_the_log(
    fake: FakeElevenLabs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await (await ear(fake)).aclose()
    assert "call CA1 is heard in session sess-7" in caplog.text


async def test_what_the_fake_sends_is_what_elevenlabs_documents(fake: FakeElevenLabs) -> None:
    types: dict[str, Any] = {
        "session_started": SessionStartedPayload,
        "partial_transcript": PartialTranscriptPayload,
        "committed_transcript": CommittedTranscriptPayload,
        "committed_transcript_with_timestamps": CommittedTranscriptWithTimestampsPayload,
    }
    fake.scribe.script += ["Hello there."]
    query = [("model_id", LIVE), ("audio_format", "ulaw_8000"), ("commit_strategy", "vad")]
    socket = await vendor_socket.open_socket(
        "elevenlabs",
        fake.url,
        "/v1/speech-to-text/realtime",
        query=[*query, ("include_timestamps", True)],
        headers={"xi-api-key": fake.api_key},
    )
    for begin in range(0, 3000, 1000):
        sound = (tone(1200) + silence(1800))[begin * 8 : (begin + 1000) * 8]
        await socket.send(elevenlabs_scribe_stream.chunk(sound))
    seen: set[str] = set()
    while seen != set(types):
        message = json.loads(await socket.recv())
        parsed = types[message["message_type"]].model_validate(message)
        assert not parsed.model_extra
        seen.add(message["message_type"])
    await socket.close()


# --- live sessions: what goes wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "retryable", "retry_after"),
    [
        (misbehaviour.unauthorized(), 401, False, None),
        (misbehaviour.rate_limited(2.5), 429, True, 2.5),
        (misbehaviour.server_error(503), 503, True, None),
        (misbehaviour.reset(), None, True, None),
        (misbehaviour.hang(), None, True, None),
        (misbehaviour.disconnect(0), None, True, None),
        (misbehaviour.error(0), None, True, None),
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_refused_connection(
    fake: FakeElevenLabs,
    monkeypatch: pytest.MonkeyPatch,
    fault: Misbehaviour,
    status: int | None,
    retryable: bool,
    retry_after: float | None,
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(vendor_socket, "OPEN_TIMEOUT", 0.1)
    fake.misbehave(fault)
    with pytest.raises(ProviderError) as caught:
        await ear(fake)
    error = caught.value
    assert (error.provider, error.status, error.retryable, error.retry_after) == (
        "elevenlabs",
        status,
        retryable,
        retry_after,
    )
    assert not own_tasks()


async def test_a_session_that_does_not_begin(fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs_scribe_stream, "START_TIMEOUT", 0.1)
    fake.scribe.starts = False
    with pytest.raises(ProviderError, match="did not begin") as caught:
        await ear(fake)
    assert caught.value.retryable


async def test_a_caller_who_hangs_up_while_it_connects_leaves_nothing_behind(fake: FakeElevenLabs) -> None:
    fake.scribe.starts = False
    connecting = asyncio.create_task(ear(fake))
    await until(lambda: bool(fake.scribe.listened))
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    await until(lambda: fake.sockets[0].ws.closed)
    assert not own_tasks()


async def test_a_wrong_key_says_what_to_check_and_is_not_repeated(
    fake: FakeElevenLabs, caplog: pytest.LogCaptureFixture
) -> None:
    """ElevenLabs accepts the websocket first and says what is wrong on it."""
    caplog.set_level(logging.DEBUG)
    config = ProviderConfig("elevenlabs", LIVE, api_key="wrong-secret", base_url=fake.url)
    with pytest.raises(ProviderError, match="Check ELEVENLABS_API_KEY") as caught:
        await ElevenLabsStt(config).connect(call_id="CA1")
    assert not caught.value.retryable
    assert "wrong-secret" not in str(caught.value) + caplog.text


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(2), misbehaviour.garbage(2)], ids=lambda f: f.what)
async def test_messages_that_nobody_knows_are_ignored(fake: FakeElevenLabs, fault: Misbehaviour) -> None:
    fake.scribe.script += ["Still here."]
    fake.misbehave(fault)
    stream = await ear(fake)
    await talk(stream, tone(1200) + silence(600))
    assert (await end_of_turn(stream)).text == "Still here."
    await stream.aclose()
    assert len(fake.requests) == 1


@pytest.mark.parametrize("way", ["vad", "manual"])
@pytest.mark.parametrize(
    "fault",
    [misbehaviour.disconnect(2), misbehaviour.half_message(2), misbehaviour.error(2)],
    ids=lambda fault: fault.what,
)
async def test_a_lost_session_is_replaced_once_and_the_words_are_heard(
    fake: FakeElevenLabs, way: str, fault: Misbehaviour
) -> None:
    fake.scribe.script += ["My number is five five five."]
    fake.misbehave(fault)
    stream = await ear(fake, commit_strategy=way)
    speech = spoken("My number is five five five, seven one two.")
    half = len(speech) // 2
    await talk(stream, silence(2600) + speech[:half])
    await until(lambda: len(fake.requests) == 2)
    await talk(stream, speech[half:] + silence(1000))
    end = await end_of_turn(stream)
    assert end.text == "My number is five five five."
    assert end.speech_end_ms is not None
    assert abs(end.speech_end_ms - 2600 - len(speech) // 8) < 200  # the call's time, not the session's
    assert fake.scribe.listened[1].audio_bytes < 2600 * 8 + len(speech) + 8000  # silence is not heard again
    await stream.aclose()
    assert not own_tasks()


async def test_a_turn_that_was_settled_is_not_heard_again(fake: FakeElevenLabs) -> None:
    fake.scribe.script += ["One.", "Two."]
    stream = await ear(fake)
    await talk(stream, tone(600) + silence(700))
    assert (await end_of_turn(stream)).text == "One."
    fake.sockets[0].abort()
    await until(lambda: len(fake.scribe.listened) == 2)
    await talk(stream, tone(600) + silence(700))
    end = await end_of_turn(stream)
    assert (end.text, end.speech_end_ms) == ("Two.", 1900)
    await stream.aclose()


async def test_a_second_loss_soon_after_is_one_too_many(fake: FakeElevenLabs) -> None:
    fake.misbehave(misbehaviour.disconnect(2), misbehaviour.disconnect(2))
    fake.scribe.script += ["Hello?"]
    stream = await ear(fake)
    await talk(stream, tone(1000))
    with pytest.raises(ProviderError) as caught:
        await hear(stream, EndOfTurn)
    assert caught.value.retryable
    assert len(fake.requests) == 2
    await stream.send(b"\xff" * 160)  # a call that has not noticed yet does no harm
    await stream.aclose()
    assert not own_tasks()


async def test_losses_that_lie_apart_are_each_made_good(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elevenlabs_scribe_stream, "LOSS_WINDOW", 0)
    fake.misbehave(misbehaviour.disconnect(2), misbehaviour.disconnect(2))
    fake.scribe.script += ["Hello again?"]
    stream = await ear(fake)
    await talk(stream, tone(1000))
    await until(lambda: len(fake.scribe.listened) == 3)
    await talk(stream, silence(600))
    assert (await end_of_turn(stream)).text == "Hello again?"
    await stream.aclose()


async def test_a_vendor_that_is_gone_is_given_up(fake: FakeElevenLabs) -> None:
    stream = await ear(fake)
    await fake.refuse_connections()
    fake.sockets[0].abort()
    with pytest.raises(ProviderError) as caught:
        await hear(stream, EndOfTurn)
    assert caught.value.retryable
    await stream.aclose()


@pytest.mark.parametrize("ends_with", ["session_time_limit_exceeded", "insufficient_audio_activity"])
async def test_a_session_that_elevenlabs_ends_by_its_own_rules_is_no_loss(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch, ends_with: str
) -> None:
    monkeypatch.setattr(elevenlabs_scribe_stream, "RENEWAL_WINDOW", 0)
    fake.scribe.ends_with, fake.scribe.longest_ms = ends_with, 1700
    fake.scribe.script += ["One.", "Two.", "Three."]
    stream = await ear(fake)
    for text in ("One.", "Two.", "Three."):
        await talk(stream, tone(600) + silence(700))
        assert (await end_of_turn(stream)).text == text
    assert len(fake.requests) >= 3
    await stream.aclose()


async def test_a_session_that_ends_at_once_each_time_is_given_up(fake: FakeElevenLabs) -> None:
    fake.scribe.longest_ms = 20
    stream = await ear(fake)
    await talk(stream, tone(1000))
    with pytest.raises(ProviderError, match="session_time_limit_exceeded"):
        await hear(stream, EndOfTurn)
    assert len(fake.requests) == 2
    await stream.aclose()


@pytest.mark.parametrize(
    ("kind", "retryable", "says"),
    [
        ("quota_exceeded", False, "credit"),
        ("unaccepted_terms", False, "terms"),
        ("rate_limited", True, "sess-7"),
        ("resource_exhausted", True, "sess-7"),
    ],
)
async def test_errors_that_a_new_session_would_not_help(
    fake: FakeElevenLabs, kind: str, retryable: bool, says: str
) -> None:
    fake.scribe.ends_with, fake.scribe.longest_ms = kind, 500
    stream = await ear(fake)
    await talk(stream, tone(1000))
    with pytest.raises(ProviderError, match=says) as caught:
        await hear(stream, EndOfTurn)
    assert caught.value.retryable is retryable
    assert len(fake.requests) == 1
    await stream.aclose()


async def test_a_session_that_falls_silent_in_a_turn_is_replaced(
    fake: FakeElevenLabs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elevenlabs_scribe_stream, "STALL", 0.2)
    fake.misbehave(misbehaviour.hang(2))
    fake.scribe.script += ["Are you there?"]
    stream = await ear(fake)
    await talk(stream, tone(1000))
    await until(lambda: len(fake.scribe.listened) == 2)
    monkeypatch.setattr(elevenlabs_scribe_stream, "STALL", 8)
    fake.scribe.script += ["Are you there?"]  # the first session still has the line
    await talk(stream, tone(400) + silence(700))
    await hear(stream, SpeechStarted)
    await stream.aclose()


async def test_closing_twice_and_in_mid_speech(fake: FakeElevenLabs) -> None:
    fake.scribe.script += ["Hello?"]
    stream = await ear(fake)
    await talk(stream, tone(500))
    await stream.aclose()
    await stream.aclose()
    async with asyncio.timeout(10):
        assert [event async for event in stream if isinstance(event, EndOfTurn)] == []
    assert not own_tasks()


# --- commits that are answered twice ---------------------------------------------------------------------


def commit(text: str, *, timed: bool) -> dict[str, Any]:
    kind = "committed_transcript_with_timestamps" if timed else "committed_transcript"
    return {"message_type": kind, "text": text, "words": [{"type": "word", "start": 0, "end": 1}]}


@pytest.mark.parametrize(
    "messages",
    [
        [("One.", False), ("One.", True), ("Two.", False), ("Two.", True)],
        [("One.", True), ("One.", False), ("Two.", False), ("Two.", True)],
        [("One.", False), ("Two.", False), ("Two.", True)],
        [("One.", False), ("Two.", False), ("One.", True), ("Two.", True)],
        [("One.", False), ("one", True), ("Two.", True), ("two", False)],
    ],
)
def test_each_commit_is_told_once_whatever_the_order(messages: list[tuple[str, bool]]) -> None:
    commits = Commits(timed=True)
    told = [c for text, timed in messages for c in commits.take(commit(text, timed=timed))] + commits.release()
    assert ["".join(filter(str.isalpha, c.text.lower())) for c in told] == ["one", "two"]


def test_timestamps_that_never_come_are_not_waited_for_again_and_again() -> None:
    commits = Commits(timed=True)
    for text in ("One.", "Two."):
        assert commits.take(commit(text, timed=False)) == []
        assert commits.release() == [Committed(text)]
    assert commits.take(commit("Three.", timed=False)) == [Committed("Three.")]
    assert not commits.holding


async def test_what_elevenlabs_commits_unasked_belongs_to_the_turn_in_which_it_comes() -> None:
    """It does so by itself every 90 s at the latest, also where the commits are ours."""
    await warm_vad()
    turns = LocalTurns(False, UtteranceRule())
    assert turns.committed(Committed(""), 100) == []  # it was silence
    turns.push(silence(600) + spoken("Where is my order?")[:8000])
    assert turns.committed(Committed("Where is"), 1500) == []
    assert turns.partial("my", 1600) == [Partial("Where is my")]
    turns.push(spoken("Where is my order?")[8000:] + silence(800))
    (end,) = turns.committed(Committed("my order?"), 3000)
    assert isinstance(end, EndOfTurn)
    assert end.text == "Where is my order?"
    late = turns.committed(Committed("And quickly."), 4000)  # speech that only ElevenLabs heard
    assert late == [SpeechStarted(4000), EndOfTurn("And quickly.")]


# --- by the file -----------------------------------------------------------------------------------------


async def test_an_utterance_is_sent_as_a_file_when_it_is_over(fake: FakeElevenLabs) -> None:
    fake.scribe.script += [Heard("Where is my order?", logprob=-0.2)]
    provider: SttProvider = adapter(fake, FILE, keyterms=["order"], no_verbatim=True, enable_logging=False)
    assert not provider.profile.native_mulaw
    await provider.warm()
    stream = await provider.connect(call_id="CA1")
    speech = spoken("Where is my order?")
    await talk(stream, silence(600) + speech + silence(1000))
    events = await hear(stream, EndOfTurn)
    assert isinstance(events[0], SpeechStarted)
    assert abs(events[0].at_ms - 600) < 150
    end = events[-1]
    assert isinstance(end, EndOfTurn)
    assert (end.text, end.confidence) == ("Where is my order?", pytest.approx(np.exp(-0.2)))
    assert end.speech_end_ms is not None
    assert abs(end.speech_end_ms - 600 - len(speech) // 8) < 150
    (request,) = fake.requests
    assert (request.method, request.path) == ("POST", "/v1/speech-to-text")
    assert request.query == [("enable_logging", "false")]
    (form,) = fake.scribe.files
    sound = form.pop("file")[0]
    assert form == {
        "model_id": [b"scribe_v2"],
        "file_format": [b"pcm_s16le_16"],
        "language_code": [b"en"],
        "tag_audio_events": [b"false"],
        "no_verbatim": [b"true"],
        "keyterms": [b"order"],
    }
    samples = np.frombuffer(sound, "<i2").astype(np.float32) / 32768  # 16 kHz: the same sound, twice as many
    assert len(speech) * 2 <= len(samples) <= (len(speech) + 9000) * 2
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(np.sqrt(np.mean(mulaw.to_float(speech) ** 2)), rel=0.3)
    await stream.aclose()
    await provider.aclose()
    assert not own_tasks()


async def test_turns_are_told_in_their_order_though_the_first_is_written_down_last(fake: FakeElevenLabs) -> None:
    fake.scribe.script += ["Two.", "One."]  # the second request is answered first
    fake.misbehave(misbehaviour.slow(0.3))
    provider = adapter(fake, FILE)
    stream = await provider.connect(call_id="CA1")
    await talk(stream, spoken("Where is my order?") + silence(800))
    await until(lambda: len(fake.requests) == 1)
    await talk(stream, spoken("Never mind.") + silence(800))
    ends = [await end_of_turn(stream) for _ in range(2)]
    assert [end.text for end in ends] == ["One.", "Two."]
    await stream.aclose()
    await provider.aclose()


@pytest.mark.parametrize(
    "fault",
    [
        misbehaviour.server_error(503),
        misbehaviour.rate_limited(),
        misbehaviour.reset(),
        misbehaviour.disconnect(),
        misbehaviour.half_message(),
        misbehaviour.garbage(),
    ],
    ids=lambda fault: f"{fault.what}{fault.status}",
)
async def test_a_request_that_failed_is_made_again_once(fake: FakeElevenLabs, fault: Misbehaviour) -> None:
    fake.scribe.script += (
        ["Lost.", "Hello?"] if fault.what in ("disconnect", "half_message", "garbage") else ["Hello?"]
    )
    fake.misbehave(fault)
    provider = adapter(fake, FILE)
    stream = await provider.connect(call_id="CA1")
    await talk(stream, spoken("Where is my order?") + silence(800))
    assert (await end_of_turn(stream)).text == "Hello?"
    assert len(fake.requests) == 2
    await stream.aclose()
    await provider.aclose()


@pytest.mark.parametrize(
    ("faults", "status", "retryable", "requests"),
    [
        ([misbehaviour.server_error(503)] * 2, 503, True, 2),
        ([misbehaviour.rate_limited(3)], 429, True, 1),
        ([misbehaviour.unauthorized()], 401, False, 1),
        ([Misbehaviour("status", status=402)], 402, False, 1),
        ([misbehaviour.hang()], None, True, 1),
    ],
)
async def test_a_request_that_fails_is_told(
    fake: FakeElevenLabs, faults: list[Misbehaviour], status: int | None, retryable: bool, requests: int
) -> None:
    fake.misbehave(*faults)
    provider = adapter(fake, FILE, final_timeout=0.4 if status is None else 8)
    stream = await provider.connect(call_id="CA1")
    await talk(stream, spoken("Where is my order?") + silence(800))
    with pytest.raises(ProviderError) as caught:
        await hear(stream, EndOfTurn)
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert fake.api_key not in str(caught.value)
    assert len(fake.requests) == requests
    await stream.send(silence(20))
    await stream.aclose()
    await provider.aclose()
    assert not own_tasks()


async def test_noise_is_written_down_as_an_empty_turn(fake: FakeElevenLabs) -> None:
    fake.scribe.script += [Heard("")]
    provider = adapter(fake, FILE)
    stream = await provider.connect(call_id="CA1")
    await talk(stream, spoken("Hm.") + silence(800))
    end = await end_of_turn(stream)
    assert (end.text, end.confidence) == ("", None)
    await stream.aclose()
    await provider.aclose()


async def test_the_fake_takes_what_the_sdk_sends_and_the_sdk_what_it_answers(fake: FakeElevenLabs) -> None:
    fake.scribe.script += ["Hello there."]
    client = AsyncElevenLabs(api_key=fake.api_key, base_url=fake.url)
    answer: Any = await client.speech_to_text.convert(
        model_id="scribe_v2", file=("a.pcm", bytes(32000)), file_format="pcm_s16le_16", language_code="en"
    )
    assert (answer.text, answer.words[0].text, answer.words[1].type) == ("Hello there.", "Hello", "spacing")


# --- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (LIVE, {"keyterm": ["x"]}, "Did you mean 'keyterms'"),
        (LIVE, {"keyterms": ["a term of more than twenty characters"]}, "keyterms"),
        (LIVE, {"keyterms": ["x"] * 51}, "keyterms"),
        (LIVE, {"vad_silence_threshold_secs": 0.1}, "vad_silence_threshold_secs"),
        (LIVE, {"commit_strategy": "auto"}, "commit_strategy"),
        (LIVE, {"filter_background_audio": True, "include_timestamps": True}, "no timestamps"),
        (LIVE, {"commit_strategy": "manual", "min_silence_duration_ms": 100}, "min_silence_duration_ms"),
        (FILE, {"commit_strategy": "vad"}, "commit_strategy"),
        (FILE, {"keyterms": ["[x]"]}, "keyterms"),
    ],
)
def test_wrong_options_are_refused_at_start(model: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ElevenLabsStt(ProviderConfig("elevenlabs", model, api_key="k", options=options))


def test_a_key_is_needed() -> None:
    with pytest.raises(ConfigError, match="ELEVENLABS_API_KEY"):
        ElevenLabsStt(ProviderConfig("elevenlabs", LIVE))
