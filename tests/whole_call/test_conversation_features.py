"""What a caller notices of a conversation: being heard when interrupting, listening noises, keys, slow tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from temporalio.client import Client

from stayline import CallInfo, RejectCall, tool
from stayline.dev_server import DevServer
from stayline.timeline import AgentTurn, Interruption, UserTurn
from tests.fakes.llm import Call, Say
from tests.whole_call.house import Scene, client_of, scene, vendor_agent
from tests.whole_call.webhook import Webhook

pytestmark = pytest.mark.asyncio(loop_scope="module")

MS_PER_CHAR = 30
LONG = "There are many things to say about that, and I shall say each of them slowly, one after the other."
GREETING = "Hello there."
TALKER, CLOSED = "+15550100003", "+15550100004"


class Slow:
    """The slow tool's runs, and when it may end."""

    def __init__(self) -> None:
        self.runs = 0
        self.go = asyncio.Event()


slow = Slow()


@tool(retries=0, filler="Let me check.")
async def look_up(what: str) -> str:
    """Look something up."""
    slow.runs += 1
    await slow.go.wait()
    return f"{what} found"


def answer(body: dict[str, Any]) -> list[Any]:
    last = body["input"][-1]
    if last.get("type") == "function_call_output":
        return [Say(f"Result: {last['output']}")]
    said = str(last["content"])
    if said == "look it up":
        return [Call("look_up", {"what": "it"})]
    if said == "tell me":
        return [Say(LONG)]
    return [Say(f"You said: {said}")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(temporal_server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    usual = vendor_agent(name="usual", greeting=GREETING, tools=[look_up])
    talker = vendor_agent(name="talker", greeting=LONG, numbers=[TALKER])
    closed = vendor_agent(name="closed", greeting="Never heard.", numbers=[CLOSED])

    @closed.on_call
    async def screen(call: CallInfo) -> None:
        raise RejectCall("We are closed today.")

    client = await client_of(temporal_server)
    folder = tmp_path_factory.mktemp("features")
    async with scene(client, folder, usual, talker, closed, reply=answer, ms_per_char=MS_PER_CHAR) as running:
        yield running


def agent_turns(events: list[Any]) -> list[AgentTurn]:
    return [event for event in events if isinstance(event, AgentTurn)]


def texts(events: list[Any]) -> list[str]:
    return [event.text for event in events if isinstance(event, (AgentTurn, UserTurn))]


async def test_an_interruption_is_exact_about_what_was_heard(stage: Scene) -> None:
    """The carrier still holds speech that the caller never hears: the record has what was played, to the word."""
    caller = await stage.greeted()
    before = caller.heard_ms
    await caller.say("tell me")
    await caller.hears(1200)
    await caller.say("wait a moment please", ms=900)
    played = caller.heard_ms - before
    await caller.until(lambda: caller.clears > 0)
    await caller.hears()
    await caller.hears_out()
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    _, cut, reply = agent_turns(events)
    assert cut.interrupted
    assert LONG.startswith(cut.text)
    assert cut.generated is not None
    assert abs(cut.speech_ms - played) <= 250, "a mark proves each 200 ms"
    assert 0 <= cut.speech_ms - len(cut.text) * MS_PER_CHAR <= 12 * MS_PER_CHAR, "a word that was begun is left out"
    assert reply.text == "You said: wait a moment please"
    assert [e.heard for e in events if isinstance(e, Interruption)] == [cut.text]
    request = stage.asked_of_model(caller.sid)[-1]
    assert any(item.get("role") == "assistant" and item["content"].startswith(cut.text) for item in request)
    assert LONG not in str(request)


async def test_a_listening_noise_does_not_stop_the_agent(stage: Scene) -> None:
    """ "mhm" pauses the speech for a moment at most; it goes on where it stopped and nothing is said twice."""
    caller = await stage.greeted()
    before = caller.heard_ms
    await caller.say("tell me")
    await caller.hears(1000)
    await caller.say("mhm", ms=400)
    await caller.hears_out(900)
    played = caller.heard_ms - before
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    assert texts(events) == [GREETING, "tell me", LONG]
    assert not agent_turns(events)[-1].interrupted
    assert [e.resumed for e in events if isinstance(e, Interruption)] == [True]
    assert abs(played - len(LONG) * MS_PER_CHAR) <= 300


async def test_an_interrupted_greeting(stage: Scene) -> None:
    caller = stage.caller()
    await caller.ring(stage.carrier, TALKER)
    await caller.hears(600)
    await caller.asks("I know what I want", ms=900)
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    greeting, reply = agent_turns(events)
    assert (greeting.source, greeting.interrupted) == ("greeting", True)
    assert LONG.startswith(greeting.text)
    assert reply.text == "You said: I know what I want"


async def test_keys_reach_the_model(stage: Scene) -> None:
    caller = await stage.greeted()
    caller.press("42#")
    await caller.hears()
    await caller.hears_out()
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    assert [e.digit for e in events if e.type == "dtmf"] == ["4", "2", "#"]
    assert "The caller pressed 42" in str(stage.asked_of_model(caller.sid)[-1][-1])


async def test_a_slow_tool_is_covered_and_runs_once(stage: Scene) -> None:
    """Its filler is said; what the caller says meanwhile starts no second run and is answered with the result."""
    slow.runs = 0
    slow.go.clear()
    caller = await stage.greeted()
    await caller.say("look it up")
    await stage.home.until(caller.sid, "agent_turn", 2)
    await caller.asks("are you still there")
    await stage.home.until(caller.sid, "agent_turn", 3)
    slow.go.set()
    await stage.home.until(caller.sid, "agent_turn", 4)
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    assert slow.runs == 1
    assert [(t.source, t.text) for t in agent_turns(events)] == [
        ("greeting", GREETING),
        ("filler", "Let me check."),
        ("filler", "One moment, I'm still on it."),
        ("reply", "You said: are you still there"),
    ]
    first, last = stage.asked_of_model(caller.sid)
    assert "it found" not in str(first)
    assert "it found" in str(last)
    assert sum(e.type == "tool_called" for e in events) == 1


async def test_each_number_has_its_agent_and_one_is_closed(stage: Scene) -> None:
    """Three calls at once to three numbers; the rejected caller is told why and gets no stream."""
    usual, talker, rejected = [stage.caller() for _ in range(3)]
    for caller, number in ((usual, "+15550100002"), (talker, TALKER), (rejected, CLOSED)):
        await caller.ring(stage.carrier, number)
    await rejected.call.wait()
    for caller in (usual, talker):
        await caller.until(lambda c=caller: c.heard_ms > 0)  # type: ignore[misc]
    assert (await stage.home.snapshot(usual.sid)).agent == "usual"
    assert (await stage.home.snapshot(talker.sid)).agent == "talker"
    for caller in (usual, talker):
        await caller.leaves()
    events = await stage.home.over(rejected.sid)
    assert [e.type for e in events if e.type != "error"] == ["call_rejected", "call_ended"]
    assert (await stage.home.snapshot(rejected.sid)).outcome == "rejected"
    spoken = [e.data["verb"].text for e in stage.carrier.log.of("twiml", rejected.sid) if e.detail == "Say"]
    assert spoken == ["We are closed today."]
    assert rejected.heard_ms > 500
    assert rejected.call.streams == 0
    for caller in (usual, talker):
        await stage.home.over(caller.sid)


async def test_a_repeated_webhook_is_the_same_call(stage: Scene) -> None:
    """The carrier asks again, perhaps at the same instant: one workflow, admitted once."""
    async with aiohttp.ClientSession() as http:
        webhook = Webhook(stage.home.settings.public, http)
        tokens = await asyncio.gather(*(webhook.stream_token("CArepeated") for _ in range(3)))
        assert len(set(tokens)) == 3
        events = await stage.home.timeline("CArepeated")
        assert [e.type for e in events] == ["call_admitted"]
        await webhook.post("/voice/status", {"CallSid": "CArepeated", "CallStatus": "completed"})
    events = await stage.home.over("CArepeated")
    assert [e.type for e in events] == ["call_admitted", "call_ended"]


async def test_a_bridge_that_drains_hands_its_calls_over(temporal_server: DevServer, tmp_path: Path) -> None:
    """Both share the port. The one that stops closes its streams; the carrier asks, and the other one answers."""
    client: Client = await client_of(temporal_server)
    agent = vendor_agent(greeting=GREETING, resume_text="Back again.")
    async with scene(client, tmp_path, agent, reply=answer, ms_per_char=MS_PER_CHAR, bridges=2) as stage:
        caller = await stage.greeted()
        holder = next(bridge for bridge in stage.home.bridges if bridge.sessions)
        await holder.stop()
        stage.home.bridges.remove(holder)
        await stage.home.until(caller.sid, "session_opened", 2)
        await caller.hears()
        await caller.hears_out(600)
        await caller.asks("still me")
        await caller.leaves()
        events = await stage.home.over(caller.sid)
        snapshot = await stage.home.snapshot(caller.sid)
    assert [e.reason for e in events if e.type == "session_closed"] == ["closed", "stopped"]
    assert len({e.bridge_id for e in events if e.type == "session_opened"}) == 2
    assert [e.type for e in events if e.type in ("error", "gap")] == []
    assert texts(events)[-2:] == ["still me", "You said: still me"]
    assert (snapshot.outcome, snapshot.metrics.session_count) == ("caller_hung_up", 2)
