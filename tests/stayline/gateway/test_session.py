"""A call as an application follows and steers it, in the process that holds it and in another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest

from stayline import StaylineError, ToolDefinition
from stayline.dev_server import DevServer
from stayline.gateway import (
    AgentTranscript,
    EventType,
    Failed,
    Sessions,
    SessionStarted,
    ToolCalled,
    UserTranscript,
    reading,
)
from stayline.gateway.reading import CallReader
from stayline.names import CALL_WORKFLOW, TASK_QUEUE, call_workflow_id
from stayline.settings import Settings, TwilioCredentials
from tests.fakes.llm import Call, Say
from tests.fakes.misbehaviour import server_error
from tests.stayline.gateway.embedded import PATIENCE, Embedded, Listener, embedded, eventually
from tests.whole_call.house import TOKEN, client_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = "There are many things to say about that, and I shall say each of them slowly, one after the other. " * 3
LIVE = {
    "user_speech_start",
    "user_speech_end",
    "agent_thinking",
    "agent_speech_start",
    "agent_speech_end",
    "audio_received",
    "audio_sent",
}
SORRY = "Sorry about that."

WEATHER = ToolDefinition(
    name="get_weather",
    description="Get the weather.",
    parameters={"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)


async def get_weather(arguments: dict[str, Any]) -> str:
    return f"sunny in {arguments['location']}"


def answer(body: dict[str, Any]) -> list[Any]:
    last = body["input"][-1]
    if last.get("type") == "function_call_output":
        return [Say(f"It is {last['output']}.")]
    said = str(last["content"])
    if said == "weather":
        return [Call("get_weather", {"location": "Boston"})]
    if said == "tell me":
        return [Say(LONG)]
    return [Say(f"You said {said}.")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(temporal_server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedded]:
    async with embedded(
        tmp_path_factory.mktemp("session"),
        await client_of(temporal_server),
        reply=answer,
        tools=[WEATHER],
        tool_handlers={"get_weather": get_weather},
        agent={"apology_text": SORRY},
        settings={"reuse_port": True},
    ) as running:
        yield running


def elsewhere(place: Embedded, directory: Path | None = None, **settings: Any) -> Any:
    """The calls as another process sees them, one that holds none: by Temporal, and by the bridge's own door."""
    running = place.gateway._started()
    values = Settings(data_dir=directory or running.bridge.settings.data_dir, **settings)
    twilio = TwilioCredentials(auth_token=TOKEN)  # type: ignore[arg-type]
    return Sessions.open(values, client=running.client, twilio=twilio)


