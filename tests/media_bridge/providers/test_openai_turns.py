"""What an OpenAI transcription session's messages make of the caller's turns: by table, without a connection."""

from __future__ import annotations

import base64
import contextlib
import json
import math
from typing import Any

import pytest

from media_bridge.audio import mulaw
from media_bridge.providers.base import EndOfTurn, Partial, SpeechStarted, SttEvent
from media_bridge.providers.openai_local_turns import LocalTurns
from media_bridge.providers.openai_turns import LONGEST_MS, ServerTurns, TranscriptionFailed
from media_bridge.providers.utterances import UtteranceRule, require_vad
from stayline.errors import ConfigError
from tests.fakes.sound import silence, tone
from tests.media_bridge.audio.voices import spoken

Message = dict[str, Any]
TRANSCRIPTION = "conversation.item.input_audio_transcription"
PREFIX, SILENCE = 300, 500

try:
    require_vad("test")
    HAS_VAD = True
except ConfigError:
    HAS_VAD = False
needs_vad = pytest.mark.skipif(not HAS_VAD, reason="the extra `offline` is not installed")


def started(item: str, at: int) -> Message:
    return {"type": "input_audio_buffer.speech_started", "item_id": item, "audio_start_ms": at}


def stopped(item: str, at: int) -> Message:
    return {"type": "input_audio_buffer.speech_stopped", "item_id": item, "audio_end_ms": at}


def committed(item: str, previous: str | None = None) -> Message:
    return {"type": "input_audio_buffer.committed", "item_id": item, "previous_item_id": previous}


def delta(item: str, text: str) -> Message:
    return {"type": f"{TRANSCRIPTION}.delta", "item_id": item, "content_index": 0, "delta": text}


def completed(item: str, text: str, **more: Any) -> Message:
    return {"type": f"{TRANSCRIPTION}.completed", "item_id": item, "transcript": text, **more}


def failed(item: str, code: str) -> Message:
    error = {"type": "server_error", "code": code, "message": "It failed."}
    return {"type": f"{TRANSCRIPTION}.failed", "item_id": item, "content_index": 0, "error": error}


def run(turns: ServerTurns | LocalTurns, *messages: Message) -> list[SttEvent]:
    events: list[SttEvent] = []
    for message in messages:
        turns.handle(message)
        events += turns.due()
    return events


def server(ms: int = 0) -> ServerTurns:
    """Turns of a session that was sent so much audio."""
    turns = ServerTurns(PREFIX, SILENCE)
    if ms:
        turns.push(bytes(ms * 8))
        turns.outgoing()
    return turns


def sent(messages: list[str]) -> tuple[bytes, list[str]]:
    """The audio in messages, and what commits there were."""
    values = [json.loads(message) for message in messages]
    audio = b"".join(base64.b64decode(value["audio"]) for value in values if "audio" in value)
    return audio, [value["event_id"] for value in values if value["type"] == "input_audio_buffer.commit"]


# --- OpenAI finds the turns ------------------------------------------------------------------------------


def test_a_turn() -> None:
    events = run(
        server(4000),
        started("a", 700),
        stopped("a", 3500),
        committed("a"),
        delta("a", "Where is"),
        delta("a", " my order?"),
        completed("a", "Where is my order?"),
    )
    assert events == [
        SpeechStarted(1000),
        Partial("Where is"),
        Partial("Where is my order?"),
        EndOfTurn("Where is my order?", None, speech_end_ms=3000, speech_ms=2000),
    ]


def test_times_of_a_detection_that_does_not_say_how_long_it_waited() -> None:
    turns = ServerTurns(None, None)
    turns.push(bytes(8000 * 8))
    turns.outgoing()
    events = run(turns, started("a", 1000), stopped("a", 3500), completed("a", "Yes."))
    assert events == [SpeechStarted(1000), EndOfTurn("Yes.", None, speech_end_ms=None, speech_ms=2500)]


