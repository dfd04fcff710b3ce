"""With encryption on, Temporal has nothing of a call to read: not the words, not the numbers, not what tools were
given, answered or failed with. Whoever has the key reads all of it, with our commands and with Temporal's.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    GetWorkflowExecutionHistoryRequest,
    ListWorkflowExecutionsRequest,
    QueryWorkflowRequest,
)
from temporalio.client import Client

from activities.records import RecordActivities
from activities.records_db import CallStore
from media_bridge.bridge import Bridge
from stayline import tool
from stayline.agent import Agent
from stayline.commands.calls_replay import fetch_histories, read_history, replay
from stayline.commands.calls_temporal import pending_tools, query_record
from stayline.commands.codec import CodecServer
from stayline.dev_server import DevServer
from stayline.errors import ConfigError
from stayline.lab.carrier import LabCarrier
from stayline.messages import SayText
from stayline.names import bridge_workflow_id, call_workflow_id
from stayline.ports import free_port
from stayline.settings import Settings, TwilioCredentials
from stayline.temporal import converter_for
from stayline.timeline import AgentTurn, UserTurn
from stayline.worker import build_worker
from tests.conftest import SCRIPTS
from tests.fakes.llm import Call, Say
from tests.whole_call.house import ACCOUNT, TOKEN, House, Scene, scene, vendor_agent, vendors

KEY = base64.b64encode(b"k" * 32).decode()
KEYS = f"2026a:{KEY}"
CALLER, CALLED = "15550100001", "15550100002"

GREETING = "Hello from Larkspur Clinic."
ASKED = "find the file of Wilhelmina"
ARGUMENT = "wilhelmina-1974"
TROUBLE = "archive lost wilhelmina-1974 in a fire"
FOUND = "allergic to penicillin"
TOLD_BY_HAND = "A nurse is listening."
SECRETS = (
    CALLER,
    CALLED,
    "Larkspur",
    ASKED,
    ARGUMENT,
    TROUBLE,
    "fire drill",
    FOUND,
    "penicillin",
    TOLD_BY_HAND,
    "nurse",
)


class Archive:
    """What the tool is: it fails, and then waits until it may answer."""

    def __init__(self) -> None:
        self.attempts = 0
        self.again = asyncio.Event()
        self.go = asyncio.Event()


archive = Archive()


@tool(retries=5, filler="One moment.")
async def find_file(patient: str) -> str:
    """Find a patient's file."""
    archive.attempts += 1
    if archive.attempts == 1:
        raise RuntimeError(TROUBLE)
    archive.again.set()
    await archive.go.wait()
    return FOUND


def answer(body: dict[str, Any]) -> list[Any]:
    last = body["input"][-1]
    if last.get("type") == "function_call_output":
        return [Say(f"It says {FOUND}.")]
    if last["content"] == ASKED:
        return [Call("find_file", {"patient": ARGUMENT})]
    return [Say(f"You said {last['content']}.")]


def settings(keys: str | None, **more: Any) -> Settings:
    return Settings(encryption_keys=SecretStr(keys) if keys else None, **more)


async def client_with(server: DevServer, keys: str | None) -> Client:
    return await Client.connect(server.address, data_converter=converter_for(settings(keys)))


async def kept_by_temporal(client: Client, workflow_id: str) -> bytes:
    """Everything that Temporal says of a workflow to somebody without a key, as it is on the wire."""
    service, execution = client.workflow_service, WorkflowExecution(workflow_id=workflow_id)
    told = [
        await service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=execution)
        ),
        await service.list_workflow_executions(
            ListWorkflowExecutionsRequest(namespace=client.namespace, query=f"WorkflowId = '{workflow_id}'")
        ),
    ]
    page = b""
    while True:
        request = GetWorkflowExecutionHistoryRequest(
            namespace=client.namespace, execution=execution, next_page_token=page
        )
        told.append(history := await service.get_workflow_execution_history(request))
        if not (page := history.next_page_token):
            return b"\n".join(answer.SerializeToString() for answer in told)


