"""What Gemini Live's messages mean, without a connection: several things in one message, and in any order."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_bridge.audio import mulaw
from media_bridge.audio.loudness import is_loud
from media_bridge.providers.base import (
    CallerTranscript,
    Expiring,
    LlmUsage,
    RealtimeEvent,
    ResponseAudio,
    ResponseDone,
    ResponseStarted,
    ResponseText,
    SpeechStarted,
    SpeechStopped,
    ToolCallDelta,
    ToolCancelled,
)
from media_bridge.providers.gemini_talk import Talk
from stayline.models import ToolMessage
from tests.fakes.sound import silence, tone
from tests.media_bridge.providers.gemini import kinds

LOUD, QUIET = tone(20), silence(20)


def sound(samples: int = 2400, mime: str = "audio/pcm;rate=24000") -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(b"\x00\x10" * samples).decode()}}


def spoken(**fields: Any) -> dict[str, Any]:
    return {"serverContent": fields}


def says(words: str, **more: Any) -> dict[str, Any]:
    return spoken(inputTranscription={"text": words, **more})


SPEAKS = spoken(modelTurn={"parts": [sound()]})
GENERATED = spoken(generationComplete=True)
COMPLETE = spoken(turnComplete=True)
INTERRUPTED = spoken(interrupted=True)


def hear(talk: Talk, frame: bytes, ms: int) -> list[RealtimeEvent]:
    return [event for _ in range(ms // 20) for event in talk.hear(frame)]


def take(talk: Talk, *messages: dict[str, Any]) -> list[RealtimeEvent]:
    return [event for message in messages for event in talk.handle_message(message)]


def audio(events: list[RealtimeEvent]) -> int:
    return sum(len(event.audio) for event in events if isinstance(event, ResponseAudio))


def test_one_message_may_carry_everything() -> None:
    talk = Talk(blocking=False)
    events = take(
        talk,
        {
            "serverContent": {
                "inputTranscription": {"text": "Hello?"},
                "outputTranscription": {"text": "Hi!"},
                "modelTurn": {"parts": [{"text": "thinking", "thought": True}, sound(), sound()]},
                "generationComplete": True,
                "turnComplete": True,
                "groundingMetadata": {"new": 1},
            },
            "toolCallCancellation": {"ids": ["a", "b"]},
            "usageMetadata": {"promptTokenCount": 7, "responseTokenCount": 5, "thoughtsTokenCount": 3},
            "goAway": {"timeLeft": "2.5s"},
            "sessionResumptionUpdate": {"newHandle": "h", "resumable": True},
            "somethingNew": {"x": []},
        },
    )
    assert [event for event in events if not isinstance(event, ResponseAudio)] == [
        ToolCancelled(("a", "b")),
        ResponseStarted("r1", by_itself=True),
        ResponseText("r1", "Hi!"),
        ResponseDone("r1"),
        CallerTranscript("Hello?"),
        LlmUsage(7, 8),
        Expiring(2.5),
    ]
    assert audio(events) == 1600


def test_the_sound_says_its_own_rate() -> None:
    for rate in (8000, 16000, 24000, 48000):
        mime = f"audio/pcm;rate={rate}"
        events = take(Talk(blocking=False), spoken(modelTurn={"parts": [sound(rate, mime)]}), GENERATED)
        assert audio(events) == 8000
    untold = take(Talk(blocking=False), spoken(modelTurn={"parts": [sound(24000, "audio/pcm")]}), GENERATED)
    assert audio(untold) == 8000
    changing = [sound(24000), sound(16000, "audio/pcm;rate=16000")]
    assert audio(take(Talk(blocking=False), spoken(modelTurn={"parts": changing}), GENERATED)) == 16000


def test_sound_that_is_none_is_passed_over() -> None:
    parts = [
        {"inlineData": {"mimeType": "audio/pcm", "data": "abc"}},
        {"inlineData": {"mimeType": "image/png"}},
        {},
    ]
    assert audio(take(Talk(blocking=False), spoken(modelTurn={"parts": parts}), SPEAKS, GENERATED)) == 800


def test_late_words_of_an_answer_do_not_begin_another() -> None:
    talk = Talk(blocking=False)
    events = take(talk, SPEAKS, GENERATED, spoken(outputTranscription={"text": "Hi!"}), COMPLETE)
    assert kinds(events) == ["ResponseStarted", "ResponseAudio", "ResponseDone", "ResponseText"]
    assert ResponseText("r1", "Hi!") in events


def test_words_after_a_call_are_of_the_next_response() -> None:
    """As recorded: a model that blocks goes on in the same turn, and its words come before their sound."""
    talk = Talk(blocking=True)
    take(talk, {"toolCall": {"functionCalls": [{"id": "c", "name": "book"}]}}, GENERATED)
    talk.tool_result(ToolMessage(tool_call_id="c", name="book", content="1"), respond=True)
    events = take(talk, spoken(outputTranscription={"text": "Booked."}), SPEAKS, GENERATED, COMPLETE)
    assert events[:2] == [ResponseStarted("r2"), ResponseText("r2", "Booked.")]


def test_a_call_without_an_id_gets_one() -> None:
    calls = [{"name": "book"}, {"name": "book", "args": {"day": "Friday"}}]
    events = take(Talk(blocking=False), {"toolCall": {"functionCalls": calls}})
    ids = [event.call.id for event in events if isinstance(event, ToolCallDelta)]
    assert len(set(ids)) == 2
    assert all(ids)


def test_our_own_wish_is_no_interruption_by_the_caller() -> None:
    """Gemini believes that the last answer is still being played, and stops it for what we want said."""
    talk = Talk(blocking=False)
    take(talk, SPEAKS, GENERATED)
    hear(talk, LOUD, 400)
    talk.say("Are you still there?")
    assert take(talk, INTERRUPTED, COMPLETE) == []
    assert kinds(take(talk, SPEAKS, GENERATED)) == ["ResponseStarted", "ResponseAudio", "ResponseDone"]


def test_what_was_asked_for_and_interrupted_at_once_is_over() -> None:
    talk = Talk(blocking=False)
    talk.say("Hello!")
    hear(talk, LOUD, 400)
    events = take(talk, INTERRUPTED, COMPLETE)
    assert events == [SpeechStarted(0), ResponseStarted("r1"), ResponseDone("r1", "cancelled")]


def test_an_interruption_by_nobody_is_not_the_callers_speech() -> None:
    """googleapis/python-genai#2333: `interrupted` right after a greeting, when nobody had made a sound."""
    talk = Talk(blocking=False)
    take(talk, SPEAKS, GENERATED)
    hear(talk, QUIET, 400)
    assert take(talk, INTERRUPTED, COMPLETE) == []


