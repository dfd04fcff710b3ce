"""Which of Deepgram's messages make a turn: by table, without a connection."""

from __future__ import annotations

from typing import Any

import pytest

from media_bridge.providers.base import (
    EagerEndOfTurn,
    EndOfTurn,
    Partial,
    SpeechStarted,
    SttEvent,
    TurnResumed,
)
from media_bridge.providers.deepgram_flux import FluxTurns
from media_bridge.providers.deepgram_nova import NovaOptions, NovaTurns

Message = dict[str, Any]


def results(
    text: str, start: float, end: float, *, final: bool = False, speech_final: bool = False, confidence: float = 1.0
) -> Message:
    """A result whose words fill the time from `start` to `end`, in seconds."""
    tokens = text.split()
    step = (end - start) / max(1, len(tokens))
    words = [{"word": t, "start": start + i * step, "end": start + (i + 1) * step} for i, t in enumerate(tokens)]
    return {
        "type": "Results",
        "start": start,
        "duration": end - start,
        "is_final": final,
        "speech_final": speech_final,
        "channel": {"alternatives": [{"transcript": text, "confidence": confidence, "words": words}]},
    }


def started(at: float) -> Message:
    return {"type": "SpeechStarted", "channel": [0], "timestamp": at}


UTTERANCE_END: Message = {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 2.0}


def run(turns: NovaTurns | FluxTurns, *messages: Message) -> list[SttEvent]:
    return [event for message in messages for event in turns.handle(message)]


@pytest.mark.parametrize(
    ("messages", "ends"),
    [
        pytest.param(
            [results("one", 0, 1, final=True), results("two", 1, 2, final=True, speech_final=True)],
            ["one two"],
            id="finals are joined",
        ),
        pytest.param(
            [results("one", 0, 1, final=True, speech_final=True), UTTERANCE_END], ["one"], id="ended only once"
        ),
        pytest.param([results("one", 0, 1, final=True), UTTERANCE_END], ["one"], id="utterance end"),
        pytest.param([UTTERANCE_END], [], id="utterance end without words"),
        pytest.param([results("", 0, 5, final=True, speech_final=True)], [], id="silence is no turn"),
        pytest.param([started(0.5), results("", 0, 1, final=True, speech_final=True)], [""], id="noise"),
        pytest.param([started(0.5), results("", 0, 1.2, final=True)], [], id="too early to call it noise"),
        pytest.param([started(0.5), results("", 0, 3, final=True)], [""], id="noise without speech_final"),
        pytest.param([results("one", 0, 1, final=True), results("", 1, 1.5)], [], id="a pause is not the end"),
        pytest.param(
            [results("one", 0, 1, final=True), results("", 1, 2.1)], ["one"], id="a long pause without words is"
        ),
        pytest.param(
            [results("one", 0, 1, final=True), results("two", 1, 2.5), results("", 1, 3, final=True)],
            ["one"],
            id="an interim that came to nothing",
        ),
        pytest.param(
            [results("one two", 0, 2), UTTERANCE_END, results("one two three", 0, 2, final=True)],
            ["one two three"],
            id="utterance end before the words are settled",
        ),
        pytest.param(
            [
                results("one", 0, 1, final=True, speech_final=True),
                results("two", 2, 3, final=True, speech_final=True),
            ],
            ["one", "two"],
            id="two turns",
        ),
    ],
)
def test_nova_ends_of_turns(messages: list[Message], ends: list[str]) -> None:
    events = run(NovaTurns(NovaOptions()), *messages)
    assert [event.text for event in events if isinstance(event, EndOfTurn)] == ends


def test_nova_partials_show_the_whole_turn() -> None:
    events = run(
        NovaTurns(NovaOptions()),
        results("one", 0.4, 1),
        results("one two", 0.4, 2, final=True),
        results("three", 2, 3),
    )
    assert events == [SpeechStarted(400), Partial("one"), Partial("one two"), Partial("one two three")]


def test_nova_asks_for_unsettled_words_once_the_turn_is_over() -> None:
    turns = NovaTurns(NovaOptions())
    run(turns, results("one", 0, 1), UTTERANCE_END)
    assert turns.wants_finalize
    run(turns, results("one", 0, 1, final=True))
    assert not turns.wants_finalize


def test_nova_confidence_is_weighted_by_words_and_times_are_of_the_words() -> None:
    events = run(
        NovaTurns(NovaOptions()),
        results("one two three", 1, 2, final=True, confidence=0.9),
        results("four", 2, 3, final=True, speech_final=True, confidence=0.5),
    )
    assert events[-1] == EndOfTurn("one two three four", pytest.approx(0.8), 3000, 2000)  # type: ignore[arg-type]


