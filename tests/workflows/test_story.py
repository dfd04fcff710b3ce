"""What a call's workflow keeps so that no step of a long call costs more than one of a short call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from stayline.messages import CallCarry, CallStart
from stayline.models import CallInfo, ToolCall, ToolOutcome, ToolRun
from stayline.timeline import SessionOpened, TimelineEvent, ToolSettled, Usage, UserTurn
from tests.workflows.bench import agent
from workflows.state import CallState
from workflows.story import SHOWN, Story

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def new_call() -> CallState:
    call = CallInfo(
        call_id="CA1", from_number="+1", to_number="+2", direction="inbound", started_at=NOW, agent="desk"
    )
    return CallState.begin(CallStart(call=call, agent=agent().spec()), NOW)


def test_a_story_told_bit_by_bit_is_the_story_told_at_once() -> None:
    state, story = new_call(), Story()
    for number in range(3 * SHOWN):
        at = NOW + timedelta(seconds=number)
        event: TimelineEvent = UserTurn(at=at, text=f"question {number}")
        if number % 5 == 0:
            event = Usage(at=at, provider="openai", model="m")  # not worth a line
        state.add(event)
        if number % 7 != 3:  # at times two events come together
            assert story.tell(state) == Story().tell(state)
    lines = story.tell(state).splitlines()
    assert lines[2] == f"- … {2 * SHOWN} earlier events"
    assert lines[3:] == [
        f"- `{n // 60}:{n % 60:02d}` **caller** question {n}" for n in range(2 * SHOWN, 3 * SHOWN) if n % 5
    ]


def test_a_story_of_many_events_at_once() -> None:
    state, story = new_call(), Story()
    story.tell(state)
    for number in range(5 * SHOWN):
        state.add(SessionOpened(at=NOW, session=number, bridge_id="b"))
    assert story.tell(state) == Story().tell(state)
    assert story.tell(state).count("session") == SHOWN


def test_the_tools_that_run_are_known_without_looking_at_those_that_ended() -> None:
    state = new_call()
    for id in ("a", "b", "c"):
        state.put_tool(id, ToolRun(call=ToolCall(id=id, name="t"), session=1, requested_at=NOW))
    state.put_tool("b", state.tools["b"].model_copy(update={"waiting_approval": True}))
    ended = ToolOutcome(id="a", name="t", status="succeeded")
    state.put_tool("a", state.tools["a"].model_copy(update={"outcome": ended}))
    assert [run.call.id for run in state.running_tools] == ["b", "c"]
    assert state.running_tools[0].waiting_approval
    state.add(ToolSettled(at=NOW, outcome=ended))
    carry = CallCarry(packed=state.carried())
    again = CallState.begin(CallStart(call=state.call, agent=state.agent, carry=carry), NOW)
    assert again.timeline == state.timeline
    assert [run.call.id for run in again.running_tools] == ["b", "c"]
    assert list(again.tools) == ["a", "b", "c"]
