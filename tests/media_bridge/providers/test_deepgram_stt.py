"""DeepgramStt against a wire-level Deepgram: turns, what it asks for, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from deepgram.listen.v1.types import ListenV1Metadata, ListenV1Results, ListenV1SpeechStarted, ListenV1UtteranceEnd
from deepgram.listen.v2.types import ListenV2TurnInfo

from media_bridge.providers import deepgram_nova, deepgram_stt, vendor_socket
from media_bridge.providers.base import (
    EagerEndOfTurn,
    EndOfTurn,
    Partial,
    ProviderConfig,
    SpeechStarted,
    SttProvider,
    TurnResumed,
)
from media_bridge.providers.deepgram_stt import DeepgramStream, DeepgramStt
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.deepgram import FakeDeepgram, Heard
from tests.fakes.sound import silence, tone
from tests.media_bridge.providers.speech import hear, own_tasks, talk, until


@pytest.fixture
async def fake() -> AsyncIterator[FakeDeepgram]:
    async with FakeDeepgram() as server:
        yield server


def adapter(fake: FakeDeepgram, model: str = "nova-3", **options: Any) -> DeepgramStt:
    return DeepgramStt(ProviderConfig("deepgram", model, api_key=fake.api_key, base_url=fake.url, options=options))


async def ear(fake: FakeDeepgram, model: str = "nova-3", **options: Any) -> DeepgramStream:
    return await adapter(fake, model, **options).connect(call_id="CA1")


async def test_a_turn_has_a_start_partials_and_an_end_with_its_times(fake: FakeDeepgram) -> None:
    fake.script += [Heard("I need to book a plumber.", confidence=0.9)]
    provider: SttProvider = adapter(fake)
    stream = await provider.connect(call_id="CA1")
    await talk(stream, silence(500) + tone(2000) + silence(400))
    events = await hear(stream, EndOfTurn)
    assert events[0] == SpeechStarted(500)
    assert [e.text for e in events if isinstance(e, Partial)][-1] == "I need to book a plumber."
    end = events[-1]
    assert isinstance(end, EndOfTurn)
    assert end == EndOfTurn("I need to book a plumber.", end.confidence, speech_end_ms=2500, speech_ms=2000)
    assert end.confidence == pytest.approx(0.9)
    await stream.aclose()


async def test_what_it_asks_for(fake: FakeDeepgram) -> None:
    stream = await ear(fake, keyterm=["Stayline", "plumber"], tag=["blue"], numerals=True)
    request = fake.requests[0]
    assert request.headers["authorization"] == f"Token {fake.api_key}"
    assert "sec-websocket-extensions" not in request.headers
    assert dict(request.query) | {"keyterm": "", "tag": ""} == {
        "model": "nova-3",
        "encoding": "mulaw",
        "sample_rate": "8000",
        "language": "en",
        "interim_results": "true",
        "endpointing": "300",
        "utterance_end_ms": "1000",
        "vad_events": "true",
        "smart_format": "true",
        "numerals": "true",
        "keyterm": "",
        "tag": "",
    }
    assert request.param("keyterm") == ["Stayline", "plumber"]
    assert request.param("tag") == ["CA1", "blue"]
    await stream.aclose()


@pytest.mark.parametrize("ends_by", ["speech_final", "utterance_end", "finalize"])
async def test_every_way_in_which_a_turn_ends(fake: FakeDeepgram, ends_by: Any) -> None:
    fake.script += [Heard("Two things, first the sink.", pieces=2, ends_by=ends_by)]
    stream = await ear(fake)
    await talk(stream, tone(1500) + silence(1500))
    assert (await hear(stream, EndOfTurn))[-1].text == "Two things, first the sink."  # type: ignore[union-attr]
    await stream.aclose()
    asked = {"type": "Finalize"} in fake.requests[0].messages
    assert asked == (ends_by == "finalize")


async def test_several_turns_and_noise_between_them(fake: FakeDeepgram) -> None:
    fake.script += [Heard("One."), Heard(""), Heard("Two.")]
    stream = await ear(fake)
    await talk(stream, (tone(600) + silence(1400)) * 3)
    ends = [(await hear(stream, EndOfTurn))[-1] for _ in range(3)]
    assert [end.text for end in ends] == ["One.", "", "Two."]  # type: ignore[union-attr]
    await stream.aclose()


async def test_one_second_of_audio_is_counted_as_one_second(fake: FakeDeepgram) -> None:
    stream = await ear(fake)
    await talk(stream, tone(1000))
    await stream.aclose()
    await until(
        lambda: bool(fake.requests[0].messages) and fake.requests[0].messages[-1] == {"type": "CloseStream"}
    )
    assert fake.listened[0].audio_bytes == 8000


async def test_it_shows_that_it_is_there_while_no_audio_comes(
    fake: FakeDeepgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deepgram_stt, "KEEPALIVE", 0.01)
    stream = await ear(fake)
    await until(lambda: fake.requests[0].messages.count({"type": "KeepAlive"}) >= 2)
    await stream.aclose()


async def test_flux_brings_its_own_turns(fake: FakeDeepgram) -> None:
    fake.script += ["Can you hear me?"]
    provider = adapter(fake, "flux-general-en", eager_eot_threshold=0.4)
    assert provider.profile.eager_turns
    stream = await provider.connect(call_id="CA1")
    await talk(stream, tone(1000) + silence(300) + tone(500) + silence(700))
    events = await hear(stream, EndOfTurn)
    assert [type(e) for e in events if not isinstance(e, Partial)] == [
        SpeechStarted,
        EagerEndOfTurn,
        TurnResumed,
        EagerEndOfTurn,
        EndOfTurn,
    ]
    assert events[-2] == EagerEndOfTurn("Can you hear me?")
    end = events[-1]
    assert isinstance(end, EndOfTurn)
    assert end == EndOfTurn("Can you hear me?", end.confidence, speech_end_ms=1800, speech_ms=1800)
    assert fake.requests[0].path == "/v2/listen"
    await stream.aclose()
    assert {"type": "KeepAlive"} not in fake.requests[0].messages


async def test_what_the_fake_sends_is_what_deepgram_documents(fake: FakeDeepgram) -> None:
    """Its messages pass Deepgram's own types."""
    types: dict[str, Any] = {
        "Results": ListenV1Results,
        "SpeechStarted": ListenV1SpeechStarted,
        "UtteranceEnd": ListenV1UtteranceEnd,
        "Metadata": ListenV1Metadata,
        "TurnInfo": ListenV2TurnInfo,
    }
    seen: set[str] = set()
    fake.script += ["One.", "Two."]
    for model, path in (("nova-3", "/v1/listen"), ("flux-general-en", "/v2/listen")):
        query: list[tuple[str, str | int | float | bool]] = [("model", model), ("encoding", "mulaw")]
        query.append(("sample_rate", 8000))
        if model == "nova-3":
            query += [("interim_results", True), ("utterance_end_ms", 1000), ("vad_events", True)]
        socket = await vendor_socket.open_socket(
            "deepgram", fake.url, path, query=query, headers={"Authorization": f"Token {fake.api_key}"}
        )
        await socket.send(tone(800) + silence(2500))
        await socket.send('{"type":"CloseStream"}')
        async for raw in socket:
            message = json.loads(raw)
            if message["type"] in types:
                types[message["type"]].model_validate(message)
                seen.add(message["type"])
    assert seen == set(types)