def test_nova_keeps_settled_text_and_the_stream_time_over_a_reconnect() -> None:
    turns = NovaTurns(NovaOptions())
    run(turns, results("one", 0, 4, final=True), results("tw", 4, 4.5))
    assert turns.heard_ms == 4000
    assert turns.reconnected(4000) == []
    events = run(turns, results("two", 0, 1, final=True, speech_final=True))
    assert events[-1] == EndOfTurn("one two", 1.0, 5000, 5000)


def info(event: str, text: str, end: float, start: float = 0.0) -> Message:
    tokens = text.split()
    return {
        "type": "TurnInfo",
        "event": event,
        "audio_window_start": start,
        "audio_window_end": end,
        "transcript": text,
        "words": [{"word": token, "confidence": 0.5} for token in tokens],
    }


def test_flux_turns() -> None:
    events = run(
        FluxTurns(),
        {"type": "Connected"},
        info("Update", "", 1),
        info("StartOfTurn", "so", 1.5, start=1.0),
        info("Update", "so", 1.6),
        info("Update", "so what", 2),
        info("EagerEndOfTurn", "so what", 2.2),
        info("TurnResumed", "so what is", 2.4),
        info("SomethingNew", "so what is it", 3),
        info("EndOfTurn", "so what is it", 3),
        info("Update", "", 4),
    )
    assert events == [
        SpeechStarted(1000),
        Partial("so"),
        Partial("so what"),
        EagerEndOfTurn("so what"),
        TurnResumed(),
        Partial("so what is it"),
        EndOfTurn("so what is it", 0.5, None, 2000),
    ]


def test_flux_carries_an_open_turn_over_a_reconnect() -> None:
    turns = FluxTurns()
    run(turns, info("StartOfTurn", "my number", 2), info("EagerEndOfTurn", "my number is", 3))
    assert turns.reconnected(3000) == [TurnResumed()]
    events = run(turns, info("StartOfTurn", "five", 1), info("EndOfTurn", "five five", 2))
    assert events[-1] == EndOfTurn("my number is five five", 0.5, None, 5000)


def test_flux_ends_a_carried_turn_when_nothing_more_comes() -> None:
    turns = FluxTurns()
    run(turns, info("StartOfTurn", "that is all", 2))
    turns.reconnected(2000)
    assert run(turns, info("Update", "", 0.5)) == []
    assert run(turns, info("Update", "", 1.0)) == [EndOfTurn("that is all", None, 2000, 2000)]


def timed(event: str, text: str, end: float) -> Message:
    """As Flux tells it where words have times; each takes half a second, and the last one is not over."""
    message = info(event, text, end)
    for place, word in enumerate(message["words"]):
        word["start"], word["end"] = place / 2, min((place + 1) / 2, end)
    return message


def test_flux_hears_the_last_word_of_an_open_turn_again() -> None:
    turns = FluxTurns()
    run(turns, timed("StartOfTurn", "book", 0.3), timed("Update", "book a ta", 1.4))
    assert turns.heard_ms == 1000, "of the last word, half has been heard, and of the next ones nothing"
    turns.reconnected(1000)
    events = run(turns, timed("StartOfTurn", "table", 0.4), timed("EndOfTurn", "table please", 1.2))
    assert events == [Partial("book a table"), EndOfTurn("book a table please", 0.5, 2000, 2000)]


def test_flux_hears_a_first_word_again_that_it_was_slow_to_tell() -> None:
    turns = FluxTurns()
    run(turns, info("Update", "", 5.0))
    assert turns.heard_ms == 4000
    first = timed("StartOfTurn", "book", 5.2)
    first["words"][0] |= {"start": 4.8, "end": 5.2}
    run(turns, first)
    assert turns.heard_ms == 4800
    turns.reconnected(4800)
    assert run(turns, timed("EndOfTurn", "book it", 1.0))[-1].text == "book it"  # type: ignore[union-attr]


def test_flux_keeps_the_last_word_when_its_sound_is_kept_no_longer() -> None:
    turns = FluxTurns()
    run(turns, timed("StartOfTurn", "that is all", 1.5))
    turns.reconnected(1500)
    assert run(turns, timed("Update", "", 1.0))[-1] == EndOfTurn("that is all", None, 1500, 1500)


def test_flux_ends_a_turn_whose_only_word_was_none() -> None:
    turns = FluxTurns()
    run(turns, timed("StartOfTurn", "mm", 0.3))
    turns.reconnected(0)
    assert run(turns, timed("Update", "", 1.0))[-1].text == ""  # type: ignore[union-attr]
