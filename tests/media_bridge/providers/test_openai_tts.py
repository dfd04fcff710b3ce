"""OpenAITts against a wire-level OpenAI, over the speech endpoint and over a Realtime session."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.providers import openai_pieces, openai_speech_realtime, speech_socket
from media_bridge.providers.base import ProviderConfig, TtsSession
from media_bridge.providers.openai_speech_realtime import RealtimeVoice
from media_bridge.providers.openai_tts import OpenAITts
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_reading import spelled, spelling
from tests.fakes.openai_speech import OpenAIVoice
from tests.media_bridge.providers.speech import audio_of, collect, counts, listen, own_tasks, say, until

ENDPOINT, REALTIME = "gpt-4o-mini-tts", "gpt-realtime-2.1-mini"
CLAUSES = ("Hello!", " Thank you for calling.", " How can I help you today?")
TEXT = "".join(CLAUSES)

both = pytest.mark.parametrize("model", [ENDPOINT, REALTIME], ids=["endpoint", "realtime"])


@dataclasses.dataclass(frozen=True, slots=True)
class Rig:
    tts: OpenAITts
    fake: FakeOpenAI
    voice: OpenAIVoice

    @property
    def texts(self) -> list[str]:
        """What was asked for, piece by piece."""
        return [str(a["input"] if isinstance(a["input"], str) else _text(a)) for a in self.voice.asked]

    def sent(self, connection: int = 0) -> list[str]:
        """Types of the messages on one websocket."""
        return [str(m["type"]) for m in self.fake.requests[connection].messages if isinstance(m, dict)]


def _text(response: dict[str, Any]) -> str:
    return str(response["input"][0]["content"][0]["text"])


@contextlib.asynccontextmanager
async def openai(
    model: str, *, voice: str = "", key: str = "test-key", ms_per_char: float = 60, **options: Any
) -> AsyncIterator[Rig]:
    speaker = OpenAIVoice(ms_per_char=ms_per_char)
    async with FakeOpenAI(
        speech=speaker.endpoint, realtime=speaker.session, unknown_models=["gpt-realtime-0"]
    ) as fake:
        tts = OpenAITts(
            ProviderConfig("openai", model, api_key=key, base_url=fake.url, voice=voice, options=options)
        )
        try:
            yield Rig(tts, fake, speaker)
        finally:
            await tts.aclose()
            assert not own_tasks()


@contextlib.asynccontextmanager
async def calling(rig: Rig) -> AsyncIterator[TtsSession]:
    session = await rig.tts.connect(call_id="CA1")
    try:
        yield session
    finally:
        await session.aclose()
        assert not own_tasks()


# --- what is spoken --------------------------------------------------------------------------------------


@both
async def test_everything_is_spoken_in_order_and_counted(model: str) -> None:
    async with openai(model) as rig, calling(rig) as session:
        chunks = await say(await session.utterance(), *CLAUSES)
        assert sorted(rig.texts) == sorted(CLAUSES)  # requests overtake one another on their way, audio does not
    assert len(audio_of(chunks)) == len(TEXT) * 480
    ends = [sum(map(len, CLAUSES[: n + 1])) for n in range(3)]
    assert counts(chunks) == ends
    position = 0
    for chunk in chunks:
        position += len(chunk.audio)
        assert chunk.chars is None or position == chunk.chars * 480


@both
async def test_a_second_of_speech_is_a_second_of_audio(model: str) -> None:
    async with openai(model, ms_per_char=40) as rig, calling(rig) as session:
        assert len(audio_of(await say(await session.utterance(), "Twenty-five characters ok"))) == 8000


async def test_the_endpoints_pcm_becomes_the_same_sound_on_the_line() -> None:
    """400 Hz at 24 kHz in chunks that cut samples in halves, against 400 Hz at 8 kHz."""
    async with openai(ENDPOINT) as rig, calling(rig) as session:
        audio = audio_of(await say(await session.utterance(), TEXT.replace(" ", "-")))
    heard = mulaw.to_float(audio)
    wanted = 9000 / 32768 * np.sin(2 * np.pi * 400 / 8000 * np.arange(len(heard)))
    middle = slice(80, -80)
    noise = heard[middle] - wanted[middle]
    assert np.sqrt(np.mean(noise**2)) < 0.03 * np.sqrt(np.mean(wanted**2))  # μ-law's own noise is at 0.022


async def test_a_session_is_spoken_to_as_the_facts_say() -> None:
    async with openai(REALTIME, voice="cedar", speed=1.25, instructions="Calm.") as rig, calling(rig) as session:
        assert spelled(audio_of(await say(await session.utterance(), "Hi there."))) == "Hi there."
        handshake, update = rig.fake.requests[0], rig.fake.requests[0].messages[0]
        asked = rig.voice.asked[0]
    assert (handshake.path, handshake.query) == ("/v1/realtime", [("model", REALTIME)])
    assert handshake.headers["x-client-request-id"] == "CA1-tts-1"
    assert isinstance(update, dict)
    assert update["session"]["reasoning"] == {"effort": "minimal"}
    assert update["session"]["audio"] == {
        "input": {"format": {"type": "audio/pcmu"}, "turn_detection": None},
        "output": {"format": {"type": "audio/pcmu"}, "voice": "cedar", "speed": 1.25},
    }
    assert asked["conversation"] == "none"
    assert "exactly as it is written" in asked["instructions"]
    assert asked["instructions"].endswith("Manner of speaking: Calm.")


async def test_a_request_to_the_endpoint_has_the_options() -> None:
    async with openai(ENDPOINT, voice="nova", speed=2, instructions="Calm.") as rig, calling(rig) as session:
        await say(await session.utterance(), "Hi there.")
        assert rig.voice.asked == [
            {
                "model": ENDPOINT,
                "input": "Hi there.",
                "voice": "nova",
                "response_format": "pcm",
                "speed": 2.0,
                "instructions": "Calm.",
            }
        ]
        assert rig.fake.requests[-1].headers["x-client-request-id"] == "CA1-tts-1"


@both
async def test_the_first_clause_does_not_wait_and_later_ones_gather(model: str) -> None:
    """Two pieces are in work at a time; what comes meanwhile is asked for at once, and spoken in order."""
    async with openai(model) as rig, calling(rig) as session:
        rig.voice.hold[1] = 1
        utterance = await session.utterance()
        await utterance.send("One.")
        async with asyncio.timeout(10):
            assert (await anext(aiter(utterance))).audio
        for clause in (" Two.", " Three.", " Four."):
            await utterance.send(clause)
        await utterance.finish()
        await until(lambda: len(rig.texts) == 2)
        rig.voice.go_on.set()
        chunks = await collect(utterance)
        assert rig.texts == ["One.", " Two.", " Three. Four."]
    assert counts(chunks) == [4, 9, 22]


async def test_audio_of_a_later_piece_waits_for_the_earlier_one() -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        rig.voice.hold[1] = 0
        utterance = await session.utterance()
        await utterance.send("First.")
        await utterance.send(" Second.")
        await utterance.finish()
        assert isinstance(session, RealtimeVoice)
        await until(lambda: len(session._pieces) == 1)  # the second has all its audio
        rig.voice.go_on.set()
        assert spelled(audio_of(await collect(utterance))) == "First. Second."


@both
async def test_utterances_of_a_call_do_not_mix(model: str) -> None:
    async with openai(model) as rig, calling(rig) as session:
        filler, reply = await session.utterance(), await session.utterance()
        for utterance, text in ((filler, "One moment."), (reply, "Here it is!!!")):
            await utterance.send(text)
            await utterance.finish()
        assert (counts(await collect(reply)), counts(await collect(filler))) == ([13], [11])


@both
async def test_one_connection_serves_many_utterances(model: str) -> None:
    async with openai(model) as rig, calling(rig) as session:
        for text in ("One.", "Two, and a bit.", "Three."):
            assert counts(await say(await session.utterance(), text)) == [len(text)]
        assert len(rig.voice.peers) + len(rig.fake.sockets) == 1


@both
async def test_what_cannot_be_pronounced_is_counted_but_not_asked_for(model: str) -> None:
    async with openai(model) as rig, calling(rig) as session:
        chunks = await say(await session.utterance(), " – ", "Well.", " …")
        assert audio_of(await say(await session.utterance(), " ", "…")) == b""
        assert rig.texts == [" – Well."]
    assert counts(chunks)[-1] == 10


@both
async def test_a_long_text_is_cut_at_words(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_pieces, "LONGEST", 100)
    async with openai(model, ms_per_char=5) as rig, calling(rig) as session:
        text = "word and " * 50 + "w" * 150
        chunks = await say(await session.utterance(), text)
        assert sum(map(len, rig.texts)) == len(text)
        assert max(map(len, rig.texts)) <= 100
        assert all(set(piece.split()) <= {"word", "and"} for piece in rig.texts if "o" in piece)
    assert counts(chunks)[-1] == len(text)


@both
async def test_warming_tells_a_wrong_key_where_it_can(model: str) -> None:
    async with openai(model, key="wrong") as rig:
        if model == REALTIME:
            await rig.tts.warm()  # resolves the name; the session tells
        else:
            with pytest.raises(ProviderError) as caught:
                await rig.tts.warm()
            assert caught.value.status == 401


# --- stopping --------------------------------------------------------------------------------------------


async def test_cancelling_closes_the_endpoints_connection() -> None:
    async with openai(ENDPOINT) as rig, calling(rig) as session:
        rig.voice.hold = {1: 1, 2: 1}
        utterance = await session.utterance()
        await utterance.send(CLAUSES[0])
        await utterance.send(CLAUSES[1])
        async with asyncio.timeout(10):
            assert (await anext(aiter(utterance))).audio
        await until(lambda: len(rig.texts) == 2)
        await utterance.cancel()
        await utterance.cancel()
        async with asyncio.timeout(10):
            await rig.voice.hung_up.wait()
        assert not own_tasks()
        assert await collect(utterance) == []
        await utterance.send("Nobody hears this.")
        assert counts(await say(await session.utterance(), "Yes?")) == [4]
        assert sorted(rig.texts) == sorted([CLAUSES[0], CLAUSES[1], "Yes?"])


async def test_cancelling_stops_the_sessions_responses_and_keeps_the_session() -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        rig.voice.hold = {1: 1, 2: 1}
        utterance = await session.utterance()
        await utterance.send(CLAUSES[0])
        await utterance.send(CLAUSES[1])
        async with asyncio.timeout(10):
            assert (await anext(aiter(utterance))).audio
        await until(lambda: len(rig.texts) == 2)
        await utterance.cancel()
        await utterance.cancel()
        await until(lambda: len(rig.voice.cancelled) == 2)
        assert await collect(utterance) == []
        assert audio_of(await say(await session.utterance(), "Yes?")) == spelling("Yes?", 60)
        assert len(rig.fake.sockets) == 1


async def test_a_response_cancelled_before_it_has_an_id_is_stopped_when_it_has_one() -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        rig.voice.hold[1] = 0
        utterance = await session.utterance()
        await utterance.send(TEXT)
        await utterance.cancel()
        await until(lambda: rig.voice.cancelled == [TEXT])
        assert rig.sent() == ["session.update", "response.create", "response.cancel"]


@both
async def test_closing_ends_what_is_spoken(model: str) -> None:
    async with openai(model) as rig:
        rig.voice.hold[1] = 1
        session = await rig.tts.connect(call_id="CA1")
        utterance = await session.utterance()
        await utterance.send(TEXT)
        await until(lambda: len(rig.texts) == 1)
        await session.aclose()
        await session.aclose()
        assert await collect(utterance) == []
        assert not own_tasks()
        with pytest.raises(ProviderError):
            await session.utterance()


# --- what goes wrong -------------------------------------------------------------------------------------

REFUSALS = pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        (misbehaviour.unauthorized(), 401, False),
        (misbehaviour.rate_limited(3), 429, True),
        (misbehaviour.server_error(500), 500, True),
        (misbehaviour.reset(), None, True),
        (misbehaviour.hang(), None, True),
    ],
    ids=lambda value: getattr(value, "what", None),
)


@both
@REFUSALS
async def test_a_refusal(
    model: str,
    caplog: pytest.LogCaptureFixture,
    fault: misbehaviour.Misbehaviour,
    status: int | None,
    retryable: bool,
) -> None:
    """A session is refused when it is opened; the endpoint is asked first with the first text."""
    caplog.set_level(logging.DEBUG)
    limits = {"connect_timeout": 0.5, "read_timeout": 0.5} if fault.what == "hang" else {}
    async with openai(model, **limits) as rig:
        rig.fake.misbehave(fault)
        with pytest.raises(ProviderError) as caught:
            async with calling(rig) as session:
                await say(await session.utterance(), *CLAUSES)
        assert (caught.value.status, caught.value.retryable) == (status, retryable)
        assert caught.value.retry_after == fault.retry_after
        assert rig.fake.key not in str(caught.value) + caplog.text
        if status == 401:
            assert "OPENAI_API_KEY" in caught.value.fix
        async with calling(rig) as session:
            assert counts(await say(await session.utterance(), "Again.")) == [6]


@pytest.mark.parametrize(
    "fault",
    [misbehaviour.disconnect(2), misbehaviour.half_message(2), misbehaviour.hang(2)],
    ids=lambda fault: fault.what,
)
async def test_a_loss_in_mid_audio_at_the_endpoint(fault: misbehaviour.Misbehaviour) -> None:
    limits = {"read_timeout": 0.5} if fault.what == "hang" else {}
    async with openai(ENDPOINT, **limits) as rig, calling(rig) as session:
        rig.fake.misbehave(fault)
        heard = bytearray()
        utterance = await session.utterance()
        await utterance.send(TEXT)
        with pytest.raises(ProviderError) as caught:
            await listen(utterance, heard)
        assert caught.value.retryable
        assert 0 < len(heard) <= 1700  # some of 200 ms
        await utterance.send("More.")
        await utterance.cancel()
        assert counts(await say(await session.utterance(), "Again.")) == [6]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (misbehaviour.disconnect(7), None),
        (misbehaviour.half_message(7), None),
        (misbehaviour.hang(7), None),
        (misbehaviour.error(7), 1008),
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_loss_in_mid_audio_of_a_session(
    monkeypatch: pytest.MonkeyPatch, fault: misbehaviour.Misbehaviour, status: int | None
) -> None:
    if fault.what == "hang":
        monkeypatch.setattr(speech_socket, "STALL", 0.5)
    async with openai(REALTIME) as rig:
        rig.fake.misbehave(fault)
        async with calling(rig) as session:
            heard = bytearray()
            utterance = await session.utterance()
            await utterance.send(TEXT)
            await utterance.finish()
            with pytest.raises(ProviderError) as caught:
                await listen(utterance, heard)
            assert (caught.value.status, caught.value.retryable) == (status, status is None)
            assert heard == spelling(TEXT, 60)[: len(heard)]
            assert len(heard) == 800  # after two of the session and four of the response
            await utterance.send("More.")
            await utterance.cancel()
            assert counts(await say(await session.utterance(), "Again.")) == [6]
            assert len(rig.fake.sockets) == 2


@both
async def test_what_was_made_before_a_failure_is_heard(model: str) -> None:
    """The second piece fails while the first is being spoken."""
    async with openai(model) as rig, calling(rig) as session:
        rig.voice.hold[1] = 1
        rig.voice.endings[2] = FAILED
        utterance = await session.utterance()
        await utterance.send("First.")
        await until(lambda: len(rig.texts) == 1)
        if model == ENDPOINT:
            rig.fake.misbehave(misbehaviour.server_error())
        await utterance.send(" Second.")
        await utterance.finish()
        rig.voice.go_on.set()
        heard = bytearray()
        with pytest.raises(ProviderError):
            await listen(utterance, heard)
        assert 6 * 480 <= len(heard) < 14 * 480


FAILED = {
    "status": "failed",
    "status_details": {
        "type": "failed",
        "error": {"type": "requests", "code": "rate_limit_exceeded", "message": "Rate limit reached."},
    },
}
CUT = {"status": "incomplete", "status_details": {"type": "incomplete", "reason": "content_filter"}}


@pytest.mark.parametrize(("ending", "status", "retryable"), [(FAILED, 429, True), (CUT, None, False)])
async def test_a_response_that_ends_early_is_an_error(
    ending: dict[str, Any], status: int | None, retryable: bool
) -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        rig.voice.endings[1] = ending
        with pytest.raises(ProviderError) as caught:
            await say(await session.utterance(), TEXT)
        assert (caught.value.status, caught.value.retryable) == (status, retryable)
        assert counts(await say(await session.utterance(), "Again.")) == [6]
        assert len(rig.fake.sockets) == 1


async def test_a_response_that_is_refused_fails_its_utterance_only() -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        rig.voice.refuses = {"No."}
        with pytest.raises(ProviderError, match="Invalid 'response") as caught:
            await say(await session.utterance(), "No.")
        assert not caught.value.retryable
        assert counts(await say(await session.utterance(), "Yes.")) == [4]
        assert len(rig.fake.sockets) == 1


async def test_a_response_without_a_sound_is_an_error() -> None:
    silent = {"status": "completed", "status_details": None}
    async with openai(REALTIME, ms_per_char=0.1) as rig, calling(rig) as session:
        rig.voice.endings[1] = silent
        with pytest.raises(ProviderError, match="said nothing"):
            await say(await session.utterance(), "A")


@both
async def test_a_voice_of_ones_own_goes_by_its_id_and_openai_judges_it(model: str) -> None:
    async with openai(model, voice="voice_1234") as rig, calling(rig) as session:
        assert counts(await say(await session.utterance(), "Yes.")) == [4]
    async with openai(model, voice="voice_9999") as rig:
        with pytest.raises(ProviderError, match="voice_9999") as caught:
            async with calling(rig) as session:
                await say(await session.utterance(), "Yes.")
        assert (caught.value.status, caught.value.retryable) == (400, False)


async def test_a_model_that_does_not_exist_is_told_when_the_session_is_opened() -> None:
    async with openai("gpt-realtime-0") as rig:
        with pytest.raises(ProviderError, match="does not exist") as caught:
            await rig.tts.connect(call_id="CA1")
        assert not caught.value.retryable


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (misbehaviour.hang(1), "no session within 0.3 s"),
        (misbehaviour.disconnect(1), "the connection was lost"),
        (misbehaviour.error(1), "It broke"),
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_session_that_is_not_accepted(fault: misbehaviour.Misbehaviour, says: str) -> None:
    async with openai(REALTIME, connect_timeout=0.3) as rig:
        rig.fake.misbehave(fault)
        with pytest.raises(ProviderError, match=says) as caught:
            await rig.tts.connect(call_id="CA1")
        assert caught.value.retryable


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(3), misbehaviour.garbage(1)], ids=lambda f: f.what)
async def test_messages_that_nobody_knows_are_ignored(fault: misbehaviour.Misbehaviour) -> None:
    async with openai(REALTIME) as rig:
        rig.fake.misbehave(fault)
        async with calling(rig) as session:
            assert spelled(audio_of(await say(await session.utterance(), TEXT))) == TEXT


async def test_a_key_in_an_error_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with openai(REALTIME) as rig:
        rig.voice.complaint = f"{rig.fake.key} is tired."
        async with calling(rig) as session:
            assert counts(await say(await session.utterance(), "Yes.")) == [4]
    assert "*** is tired" in caplog.text
    assert "test-key" not in caplog.text


async def test_a_paraphrase_is_reported_without_its_words(caplog: pytest.LogCaptureFixture) -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        rig.voice.transcript = lambda text: text.upper()
        await say(await session.utterance(), TEXT)
        assert "word for word" not in caplog.text
        rig.voice.transcript = lambda _: "I am fine, thanks for asking!"
        await say(await session.utterance(), TEXT)
    assert "was not read word for word" in caplog.text
    assert "Thank you" not in caplog.text


async def test_a_session_is_opened_again_when_it_is_lost_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        assert isinstance(session, RealtimeVoice)
        rig.fake.sockets[0].abort()
        await until(lambda: not session._socket.alive)
        assert counts(await say(await session.utterance(), "Here.")) == [5]
        monkeypatch.setattr(openai_speech_realtime, "RENEW_AFTER", 0.0)  # OpenAI ends a session after an hour
        assert counts(await say(await session.utterance(), "Here.")) == [5]
        assert len(rig.fake.sockets) == 3
        await rig.fake.refuse_connections()
        with pytest.raises(ProviderError) as caught:
            await session.utterance()
        assert caught.value.retryable


async def test_an_utterance_outlives_a_session_only_as_an_error() -> None:
    async with openai(REALTIME) as rig, calling(rig) as session:
        assert isinstance(session, RealtimeVoice)
        utterance = await session.utterance()
        rig.fake.sockets[0].abort()
        await until(lambda: not session._socket.alive)
        with pytest.raises(ProviderError) as caught:
            await say(utterance, TEXT)
        assert caught.value.retryable


@pytest.mark.parametrize(
    ("model", "voice", "options", "says"),
    [
        (ENDPOINT, "", {"sped": 1.2}, "Did you mean 'speed'"),
        (ENDPOINT, "", {"speed": 4.5}, "less than or equal to 4"),
        (REALTIME, "", {"speed": 2}, "at most 1.5"),
        ("tts-1", "", {"instructions": "Calm."}, "takes no instructions"),
        (ENDPOINT, "marvin", {}, "Did you mean 'marin'"),
        (REALTIME, "onyx", {}, "only on the speech endpoint"),
        (REALTIME, "thalia", {}, "Known: alloy, ash"),
        (REALTIME, "", {"api": "speech"}, "not for the speech endpoint"),
        (ENDPOINT, "", {"api": "realtime"}, "gpt-realtime-2.1-mini"),
        (ENDPOINT, "", {"api": "telegraph"}, "'speech' or 'realtime'"),
    ],
)
def test_what_does_not_fit_is_refused_at_start(model: str, voice: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        OpenAITts(ProviderConfig("openai", model, api_key="key", voice=voice, options=options))


def test_without_a_key_there_is_no_voice() -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        OpenAITts(ProviderConfig("openai", ENDPOINT))


def test_a_model_that_nobody_knows_goes_the_way_that_is_given() -> None:
    config = ProviderConfig("openai", "gpt-9-speaks", api_key="key", options={"api": "realtime"})
    assert OpenAITts(config).profile.native_mulaw