async def asked_for(client: Client, workflow_id: str, query: str) -> bytes:
    """A query's answer as it is on the wire."""
    request = QueryWorkflowRequest(
        namespace=client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id),
        query=WorkflowQuery(query_type=query),
    )
    return (await client.workflow_service.query_workflow(request)).SerializeToString()


def readable(told: bytes) -> list[str]:
    """Which of the secrets stand in it."""
    return [secret for secret in SECRETS if secret.encode().lower() in told.lower()]


async def temporal(client: Client, *words: str, codec: str = "") -> str:
    """Run Temporal's command line, with a codec server or without."""
    address = ("--address", client.service_client.config.target_host, "--namespace", client.namespace)
    process = await asyncio.create_subprocess_exec(
        str(SCRIPTS / "temporal"),
        *words,
        *address,
        env={**os.environ, "TEMPORAL_CODEC_ENDPOINT": codec},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


def turns(events: list[Any]) -> list[str]:
    return [event.text for event in events if isinstance(event, UserTurn | AgentTurn)]


async def test_temporal_has_nothing_to_read_and_whoever_has_the_key_reads_all(
    temporal_server: DevServer, tmp_path: Path
) -> None:
    client = await client_with(temporal_server, KEYS)
    agent = vendor_agent(greeting=GREETING, tools=[find_file])
    async with (
        scene(client, tmp_path, agent, reply=answer, ms_per_char=20) as stage,
        CodecServer(settings(KEYS), port=0) as codec,
    ):
        caller = await stage.greeted()
        workflow_id = call_workflow_id(caller.sid)
        handle = client.get_workflow_handle(workflow_id)
        await caller.say(ASKED)
        async with asyncio.timeout(30):
            await archive.again.wait()

        # While the tool is tried again: its failure, its input and its heartbeats are pending, not yet history.
        description = await handle.describe()
        pending = description.raw_description.pending_activities
        assert [a.last_failure.message for a in pending if a.HasField("last_failure")] == ["Encoded failure"]
        assert [tool.failed.error for tool in await pending_tools(description)] == [f"RuntimeError: {TROUBLE}"]
        assert readable(await kept_by_temporal(client, workflow_id)) == []
        lease = bridge_workflow_id(stage.home.bridge.id)
        assert readable(await kept_by_temporal(client, lease)) == []
        for query in ("snapshot", "__temporal_workflow_metadata", "__stack_trace"):
            assert readable(await asked_for(client, workflow_id, query)) == [], query
        keyless = await client_with(temporal_server, None)
        with pytest.raises(ConfigError, match="the key '2026a', which STAYLINE_ENCRYPTION_KEYS does not have here"):
            await query_record(keyless.get_workflow_handle(workflow_id), final=False)
        details = await temporal(client, "workflow", "metadata", "-w", workflow_id, codec=codec.url)
        assert ASKED in details

        # What people send: by Temporal's command line and the codec server, and by a client of ours.
        say = ("workflow", "signal", "-w", workflow_id, "--name", "say", "--input", f'"{TOLD_BY_HAND}"')
        archive.go.set()
        await stage.home.until(caller.sid, "tool_settled")
        await temporal(client, *say, codec=codec.url)
        await handle.execute_update("say", SayText(text="The nurse has gone.", by="nurse", why="fire drill"))
        await stage.home.until(caller.sid, "agent_turn", 5)
        await caller.hears_out()
        await caller.leaves()
        events = await stage.home.over(caller.sid)
        assert readable(await kept_by_temporal(client, workflow_id)) == []

        said = turns(events)
        assert said[:2] == [GREETING, ASKED]
        assert {f"It says {FOUND}.", TOLD_BY_HAND, "The nurse has gone."} <= set(said)
        async with CallStore(stage.home.settings.database) as store:
            record = await store.get_call(caller.sid)
        assert record is not None
        assert record.final
        assert turns([entry.event for entry in record.timeline]) == said
        (run,) = record.snapshot.tools
        assert run.outcome is not None
        assert [attempt.error for attempt in run.outcome.attempts] == [f"RuntimeError: {TROUBLE}", None]

        # Temporal's own command line, with and without the key.
        show = ("workflow", "show", "-w", workflow_id, "--detailed")
        assert readable((await temporal(client, *show)).encode()) == []
        shown = await temporal(client, *show, codec=codec.url)
        assert set(SECRETS) - set(readable(shown.encode())) == set()
        describe = ("workflow", "describe", "-w", workflow_id)
        assert "inbound call for" not in await temporal(client, *describe)
        assert "inbound call for" in await temporal(client, *describe, codec=codec.url)

        # Our export keeps what was encrypted encrypted; replay needs the key and says which.
        (history,) = await fetch_histories(client, caller.sid)
        exported = tmp_path / f"{caller.sid}.json"
        await asyncio.to_thread(exported.write_text, history.to_json())
        (report,) = await replay([read_history(exported)], converter=converter_for(settings(KEYS)))
        assert report.ok
        for keys in (None, f"2027a:{KEY}"):
            with pytest.raises(ConfigError, match="the key '2026a'"):
                await replay([read_history(exported)], converter=converter_for(settings(keys)))


# --- switching on in mid-call ----------------------------------------------------------------------------


@asynccontextmanager
async def parts(client: Client, values: Settings, twilio: TwilioCredentials, agent: Agent) -> AsyncIterator[Bridge]:
    """A worker and a bridge, as one deploy has them."""
    named = {agent.named("agent").name: agent}
    async with (
        RecordActivities(values.database) as records,
        build_worker(client, named, values, [records.save_call], credentials=twilio),
    ):
        bridge = Bridge(values, twilio, named, client)
        await bridge.start()
        try:
            async with asyncio.timeout(20):
                await bridge.leased.wait()
            yield bridge
        finally:
            await bridge.stop()


async def test_a_call_that_began_in_clear_goes_on_when_encryption_is_switched_on(
    temporal_server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First every process learns to read, then it is replaced by one that encrypts; the call is held throughout."""
    address = f"127.0.0.1:{free_port()}"
    values = settings(None, listen_addr=address, data_dir=tmp_path, carrier="lab", reuse_port=True, drain_timeout=1)
    agent = vendor_agent(greeting=GREETING)
    reads, encrypts = [await client_with(temporal_server, keys) for keys in (f"clear,{KEYS}", KEYS)]
    async with (
        vendors(monkeypatch, [], answer, ms_per_char=20) as (deepgram, openai, elevenlabs),
        LabCarrier(f"http://{address}", ACCOUNT, TOKEN) as carrier,
        AsyncExitStack() as former,
    ):
        twilio = TwilioCredentials(account_sid=ACCOUNT, auth_token=TOKEN, base_url=carrier.rest_url)
        bridge = await former.enter_async_context(parts(reads, values, twilio, agent))
        stage = Scene(House(encrypts, values, carrier, [bridge]), deepgram, openai, elevenlabs)
        caller = await stage.greeted()
        workflow_id = call_workflow_id(caller.sid)
        await caller.asks("the first penicillin")
        before = await kept_by_temporal(encrypts, workflow_id)
        # The same search finds them where nothing is encrypted.
        assert set(readable(before)) >= {CALLER, CALLED, "Larkspur", "penicillin"}

        async with parts(encrypts, values, twilio, agent):
            await former.aclose()
            await stage.home.until(caller.sid, "session_opened", 2)
            await caller.asks("then the nurse")
            await caller.leaves()
            events = await stage.home.over(caller.sid)
            after = await kept_by_temporal(encrypts, workflow_id)
    assert "nurse" not in readable(after)
    assert after.count(b"binary/encrypted") > 5
    assert len({e.bridge_id for e in events if e.type == "session_opened"}) == 2
    assert [e.type for e in events if e.type in ("error", "gap")] == []
    said = turns(events)
    assert said[:3] == [GREETING, "the first penicillin", "You said the first penicillin."]
    assert said[-2:] == ["then the nurse", "You said then the nurse."]
    assert "the first penicillin" in str(openai.answered[-1]["input"])
