"""Calls with a voice-to-voice model, from the carrier's webhook to the record, with the vendor on a real socket."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.client import Client

from stayline import Agent, telemetry, tool
from stayline.dev_server import DevServer
from stayline.settings import Settings
from stayline.telemetry import attributes as attr
from stayline.temporal import connect
from stayline.timeline import AgentTurn, CallError, Interruption, LimitReached, ProviderChanged, Usage, UserTurn
from tests.fakes.gemini import FakeGemini
from tests.fakes.llm import Call, Part, Say
from tests.fakes.misbehaviour import disconnect, unauthorized
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime import Asked, VoiceModel
from tests.whole_call.house import House, client_of, house
from tests.whole_call.puppet import Puppet

OPENAI, GOOGLE = "openai/gpt-realtime-2.1", "google/gemini-3.8-live"
STORY = "It was a dark and stormy night. " + "Nobody was on the road. " * 12
MS_PER_CHAR = 40


class Gate:
    """What the slow tool waits for, in the test's own loop."""

    permit: asyncio.Event


@tool(retries=3, backoff=0.1, filler="Let me see.")
async def book(what: str) -> str:
    """Book something."""
    return f"{what} is booked"


@tool(filler="One moment.", attempt_timeout=30)
async def slow(what: str) -> str:
    """Book something, when the test permits it."""
    await Gate.permit.wait()
    return f"{what} is booked"


def think(said: str, result: str) -> Sequence[Part]:
    """What both models answer to what was said last, or to a tool's result."""
    if result:
        return [Say(f"Done: {result}.")]
    if order := re.match(r"(book|slow) (.*)", said):
        return [Call(order[1], {"what": order[2]})]
    return [Say(STORY if said == "tell me everything" else f"You said {said}.")]


class Vendor(ABC):
    """A realtime vendor's fake, as these tests need it."""

    ref: str
    script: list[str]  #: what callers will say

    @abstractmethod
    def memory(self, connection: int = -1) -> list[str]:
        """All that the model knows on a connection, as texts."""

    @abstractmethod
    def cut(self) -> None:
        """Break all connections."""

    @property
    @abstractmethod
    def connections(self) -> int: ...


class OpenAIVendor(Vendor):
    ref = OPENAI

    def __init__(self) -> None:
        self.voice = VoiceModel(self._reply, ms_per_char=MS_PER_CHAR)
        self.fake = FakeOpenAI(realtime=self.voice)
        self.script = self.voice.hears  # type: ignore[assignment]

    @staticmethod
    def _reply(asked: Asked) -> Sequence[Part]:
        if exactly := re.match(r"Say exactly [^:]*: (.*)", asked["instructions"], flags=re.DOTALL):
            return [Say(exactly[1])]
        role, text = asked["memory"][-1]
        said = [text for role, text in asked["memory"] if role == "user"]
        return think(said[-1] if said else "", text if role == "function_call_output" else "")

    def memory(self, connection: int = -1) -> list[str]:
        return [text for _, text in self.voice.sessions[connection].memory]

    def cut(self) -> None:
        for socket in self.fake.sockets:
            socket.abort()

    @property
    def connections(self) -> int:
        return len(self.voice.sessions)


class GoogleVendor(Vendor):
    ref = GOOGLE

    def __init__(self) -> None:
        self.fake = FakeGemini(self._reply, ms_per_char=MS_PER_CHAR)
        self.script = self.fake.lines

    @staticmethod
    def _reply(request: dict[str, Any]) -> Sequence[Part]:
        last = request["contents"][-1]["parts"][-1]
        if "functionResponse" in last:
            return think("", str(last["functionResponse"]["response"]["output"]))
        if told := re.search(r"word for word[^:]*:\s*(.+)$", last["text"], flags=re.DOTALL):
            return [Say(told[1])]
        return think(last["text"], "")

    def memory(self, connection: int = -1) -> list[str]:
        parts = [p for content in self.fake.connections[connection].contents for p in content["parts"]]
        return [part.get("text", "") for part in parts]

    def cut(self) -> None:
        for socket in self.fake.sockets:
            socket.abort()

    @property
    def connections(self) -> int:
        return len(self.fake.connections)


