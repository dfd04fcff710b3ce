"""A whole Stayline in one test process: real Temporal, worker, bridge and lab carrier; vendors played by fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError, RPCStatusCode

from activities.records import RecordActivities
from media_bridge.bridge import Bridge
from stayline.agent import Agent
from stayline.dev_server import DevServer
from stayline.lab.carrier import LabCarrier
from stayline.lab.place import LabResult, call_with_script
from stayline.lab.script import parse_script
from stayline.names import call_workflow_id
from stayline.ports import free_port
from stayline.settings import Settings, TwilioCredentials
from stayline.timeline import CallSnapshot, TimelineEntry
from stayline.worker import build_worker
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_speech import OpenAIVoice
from tests.whole_call.puppet import Puppet

ACCOUNT = "AC" + "0" * 32
TOKEN = "lab-auth-token"


class House:
    """What a test needs of a running Stayline."""

    def __init__(self, client: Client, settings: Settings, carrier: LabCarrier, bridges: list[Bridge]) -> None:
        self.client = client
        self.settings = settings
        self.carrier = carrier
        self.bridges = bridges

    @property
    def bridge(self) -> Bridge:
        return self.bridges[0]

    async def call(self, steps: Sequence[Any], *, max_seconds: float = 40, to: str = "+15550100002") -> LabResult:
        """Place a call with a scripted caller and wait for its end."""
        return await call_with_script(
            self.carrier, parse_script(list(steps)), to_number=to, max_seconds=max_seconds
        )

    async def ringing(self, steps: Sequence[Any], **options: Any) -> tuple[str, asyncio.Task[LabResult]]:
        """Begin a call; returns its SID and the task that holds it."""
        seen = len(self.carrier.log.of("answered"))
        task = asyncio.create_task(self.call(steps, **options))
        event = await self.carrier.log.wait_for("answered", count=seen + 1, timeout=20)
        return event.call_sid, task

    async def snapshot(self, call_id: str) -> CallSnapshot:
        handle = self.client.get_workflow_handle(call_workflow_id(call_id))
        snapshot: CallSnapshot = await handle.query("snapshot", result_type=CallSnapshot)
        return snapshot

    async def timeline(self, call_id: str) -> list[Any]:
        """The events of the call, in order."""
        handle = self.client.get_workflow_handle(call_workflow_id(call_id))
        entries = await handle.query("timeline", 0, result_type=list[TimelineEntry])
        return [entry.event for entry in entries]

    async def over(self, call_id: str) -> list[Any]:
        """Wait for the workflow's end, then its events."""
        async with asyncio.timeout(30):
            await self.client.get_workflow_handle(call_workflow_id(call_id)).result()
        return await self.timeline(call_id)

    async def until(self, call_id: str, kind: str, count: int = 1) -> list[Any]:
        """Wait until the timeline holds so many events of a type. The call may not have been admitted yet."""
        async with asyncio.timeout(30):
            while True:
                try:
                    events = await self.timeline(call_id)
                except RPCError as error:
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
                    events = []
                if sum(event.type == kind for event in events) >= count:
                    return events
                await asyncio.sleep(0.05)