def test_a_noise_that_interrupts_ends_and_had_no_words() -> None:
    talk = Talk(blocking=False)
    take(talk, SPEAKS, GENERATED)
    hear(talk, LOUD, 300)
    assert take(talk, INTERRUPTED, COMPLETE) == [SpeechStarted(0)]
    assert hear(talk, QUIET, 4000) == [SpeechStopped(300), CallerTranscript("")]


def test_words_that_nobody_answers_are_told_when_the_line_is_quiet() -> None:
    """The model may decide that nothing is to be said (proactive audio is always on)."""
    talk = Talk(blocking=False)
    hear(talk, LOUD, 1000)
    take(talk, says("I am talking"), says(" to my wife."))
    assert hear(talk, QUIET, 5000) == [SpeechStopped(1000), CallerTranscript("I am talking to my wife.")]


def test_words_that_never_come_are_missed_and_said_to_be_lost() -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 1000)
    events = take(talk, SPEAKS, GENERATED, COMPLETE) + hear(talk, QUIET, 10_000)
    assert kinds(events) == [
        "SpeechStarted",
        "SpeechStopped",
        "ResponseStarted",
        "ResponseAudio",
        "ResponseDone",
        "CallerTranscript",
    ]
    assert events[-1] == CallerTranscript("", failed=True)


def test_words_of_an_answer_under_way_are_told_when_the_connection_is_lost() -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 1000)
    take(talk, says("What time do you open?"))
    assert talk.lost() == []  # nobody answers yet: it is heard again
    take(talk, SPEAKS)
    assert talk.lost() == [CallerTranscript("What time do you open?")]
    assert talk.lost() == []


def test_words_that_come_after_everything_are_told_without_a_new_turn() -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 1000)
    take(talk, says("What time"), SPEAKS, GENERATED, COMPLETE)
    events = take(talk, says(" do you"), says(" open?")) + hear(talk, QUIET, 3000)
    assert events == [CallerTranscript("do you open?")]


def test_a_voice_is_found_where_it_begins_however_its_audio_is_cut() -> None:
    voice = mulaw.encode(np.full(160, 2000, dtype=np.int16))
    before = silence(80)
    assert is_loud(voice)
    assert not is_loud(before + voice), "as a whole it is quiet"

    def told(*pieces: bytes) -> list[RealtimeEvent]:
        talk = Talk(blocking=False)
        events = [event for piece in pieces for event in talk.hear(piece)]
        return events + take(talk, says("Hello"))

    frames = told(*[silence(20)] * 4, *[voice] * 6)
    assert told(before + voice, *[voice] * 5) == frames
    assert [event.at_ms for event in frames if isinstance(event, SpeechStarted)] == [80]


