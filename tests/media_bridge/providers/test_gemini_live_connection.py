"""How GeminiLive sets a session up, and what it does when that or the session fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.genai import types

from media_bridge.providers import gemini_live, vendor_socket
from media_bridge.providers.base import (
    ProviderConfig,
    RealtimeSession,
)
from media_bridge.providers.gemini_live import GeminiLive, GeminiSession
from media_bridge.providers.gemini_messages import VOICES
from stayline.errors import ConfigError, ProviderError
from tests.fakes import misbehaviour
from tests.fakes.gemini import PATH, FakeGemini
from tests.fakes.llm import Call, Say
from tests.fakes.sound import tone
from tests.media_bridge.providers.gemini import (
    MODEL,
    adapter,
    audio,
    booking,
    own_tasks,
    request,
    sent,
    talk,
    text,
    until,
)
from tests.media_bridge.providers.speech import until as holds


@pytest.fixture
async def fake() -> AsyncIterator[FakeGemini]:
    async with FakeGemini(lines=["What time do you open?", "And on Sunday?"]) as server:
        yield server
        assert server.closed_with == []


@pytest.fixture
async def session(fake: FakeGemini) -> AsyncIterator[GeminiSession]:
    opened = await adapter(fake).connect(request())
    yield opened
    await opened.aclose()
    assert not own_tasks()


# --- the configuration -----------------------------------------------------------------------------------


async def test_the_session_is_set_up_as_google_documents(fake: FakeGemini) -> None:
    provider = adapter(
        fake,
        voice="aoede",
        temperature=0.4,
        max_output_tokens=500,
        language_code="de-DE",
        transcription_languages=["de-DE", "en-US"],
        start_of_speech_sensitivity="low",
        end_of_speech_sensitivity="high",
        prefix_padding_ms=100,
        silence_duration_ms=400,
        google_search=True,
        trigger_tokens=25_600,
        target_tokens=12_800,
        api_version="v1beta",
    )
    await (await provider.connect(request())).aclose()
    assert fake.requests[0].path == PATH.format(version="v1beta")
    (setup,) = sent(fake, "setup")
    assert setup == {
        "model": "models/gemini-3.8-live",
        "generationConfig": {
            "responseModalities": ["AUDIO"],
            "speechConfig": {
                "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Aoede"}},
                "languageCode": "de-DE",
            },
            "temperature": 0.4,
            "maxOutputTokens": 500,
        },
        "systemInstruction": {"parts": [{"text": "You are a restaurant. Be brief."}]},
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "book",
                        "description": "Book a table.",
                        "parametersJsonSchema": {
                            "type": "object",
                            "properties": {"day": {"type": "string"}},
                            "required": ["day"],
                            "additionalProperties": False,
                        },
                        "behavior": "NON_BLOCKING",
                    },
                    {"name": "opening_hours", "description": "Opening hours.", "behavior": "NON_BLOCKING"},
                ]
            },
            {"googleSearch": {}},
        ],
        "realtimeInputConfig": {
            "activityHandling": "START_OF_ACTIVITY_INTERRUPTS",
            "automaticActivityDetection": {
                "startOfSpeechSensitivity": "START_SENSITIVITY_LOW",
                "endOfSpeechSensitivity": "END_SENSITIVITY_HIGH",
                "prefixPaddingMs": 100,
                "silenceDurationMs": 400,
            },
        },
        "inputAudioTranscription": {"languageCodes": ["de-DE", "en-US"]},
        "outputAudioTranscription": {},
        "contextWindowCompression": {"triggerTokens": 25_600, "slidingWindow": {"targetTokens": 12_800}},
        "sessionResumption": {},
    }


async def test_without_options_it_says_what_it_must(fake: FakeGemini) -> None:
    await (await adapter(fake, voice="").connect(request(tools=(), interruption="disabled"))).aclose()
    (setup,) = sent(fake, "setup")
    assert setup["generationConfig"] == {"responseModalities": ["AUDIO"]}
    assert setup["realtimeInputConfig"] == {"activityHandling": "NO_INTERRUPTION"}
    assert setup["contextWindowCompression"] == {"slidingWindow": {}}
    assert "tools" not in setup


async def test_only_models_that_think_are_told_how_much(fake: FakeGemini) -> None:
    thinking = adapter(fake, "gemini-3.8-live-extended-thinking", thinking_level="low")
    await (await thinking.connect(request())).aclose()
    older = adapter(fake, "gemini-2.5-flash-native-audio-preview-09-2025", thinking_budget=0)
    await (await older.connect(request())).aclose()
    wanted = [sent(fake, "setup", n)[0]["generationConfig"]["thinkingConfig"] for n in range(2)]
    assert wanted == [{"thinkingLevel": "LOW"}, {"thinkingBudget": 0}]


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (MODEL, {"silence_ms": 300}, "silence_duration_ms"),
        (MODEL, {"temperature": 3}, "temperature"),
        (MODEL, {"end_of_speech_sensitivity": "medium"}, "end_of_speech_sensitivity"),
        (MODEL, {"thinking_level": "low"}, "thinking_level"),
        (MODEL, {"thinking_budget": 100}, "thinking_budget"),
        (MODEL, {"api_version": "../v1"}, "api_version"),
        ("gemini-3.8-live-extended-thinking", {"blocking_tools": True}, "blocking"),
    ],
)
def test_what_google_would_refuse_is_refused_at_start(model: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        GeminiLive(ProviderConfig("google", model, api_key="k", options=options))


def test_there_must_be_a_key() -> None:
    with pytest.raises(ConfigError, match="GOOGLE_API_KEY"):
        GeminiLive(ProviderConfig("google", MODEL))


def test_a_voice_that_is_not_known_may_be_a_new_one(caplog: pytest.LogCaptureFixture) -> None:
    assert len(set(VOICES)) == 30
    GeminiLive(ProviderConfig("google", MODEL, api_key="k", voice="KORE"))
    assert not caplog.records
    GeminiLive(ProviderConfig("google", MODEL, api_key="k", voice="Brandnew"))
    assert "Brandnew" in caplog.text


async def test_what_the_fake_sends_is_what_google_documents(fake: FakeGemini) -> None:
    fake.reply = booking([Say("Let me see."), Call("book", {"day": "Friday"})])
    socket = await vendor_socket.open_socket(
        "google", fake.url, PATH.format(version="v1"), headers={"x-goog-api-key": fake.api_key}
    )
    setup = {"model": f"models/{MODEL}", "generationConfig": {"responseModalities": ["AUDIO"]}}
    await socket.send(json.dumps({"setup": setup}))
    turn = {"role": "user", "parts": [{"text": "When do you open?"}]}
    await socket.send(json.dumps({"clientContent": {"turns": [turn], "turnComplete": True}}))
    fields: set[str] = set()
    async with asyncio.timeout(10):
        while "session_resumption_update" not in fields or "tool_call" not in fields:
            raw = await socket.recv()
            assert isinstance(raw, bytes)
            fields |= types.LiveServerMessage.model_validate_json(raw).model_fields_set
    assert {"setup_complete", "server_content", "tool_call", "session_resumption_update"} <= fields
    await socket.close()


# --- what goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "retryable"),
    [
        (misbehaviour.unauthorized(), 401, False),
        (misbehaviour.rate_limited(3), 429, True),
        (misbehaviour.server_error(), 503, True),
        (misbehaviour.reset(), None, True),
    ],
)
async def test_a_refused_connection(
    fake: FakeGemini, fault: misbehaviour.Misbehaviour, status: int | None, retryable: bool
) -> None:
    fake.misbehave(fault)
    with pytest.raises(ProviderError) as refused:
        await adapter(fake).connect(request())
    assert (refused.value.status, refused.value.retryable) == (status, retryable)
    assert refused.value.retry_after == (3 if status == 429 else None)


async def test_a_wrong_key_or_model_says_so_and_the_key_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeGemini() as fake:
        config = ProviderConfig("google", MODEL, api_key="AIza-secret", base_url=fake.url)
        with pytest.raises(ProviderError, match="API key not valid") as refused:
            await GeminiLive(config).connect(request())
        assert (refused.value.status, refused.value.retryable) == (1007, False)
        assert "GOOGLE_API_KEY" in str(refused.value)
        with pytest.raises(ProviderError, match="not found") as unknown:
            await adapter(fake, "gemini-1.0-live").connect(request())
        assert (unknown.value.status, unknown.value.retryable) == (1008, False)
        assert "gemini-1.0-live" in unknown.value.fix
        assert "AIza-secret" not in caplog.text + str(refused.value) + repr(config)
        assert fake.api_key not in caplog.text


async def test_nobody_is_there(fake: FakeGemini) -> None:
    await fake.refuse_connections()
    with pytest.raises(ProviderError) as refused:
        await adapter(fake).connect(request())
    assert refused.value.retryable


async def test_a_session_that_is_never_accepted(fake: FakeGemini, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemini_live, "SETUP_TIMEOUT", 0.05)
    fake.accepts = False
    with pytest.raises(ProviderError, match="not accepted") as hung:
        await adapter(fake).connect(request())
    assert hung.value.retryable
    await holds(lambda: not fake.connections[0].is_open)


async def test_cancelling_a_connect_closes_the_connection(fake: FakeGemini) -> None:
    fake.accepts = False
    connecting = asyncio.create_task(adapter(fake).connect(request()))
    await holds(lambda: len(fake.connections) == 1)
    connecting.cancel()
    await asyncio.gather(connecting, return_exceptions=True)
    await holds(lambda: not fake.connections[0].is_open)


@pytest.mark.parametrize("fault", [misbehaviour.disconnect(after=6), misbehaviour.half_message(after=6)])
async def test_a_connection_that_breaks_while_it_speaks(fake: FakeGemini, fault: misbehaviour.Misbehaviour) -> None:
    fake.misbehave(fault)
    session: RealtimeSession = await adapter(fake).connect(request())
    await session.say("We open at eight.")
    with pytest.raises(ProviderError) as lost:
        await until(session)
    assert lost.value.retryable
    with pytest.raises(ProviderError):
        await session.say("Hello?")
    with pytest.raises(ProviderError):
        await talk(session)
    with pytest.raises(ProviderError):
        await until(session)
    await session.aclose()
    assert not own_tasks()


@pytest.mark.parametrize(
    ("code", "reason", "retryable"),
    [
        (1008, "Operation is not implemented, or supported, or enabled.", True),
        (1011, "You exceeded your current quota.", True),
        (1007, "Request contains an invalid argument.", False),
        (1007, "API key expired. Please renew the API key.", False),
    ],
)
async def test_google_closes_a_session(
    fake: FakeGemini, session: GeminiSession, code: int, reason: str, retryable: bool
) -> None:
    await fake.connections[0].end(code, reason)
    with pytest.raises(ProviderError, match=reason[:20]) as lost:
        await until(session)
    assert (lost.value.status, lost.value.retryable) == (code, retryable)


async def test_a_connection_that_takes_nothing_any_more(
    fake: FakeGemini, session: GeminiSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no pings, so a dead line is found by what it does not take."""
    monkeypatch.setattr(gemini_live, "SEND_TIMEOUT", 0.05)
    fake.sockets[0].pause()

    async def fill() -> None:
        for _ in range(50):
            await session.say("x" * 500_000)

    with pytest.raises(ProviderError, match="takes nothing") as stuck:
        await fill()
    assert stuck.value.retryable
    with pytest.raises(ProviderError, match="takes nothing"):
        await until(session)