@pytest.mark.parametrize(
    ("messages", "ends"),
    [
        pytest.param([started("a", 0), stopped("a", 900), completed("a", " ")], [""], id="noise"),
        pytest.param([started("a", 0), failed("a", "audio_unintelligible")], [""], id="unintelligible"),
        pytest.param([committed("a"), completed("a", "One.")], ["One."], id="start not told"),
        pytest.param([started("a", 0), completed("b", "Two.")], [], id="of an item that nobody knows"),
        pytest.param(
            [started("a", 0), started("a", 0), stopped("b", 900), completed("a", "One.")], ["One."], id="told twice"
        ),
        pytest.param([started("a", 0), completed("a", "One."), completed("a", "One.")], ["One."], id="twice"),
        pytest.param(
            [started("a", 0), committed("a"), started("b", 900), committed("b", "a"), completed("b", "Two.")],
            [],
            id="the later one has to wait",
        ),
        pytest.param(
            [
                started("a", 0),
                committed("a"),
                started("b", 900),
                committed("b", "a"),
                completed("b", "Two."),
                completed("a", "One."),
            ],
            ["One.", "Two."],
            id="told in order",
        ),
        pytest.param(
            [
                committed("a"),
                committed("c", "b"),
                committed("b", "a"),
                completed("c", "3"),
                completed("b", "2"),
                completed("a", "1"),
            ],
            ["1", "2", "3"],
            id="the one between comes last",
        ),
        pytest.param(
            [
                committed("a"),
                committed("c", "a"),
                committed("b", "a"),
                completed("c", "3"),
                completed("b", "2"),
                completed("a", "1"),
            ],
            ["1", "2", "3"],
            id="ordered by previous_item_id",
        ),
        pytest.param(
            [{"type": "rate_limits.updated"}, {"type": f"{TRANSCRIPTION}.segment", "item_id": "a", "text": "x"}],
            [],
            id="types that do not matter",
        ),
    ],
)
def test_ends_of_turns(messages: list[Message], ends: list[str]) -> None:
    events = run(server(5000), *messages)
    assert [event.text for event in events if isinstance(event, EndOfTurn)] == ends


def test_confidence_is_the_mean_probability_of_the_tokens() -> None:
    logprobs = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -0.3}]
    *_, end = run(server(1000), started("a", 0), completed("a", "a b", logprobs=logprobs))
    assert isinstance(end, EndOfTurn)
    assert end.confidence == pytest.approx(math.exp(-0.2))


def test_a_failure_leaves_the_turn_open() -> None:
    turns = server(3000)
    run(turns, started("a", 0), committed("a"), delta("a", "My number"))
    with pytest.raises(TranscriptionFailed, match=r"It failed\."):
        turns.handle(failed("a", "server_error"))
    assert turns.answer_due
    turns.give_up()
    assert turns.due() == [EndOfTurn("My number")]
    assert turns.quiet


@pytest.mark.parametrize(
    "message",
    [{"type": "input_audio_buffer.speech_started"}, started("a", None), {}, completed("a", "x") | {"item_id": 1}],  # type: ignore[arg-type]
)
def test_a_malformed_message_changes_nothing(message: Message) -> None:
    turns = server(1000)
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
        turns.handle(message)
    assert turns.due() == []


def test_a_new_session_hears_the_open_turn_again_and_no_turn_twice() -> None:
    turns = ServerTurns(PREFIX, SILENCE)
    line = silence(1000) + tone(1000) + silence(1000) + tone(3000)
    turns.push(line)
    turns.outgoing()
    run(turns, started("a", 700), stopped("a", 2500), completed("a", "One."), started("b", 2700), delta("b", "Tw"))
    turns.outgoing()
    turns.new_session()
    assert turns.answer_due  # nobody has found the second turn here yet
    again, _ = sent(turns.outgoing())
    assert line.endswith(again)
    from_ms = (len(line) - len(again)) // 8
    assert from_ms == 2500  # not before the end of the first turn; the second began at 3000
    events = run(turns, started("x", 3000 - from_ms - PREFIX), stopped("x", 6500 - from_ms), completed("x", "Two."))
    assert events == [EndOfTurn("Two.", None, speech_end_ms=6000, speech_ms=3000)]  # its start is known


def test_a_new_session_hears_a_later_turn_again_that_was_written_down_but_not_told() -> None:
    turns = server(5000)
    run(turns, started("a", 700), stopped("a", 2000), started("b", 2500), stopped("b", 4000), completed("b", "2"))
    turns.new_session()
    events = run(turns, started("x", 0), started("y", 1000), completed("x", "1"), completed("y", "2"))
    assert [event.text for event in events if isinstance(event, EndOfTurn)] == ["1", "2"]


def test_a_new_session_in_silence_hears_the_last_second_again() -> None:
    turns = server(30_000)
    turns.new_session()
    again, _ = sent(turns.outgoing())
    assert len(again) == 1000 * 8
    assert not turns.answer_due


def test_a_turn_that_the_new_session_does_not_find_was_none() -> None:
    turns = server(3000)
    assert run(turns, started("a", 700), delta("a", "Uh")) == [SpeechStarted(1000), Partial("Uh")]
    turns.new_session()
    assert not turns.out_of_time()
    assert turns.due() == [EndOfTurn("Uh")]