async def test_everything_that_happens_is_told_in_order_to_every_reader(place: Embedded) -> None:
    caller = await place.greeted()
    session = await place.session(caller)
    assert (session.id, session.from_number, session.to_number) == (caller.sid, "+15550100001", "+15550100002")
    assert session.direction == "inbound"
    first = Listener(session)
    await caller.asks("weather")
    async with elsewhere(place) as sessions:
        theirs = await sessions.get(caller.sid)
        other = Listener(theirs)
        second = Listener(session)
        caller.press("5#")
        await first.until("dtmf", 2)
        await caller.hears_out()
        await caller.say("tell me")
        await caller.hears(1000)
        await caller.begin("stop")
        await first.until("interruption")
        await caller.until(lambda: not caller.speaking)
        await first.until("agent_transcript", 5)
        await caller.hears_out()
        place.openai.misbehave(server_error(), server_error(), server_error())
        await caller.asks("and now")
        await first.until("error")
        await caller.leaves()
        events = await first.end()
        assert await second.end() == events, "a reader that came later"
        assert await other.end() == events, "a reader in another process"

    assert {event.type for event in events} == set(EventType)
    assert isinstance(events[0], SessionStarted)
    assert events[-1].type == "session_ended"
    assert events[-1].data == "caller_hung_up"
    assert all(one.timestamp <= next.timestamp for one, next in pairwise(events[:-1]))
    said = [event.data for event in events if isinstance(event, UserTranscript)]
    assert said == ["weather", "tell me", "stop", "and now"]
    heard = [event for event in events if isinstance(event, AgentTranscript)]
    assert [event.data for event in heard][:2] == ["Hello there.", 'It is "sunny in Boston".']
    (cut,) = [event for event in heard if event.interrupted]
    assert LONG.startswith(cut.data)
    assert len(cut.data) < len(LONG.strip()), "what was heard, not what was generated"
    assert heard[-1].data == SORRY
    (used,) = [event for event in events if isinstance(event, ToolCalled)]
    assert (used.data.name, used.data.arguments) == ("get_weather", {"location": "Boston"})
    assert (used.data.status, used.data.result, used.data.attempts) == ("succeeded", "sunny in Boston", 1)
    failed = [event for event in events if isinstance(event, Failed)]
    assert failed[0].data == "llm"
    assert "openai" in str(failed[0].error)
    keys = [event.data for event in events if event.type == "dtmf"]
    assert keys == ["5", "#"]
    for beginning, end in (("user_speech_start", "user_speech_end"), ("agent_speech_start", "agent_speech_end")):
        turns = [event.type for event in events if event.type in (beginning, end)]
        assert turns == [beginning, end] * (len(turns) // 2)

    metrics = await session.metrics()
    assert metrics.user_turn_count == 4
    assert metrics.agent_turn_count == len([event for event in heard if event.data and event.source != "filler"])
    assert metrics.turn_count == metrics.user_turn_count + metrics.agent_turn_count
    assert (metrics.interruption_count, metrics.tool_call_count) == (1, 1)
    assert metrics.error_count == len(failed)
    assert session.duration.total_seconds() == metrics.duration > 0
    assert metrics.session_duration_ms == round(metrics.duration * 1000)
    totals = {
        kind: max(e.data.total_bytes for e in events if e.type == kind) for kind in ("audio_received", "audio_sent")
    }
    assert metrics.audio_bytes_received == totals["audio_received"]
    assert 0 < metrics.audio_bytes_sent <= totals["audio_sent"], "played, of what was sent"
    assert metrics.agent_speech_duration_ms * 8 <= metrics.audio_bytes_sent + 8 * 200
    assert metrics.user_speech_duration_ms > 0
    record = await session.record()
    timed = [e.event.latency for e in record.timeline if e.event.type == "agent_turn" and e.event.latency]
    for name, part in (("stt", "endpoint_ms"), ("llm", "llm_ms"), ("tts", "tts_ms"), ("total", "total_ms")):
        values = [value for latency in timed if (value := getattr(latency, part)) is not None]
        assert getattr(metrics, f"avg_{name}_latency_ms") == pytest.approx(sum(values) / len(values))
    turns = [turn for turn in await session.transcript() if turn.source != "filler"]
    assert [turn.text for turn in turns if turn.role == "user"] == said
    assert [turn.text for turn in turns if turn.role == "agent"] == [event.data for event in heard]


async def test_a_slow_reader_misses_nothing_and_holds_up_nobody(place: Embedded) -> None:
    caller = await place.greeted()
    session = await place.session(caller)
    slow = aiter(session.events())
    first = await anext(slow)
    quick = Listener(session)
    await caller.asks("one")
    await caller.asks("two")
    await quick.until("agent_transcript", 3)
    await caller.leaves()
    events = await quick.end()
    assert [first, *[event async for event in slow]] == events


async def test_without_settling_live_events_come_at_once(place: Embedded) -> None:
    caller = await place.greeted()
    heard = Listener(await place.session(caller), settle=0)
    await heard.until("agent_speech_end")
    await caller.begin("hello")
    await heard.until("user_speech_start")
    await caller.leaves()
    assert (await heard.end())[-1].type == "session_ended"


async def test_an_ended_call_is_told_again_by_whoever_asks(place: Embedded) -> None:
    caller = await place.greeted()
    await caller.asks("hello")
    await caller.leaves()
    events = await Listener(await place.session(caller)).end()
    assert LIVE & {event.type for event in events}, "the bridge still has its log"
    running = place.gateway._started()
    async with asyncio.timeout(PATIENCE):
        await running.sessions.reader.handle(caller.sid).result()
    await running.client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=running.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=f"call-{caller.sid}"),
        )
    )

    async def forgotten() -> bool:
        return not await running.sessions.reader.exists(caller.sid)

    await eventually(forgotten)
    session = await place.session(caller)
    assert session.snapshot.outcome == "caller_hung_up"
    told = await Listener(session).end()
    assert told == [event for event in events if event.type not in LIVE or event in told]
    assert (await session.metrics()).user_turn_count == 1
    assert len(await session.transcript()) == 3


async def test_steering(place: Embedded) -> None:
    caller = await place.greeted()
    session = await place.session(caller)
    heard = Listener(session)
    await session.send_text("We close in five minutes.", by="mia", why="it is late")
    said = await heard.until("agent_transcript", 2)
    assert said.data == "We close in five minutes."
    await caller.say("tell me")
    await caller.hears(1000)
    await session.interrupt()
    cut = await heard.until("agent_transcript", 3)
    assert isinstance(cut, AgentTranscript)
    assert cut.interrupted
    await session.interrupt()  # the agent is silent: nothing happens
    await session.close("Bye now.")
    await caller.call.wait()
    events = await heard.end()
    assert [event.data for event in events if event.type == "agent_transcript"][-1] == "Bye now."
    assert events[-1].data == "completed"
    await session.close()  # over already
    with pytest.raises(StaylineError, match="the call is over"):
        await session.send_text("Hello?")
    with pytest.raises(StaylineError, match="No bridge holds the call"):
        await session.interrupt()
    with pytest.raises(StaylineError, match="Refused"):
        await session.transfer("+15550003333")