@pytest.mark.parametrize("fault", [misbehaviour.unknown_message(after=4), misbehaviour.garbage(after=4)])
async def test_what_is_not_understood_is_passed_over(fake: FakeGemini, fault: misbehaviour.Misbehaviour) -> None:
    fake.misbehave(fault)
    session = await adapter(fake).connect(request())
    await session.say("We open at eight.")
    events = await until(session)
    assert len(audio(events, "r1")) == 17 * 60 * 8
    await session.aclose()


async def test_iteration_ends_when_we_close(fake: FakeGemini) -> None:
    session = await adapter(fake).connect(request())
    waiting = asyncio.create_task(anext(session, None))
    await asyncio.sleep(0)
    await session.aclose()
    await session.aclose()
    assert await waiting is None
    assert [event async for event in session] == []
    await session.send(tone(20))
    await session.say("Nobody hears this.")
    assert not own_tasks()
    assert not fake.connections[0].is_open


async def test_two_calls_do_not_hear_each_other(fake: FakeGemini) -> None:
    provider = adapter(fake)
    one, other = await provider.connect(request()), await provider.connect(request())
    await one.say("One.")
    await other.say("The other.")
    assert text(await until(one), "r1") == "One."
    assert text(await until(other), "r1") == "The other."
    await one.aclose()
    await other.aclose()
