"""GeminiLive against a wire-level Gemini: conversation, interruption, tools and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from media_bridge.audio import mulaw
from media_bridge.providers.base import (
    CallerTranscript,
    Expiring,
    LlmUsage,
    Partial,
    RealtimeEvent,
    RealtimeProvider,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    SpeechStarted,
    SpeechStopped,
    ToolCallDelta,
    ToolCancelled,
)
from media_bridge.providers.gemini_live import GeminiSession
from stayline.errors import ProviderError
from stayline.models import AgentMessage, InterruptionMode, ToolCall, ToolMessage, UserMessage
from tests.fakes.gemini import PATH, FakeGemini
from tests.fakes.llm import Call, Ending, Say, Tokens, Wait
from tests.fakes.sound import silence, tone
from tests.media_bridge.providers.gemini import (
    adapter,
    audio,
    booking,
    kinds,
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


def done(events: list[RealtimeEvent]) -> list[RealtimeEvent]:
    return [event for event in events if isinstance(event, ResponseDone)]


# --- speaking and hearing --------------------------------------------------------------------------------


async def test_a_greeting_is_spoken_word_for_word_and_lasts_as_long_as_it_lasts(
    fake: FakeGemini, session: GeminiSession
) -> None:
    greeting = "Hello! How can I help you today?"
    await session.say(greeting)
    events = await until(session)
    assert kinds(events)[0] == "ResponseStarted"
    assert kinds(events)[-2:] == ["ResponseDone", "LlmUsage"]
    assert text(events, "r1") == greeting
    assert ResponseDone("r1") in events
    assert len(audio(events, "r1")) == len(greeting) * 60 * 8
    spectrum = np.abs(np.fft.rfft(mulaw.to_float(audio(events, "r1"))[:8000]))
    assert int(spectrum.argmax()) == 400  # Hz: neither faster nor slower than it was spoken
    assert fake.requests[0].path == PATH.format(version="v1")
    assert fake.requests[0].headers["x-goog-api-key"] == fake.api_key
    assert fake.requests[0].query == []


async def test_the_caller_is_heard_whole_and_answered(fake: FakeGemini, session: GeminiSession) -> None:
    await talk(session, silence(400) + tone(1000) + silence(700))
    events = await until(session)
    assert kinds(events) == [
        "SpeechStarted",
        "Partial",
        "SpeechStopped",
        "ResponseStarted",
        "ResponseText",
        "ResponseAudio",
        "ResponseDone",
        "CallerTranscript",
        "LlmUsage",
    ]
    assert events[0] == SpeechStarted(400)
    assert SpeechStopped(1400) in events
    assert Partial("What time do you open?") in events
    assert CallerTranscript("What time do you open?") in events
    assert ResponseStarted("r1", by_itself=True) in events
    assert text(events, "r1") == "You said: What time do you open?"
    await holds(lambda: fake.connections[0].audio_bytes == (2100 - 4) * 32)  # the filter's reach is 4 ms


@pytest.mark.parametrize("words", ["whole", "late"])
async def test_words_come_once_whenever_they_come(fake: FakeGemini, session: GeminiSession, words: Any) -> None:
    fake.words = words
    await talk(session)
    events = await until(session)
    await talk(session)
    events += await until(session)
    begins = [event for event in events if isinstance(event, SpeechStarted)]
    ends = [event for event in events if isinstance(event, SpeechStopped)]
    assert [event.at_ms for event in begins] == [0, 1700]
    assert [event.at_ms for event in ends] == [1000, 2700]
    said = [event for event in events if isinstance(event, CallerTranscript)]
    assert said == [CallerTranscript("What time do you open?"), CallerTranscript("And on Sunday?")]


async def test_an_interruption_cancels_the_answer(fake: FakeGemini, session: GeminiSession) -> None:
    fake.pace.hold_after = 2
    await session.say("We open at eight in the morning.")
    events = await until(session, ResponseAudio, 2)
    fake.pace.hold_after = None
    await talk(session)
    events += await until(session, ResponseDone, 2)
    assert kinds(events)[:5] == [
        "ResponseStarted",
        "ResponseText",
        "ResponseAudio",
        "SpeechStarted",
        "ResponseDone",
    ]
    assert ResponseDone("r1", "cancelled") in events
    assert ResponseDone("r2") in events
    assert text(events, "r2") == "You said: What time do you open?"
    assert len(audio(events, "r2")) == len("You said: What time do you open?") * 60 * 8
    await session.say("Goodbye.")  # the cancelled one has left no sound in the filter
    assert len(audio(await until(session, ResponseDone), "r3")) == 8 * 60 * 8


async def test_an_interruption_of_what_is_only_played_is_the_callers_speech(
    fake: FakeGemini, session: GeminiSession
) -> None:
    fake.played = asyncio.Event()
    await session.say("We open at eight.")
    await until(session, ResponseDone)
    await talk(session, tone(300))
    assert kinds(await until(session, LlmUsage)) == ["SpeechStarted", "LlmUsage"]


@pytest.mark.parametrize("mode", ["after_sentence", "disabled"])
async def test_only_where_the_caller_may_interrupt_does_gemini_stop_itself(
    fake: FakeGemini, mode: InterruptionMode
) -> None:
    session = await adapter(fake).connect(request(interruption=mode))
    fake.pace.hold_after = 2
    await session.say("We open at eight in the morning.")
    events = await until(session, ResponseAudio, 2)
    await talk(session)
    events += await until(session, Partial)
    fake.pace.let_go()
    events += await until(session, ResponseDone, 2)
    assert done(events) == [ResponseDone("r1"), ResponseDone("r2")]
    assert text(events, "r2") == "You said: What time do you open?"
    await session.aclose()


async def test_a_note_silences_nobody_and_is_known(fake: FakeGemini, session: GeminiSession) -> None:
    """Content of ours stops the model in mid-word, so it has to wait."""
    fake.pace.hold_after = 1
    await session.say("We open at eight.")
    events = await until(session, ResponseAudio)
    await session.note("The caller pressed 5.")
    fake.pace.let_go()
    events += await until(session)
    assert ResponseDone("r1") in events
    await holds(lambda: len(sent(fake, "clientContent")) == 2)
    await session.respond()
    events = await until(session)
    assert text(events, "r2") == "You said: [It is your turn to speak.]"
    assert [turn["parts"][0]["text"] for turn in fake.connections[0].contents[2:4]] == [
        "[The caller pressed 5.]",
        "[It is your turn to speak.]",
    ]


async def test_notes_go_along_with_what_is_asked(fake: FakeGemini, session: GeminiSession) -> None:
    await session.say("Hello!")
    await session.note("The caller pressed 5.")
    await session.note("The caller pressed 6.")
    await until(session)
    await holds(lambda: len(sent(fake, "clientContent")) == 2)
    (told,) = [content for content in sent(fake, "clientContent") if not content["turnComplete"]]
    assert [turn["parts"][0]["text"] for turn in told["turns"]] == [
        "[The caller pressed 5.]",
        "[The caller pressed 6.]",
    ]


async def test_it_is_not_asked_for_an_answer_that_it_is_giving(fake: FakeGemini, session: GeminiSession) -> None:
    fake.pace.hold_after = 1
    await session.say("Hello!")
    await until(session, ResponseAudio)
    await session.respond()
    assert len(sent(fake, "clientContent")) == 1
    fake.pace.let_go()
    assert kinds(await until(session))[-2:] == ["ResponseDone", "LlmUsage"]


async def test_what_it_cannot_do_does_nothing(fake: FakeGemini, session: GeminiSession) -> None:
    await session.cancel()
    await session.truncate("r1", 100)
    assert [kind for message in fake.requests[0].messages for kind in message] == ["setup"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], "the model said nothing"),
        ([Ending("MALFORMED_FUNCTION_CALL")], "MALFORMED_FUNCTION_CALL"),
    ],
)
async def test_an_answer_that_was_asked_for_and_is_empty_has_failed(
    fake: FakeGemini, session: GeminiSession, parts: list[Any], error: str
) -> None:
    fake.reply = lambda _: parts
    await session.say("Hello!")
    events = await until(session)
    assert kinds(events) == ["ResponseStarted", "ResponseDone", "LlmUsage"]
    assert events[1] == ResponseDone("r1", "failed", error)


async def test_tokens_are_counted(fake: FakeGemini, session: GeminiSession) -> None:
    fake.reply = lambda _: [Say("Hi."), Tokens(1200, 40, 1000)]
    await session.say("Hello!")
    assert (await until(session))[-1] == LlmUsage(1200, 40, 1000)


# --- tools -----------------------------------------------------------------------------------------------


async def test_a_tool_is_called_and_meanwhile_the_model_can_speak(fake: FakeGemini, session: GeminiSession) -> None:
    fake.reply = booking([Call("book", {"day": "Friday"}, id="c1")])
    await talk(session)
    events = await until(session)
    assert ToolCallDelta(ToolCall(id="c1", name="book", arguments={"day": "Friday"})) in events
    assert kinds(events)[-5:] == [
        "ResponseStarted",
        "ToolCallDelta",
        "ResponseDone",
        "CallerTranscript",
        "LlmUsage",
    ]
    await session.say("One moment, please.")
    assert text(await until(session), "r2") == "One moment, please."
    result = ToolMessage(tool_call_id="c1", name="book", content='{"table": 4}')
    await session.tool_result(result, respond=True)
    events = await until(session)
    assert text(events, "r3") == 'It is done: {"output": {"table": 4}}'
    assert ResponseStarted("r3") in events


async def test_a_result_that_nobody_waits_for_is_not_spoken_of(fake: FakeGemini, session: GeminiSession) -> None:
    fake.reply = booking([Call("book", {"day": "Friday"}, id="c1"), Call("opening_hours", id="c2")])
    await talk(session)
    events = await until(session)
    calls = [event.call.id for event in events if isinstance(event, ToolCallDelta)]
    assert calls == ["c1", "c2"]
    error = ToolMessage(tool_call_id="c1", name="book", content="That day is full.", is_error=True)
    await session.tool_result(error, respond=False)
    await session.tool_result(ToolMessage(tool_call_id="c2", name="opening_hours", content='"8"'), respond=True)
    events = await until(session)
    assert text(events, "r3") == 'It is done: {"output": "8"}'
    first, second = (response["functionResponses"][0] for response in sent(fake, "toolResponse"))
    assert first == {
        "id": "c1",
        "name": "book",
        "response": {"error": "That day is full."},
        "scheduling": "SILENT",
    }
    assert second["scheduling"] == "WHEN_IDLE"


async def test_speech_before_a_call_is_a_response_of_its_own(fake: FakeGemini, session: GeminiSession) -> None:
    fake.reply = booking([Say("Let me see."), Call("opening_hours", id="c1"), Say("It may take a moment.")])
    await talk(session)
    events = await until(session)
    assert done(events) == [ResponseDone("r1"), ResponseDone("r2")]
    assert text(events, "r1") == "Let me see."
    assert len(audio(events, "r1")) == 11 * 60 * 8
    assert text(events, "r2").strip() == "It may take a moment."


async def test_arguments_that_are_no_object_are_told(fake: FakeGemini, session: GeminiSession) -> None:
    fake.reply = booking([Call("book", "on Friday", id="c1")])
    await talk(session)
    assert ToolCallDelta(ToolCall(id="c1", name="book"), '"on Friday"') in await until(session)


async def test_blocking_tools_are_forgotten_when_the_caller_speaks(fake: FakeGemini) -> None:
    provider = adapter(fake, blocking_tools=True)
    assert not provider.profile.speaks_during_tools
    session = await provider.connect(request())
    fake.reply = booking([Call("book", {"day": "Friday"}, id="c1")])
    await talk(session)
    await until(session, ResponseDone)
    result = ToolMessage(tool_call_id="c1", name="book", content="4")
    await talk(session)
    events = await until(session, ToolCancelled)
    assert events[-1] == ToolCancelled(("c1",))
    await session.tool_result(result, respond=True)
    await until(session)
    assert sent(fake, "toolResponse") == []
    await session.aclose()


async def test_blocking_tools_are_answered_in_the_same_turn(fake: FakeGemini) -> None:
    session = await adapter(fake, blocking_tools=True).connect(request())
    fake.reply = booking([Call("book", {"day": "Friday"}, id="c1")])
    await talk(session)
    await until(session, ResponseDone)
    await session.tool_result(ToolMessage(tool_call_id="c1", name="book", content="4"), respond=True)
    events = await until(session)
    assert text(events, "r2") == 'It is done: {"output": 4}'
    assert "scheduling" not in sent(fake, "toolResponse")[0]["functionResponses"][0]
    await session.aclose()


# --- memory ----------------------------------------------------------------------------------------------

TALKED = (
    AgentMessage(text="Hello! How can I help?"),
    UserMessage(text="A table for Friday, please."),
    AgentMessage(tool_calls=(ToolCall(id="x", name="book", arguments={"day": "Friday"}),)),
    ToolMessage(tool_call_id="x", name="book", content='{"table": 4}'),
    AgentMessage(text="You have table four.", interrupted=True),
)


async def test_a_conversation_so_far_is_known_and_not_answered(fake: FakeGemini) -> None:
    session = await adapter(fake).connect(request(messages=TALKED))
    await session.note("The caller pressed 5.")
    await session.say("Hello again!")
    events = await until(session)
    assert text(events, "r1") == "Hello again!"
    turns = sent(fake, "clientContent")[0]["turns"]
    assert [turn["role"] for turn in turns] == ["user", "model", "user", "model", "user"]
    assert [part["text"] for part in turns[2]["parts"]] == [
        "A table for Friday, please.",
        '[You have called the tool book with {"day": "Friday"}. Its result: {"table": 4}]',
    ]
    assert "interrupted" in turns[4]["parts"][0]["text"]
    await session.aclose()


async def test_a_connection_takes_up_the_old_ones_conversation(fake: FakeGemini) -> None:
    provider: RealtimeProvider = adapter(fake)
    old = await provider.connect(request())
    assert old.handle == ""
    await talk(old)
    await until(old)
    await holds(lambda: bool(old.handle))
    await old.aclose()
    new = await provider.connect(request(messages=TALKED, resume=old.handle))
    assert sent(fake, "clientContent", connection=1) == []
    await talk(new)
    await until(new)
    texts = [turn["parts"][0]["text"] for turn in fake.connections[1].contents]
    assert texts[0] == "What time do you open?"
    assert texts[2] == "And on Sunday?"
    await new.aclose()


async def test_a_handle_is_of_the_conversation_as_it_is_or_there_is_none(
    fake: FakeGemini, session: GeminiSession
) -> None:
    go_on = asyncio.Event()
    fake.reply = booking([Call("book", {"day": "Friday"}, id="c1"), Wait(go_on)])
    await session.say("Hello!")
    assert session.handle == ""
    await until(session)
    await holds(lambda: session.handle == "handle-1")
    await session.note("The caller pressed 5.")
    assert session.handle == ""
    await talk(session)
    await until(session, ToolCallDelta)
    assert session.handle == ""
    go_on.set()
    await holds(lambda: session.handle == "handle-2")  # with the open call in it


async def test_a_handle_whose_connection_lives_is_refused() -> None:
    async with FakeGemini() as fake:
        provider = adapter(fake)
        old = await provider.connect(request())
        await old.say("Hello!")
        await until(old)
        await holds(lambda: bool(old.handle))
        with pytest.raises(ProviderError, match="1011") as refused:
            await provider.connect(request(resume=old.handle))
        assert refused.value.retryable
        await old.aclose()
        with pytest.raises(ProviderError, match="not found"):
            await provider.connect(request(resume="unknown"))
        assert not own_tasks()


async def test_the_end_of_a_connection_is_announced(fake: FakeGemini, session: GeminiSession) -> None:
    await fake.connections[0].go_away(50)
    assert await until(session, Expiring) == [Expiring(50.0)]
    await fake.connections[0].end(1001, "going away")
    with pytest.raises(ProviderError, match="going away") as lost:
        await until(session)
    assert lost.value.retryable
    assert adapter(fake).profile.session_seconds == 600
