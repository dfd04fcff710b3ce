"""`docs/from-the-guide.md`: it has all that the guide has, its tables are the code's, its gateways take calls."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from temporalio.client import Client

from media_bridge.live_events import LiveKind
from stayline import Gateway, GatewayConfig, Session
from stayline.catalog import PROVIDERS
from stayline.gateway import EventType, events
from stayline.lab.carrier import LabCarrier
from stayline.ports import free_port
from stayline.retired import RETIRED
from tests.docs.execute import running
from tests.docs.markdown import ROOT, checked_tables
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.deepgram import FakeDeepgram
from tests.fakes.elevenlabs import FakeElevenLabs
from tests.fakes.gemini import FakeGemini
from tests.fakes.llm import Call, Say
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime import VoiceModel
from tests.stayline.gateway.embedded import eventually
from tests.whole_call.house import ACCOUNT, TOKEN
from tests.whole_call.puppet import Puppet

PAGE = ROOT / "docs" / "from-the-guide.md"
TEXT = PAGE.read_text(encoding="utf-8")
TABLES = {table.what: table for table in checked_tables() if table.file == PAGE}
QUESTION = "Is it open?"

NAMES = """
PipelineModeText PipelineModeRealtime gateway.New gateway.Config
AccountSID AuthToken PhoneNumber PublicURL ListenAddr STTProvider STTAPIKey STTModel STTLanguage
LLMProvider LLMAPIKey LLMModel LLMSystemPrompt LLMClient TTSProvider TTSAPIKey TTSVoiceID
Mode RealtimeProvider RealtimeConfig Provider APIKey Model Voice Instructions
Tools ToolHandlers ToolDefinition ToolHandler Name Description Parameters Greeting MaxSessionDuration
InterruptionMode immediate after_sentence disabled
gw.OnCall gw.Start gw.GetSession gateway.CallInfo call.From call.To session.Events session.Metrics
EventSessionStarted EventUserTranscript EventAgentTranscript EventToolCall EventInterruption EventSessionEnded
EventError event.Type event.Data event.Error Duration UserTurnCount AgentTurnCount InterruptionCount
openaiRealtime.NewFactory googleRealtime.NewFactory omnillm-core omnillm.NewClient ClientConfig ProviderConfig
ProviderNameAnthropic omnivoice.GetGatewayProvider registry.WithAPIKey registry.WithExtension WithExtension
accountSID phoneNumber publicURL listenAddr gateway.WithTools gateway.WithToolHandlers gateway.WithLLMClient
gateway.WithRealtimeProviderFactory gateway.WithRealtimeConfig gateway.GatewayWrapper .Gateway()
nova-2 whisper-1 scribe aura 21m00Tcm4TlvDq8ikWAM alloy echo fable onyx nova shimmer
claude-sonnet-4 claude-opus-4 claude-sonnet-4-20250514 gpt-4o gpt-4-turbo
gpt-4o-realtime-preview-2024-12-17 gemini-2.0-flash-live Puck Charon Kore Fenrir Aoede
TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN DEEPGRAM_API_KEY OPENAI_API_KEY ANTHROPIC_API_KEY ELEVENLABS_API_KEY
GOOGLE_API_KEY get_weather schedule_appointment
"""
GUIDE = NAMES.split()
"""Every name that the guide uses."""


# --- what is written ------------------------------------------------------------------------------------


def test_every_name_of_the_guide_is_there() -> None:
    assert [name for name in GUIDE if not re.search(rf"(?<![\w.]){re.escape(name)}", TEXT)] == []


def test_the_tests_that_are_named_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 25
    for path, test in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {test}\(", source, flags=re.MULTILINE), f"{path}::{test}"
    assert re.findall(r"^\| W(\d+):", TEXT, flags=re.MULTILINE) == [str(number) for number in range(1, 17)]


def test_retired_names_are_those_of_the_code() -> None:
    for name, (on, use) in TABLES["retired"].rows.items():
        assert (RETIRED[name].on or "–", RETIRED[name].use) == (on, use), name
    named = {f"{vendor}/{model}" for vendor in PROVIDERS for model in GUIDE}
    assert named & set(RETIRED) == set(TABLES["retired"].rows)


def test_events_are_those_of_the_code() -> None:
    rows = TABLES["events"].rows
    assert list(rows) == [kind.value for kind in EventType]
    live = {kind for group in get_args(LiveKind) for kind in get_args(group) or (group,)}
    for kind, (name, data, when) in rows.items():
        event = getattr(events, name)
        assert event.type == kind
        held = get_type_hints(event, vars(events))["data"]
        for shown in re.findall(r"\w+", data.partition(":")[2]):
            if dataclasses.is_dataclass(held):
                assert shown in {field.name for field in dataclasses.fields(held)} or hasattr(held, shown), kind
            elif get_args(held):
                assert shown in get_args(held), kind
        assert when.startswith("live") == (kind in live), kind


# --- calls ----------------------------------------------------------------------------------------------


class Place:
    """The page after all its blocks have run, its vendors played by fakes, and a carrier to call it."""

    def __init__(self, page: dict[str, Any], client: Client, directory: Path, deepgram: FakeDeepgram) -> None:
        self.page = page
        self.anthropic: FakeAnthropic
        self.openai: FakeOpenAI
        self.gemini: FakeGemini
        self.carrier: LabCarrier
        self._client = client
        self._directory = directory
        self._deepgram = deepgram
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def here(self, name: str) -> Gateway:
        """A gateway of the page, moved to this machine: another address, and the lab for a carrier."""
        written: Gateway = self.page[name]
        fields = {field: getattr(written.config, field) for field in written.config.model_fields_set}
        fields |= {
            "account_sid": ACCOUNT,
            "auth_token": TOKEN,
            "public_url": self.url,
            "listen_addr": self.url.removeprefix("http://"),
            "carrier": "lab",
            "temporal_client": self._client,
            "settings": {"data_dir": self._directory, "drain_timeout": 1},
        }
        moved = Gateway(GatewayConfig(**fields))
        if written.agent.policy is not None:
            moved.on_call(written.agent.policy)
        self.page["gateway"] = moved  # what the page's functions speak of
        return moved

    async def rings(self, gateway: Gateway) -> Puppet:
        """A caller whom the agent hears."""
        caller = Puppet(self._deepgram, asyncio.Lock())
        await caller.ring(self.carrier)
        await self.carrier.log.wait_for("stream_opened", call_sid=caller.sid, timeout=30)

        async def active() -> bool:
            session = await gateway.get_session(caller.sid)
            return session is not None and session.snapshot.status == "active"

        await eventually(active)
        return caller


@asynccontextmanager
async def place(client: Client, directory: Path, reply: Any = None) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        voice = VoiceModel(hears=[QUESTION], ms_per_char=30)
        deepgram = await stack.enter_async_context(FakeDeepgram(ms_per_char=30))
        anthropic = await stack.enter_async_context(FakeAnthropic(reply))
        openai = await stack.enter_async_context(FakeOpenAI(realtime=voice))
        elevenlabs = await stack.enter_async_context(FakeElevenLabs(ms_per_char=30))
        gemini = await stack.enter_async_context(FakeGemini(lines=[QUESTION], ms_per_char=30))
        for name, url, key in (
            ("DEEPGRAM", deepgram.url, deepgram.api_key),
            ("ANTHROPIC", anthropic.url, anthropic.key),
            ("OPENAI", openai.url, openai.key),
            ("ELEVENLABS", elevenlabs.url, elevenlabs.api_key),
            ("GOOGLE", gemini.url, gemini.api_key),
        ):
            patch.setenv(f"{name}_BASE_URL", url)
            patch.setenv(f"{name}_API_KEY", key)
        patch.setenv("TWILIO_ACCOUNT_SID", ACCOUNT)
        patch.setenv("TWILIO_AUTH_TOKEN", TOKEN)
        patch.chdir(directory)
        found = Place(stack.enter_context(running(PAGE)), client, directory, deepgram)
        found.anthropic, found.openai, found.gemini = anthropic, openai, gemini
        found.carrier = await stack.enter_async_context(LabCarrier(found.url, ACCOUNT, TOKEN))
        patch.setenv("TWILIO_BASE_URL", found.carrier.rest_url)
        yield found


async def said(session: Session) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in await session.transcript()]


async def test_the_quick_start(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with place(client, tmp_path) as here:
        gateway = here.here("gateway")
        program = asyncio.create_task(here.page["main"]())

        async def listening() -> bool:
            return bool(gateway.url)

        await eventually(listening)
        caller = await here.rings(gateway)
        following = asyncio.create_task(here.page["follow"](caller.sid))
        await caller.asks("good morning")
        await caller.leaves()
        await asyncio.wait_for(following, 30)
        unwelcome = await here.carrier.place_call("+15550100", "+15550100002")
        await asyncio.wait_for(unwelcome.wait(), 30)
        assert unwelcome.streams == 0
        await gateway.stop()
        await asyncio.wait_for(program, 30)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "Call from +15550100001 to +15550100002",
        "Call connected",
        "User: good morning",
        "Agent: You said: good morning",
        "Call ended",
        "Call from +15550100 to +15550100002",
    ]


@pytest.mark.parametrize("name", ["realtime_gateway", "gemini_gateway"])
async def test_the_realtime_gateways_hear_and_answer(client: Client, tmp_path: Path, name: str) -> None:
    async with place(client, tmp_path) as here, here.here(name) as gateway:
        caller = await here.rings(gateway)
        await caller.say(None, ms=800)  # what it says is the fakes' affair
        await caller.hears()
        await caller.hears_out()
        await caller.leaves()
        session = await gateway.get_session(caller.sid)
        assert session is not None
        (user, words), (agent, answer) = await said(session)
        assert (user, words, agent) == ("user", QUESTION, "agent")
        assert QUESTION in answer
        assert session.snapshot.mode == "realtime"


@pytest.mark.parametrize("name", ["injected_gateway", "parrot_gateway", "polite_gateway"])
async def test_the_other_gateways_take_calls(client: Client, tmp_path: Path, name: str) -> None:
    async with place(client, tmp_path) as here, here.here(name) as gateway:
        caller = await here.rings(gateway)
        if name == "polite_gateway":
            await caller.hears_out()
        await caller.asks("good morning")
        await caller.leaves()
        session = await gateway.get_session(caller.sid)
        assert session is not None
        turns = await said(session)
        assert turns[-1][1].removesuffix(".").replace(":", "") == "You said good morning"
        assert len(turns) == (3 if name == "polite_gateway" else 2)
        assert len(here.anthropic.answered) == (0 if name == "parrot_gateway" else 1)


def by_tools(body: dict[str, Any]) -> Sequence[Any]:
    content = body["messages"][-1]["content"]
    for block in content if isinstance(content, list) else ():
        if block.get("type") == "tool_result":
            return [Say(str(block["content"]).strip('"'))]
    if "weather" in str(content):
        return [Call("get_weather", {"location": "Boston"})]
    return [Call("schedule_appointment", {"date": "2026-12-01", "time": "10:00"})]


async def test_the_guides_tools(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with place(client, tmp_path, by_tools) as here, here.here("tools_gateway") as gateway:
        caller = await here.rings(gateway)
        await caller.asks("weather")
        await caller.asks("tomorrow at ten")
        await caller.leaves()
        await here.page["follow"](caller.sid)
        assert await here.page["cut_short"](caller.sid) == []
    printed = capsys.readouterr().out
    assert "Tool called: get_weather It's 72°F and sunny in Boston" in printed
    assert f"booking once: call-{caller.sid}:" in printed
    assert "Tool called: schedule_appointment Appointment scheduled successfully" in printed


async def test_the_guides_numbers_are_true(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "There is much to say about that, and I shall say it slowly, one thing after the other. " * 3
    async with (
        place(client, tmp_path, lambda body: [Say(long)]) as here,
        here.here("polite_gateway") as gateway,
    ):
        caller = await here.rings(gateway)
        await caller.hears_out()
        await caller.say("tell me")
        await caller.hears()
        await caller.begin("stop")
        await caller.until(lambda: caller.clears > 0 and not caller.speaking)
        await caller.hears(300)
        await caller.leaves()
        await here.page["report"](caller.sid)
        (cut, *_) = await here.page["cut_short"](caller.sid)
        heard, generated = cut.split(" | ")
        assert long.startswith(heard)
        assert generated.startswith(heard)
        session = await gateway.get_session(caller.sid)
        assert session is not None
        turns = await said(session)
    printed = capsys.readouterr().out
    assert [role for role, _ in turns].count("user") == 2
    assert "User turns: 2" in printed
    assert f"Agent turns: {[role for role, _ in turns].count('agent')}" in printed
    assert "Interruptions: 1" in printed


async def test_the_page_steers_and_places_calls(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with place(client, tmp_path) as here, here.here("polite_gateway") as gateway:
        caller = await here.rings(gateway)
        await caller.hears_out()

        async def listed() -> bool:
            return caller.sid in [session.id for session in await gateway.list_sessions()]

        await eventually(listed)
        await here.page["evening"](gateway)
        await here.carrier.log.wait_for("answered", count=2, timeout=30)
        await caller.hears()
        await caller.hears_out()
        await caller.leaves()
        session = await gateway.get_session(caller.sid)
        assert session is not None
        assert ("agent", "We close in five minutes.") in await said(session)
        placed = await gateway.get_session("out-reminder-4711")
        assert placed is not None
        assert placed.to_number == "+15557654321"
        await placed.close("")
    assert "out-reminder-4711 ringing" in capsys.readouterr().out


async def test_stopping_with_a_live_call(client: Client, tmp_path: Path) -> None:
    async with place(client, tmp_path) as here:
        gateway = here.here("polite_gateway")
        await gateway.start()
        caller = await here.rings(gateway)
        await caller.hears_out()
        session = await gateway.get_session(caller.sid)
        assert session is not None
        reader = session.events()
        first = await anext(reader)
        stopping = asyncio.create_task(gateway.stop())
        await asyncio.wait_for(caller.call.wait(), 60)
        await asyncio.wait_for(stopping, 60)
        assert first.type == "session_started"
        assert caller.call.ended_by != "caller"