async def test_steering_from_another_process(place: Embedded) -> None:
    caller = await place.greeted()
    async with elsewhere(place) as sessions:
        session = await sessions.get(caller.sid)
        heard = Listener(session)
        await caller.say("tell me")
        await caller.hears(1000)
        await session.interrupt()
        await heard.until("interruption")
        await session.close("")
        await caller.call.wait()
        await heard.end()


async def test_another_process_without_the_key_reads_the_record_only(place: Embedded) -> None:
    caller = await place.greeted()
    async with elsewhere(place, live_key="another key") as sessions:
        session = await sessions.get(caller.sid)
        heard = Listener(session)
        await caller.asks("hello")
        await heard.until("user_transcript")
        with pytest.raises(StaylineError, match="cannot be reached"):
            await session.interrupt()
        await caller.leaves()
        events = await heard.end()
    assert not LIVE & {event.type for event in events}
    assert [event.type for event in events if event.type != "agent_transcript"] == [
        "session_started",
        "user_transcript",
        "session_ended",
    ]


async def test_calls_that_nobody_knows(place: Embedded, tmp_path: Path) -> None:
    assert await place.gateway.get_session("CAunknown") is None
    caller = await place.greeted()
    session = await place.session(caller)
    session.id = "CAunknown"
    with pytest.raises(StaylineError, match="There is no call 'CAunknown'"):
        await Listener(session).end()
    with pytest.raises(StaylineError, match="Nobody knows the call"):
        await session.metrics()
    await caller.leaves()


async def test_a_tool_that_outlives_the_caller_is_told_after_the_end(
    place: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, begun = asyncio.Event(), asyncio.Event()

    async def slow(arguments: dict[str, Any], context: Any) -> str:
        begun.set()
        await go.wait()
        return "late"

    tool = place.gateway.agent.tools["get_weather"]
    monkeypatch.setattr(tool, "function", slow)
    caller = await place.greeted()
    heard = Listener(await place.session(caller))
    await caller.say("weather")
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
    await caller.leaves()
    await heard.until("session_ended")
    go.set()
    events = await heard.end()
    assert [event.type.value for event in events[-2:]] == ["session_ended", "tool_call"]
    assert events[-1].data.result == "late"


async def test_the_list_of_calls(place: Embedded) -> None:
    callers = [await place.greeted(), await place.greeted()]
    async with elsewhere(place) as sessions:

        async def listed() -> bool:
            return {caller.sid for caller in callers} <= {session.id for session in await sessions.list()}

        await eventually(listed)
    sids = {caller.sid for caller in callers}  # other tests of this server may have left calls of their own
    found = [session for session in await place.gateway.list_sessions() if session.id in sids]
    assert all(session.from_number == "+15550100001" for session in found)
    for caller in callers:
        await caller.leaves()

    async def nobody() -> bool:
        return not sids & {session.id for session in await place.gateway.list_sessions()}

    await eventually(nobody)


async def test_a_call_that_nobody_answers_for_hides_no_other(
    place: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose build has no worker any more: here, one that begins in an hour."""
    monkeypatch.setattr(reading, "PATIENCE", 2.0)
    caller = await place.greeted()
    client = place.gateway._started().client
    mute = await client.start_workflow(
        CALL_WORKFLOW,
        id=call_workflow_id("CAmute"),
        task_queue=TASK_QUEUE,
        start_delay=timedelta(hours=1),
    )
    try:

        async def both_run() -> bool:
            return {"CAmute", caller.sid} <= {call_id for call_id, _ in await CallReader(client, "").running(1000)}

        await eventually(both_run)
        listed = {session.id for session in await place.gateway.list_sessions()}
    finally:
        await mute.terminate()
    assert caller.sid in listed
    assert "CAmute" not in listed
    await caller.leaves()


async def test_a_reader_that_leaves_leaves_nothing_behind(place: Embedded) -> None:
    caller = await place.greeted()
    sessions = place.gateway.sessions
    session = await place.session(caller)
    first, second = aiter(session.events()), aiter(session.events())
    await anext(first)
    await anext(second)
    assert len(sessions._followed) == 1, "one look for both"
    await first.aclose()
    assert len(sessions._followed) == 1
    await second.aclose()
    assert sessions._followed == {}
    await caller.leaves()