class Stage:
    """A house and its realtime vendors, of which the first is preferred."""

    def __init__(self, home: House, openai: OpenAIVendor, google: GoogleVendor, first: Vendor) -> None:
        self.home = home
        self.openai = openai
        self.google = google
        self.vendor = first
        self._floor = asyncio.Lock()

    def caller(self, vendor: Vendor | None = None) -> Puppet:
        return Puppet(SimpleNamespace(script=(vendor or self.vendor).script), self._floor)  # type: ignore[arg-type]

    async def greeted(self) -> Puppet:
        caller = self.caller()
        await caller.ring(self.home.carrier)
        await caller.hears_out()
        return caller


@asynccontextmanager
async def stage(
    client: Client, folder: Path, *refs: str, bridges: int = 1, **settings: Any
) -> AsyncIterator[Stage]:
    values: dict[str, Any] = {"greeting": "Hello there.", "tools": [book, slow], "record_audio": False, **settings}
    agent = Agent(mode="realtime", realtime=list(refs), **values)
    openai, google = OpenAIVendor(), GoogleVendor()
    with pytest.MonkeyPatch.context() as patch:
        async with openai.fake, google.fake:
            patch.setenv("OPENAI_BASE_URL", openai.fake.url)
            patch.setenv("OPENAI_API_KEY", openai.fake.key)
            patch.setenv("GOOGLE_BASE_URL", google.fake.url)
            patch.setenv("GOOGLE_API_KEY", google.fake.api_key)
            async with house(client, folder, agent, bridges=bridges) as home:
                yield Stage(home, openai, google, openai if refs[0] == OPENAI else google)


def turns(events: Sequence[Any]) -> list[tuple[str, str]]:
    """Who said what, in order; fillers left out."""
    return [
        ("caller" if isinstance(event, UserTurn) else "agent", event.text)
        for event in events
        if isinstance(event, UserTurn) or (isinstance(event, AgentTurn) and event.source != "filler")
    ]


VENDORS = pytest.mark.parametrize("ref", [OPENAI, GOOGLE], ids=["openai", "google"])


@VENDORS
async def test_a_whole_call(client: Client, tmp_path: Path, ref: str) -> None:
    """Greeting, a question with a tool, an interruption, keys, goodbye."""
    async with stage(client, tmp_path, ref) as scene:
        caller = await scene.greeted()
        await caller.asks("book a table")
        await caller.say("tell me everything")
        await caller.hears(1500)
        await caller.asks("no wait")
        caller.press("42#")
        await scene.home.until(caller.sid, "agent_turn", 5)
        await caller.leaves()
        events = await scene.home.over(caller.sid)
        snapshot = await scene.home.snapshot(caller.sid)
        memory = scene.vendor.memory()
    told = turns(events)
    assert told[:4] == [
        ("agent", "Hello there."),
        ("caller", "book a table"),
        ("agent", "Done: " + ('"a table is booked".' if ref == OPENAI else "a table is booked.")),
        ("caller", "tell me everything"),
    ]
    cut = next(e for e in events if isinstance(e, AgentTurn) and e.interrupted)
    assert STORY.startswith(cut.text)
    assert 1500 <= cut.speech_ms <= 3500
    assert told[4] == ("agent", cut.text)
    assert told[5:7] == [("caller", "no wait"), ("agent", "You said no wait.")]
    assert [e.heard for e in events if isinstance(e, Interruption)] == [cut.text]
    assert caller.clears >= 1
    # The model remembers what the caller heard, or was told of it.
    if ref == OPENAI:
        remembered = next(text for text in memory if text.startswith("It was a dark"))
        assert remembered.startswith(cut.text)
        assert len(remembered) - len(cut.text) < 14
    else:
        assert any("You were interrupted" in text and cut.text in text for text in memory) or not any(
            text == STORY for text in memory
        )
    assert any("The caller pressed 42." in text for text in memory)
    # The record is whole.
    assert [e.digit for e in events if e.type == "dtmf"] == ["4", "2", "#"]
    usage = [e for e in events if isinstance(e, Usage)]
    assert {f"{e.provider}/{e.model}" for e in usage} == {ref}
    assert snapshot.metrics.input_tokens == sum(e.input_tokens for e in usage) > 0
    replies = [e for e in events if isinstance(e, AgentTurn) and e.source == "reply" and e.latency is not None]
    answered = [e.latency for e in replies if e.text == "You said no wait."]
    assert answered[0].total_ms is not None
    assert 0 < answered[0].total_ms < 5000
    assert snapshot.outcome == "caller_hung_up"
    assert snapshot.mode == "realtime"
    assert snapshot.metrics.tool_call_count == 1
    assert (snapshot.metrics.user_turn_count, snapshot.metrics.interruption_count) == (3, 1)
    assert [e for e in events if isinstance(e, CallError)] == []


