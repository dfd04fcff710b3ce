"""From a call's record to events, and two streams of events to one order."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media_bridge.live_events import LiveEvent
from stayline import gateway
from stayline.errors import ProviderError
from stayline.gateway import events as ge
from stayline.gateway.order import LONGEST, Order
from stayline.gateway.transcript import transcript_of
from stayline.gateway.translation import Translation, of_live
from stayline.timeline import CallEnded, TimelineEntry, UserTurn
from tests.sample_call import RECORD, START, TIMELINE


def told(timeline: Any = TIMELINE) -> list[ge.SessionEvent]:
    translation = Translation(RECORD.snapshot.call)
    return [found[0] for entry in timeline if (found := translation.of_entry(entry)) is not None]


def test_a_record_as_events() -> None:
    events = told()
    assert [event.type.value for event in events] == [
        "session_started",
        "agent_transcript",
        "user_transcript",
        "agent_transcript",
        "tool_call",
        "agent_transcript",
        "interruption",
        "user_transcript",
        "error",
        "agent_transcript",
        "dtmf",
        "tool_call",
        "agent_transcript",
        "agent_transcript",
        "user_transcript",
        "tool_call",
        "agent_transcript",
        "session_ended",
    ]
    started, weather, cut, failed = events[0], events[4], events[5], events[8]
    assert started.data == RECORD.snapshot.call
    assert weather.data == ge.ToolUse(
        id="call_w1",
        name="get_weather",
        arguments={"location": "Lisbon"},
        status="succeeded",
        result={"sky": "clear", "celsius": 17},
        duration_ms=3400,
        attempts=3,
    )
    assert isinstance(cut, ge.AgentTranscript)
    assert cut.data == "It's clear and 17 degrees in Lisbon, so", "what was heard"
    assert cut.interrupted
    assert cut.generated is not None
    assert events[6].data == ge.Interruption("immediate", cut.data)
    assert isinstance(failed.error, ProviderError)
    assert (failed.data, str(failed.error)) == ("llm", "anthropic: overloaded (529)")
    assert failed.error.retryable
    assert [event.data for event in events if event.type == "dtmf"] == ["0"]
    assert [event.data.status for event in events if isinstance(event, ge.ToolCalled)] == [
        "succeeded",
        "unknown",
        "refused",
    ]
    assert events[-1].data == "caller_hung_up"
    assert all(event.error is None for event in events if event is not failed)


def test_an_event_as_json() -> None:
    lines = [json.dumps(ge.as_dict(event)) for event in told()]
    assert json.loads(lines[2]) == {
        "type": "user_transcript",
        "timestamp": "2026-11-22T09:41:15.350000Z",
        "data": "What's the weather in Lisbon?",
    }
    assert json.loads(lines[8])["error"] == "anthropic: overloaded (529)"


def test_live_moments_as_events() -> None:
    kinds = ("user_speech_start", "user_speech_end", "agent_thinking", "agent_speech_start", "agent_speech_end")
    for kind in kinds:
        event = of_live(LiveEvent(1, kind, START), 2)  # type: ignore[arg-type]
        assert (event.type, event.timestamp, event.attachment, event.data) == (kind, START, 2, None)
    sound = of_live(LiveEvent(9, "audio_sent", START, 16000), 1)
    assert (sound.type, sound.data, sound.data.total_ms) == ("audio_sent", ge.AudioCount(16000), 2000)


def test_every_type_has_a_class() -> None:
    named = [value for value in vars(ge).values() if isinstance(value, type)]
    classes = [kind for kind in named if issubclass(kind, ge.SessionEvent)]
    assert {kind.type for kind in classes if kind is not ge.SessionEvent} == set(ge.EventType)
    assert all(kind.__name__ in gateway.__all__ for kind in classes)


def test_what_the_package_names_it_has() -> None:
    assert set(gateway.__all__) == set(gateway._HOME)
    for name in gateway.__all__:
        assert getattr(gateway, name).__module__.startswith("stayline.gateway") or name == "VoiceGateway"
    with pytest.raises(AttributeError, match="no attribute 'Gatewy'"):
        gateway.Gatewy  # noqa: B018


def test_a_transcript() -> None:
    turns = transcript_of(TIMELINE)
    assert [(turn.role, turn.text) for turn in turns][:4] == [
        ("agent", "Hello! Thank you for calling. How can I help you today?"),
        ("user", "What's the weather in Lisbon?"),
        ("agent", "Let me check."),
        ("agent", "It's clear and 17 degrees in Lisbon, so"),
    ]
    assert [use.name for use in turns[3].tool_calls] == ["get_weather"]
    assert (turns[1].duration_ms, turns[1].source, turns[2].source) == (1480, None, "filler")


# --- order -----------------------------------------------------------------------------------------------


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def moment(seconds: float) -> ge.SessionEvent:
    return ge.AgentThinking(timestamp=at(seconds))


def turn(seconds: float) -> ge.SessionEvent:
    return ge.UserTranscript(timestamp=at(seconds), data="x")


def test_a_live_event_waits_for_what_the_record_has_of_the_time_before() -> None:
    order = Order(0.25)
    live, spoken = moment(10.0), turn(9.9)
    order.take(live, live.timestamp, now=100.0)
    assert order.due(now=100.4, looked=100.2) == [], "that look may have been too early"
    order.take(spoken, spoken.timestamp, now=100.4)
    assert order.due(now=100.6, looked=100.3) == [spoken, live]
    assert order.wait(100.6) is None


def test_nothing_waits_for_ever() -> None:
    order = Order(0.25)
    live = moment(10.0)
    order.take(live, live.timestamp, now=100.0)
    assert order.wait(101.0) == pytest.approx(LONGEST - 1)
    assert order.due(now=100.0 + LONGEST, looked=0.0) == [live], "Temporal may be away"


def test_without_settling_nothing_waits_at_all() -> None:
    order = Order(0.0)
    live = moment(10.0)
    order.take(live, live.timestamp, now=100.0)
    assert order.due(now=100.0, looked=0.0) == [live]


def test_the_end_of_a_call_comes_after_what_was_written_down_before_it() -> None:
    translation = Translation(RECORD.snapshot.call)
    last = TimelineEntry(index=0, session=1, event=UserTurn(at=at(5.01), text="bye"))
    end = TimelineEntry(index=1, session=0, event=CallEnded(at=at(5.0), outcome="caller_hung_up"))
    order = Order(0.25)
    for entry in (last, end):
        found = translation.of_entry(entry)
        assert found is not None
        order.take(*found, now=1.0)
    assert [event.type for event in order.rest()] == ["user_transcript", "session_ended"]
    assert order.rest() == []


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100),  # when it happened
            st.floats(0, 0.2),  # how long it was on its way
        ),
        max_size=60,
    )
)
def test_what_comes_in_time_comes_in_order_and_once(happened: list[tuple[float, float]]) -> None:
    order = Order(0.25)
    given_out: list[ge.SessionEvent] = []
    events = [(when, when + late, moment(when)) for when, late in happened]
    for _, now, event in sorted(events, key=lambda item: item[1]):
        given_out += order.due(now, looked=now - 0.01)
        order.take(event, event.timestamp, now)
    given_out += order.due(1000.0, 999.0)
    assert [event.timestamp for event in given_out] == sorted(event.timestamp for *_, event in events)
    assert order.rest() == []