def test_a_turn_without_words_is_the_sessions_fault() -> None:
    turns = server(3000)
    run(turns, started("a", 700), stopped("a", 2500))
    assert turns.answer_due
    assert turns.out_of_time()


def test_no_more_than_a_minute_is_kept() -> None:
    turns = server()
    run(turns, started("a", 0))
    turns.push(bytes(2 * LONGEST_MS * 8))
    turns.outgoing()
    turns.new_session()
    again, _ = sent(turns.outgoing())
    assert len(again) == LONGEST_MS * 8


# --- we find the turns -----------------------------------------------------------------------------------


def local(*lines: bytes) -> tuple[LocalTurns, list[str], list[SttEvent]]:
    """Turns that have heard this, what they sent, and what they told."""
    turns = LocalTurns(UtteranceRule())
    messages: list[str] = []
    events: list[SttEvent] = []
    line = b"".join(lines)
    for begin in range(0, len(line), 160):
        turns.push(line[begin : begin + 160])
        messages += turns.outgoing()
        events += turns.due()
    return turns, messages, events


@needs_vad
def test_an_utterance_is_sent_and_committed_and_silence_is_not_sent() -> None:
    line = mulaw.silence(2000) + spoken("Where is my order?") + mulaw.silence(3000)
    turns, messages, events = local(line)
    audio, commits = sent(messages)
    assert audio in line
    assert len(audio) < len(line) - 4000 * 8
    assert commits == ["commit_1"]
    [start] = events
    assert isinstance(start, SpeechStarted)
    assert turns.answer_due
    *partials, end = run(turns, delta("a", "Where is"), committed("a"), completed("a", "Where is my order?"))
    assert partials == [Partial("Where is")]
    assert isinstance(end, EndOfTurn)
    assert end.text == "Where is my order?"
    assert end.speech_end_ms is not None
    assert end.speech_ms == end.speech_end_ms - start.at_ms
    assert turns.quiet


@needs_vad
def test_commits_are_answered_in_their_order_and_written_down_in_any() -> None:
    turns, messages, _ = local(*[mulaw.silence(500) + spoken("One moment.") + mulaw.silence(800)] * 2)
    assert sent(messages)[1] == ["commit_1", "commit_2"]
    events = run(turns, committed("a"), committed("b", "a"), completed("b", "Two."), completed("a", "One."))
    assert [event.text for event in events if isinstance(event, EndOfTurn)] == ["One.", "Two."]


@needs_vad
def test_the_id_of_the_commit_counts() -> None:
    turns, _, _ = local(mulaw.silence(500) + spoken("One moment.") + mulaw.silence(800))
    events = run(turns, delta("early", "One"), committed("a"), completed("a", "One moment."))
    assert isinstance(events[-1], EndOfTurn)


@needs_vad
def test_late_words_of_a_finished_turn_are_not_the_next_ones() -> None:
    turns, _, _ = local(mulaw.silence(500) + spoken("One moment.") + mulaw.silence(800))
    run(turns, committed("a"), completed("a", "One."))
    for begin in range(0, len(speech := spoken("Here it is.")), 160):
        turns.push(speech[begin : begin + 160])
        turns.outgoing()
    assert [type(event) for event in run(turns, delta("a", "late"))] == [SpeechStarted]
    assert run(turns, delta("b", "Here")) == [Partial("Here")]


@needs_vad
@pytest.mark.parametrize(
    "error", [{"event_id": "commit_1"}, {"code": "input_audio_buffer_commit_empty", "event_id": None}]
)
def test_a_refused_commit_was_noise(error: Message) -> None:
    turns, _, _ = local(mulaw.silence(500) + spoken("One moment.") + mulaw.silence(800))
    assert not turns.rejected({"event_id": "other", "code": "input_audio_buffer_commit_empty"})
    assert turns.rejected(error)
    [end] = turns.due()
    assert isinstance(end, EndOfTurn)
    assert end.text == ""


@needs_vad
def test_a_new_session_hears_again_what_was_not_written_down() -> None:
    one, two = (spoken(text) for text in ("One moment.", "Here it is."))
    turns, messages, _ = local(one, mulaw.silence(800), two, mulaw.silence(800), spoken("Where is my order?"))
    audio, _ = sent(messages)
    assert run(turns, committed("a"), completed("a", "One moment.")) != []
    turns.new_session()
    again, commits = sent(turns.outgoing())
    assert audio.endswith(again)
    assert len(again) < len(audio)
    assert commits == ["commit_3"]
    events = run(turns, committed("x"), delta("y", "Where"), completed("x", "Here it is."))
    assert [event.text for event in events if isinstance(event, EndOfTurn | Partial)] == ["Here it is.", "Where"]
