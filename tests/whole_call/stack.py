"""A whole Stayline as real processes, so that they can be killed: the test plays the vendors and the carrier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from activities.records_db import CallStore
from stayline.commands.local import LabAccount, LocalStack
from stayline.commands.processes import Child
from stayline.lab.call import Behaviour
from stayline.lab.carrier import LabCarrier
from stayline.names import call_workflow_id
from stayline.ports import free_port
from stayline.settings import Settings
from stayline.timeline import AgentTurn, CallRecord, CallSnapshot, TimelineEntry, UserTurn
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.llm import Call, Part, Say
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime import VoiceModel
from tests.whole_call import agents
from tests.whole_call.puppet import Puppet

AGENT = f"{agents.__file__}:agent"
VOICE_AGENT = f"{agents.__file__}:voice_agent"
LONG = "This is a long answer. " * 12
PATIENCE = 40.0


def answer(body: dict[str, Any]) -> Sequence[Part]:
    """What the model says: it repeats, except that it books when asked to, and can be asked for a long answer."""
    last = body["input"][-1]
    if last.get("role") == "developer":  # a note; what the caller said before it may still want an answer
        last = body["input"][-2]
    if last.get("type") == "function_call_output":
        return [Say(f"Done: {last['output']}.")]
    if last.get("role") != "user":
        return [Say("Please go on.")]
    said = str(last["content"])
    if said.startswith("book "):
        return [Call("book", {"what": said.removeprefix("book ")})]
    if said == "tell me everything":
        return [Say(LONG)]
    return [Say(f"You said {said}.")]


class Stack:
    """What a test needs of a running Stayline made of processes."""

    def __init__(
        self,
        processes: LocalStack,
        carrier: LabCarrier,
        folder: Path,
        deepgram: FakeDeepgram,
        openai: FakeOpenAI,
        elevenlabs: FakeElevenLabs,
    ) -> None:
        self.processes = processes
        self.carrier = carrier
        self.folder = folder
        self.deepgram = deepgram
        self.openai = openai
        self.elevenlabs = elevenlabs
        self._floor = asyncio.Lock()

    def caller(self) -> Puppet:
        return Puppet(self.deepgram, self._floor)

    @property
    def alive(self) -> list[str]:
        """The names of the bridges that run."""
        return [name for name, child in self.processes.bridges.items() if child.pid]

    async def bridge(self) -> str:
        """Start one more bridge and wait until it takes calls."""
        name = f"b{len(self.processes.bridges) + 1}"
        await logged(await self.processes.start_bridge(name), "bridge_started")
        return name

    async def kill_bridge(self, name: str) -> None:
        child = self.processes.bridges[name]
        child.kill()
        await child.wait()

    async def greeted(self) -> Puppet:
        """A caller who has heard the greeting."""
        caller = self.caller()
        await caller.ring(self.carrier)
        await caller.hears_out()
        return caller

    async def snapshot(self, call_id: str) -> CallSnapshot:
        handle = self.processes.client.get_workflow_handle(call_workflow_id(call_id))
        snapshot: CallSnapshot = await handle.query("snapshot", result_type=CallSnapshot)
        return snapshot

    async def timeline(self, call_id: str) -> list[TimelineEntry]:
        handle = self.processes.client.get_workflow_handle(call_workflow_id(call_id))
        entries: list[TimelineEntry] = await handle.query("timeline", 0, result_type=list[TimelineEntry])
        return entries

    async def until(self, call_id: str, kind: str, count: int = 1) -> None:
        """Wait until the timeline holds so many events of a type."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if sum(e.event.type == kind for e in await self.timeline(call_id)) >= count:
                    return
                await asyncio.sleep(0.1)

    async def record(self, call_id: str) -> CallRecord:
        """The call's record in the database, once its workflow has ended."""
        async with asyncio.timeout(PATIENCE):
            await self.processes.client.get_workflow_handle(call_workflow_id(call_id)).result()
        async with CallStore(self.processes.settings.database) as store:
            record = await store.get_call(call_id)
        assert record is not None
        assert record.final
        return record

    def booked(self, call_id: str) -> list[str]:
        """The keys of the bookings that this call made."""
        file = agents.effects(self.folder)
        keys = file.read_text().split() if file.exists() else []
        return [key for key in keys if call_id in key]


def turns(record: CallRecord) -> list[tuple[str, str]]:
    """Who said what, in order; asides (cut off, one moment) left out."""
    return [
        ("caller" if isinstance(entry.event, UserTurn) else "agent", entry.event.text)
        for entry in record.timeline
        if isinstance(entry.event, UserTurn)
        or (isinstance(entry.event, AgentTurn) and entry.event.source in ("greeting", "reply", "goodbye"))
    ]


async def logged(child: Child, *words: str) -> None:
    """Wait until one of these stands in the child's log."""
    async with asyncio.timeout(90):
        while not (child.log.exists() and any(word in child.log.read_text() for word in words)):
            child.check()
            await asyncio.sleep(0.1)


async def contains(path: Path, *words: str) -> None:
    """Wait until the file is there and holds all of these."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if path.exists() and all(word in path.read_text() for word in words):
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def stack(
    folder: Path,
    *,
    bridges: int = 1,
    behaviour: Behaviour | None = None,
    agent: str = AGENT,
    voice: VoiceModel | None = None,
    **extra: str,
) -> AsyncIterator[Stack]:
    """Start Temporal, a worker and bridges as processes that use the fakes of this process.

    Args:
        folder: for data and for what the tools leave.
        voice: OpenAI's voice-to-voice model, for an agent that uses it.
        extra: further environment of the processes.
    """
    settings = Settings(data_dir=folder, carrier="lab")
    account = LabAccount.of(folder)
    address = f"127.0.0.1:{free_port()}"
    async with (
        FakeDeepgram() as deepgram,
        FakeOpenAI(answer, realtime=voice) as openai,
        FakeElevenLabs(ms_per_char=40) as elevenlabs,
        LabCarrier(f"http://{address}", account.account_sid, account.auth_token, behaviour=behaviour) as carrier,
    ):
        environment = {
            agents.FOLDER: str(folder),
            "DEEPGRAM_BASE_URL": deepgram.url,
            "DEEPGRAM_API_KEY": deepgram.api_key,
            "OPENAI_BASE_URL": openai.url,
            "OPENAI_API_KEY": openai.key,
            "ELEVENLABS_BASE_URL": elevenlabs.url,
            "ELEVENLABS_API_KEY": elevenlabs.api_key,
            **extra,
        }
        processes = LocalStack(
            settings,
            [agent],
            account,
            carrier.rest_url,
            bridges=bridges,
            listen_addr=address,
            temporal_port=0,  # 7233 would go to another test's server while this one's is dead
            extra=environment,
        )
        async with processes:
            await processes.start_temporal()
            await processes.start_worker()
            await processes.start_bridges()
            await processes.ready()
            yield Stack(processes, carrier, folder, deepgram, openai, elevenlabs)


def story(record: CallRecord) -> str:
    """The timeline as lines, for a reader of a failed test."""
    return "\n".join(f"{e.session} {e.event.model_dump(exclude_defaults=True)}" for e in record.timeline)
