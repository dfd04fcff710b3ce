"""The conversation that a new bridge is given, read from the timeline alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stayline.models import AgentMessage, NoteMessage, ToolCall, ToolMessage, ToolOutcome, ToolRun, UserMessage
from stayline.timeline import (
    AgentTurn,
    Dtmf,
    SessionClosed,
    SessionOpened,
    TimelineEntry,
    TimelineEvent,
    ToolCalled,
    ToolSettled,
    TransferSettled,
    UserTurn,
)
from tests.workflows.bench import agent
from workflows.conversation import conversation

SPEC = agent(transfers={"support": "+15551234567"}).spec()
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


OPENED = (0, SessionOpened(at=NOW, session=1, bridge_id="a"))


def timeline(*events: tuple[int, TimelineEvent]) -> list[TimelineEntry]:
    return [TimelineEntry(index=i, session=session, event=event) for i, (session, event) in enumerate(events)]


def tool_run(id: str, result: object = None, status: str = "succeeded", error: str | None = None) -> ToolRun:
    call = ToolCall(id=id, name="look_up", arguments={"id": id})
    outcome = ToolOutcome(id=id, name="look_up", status=status, result=result, error=error)
    return ToolRun(call=call, session=1, requested_at=NOW, outcome=None if status == "running" else outcome)


def called(run: ToolRun, seconds: float = 0) -> TimelineEvent:
    return ToolCalled(at=at(seconds), call=run.call)


def test_a_reply_stands_with_the_tools_it_asked_for_though_it_was_recorded_after_them() -> None:
    one, two = tool_run("a", result=1), tool_run("b", status="failed", error="No such order.")
    entries = timeline(
        OPENED,
        (1, UserTurn(at=at(1), text="Where is my order?")),
        (0, called(one)),
        (0, called(two)),
        (0, ToolSettled(at=at(3), outcome=one.outcome)),
        (1, AgentTurn(at=at(4), text="Let me look.", tool_calls=("a", "b"))),
        (1, AgentTurn(at=at(6), text="It is on its way.", interrupted=True)),
    )
    assert conversation(entries, {"a": one, "b": two}, SPEC) == [
        UserMessage(text="Where is my order?"),
        AgentMessage(text="Let me look.", tool_calls=(one.call, two.call)),
        ToolMessage(tool_call_id="a", name="look_up", content="1"),
        ToolMessage(tool_call_id="b", name="look_up", content="No such order.", is_error=True),
        AgentMessage(text="It is on its way.", interrupted=True),
    ]


def test_a_running_tool_is_left_out_and_a_silent_reply_says_nothing() -> None:
    run = tool_run("a", status="running")
    entries = timeline(
        OPENED, (0, called(run)), (1, AgentTurn(at=at(1), text="", interrupted=True, tool_calls=("a",)))
    )
    assert conversation(entries, {"a": run}, SPEC) == []


def test_keys_and_failed_transfers_are_notes() -> None:
    entries = timeline(
        OPENED,
        (1, Dtmf(at=at(1), digit="4")),
        (1, Dtmf(at=at(2), digit="2")),
        (0, TransferSettled(at=at(3), to="+15551234567", outcome="busy")),
        (0, TransferSettled(at=at(4), to="+15551234567", outcome="answered")),
    )
    notes = [m.text for m in conversation(entries, {}, SPEC) if isinstance(m, NoteMessage)]
    assert notes == [
        "The caller pressed 42.",
        "The transfer to support failed: the line was busy. The caller is back with you.",
    ]


def test_late_records_stand_where_they_were_said() -> None:
    entries = timeline(
        OPENED,
        (1, UserTurn(at=at(1), text="first")),
        (0, SessionClosed(at=at(5), session=1, reason="bridge_lost")),
        (0, SessionOpened(at=at(6), session=2, bridge_id="b", resumed=True)),
        (2, UserTurn(at=at(-100), text="third, by a bridge whose clock is behind")),
        (1, UserTurn(at=at(2), text="second, from the spool")),
    )
    assert [m.text for m in conversation(entries, {}, SPEC) if not isinstance(m, ToolMessage)] == [
        "first",
        "second, from the spool",
        "third, by a bridge whose clock is behind",
    ]


def test_asides_are_heard_by_the_caller_but_are_no_part_of_the_conversation() -> None:
    entries = timeline(
        OPENED,
        (1, UserTurn(at=at(1), text="where is my order")),
        (1, AgentTurn(at=at(2), text="Let me check.", source="filler")),
        (1, AgentTurn(at=at(3), text="Sorry, we got cut off for a second.", source="resume")),
    )
    assert [m.role for m in conversation(entries, {}, SPEC)] == ["user"]