# --- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "retryable", "retry_after"),
    [
        (misbehaviour.unauthorized(), 401, False, None),
        (misbehaviour.rate_limited(2.5), 429, True, 2.5),
        (misbehaviour.server_error(503), 503, True, None),
        (misbehaviour.reset(), None, True, None),
        (misbehaviour.hang(), None, True, None),
    ],
    ids=lambda value: getattr(value, "what", None),
)
async def test_a_refused_connection(
    fake: FakeDeepgram,
    monkeypatch: pytest.MonkeyPatch,
    fault: misbehaviour.Misbehaviour,
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
        "deepgram",
        status,
        retryable,
        retry_after,
    )
    assert fake.api_key not in str(error)


async def test_nobody_listens(fake: FakeDeepgram) -> None:
    await fake.refuse_connections()
    with pytest.raises(ProviderError) as caught:
        await ear(fake)
    assert caught.value.retryable


async def test_a_wrong_key_says_what_to_check(fake: FakeDeepgram, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = ProviderConfig("deepgram", "nova-3", api_key="wrong-secret", base_url=fake.url)
    with pytest.raises(ProviderError, match="Check DEEPGRAM_API_KEY") as caught:
        await DeepgramStt(config).connect(call_id="CA1")
    assert not caught.value.retryable
    assert "wrong-secret" not in str(caught.value) + caplog.text


async def test_a_slow_handshake_is_waited_for(fake: FakeDeepgram) -> None:
    fake.misbehave(misbehaviour.slow(0.05))
    await (await ear(fake)).aclose()


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(2), misbehaviour.garbage(2)], ids=lambda f: f.what)
async def test_messages_that_nobody_knows_are_ignored(fake: FakeDeepgram, fault: misbehaviour.Misbehaviour) -> None:
    fake.script += ["Still here."]
    fake.misbehave(fault)
    stream = await ear(fake)
    await talk(stream, tone(1200) + silence(400))
    assert (await hear(stream, EndOfTurn))[-1].text == "Still here."  # type: ignore[union-attr]
    await stream.aclose()
    assert len(fake.requests) == 1