@VENDORS
async def test_a_limit_says_goodbye(client: Client, tmp_path: Path, ref: str) -> None:
    async with stage(client, tmp_path, ref, greeting="Hi.", max_duration=1, limit_text="Time is up.") as scene:
        caller = scene.caller()
        await caller.ring(scene.home.carrier)
        await caller.call.wait()
        events = await scene.home.over(caller.sid)
        snapshot = await scene.home.snapshot(caller.sid)
    assert turns(events) == [("agent", "Hi."), ("agent", "Time is up.")]
    assert [e.limit for e in events if isinstance(e, LimitReached)] == ["duration"]
    assert snapshot.outcome == "duration_limit"
    assert caller.heard_ms >= 300


@VENDORS
async def test_talking_during_a_slow_tool(client: Client, tmp_path: Path, ref: str) -> None:
    Gate.permit = asyncio.Event()
    async with stage(client, tmp_path, ref) as scene:
        caller = await scene.greeted()
        await caller.say("slow table")
        await caller.hears()  # the filler
        await caller.hears_out(500)
        await caller.asks("are you there")
        Gate.permit.set()
        await caller.hears()
        await caller.hears_out(500)
        await caller.leaves()
        events = await scene.home.over(caller.sid)
        snapshot = await scene.home.snapshot(caller.sid)
    said = [text for _, text in turns(events)]
    assert said[1:4] == ["slow table", "are you there", "You said are you there."]
    assert said[4].startswith("Done: ")
    assert [e.text for e in events if isinstance(e, AgentTurn) and e.source == "filler"] == ["One moment."]
    assert snapshot.metrics.tool_call_count == 1


@VENDORS
async def test_another_bridge_takes_up_the_conversation(
    temporal_server: DevServer, tmp_path: Path, ref: str
) -> None:
    client = await client_of(temporal_server)
    async with stage(client, tmp_path, ref, bridges=2, resume_text="Back again.") as scene:
        caller = await scene.greeted()
        await caller.asks("my name is Ann")
        holder = next(bridge for bridge in scene.home.bridges if bridge.sessions)
        [session] = holder.sessions.values()
        await scene.home.until(caller.sid, "agent_turn", 2)
        session._socket._req.transport.abort()  # type: ignore[attr-defined]
        await scene.home.until(caller.sid, "session_opened", 2)
        await caller.hears()
        await caller.hears_out(600)
        await caller.asks("still me")
        await caller.leaves()
        events = await scene.home.over(caller.sid)
        memory = scene.vendor.memory()
    assert turns(events) == [
        ("agent", "Hello there."),
        ("caller", "my name is Ann"),
        ("agent", "You said my name is Ann."),
        ("agent", "Back again."),
        ("caller", "still me"),
        ("agent", "You said still me."),
    ]
    assert [text for text in memory if text in ("my name is Ann", "You said my name is Ann.")] != []
    assert scene.vendor.connections == 2


@VENDORS
async def test_a_connection_lost_in_mid_sentence(client: Client, tmp_path: Path, ref: str) -> None:
    async with stage(client, tmp_path, ref) as scene:
        caller = await scene.greeted()
        await caller.say("tell me everything")
        await caller.hears(800)
        scene.vendor.cut()
        await scene.home.until(caller.sid, "error")
        await caller.asks("are you there")
        await caller.leaves()
        events = await scene.home.over(caller.sid)
        memory = scene.vendor.memory()
    told = turns(events)
    assert told[1] == ("caller", "tell me everything")
    assert STORY.startswith(told[2][1])
    assert told[-2:] == [("caller", "are you there"), ("agent", "You said are you there.")]
    assert [who for who, _ in told].count("caller") == 2
    assert any("tell me everything" in text for text in memory)
    assert [(e.where, e.provider) for e in events if isinstance(e, CallError)] == [("realtime", ref.split("/")[0])]


async def test_a_connection_lost_before_the_vendor_has_ended_its_answer(client: Client, tmp_path: Path) -> None:
    """The words that it had told of are not asked of the caller, nor heard, again."""
    async with stage(client, tmp_path, GOOGLE) as scene:
        caller = await scene.greeted()
        scene.google.fake.pace.hold_after = 10
        await caller.say("tell me everything")
        await caller.hears(500)
        scene.google.fake.pace.hold_after = None
        scene.vendor.cut()
        await scene.home.until(caller.sid, "error")
        await caller.asks("are you there")
        await caller.leaves()
        events = await scene.home.over(caller.sid)
    assert [text for who, text in turns(events) if who == "caller"] == ["tell me everything", "are you there"]