def test_a_caller_who_speaks_again_during_the_answer_has_a_second_turn() -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 1000)
    events = take(talk, says("When do you open?"), SPEAKS)
    events += hear(talk, QUIET, 700) + hear(talk, LOUD, 1000)
    events += take(talk, says("On Sunday, that is."), SPEAKS, GENERATED, SPEAKS, GENERATED)
    told = [event for event in events if isinstance(event, CallerTranscript)]
    assert told == [CallerTranscript("When do you open?"), CallerTranscript("On Sunday, that is.")]
    assert [event.at_ms for event in events if isinstance(event, SpeechStarted)] == [0, 1700]


def test_each_answered_turn_has_its_own_words_even_if_they_are_lost() -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 1000)
    events = take(talk, SPEAKS, GENERATED, COMPLETE) + hear(talk, QUIET, 700) + hear(talk, LOUD, 1000)
    events += take(talk, SPEAKS, says("On Sunday."), GENERATED, COMPLETE)
    told = [event for event in events if isinstance(event, CallerTranscript)]
    assert told == [CallerTranscript("", failed=True), CallerTranscript("On Sunday.")]


def test_interim_words_are_replaced_by_what_is_settled() -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 500)
    events = take(talk, spoken(interimInputTranscription={"text": "What dime"}), says("What time?", finished=True))
    assert CallerTranscript("What time?") in events


@pytest.mark.parametrize("noise", ["<noise>", " . ", "<unk> <noise>"])
def test_marks_are_no_words(noise: str) -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 500)
    assert take(talk, says(noise, finished=True))[-1] == CallerTranscript("")


def test_told_beginnings_and_ends_are_believed() -> None:
    talk = Talk(blocking=False)
    hear(talk, LOUD, 500)
    events = take(
        talk,
        {"voiceActivity": {"voiceActivityType": "ACTIVITY_START", "audioOffset": "0.4s"}},
        {"voiceActivity": {"voiceActivityType": "ACTIVITY_END"}},
    )
    assert events == [SpeechStarted(0), SpeechStopped(500)]


def test_a_handle_that_is_not_resumable_is_none() -> None:
    talk = Talk(blocking=False)
    take(talk, {"sessionResumptionUpdate": {"newHandle": "h1", "resumable": True}})
    assert talk.handle == "h1"
    take(talk, {"sessionResumptionUpdate": {}})
    assert talk.handle == ""


def test_a_late_result_of_a_cancelled_call_is_not_sent() -> None:
    talk = Talk(blocking=True)
    take(talk, {"toolCallCancellation": {"ids": ["c"]}})
    talk.tool_result(ToolMessage(tool_call_id="c", name="book", content="1"), respond=True)
    assert not talk.outbox


STEPS = st.one_of(
    st.sampled_from(
        [
            SPEAKS,
            GENERATED,
            COMPLETE,
            INTERRUPTED,
            says("one"),
            says(" two", finished=True),
            says(""),
            spoken(outputTranscription={"text": "word"}),
            spoken(interimInputTranscription={"text": "on"}),
            spoken(turnComplete=True, turnCompleteReason="RESPONSE_REJECTED"),
            {"toolCall": {"functionCalls": [{"id": "c", "name": "book"}]}},
            {"voiceActivity": {"voiceActivityType": "ACTIVITY_START"}},
            {"voiceActivity": {"voiceActivityType": "ACTIVITY_END"}},
        ]
    ),
    st.sampled_from(["say", "respond", "note"]),
    st.tuples(st.sampled_from([LOUD, QUIET]), st.integers(20, 4000)),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(STEPS, max_size=25), st.booleans())
def test_whatever_comes_turns_and_responses_are_whole(steps: list[Any], blocking: bool) -> None:
    """Each beginning has its end, before the next begins, and each turn of the caller its words."""
    talk = Talk(blocking=blocking)
    events: list[RealtimeEvent] = []
    for step in steps:
        match step:
            case dict():
                events += take(talk, step)
            case (frame, ms):
                events += hear(talk, frame, ms)
            case "note":
                talk.note("A fact.")
            case wish:
                getattr(talk, wish)(*(["Hello!"] if wish == "say" else []))
    events += take(talk, GENERATED, COMPLETE) + hear(talk, QUIET, 12_000)
    for message in talk.outbox:
        json.loads(message)
    response, speaks, wordless = "", False, 0
    for event in events:
        match event:
            case ResponseStarted(name):
                assert not response
                response = name
            case ResponseDone(name):
                assert name == response
                response = ""
            case ResponseAudio(name):
                assert name == response
            case SpeechStarted():
                assert not speaks
                speaks = True
            case SpeechStopped():
                assert speaks
                speaks, wordless = False, wordless + 1
            case CallerTranscript():
                wordless = max(0, wordless - 1)
            case _:
                pass
    assert not response
    assert not speaks
    assert not wordless
