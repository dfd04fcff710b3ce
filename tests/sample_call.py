"""One call in which nearly everything happens, made by hand: the record that tests print, save and read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stayline.models import CallInfo, ToolAttempt, ToolCall, ToolOutcome, ToolRun
from stayline.timeline import (
    AgentTurn,
    CallAdmitted,
    CallEnded,
    CallError,
    CallRecord,
    CallSnapshot,
    Commanded,
    Dtmf,
    Interruption,
    LimitReached,
    RecordGap,
    SessionClosed,
    SessionOpened,
    TimelineEntry,
    TimelineEvent,
    ToolCalled,
    ToolSettled,
    TransferSettled,
    TurnLatency,
    Usage,
    UserTurn,
)
from workflows.metrics import measure

CALL_ID = "CA5f0c2d8e41b7a93c6d1e4f2a7b8c9d0e"
START = datetime(2026, 11, 22, 9, 41, 7, 250_000, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


WEATHER = ToolCall(id="call_w1", name="get_weather", arguments={"location": "Lisbon"})
BOOKING = ToolCall(
    id="call_b1", name="schedule_appointment", arguments={"date": "2026-11-24", "time": "10:30", "name": "Ana Reis"}
)
REFUND = ToolCall(id="call_r1", name="refund_order", arguments={"order": 4711, "amount": 120.5})

WEATHER_OUTCOME = ToolOutcome(
    id="call_w1",
    name="get_weather",
    status="succeeded",
    result={"sky": "clear", "celsius": 17},
    seconds=3.4,
    attempts=(
        ToolAttempt(number=1, started_at=at(9.3), seconds=0.2, error="ConnectionError: weather station offline"),
        ToolAttempt(number=2, started_at=at(10.5), seconds=0.2, error="503 from the weather service"),
        ToolAttempt(number=3, started_at=at(12.5), seconds=0.2),
    ),
)
BOOKING_OUTCOME = ToolOutcome(
    id="call_b1",
    name="schedule_appointment",
    status="unknown",
    error="The calendar did not answer in time; the appointment may or may not be booked.",
    seconds=20.0,
    attempts=(ToolAttempt(number=1, started_at=at(31.0), seconds=20.0, error="timed out after 20 s"),),
)
REFUND_OUTCOME = ToolOutcome(
    id="call_r1", name="refund_order", status="refused", error="A person refused it: not this week.", seconds=6.0
)

_EVENTS: tuple[tuple[int, TimelineEvent], ...] = (
    (0, CallAdmitted(at=at(0))),
    (0, SessionOpened(at=at(0.4), session=1, bridge_id="9f3b01aa")),
    (
        1,
        AgentTurn(
            at=at(0.6),
            text="Hello! Thank you for calling. How can I help you today?",
            source="greeting",
            speech_ms=3100,
            latency=TurnLatency(tts_ms=96, total_ms=110),
        ),
    ),
    (1, UserTurn(at=at(8.1), text="What's the weather in Lisbon?", confidence=0.94, speech_ms=1480)),
    (0, ToolCalled(at=at(9.2), call=WEATHER)),
    (1, AgentTurn(at=at(10.1), text="Let me check.", source="filler", speech_ms=700)),
    (0, ToolSettled(at=at(12.7), outcome=WEATHER_OUTCOME)),
    (1, Usage(at=at(12.9), provider="offline", model="scripted", input_tokens=412, output_tokens=58)),
    (
        1,
        AgentTurn(
            at=at(13.2),
            text="It's clear and 17 degrees in Lisbon, so",
            generated="It's clear and 17 degrees in Lisbon, so you will not need an umbrella this afternoon.",
            interrupted=True,
            speech_ms=2300,
            latency=TurnLatency(endpoint_ms=310, llm_ms=120, tts_ms=180, total_ms=655),
            tool_calls=("call_w1",),
        ),
    ),
    (1, Interruption(at=at(15.5), mode="immediate", heard="It's clear and 17 degrees in Lisbon, so")),
    (1, UserTurn(at=at(17.9), text="Thanks. Can you book me in on Tuesday?", confidence=0.91, speech_ms=2100)),
    (1, CallError(at=at(18.2), where="llm", provider="anthropic", message="overloaded (529)", retryable=True)),
    (0, SessionClosed(at=at(22.0), session=1, reason="bridge_lost", recording="", audio_in_ms=21500)),
    (
        0,
        SessionOpened(at=at(25.3), session=2, bridge_id="c41d77e0", resumed=True),
    ),
    (2, AgentTurn(at=at(25.6), text="Sorry, we got cut off for a second.", source="resume", speech_ms=1900)),
    (0, RecordGap(at=at(26.0), session=1, first=9, last=10)),
    (0, ToolCalled(at=at(31.0), call=BOOKING)),
    (2, Dtmf(at=at(40.0), digit="0")),
    (0, ToolSettled(at=at(51.0), outcome=BOOKING_OUTCOME)),
    (0, Commanded(at=at(55.0), command="transfer", by="mia@desk", why="VIP", detail="+15550100999")),
    (2, AgentTurn(at=at(55.4), text="I'm connecting you now, one moment.", source="operator", speech_ms=2000)),
    (0, SessionClosed(at=at(57.6), session=2, reason="closed", recording="recordings/CA5f0c-2.wav")),
    (0, TransferSettled(at=at(83.1), to="+15550100999", outcome="no_answer", seconds=25.0)),
    (0, SessionOpened(at=at(83.6), session=3, bridge_id="c41d77e0")),
    (
        3,
        AgentTurn(
            at=at(84.0),
            text="Nobody picked up, I'm sorry. Is there anything else?",
            speech_ms=2600,
            latency=TurnLatency(llm_ms=90, tts_ms=150, total_ms=260),
        ),
    ),
    (3, UserTurn(at=at(90.2), text="Then give me my money back.", confidence=0.88, speech_ms=1700)),
    (0, ToolCalled(at=at(90.9), call=REFUND)),
    (0, Commanded(at=at(96.8), command="refuse", by="mia@desk", why="not this week", detail="call_r1")),
    (0, ToolSettled(at=at(96.9), outcome=REFUND_OUTCOME)),
    (0, LimitReached(at=at(117.0), limit="silence_prompt")),
    (3, AgentTurn(at=at(117.2), text="Are you still there?", source="silence", speech_ms=1000)),
    (
        0,
        SessionClosed(
            at=at(121.5),
            session=3,
            reason="stopped",
            recording="recordings/CA5f0c-3.wav",
            audio_in_ms=37900,
            audio_out_ms=3600,
        ),
    ),
    (0, CallEnded(at=at(121.5), outcome="caller_hung_up")),
)

TIMELINE = tuple(
    TimelineEntry(index=index, session=session, event=event) for index, (session, event) in enumerate(_EVENTS)
)

RECORD = CallRecord(
    snapshot=CallSnapshot(
        call=CallInfo(
            call_id=CALL_ID,
            from_number="+351910000123",
            to_number="+15550100200",
            carrier="lab",
            started_at=START,
            agent="reception",
        ),
        agent="reception",
        mode="text",
        status="ended",
        outcome="caller_hung_up",
        session=3,
        bridge_id=None,
        started_at=START,
        answered_at=at(0.4),
        ended_at=at(121.5),
        seconds_left=1678.9,
        tools=(
            ToolRun(call=WEATHER, session=1, requested_at=at(9.2), outcome=WEATHER_OUTCOME),
            ToolRun(call=BOOKING, session=2, requested_at=at(31.0), outcome=BOOKING_OUTCOME),
            ToolRun(call=REFUND, session=3, requested_at=at(90.9), outcome=REFUND_OUTCOME),
        ),
        metrics=measure(TIMELINE, at(0.4), at(121.5)),
        timeline_length=len(TIMELINE),
        run_count=1,
    ),
    timeline=TIMELINE,
)


def record(
    call_id: str = CALL_ID, *, final: bool = True, events: int | None = None, **snapshot: object
) -> CallRecord:
    """RECORD under another id, cut to its first `events`, or with other values in its snapshot."""
    timeline = TIMELINE if events is None else TIMELINE[:events]
    changed = RECORD.snapshot.model_copy(
        update={
            "call": RECORD.snapshot.call.model_copy(update={"call_id": call_id}),
            "timeline_length": len(timeline),
            **snapshot,
        }
    )
    return CallRecord(snapshot=changed, timeline=timeline, final=final)