async def test_a_connection_whose_time_is_up_is_renewed_unnoticed(client: Client, tmp_path: Path) -> None:
    async with stage(client, tmp_path, GOOGLE) as scene:
        caller = await scene.greeted()
        await caller.asks("my name is Ann")
        heard = caller.heard_ms
        await scene.google.fake.connections[-1].go_away(30)
        await scene.home.until(caller.sid, "provider_changed")
        assert caller.heard_ms == heard
        await caller.asks("are you there")
        await caller.leaves()
        events = await scene.home.over(caller.sid)
        memory = scene.google.memory()
    assert [(e.role, e.provider, e.why) for e in events if isinstance(e, ProviderChanged)] == [
        ("realtime", GOOGLE, "renewed")
    ]
    assert "handle" in scene.google.fake.connections[1].setup["sessionResumption"]
    assert memory.count("my name is Ann") == 1
    assert [text for who, text in turns(events) if who == "caller"] == ["my name is Ann", "are you there"]
    assert [e for e in events if isinstance(e, CallError)] == []


async def test_a_vendor_that_is_lost_is_replaced_by_the_next(client: Client, tmp_path: Path) -> None:
    async with stage(client, tmp_path, OPENAI, GOOGLE) as scene:
        caller = await scene.greeted()
        await caller.asks("my name is Ann")
        scene.openai.fake.always = unauthorized()
        scene.openai.cut()
        await scene.home.until(caller.sid, "provider_changed")
        heir = scene.caller(scene.google)
        caller._recogniser = heir._recogniser
        await caller.asks("are you there")
        await caller.leaves()
        events = await scene.home.over(caller.sid)
        memory = scene.google.memory()
    assert [(e.role, e.provider, e.why) for e in events if isinstance(e, ProviderChanged)] == [
        ("realtime", GOOGLE, "failed")
    ]
    assert turns(events)[-2:] == [("caller", "are you there"), ("agent", "You said are you there.")]
    assert "my name is Ann" in memory
    assert {e.provider for e in events if isinstance(e, Usage)} == {"openai", "google"}


async def test_when_no_model_is_left_the_carrier_itself_apologises(client: Client, tmp_path: Path) -> None:
    async with stage(client, tmp_path, OPENAI, apology_text="Sorry, we have trouble.") as scene:
        scene.openai.fake.always = disconnect()
        caller = scene.caller()
        await caller.ring(scene.home.carrier)
        async with asyncio.timeout(30):
            await caller.call.wait()
        events = await scene.home.over(caller.sid)
        twiml = scene.home.carrier.log.of("twiml", caller.sid)
    assert [e.data["verb"].text for e in twiml if e.detail == "Say"] == ["Sorry, we have trouble."]
    assert [e for e in events if isinstance(e, AgentTurn)] == []
    assert events[-1].type == "call_ended"


@VENDORS
async def test_one_trace(temporal_server: DevServer, tmp_path: Path, ref: str) -> None:
    exporter = InMemorySpanExporter()
    settings = Settings(data_dir=tmp_path)
    telemetry.configure(settings, "test", exporter=exporter)
    client = await connect(settings, address=temporal_server.address)
    try:
        async with stage(client, tmp_path, ref) as scene:
            caller = await scene.greeted()
            await caller.asks("book a table")
            await caller.leaves()
            await scene.home.over(caller.sid)
        telemetry.flush()
        spans = exporter.get_finished_spans()
    finally:
        telemetry.shutdown()
    call = next(span for span in spans if span.name == attr.SPAN_CALL)
    trace = [span for span in spans if span.context.trace_id == call.context.trace_id]
    names = {span.name for span in trace}
    wanted = {
        attr.SPAN_SESSION,
        attr.SPAN_TURN,
        attr.SPAN_STT,
        attr.SPAN_REALTIME,
        attr.SPAN_TOOL,
        attr.SPAN_PLAYOUT,
    }
    assert wanted <= names, sorted(names)
    model = next(span for span in trace if span.name == attr.SPAN_REALTIME)
    assert model.attributes is not None
    assert model.attributes[attr.PROVIDER] == ref
    said = " ".join(span.to_json() for span in spans)
    assert "a table" not in said