@asynccontextmanager
async def house(
    client: Client, directory: Path, *agents: Agent, bridges: int = 1, **settings: Any
) -> AsyncIterator[House]:
    """Start everything; the agents' providers are whatever they name, at origins from the environment."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    named = {agent.named(f"agent{number}").name: agent for number, agent in enumerate(agents)}
    async with LabCarrier(url, ACCOUNT, TOKEN) as carrier:
        twilio = TwilioCredentials(
            account_sid=ACCOUNT, auth_token=TOKEN, base_url=carrier.rest_url, phone_number="+15550100002"
        )
        values = Settings(
            listen_addr=f"127.0.0.1:{port}",
            data_dir=directory,
            carrier="lab",
            reuse_port=True,
            drain_timeout=1,
            **settings,
        )
        async with RecordActivities(values.database) as records:
            worker = build_worker(client, named, values, [records.save_call], credentials=twilio)
            async with worker:
                running = [Bridge(values, twilio, named, client) for _ in range(bridges)]
                for bridge in running:
                    await bridge.start()
                try:
                    async with asyncio.timeout(20):
                        for bridge in running:
                            await bridge.leased.wait()
                    yield House(client, values, carrier, running)
                finally:
                    for bridge in running:
                        await bridge.stop()


@asynccontextmanager
async def vendors(
    monkeypatch: Any, hears: Sequence[str], reply: Any, *, ms_per_char: float = 60
) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Deepgram, OpenAI and ElevenLabs as fakes, with their origins and keys in the environment.

    Whichever of them listens hears the same script.
    """
    speech = OpenAIVoice(ms_per_char=ms_per_char)
    async with (
        FakeDeepgram(ms_per_char=ms_per_char) as deepgram,
        FakeOpenAI(reply, speech=speech.endpoint, realtime=speech.session) as openai,
        FakeElevenLabs(ms_per_char=ms_per_char) as elevenlabs,
    ):
        openai.hears += hears
        deepgram.script = elevenlabs.scribe.script = openai.hears
        for name, fake, key in (
            ("DEEPGRAM", deepgram, deepgram.api_key),
            ("OPENAI", openai, openai.key),
            ("ELEVENLABS", elevenlabs, elevenlabs.api_key),
        ):
            monkeypatch.setenv(f"{name}_BASE_URL", fake.url)
            monkeypatch.setenv(f"{name}_API_KEY", key)
        yield deepgram, openai, elevenlabs


class Scene:
    """A house, its vendors, and callers on strings."""

    def __init__(self, home: House, deepgram: FakeDeepgram, openai: FakeOpenAI, elevenlabs: FakeElevenLabs) -> None:
        self.home = home
        self.carrier = home.carrier
        self.deepgram = deepgram
        self.openai = openai
        self.elevenlabs = elevenlabs
        self._floor = asyncio.Lock()

    def caller(self) -> Puppet:
        return Puppet(self.deepgram, self._floor)

    async def attached(self, to: str = "+15550100002") -> Puppet:
        """A caller whose call has a session."""
        caller = self.caller()
        await caller.ring(self.carrier, to)
        await self.carrier.log.wait_for("stream_opened", call_sid=caller.sid, timeout=20)
        await self.home.until(caller.sid, "session_opened")
        return caller

    async def greeted(self, to: str = "+15550100002") -> Puppet:
        """A caller who has heard the greeting."""
        caller = self.caller()
        await caller.ring(self.carrier, to)
        await caller.hears_out()
        return caller

    def cut_recogniser(self, call_id: str) -> None:
        """Cut the connection between the call and its recogniser."""
        for listener in self.deepgram.listened:
            if call_id in listener.recorded.param("tag"):
                listener.socket.abort()

    def asked_of_model(self, call_id: str) -> list[list[dict[str, Any]]]:
        """The messages of each request to the language model for this call."""
        return [b["input"] for b in self.openai.answered if b["metadata"]["call_id"] == call_id]


@asynccontextmanager
async def scene(
    client: Client,
    directory: Path,
    *agents: Agent,
    reply: Any = None,
    ms_per_char: float = 30,
    bridges: int = 1,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """A house whose vendors are fakes; the model repeats what it is told unless `reply` says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        async with (
            vendors(patch, [], reply, ms_per_char=ms_per_char) as (deepgram, openai, elevenlabs),
            house(client, directory, *agents, bridges=bridges, **settings) as home,
        ):
            yield Scene(home, deepgram, openai, elevenlabs)


async def client_of(server: DevServer) -> Client:
    """A client made in the loop of whoever asks, for fixtures that outlive a test."""
    return await Client.connect(server.address, data_converter=pydantic_data_converter)


def vendor_agent(**settings: Any) -> Agent:
    """An agent on the three vendors of the README."""
    values: dict[str, Any] = {
        "stt": "deepgram/nova-3",
        "llm": "openai/gpt-6-luna",
        "tts": "elevenlabs/eleven_flash_v2_5",
        "voice": "21m00Tcm4TlvDq8ikWAM",
        "greeting": "Hello! How can I help?",
        **settings,
    }
    return Agent(**values)