@pytest.mark.parametrize("model", ["nova-3", "flux-general-en"])
@pytest.mark.parametrize(
    "fault", [misbehaviour.disconnect(2), misbehaviour.half_message(2)], ids=lambda fault: fault.what
)
async def test_a_lost_connection_is_opened_again_and_the_words_are_heard(
    fake: FakeDeepgram, model: str, fault: misbehaviour.Misbehaviour
) -> None:
    fake.script += ["My number is five five five."]
    fake.misbehave(fault)
    stream = await ear(fake, model)
    await talk(stream, silence(200) + tone(1000))
    await until(lambda: len(fake.requests) == 2)
    await talk(stream, tone(700) + silence(800))
    end = (await hear(stream, EndOfTurn))[-1]
    assert isinstance(end, EndOfTurn)
    assert end.text.endswith("My number is five five five.")
    assert end.speech_end_ms == 1900  # in the stream's own time, not the new connection's
    await stream.aclose()
    assert not own_tasks()


async def test_settled_text_survives_a_lost_connection(fake: FakeDeepgram) -> None:
    """The first half was settled, then the line broke, then the caller said nothing more: the turn still ends."""
    fake.script += [Heard("The sink is leaking.", ends_by="utterance_end")]
    fake.misbehave(misbehaviour.disconnect(4))  # SpeechStarted, two interims, the final; not UtteranceEnd
    stream = await ear(fake)
    await talk(stream, tone(1200) + silence(900))
    heard = await hear(stream, Partial)
    await talk(stream, silence(1200))
    heard += await hear(stream, EndOfTurn)
    assert heard[-1].text == "The sink is leaking."  # type: ignore[union-attr]
    await until(lambda: len(fake.requests) == 2)
    await stream.aclose()


async def test_a_connection_that_keeps_breaking_is_given_up(fake: FakeDeepgram) -> None:
    fake.always = misbehaviour.disconnect(0)
    stream = await ear(fake)
    await talk(stream, tone(400))
    with pytest.raises(ProviderError) as caught:
        await hear(stream, EndOfTurn)
    assert caught.value.retryable
    assert len(fake.requests) == 4
    await stream.send(b"\xff" * 160)  # a call that has not noticed yet does no harm
    await stream.aclose()
    assert not own_tasks()


