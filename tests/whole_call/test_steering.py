"""People steer a live call, with Temporal's own command line as well as with acknowledged updates.

The race in a transfer: the bridge is still saying the announcement when the carrier already asks what comes next;
and while the other side rings, nobody but the carrier knows whether the caller is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError

from stayline.dev_server import DevServer
from stayline.lab.call import Behaviour, DialOutcome
from stayline.messages import Accepted, SayText
from stayline.names import call_workflow_id
from stayline.timeline import Commanded, TransferSettled
from tests.conftest import SCRIPTS
from tests.fakes.llm import Say
from tests.whole_call.house import Scene, client_of, scene, vendor_agent

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREETING = "Hello there."
GOODBYE = "Goodbye now."
CONNECTING = "I connect you."


def answer(body: dict[str, Any]) -> list[Any]:
    last = body["input"][-1]
    return [Say("I am sorry." if last["role"] == "developer" else f"You said {last['content']}.")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(temporal_server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    agent = vendor_agent(
        greeting=GREETING, goodbye=GOODBYE, transfer_text=CONNECTING, transfers={"sales": "+15550100020"}
    )
    client = await client_of(temporal_server)
    async with scene(client, tmp_path_factory.mktemp("steering"), agent, reply=answer) as running:
        running.carrier.behaviour = Behaviour(
            dials={
                "+15550100010": DialOutcome("completed", ring_seconds=0.2, talk_seconds=0.4),
                "+15550100020": DialOutcome("busy", ring_seconds=0.2),
                "+15550100030": DialOutcome("no-answer", ring_seconds=0.2),
                "+15550100040": DialOutcome("failed", ring_seconds=0.2),
                "+15550100050": DialOutcome("completed", ring_seconds=600),
            }
        )
        yield running


async def temporal(stage: Scene, *words: str) -> None:
    """Run Temporal's command line."""
    process = await asyncio.create_subprocess_exec(
        str(SCRIPTS / "temporal"),
        *words,
        "--address",
        stage.home.client.service_client.config.target_host,
        "--namespace",
        stage.home.client.namespace,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


async def signal(stage: Scene, call_id: str, name: str, data: str = "") -> None:
    words = ["workflow", "signal", "--workflow-id", call_workflow_id(call_id), "--name", name]
    await temporal(stage, *words, *(["--input", data] if data else []))


def said(events: list[Any]) -> list[str]:
    return [event.text for event in events if event.type == "agent_turn"]


def asked_of_carrier(stage: Scene, call_id: str) -> list[dict[str, str]]:
    return [event.data["form"] for event in stage.carrier.log.of("rest", call_id)]


async def test_end_by_the_command_line(stage: Scene) -> None:
    caller = await stage.greeted()
    await signal(stage, caller.sid, "end")
    await caller.call.wait()
    events = await stage.home.over(caller.sid)
    assert said(events) == [GREETING, GOODBYE]
    assert caller.call.ended_by in ("rest", "bridge")
    assert (await stage.home.snapshot(caller.sid)).outcome == "completed"


async def test_transfer_by_the_command_line_is_answered(stage: Scene) -> None:
    caller = await stage.greeted()
    await signal(stage, caller.sid, "transfer", '"+15550100010"')
    await caller.call.wait()
    events = await stage.home.over(caller.sid)
    assert said(events) == [GREETING, CONNECTING]
    assert stage.carrier.log.of("dial", caller.sid)[0].detail == "+15550100010 answered"
    settled = next(e for e in events if isinstance(e, TransferSettled))
    assert (settled.to, settled.outcome) == ("+15550100010", "answered")
    assert (await stage.home.snapshot(caller.sid)).outcome == "transferred"


@pytest.mark.parametrize(
    ("number", "outcome", "note"),
    [
        ("+15550100020", "busy", "The transfer to sales failed: the line was busy."),
        ("+15550100030", "no_answer", "The transfer to +15550100030 failed: nobody answered."),
        ("+15550100040", "failed", "The transfer to +15550100040 failed: it could not be connected."),
    ],
)
async def test_a_transfer_that_fails_brings_the_caller_back(
    stage: Scene, number: str, outcome: str, note: str
) -> None:
    """The agent is told why, and speaks first; the conversation before the dial is still known."""
    caller = await stage.greeted()
    await signal(stage, caller.sid, "transfer", f'"{number}"')
    await stage.home.until(caller.sid, "session_opened", 2)
    await caller.hears()
    await caller.hears_out(600)
    await caller.asks("never mind")
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    assert next(e.outcome for e in events if isinstance(e, TransferSettled)) == outcome
    assert said(events) == [GREETING, CONNECTING, "I am sorry.", "You said never mind."]
    first, second = stage.asked_of_model(caller.sid)
    assert {"role": "assistant", "content": GREETING} in first
    assert note in first[-1]["content"]
    assert note in str(second)
    snapshot = await stage.home.snapshot(caller.sid)
    assert (snapshot.outcome, snapshot.metrics.session_count) == ("caller_hung_up", 2)


async def test_the_caller_hangs_up_while_it_rings(stage: Scene) -> None:
    caller = await stage.greeted()
    await signal(stage, caller.sid, "transfer", '"+15550100050"')
    await stage.carrier.log.wait_for("webhook", call_sid=caller.sid, count=2, timeout=20)
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    assert [e.outcome for e in events if isinstance(e, TransferSettled)] == ["caller_left"]
    assert (await stage.home.snapshot(caller.sid)).outcome == "caller_hung_up"
    assert asked_of_carrier(stage, caller.sid) == []


async def test_say_as_signal_and_as_update(stage: Scene) -> None:
    caller = await stage.greeted()
    await signal(stage, caller.sid, "say", '"A person is listening."')
    await stage.home.until(caller.sid, "agent_turn", 2)
    handle = stage.home.client.get_workflow_handle(call_workflow_id(caller.sid))
    accepted = await handle.execute_update(
        "say", SayText(text="And again.", by="Mary", why="training"), result_type=Accepted
    )
    events = await stage.home.until(caller.sid, "agent_turn", 3)
    assert isinstance(events[accepted.index], Commanded)
    with pytest.raises(WorkflowUpdateFailedError):
        await handle.execute_update("say", SayText(text=" "), result_type=Accepted)
    await caller.hears_out()
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    assert said(events) == [GREETING, "A person is listening.", "And again."]
    assert [(e.by, e.why, e.detail) for e in events if isinstance(e, Commanded)] == [
        ("signal", "", "A person is listening."),
        ("Mary", "training", "And again."),
    ]


async def test_a_command_that_makes_no_sense_hurts_nobody(stage: Scene) -> None:
    caller = await stage.greeted()
    await signal(stage, caller.sid, "transfer", '"the moon"')
    await signal(stage, caller.sid, "say", "[1, 2]")
    await stage.home.until(caller.sid, "error", 2)
    await caller.asks("still there")
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    assert said(events) == [GREETING, "You said still there."]