async def test_a_vendor_that_is_gone_is_given_up(fake: FakeDeepgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_stt, "RECONNECT_DELAYS", (0.0, 0.01, 0.01))
    fake.script += ["Hello?"]
    fake.misbehave(misbehaviour.disconnect(1))
    stream = await ear(fake)
    await fake.refuse_connections()
    await talk(stream, tone(1000))
    with pytest.raises(ProviderError) as caught:
        await hear(stream, EndOfTurn)
    assert caught.value.retryable
    await stream.aclose()


async def test_a_key_that_was_revoked_in_mid_call_is_final(fake: FakeDeepgram) -> None:
    fake.script += ["Hello?"]
    fake.misbehave(misbehaviour.disconnect(1), misbehaviour.unauthorized())
    stream = await ear(fake)
    await talk(stream, tone(1000))
    with pytest.raises(ProviderError) as caught:
        await hear(stream, EndOfTurn)
    assert (caught.value.status, caught.value.retryable) == (401, False)
    await stream.aclose()


async def test_an_error_message_is_told(fake: FakeDeepgram) -> None:
    fake.script += ["Hello?"]
    fake.misbehave(misbehaviour.error(1))
    stream = await ear(fake)
    await talk(stream, tone(1000))
    with pytest.raises(ProviderError, match="Internal failure") as caught:
        await hear(stream, EndOfTurn)
    assert caught.value.status == 1008
    await stream.aclose()


async def test_a_silent_vendor_is_replaced(fake: FakeDeepgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepgram_stt, "STALL", 0.3)
    fake.script += ["Hello?", "Hello?"]
    fake.misbehave(misbehaviour.hang(1))
    stream = await ear(fake)
    await talk(stream, tone(400))
    while len(fake.requests) < 2:
        await talk(stream, silence(20))
        await asyncio.sleep(0.01)
    await talk(stream, silence(400))
    assert (await hear(stream, EndOfTurn))[-1].text == "Hello?"  # type: ignore[union-attr]
    await stream.aclose()


async def test_a_call_that_ends_while_connecting_leaves_nothing(fake: FakeDeepgram) -> None:
    fake.misbehave(misbehaviour.hang())
    connecting = asyncio.create_task(ear(fake))
    await until(lambda: len(fake.requests) == 1)
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    assert connecting.cancelled()
    assert not own_tasks()


async def test_a_call_that_ends_while_reconnecting_leaves_nothing(fake: FakeDeepgram) -> None:
    fake.misbehave(misbehaviour.disconnect(0), misbehaviour.hang())
    stream = await ear(fake)
    await talk(stream, tone(200))
    await until(lambda: len(fake.requests) == 2)
    await stream.aclose()
    assert [event async for event in stream] == []
    assert not own_tasks()


async def test_a_bug_in_the_adapter_is_an_error_and_not_silence(
    fake: FakeDeepgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(deepgram_nova.NovaTurns, "handle", broken)
    stream = await ear(fake)
    await talk(stream, tone(200))
    with pytest.raises(ProviderError, match="adapter failed"):
        await hear(stream, EndOfTurn)
    await stream.aclose()


async def test_closing_ends_the_iteration_and_leaves_nothing(fake: FakeDeepgram) -> None:
    stream = await ear(fake)
    await stream.aclose()
    await stream.aclose()
    assert [event async for event in stream] == []
    assert not own_tasks()
    await stream.send(b"\xff" * 160)


# --- configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("nova-3", {"endpointin": 200}, "Did you mean 'endpointing'"),
        ("nova-3", {"utterance_end_ms": 500}, "utterance_end_ms"),
        ("nova-3", {"keywords": ["a"]}, "Use keyterm"),
        ("nova-2", {"keyterm": ["a"]}, "Use keywords"),
        ("flux-general-en", {"endpointing": 300}, "no stt option 'endpointing'"),
        ("flux-general-en", {"eot_threshold": 0.2}, "eot_threshold"),
    ],
)
def test_wrong_options_are_refused_at_start(model: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DeepgramStt(ProviderConfig("deepgram", model, options=options))
