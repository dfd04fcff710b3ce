"""The demo's call, by ear: each of the caller's lines is spoken, heard through the phone line's codec, and must
lead where the scenario means it to. Also the demo's tools."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
import yaml

from media_bridge.audio import mulaw
from media_bridge.providers.base import EndOfTurn, ProviderConfig
from media_bridge.providers.offline.dialog import decide
from media_bridge.providers.offline.moonshine import MoonshineStt
from media_bridge.providers.offline.scenario_file import load_scenario
from stayline.errors import ToolError
from stayline.models import AgentMessage, CallInfo, Message, ToolMessage, UserMessage
from stayline.tools import BUILTIN_TOOLS, ToolContext
from tests.media_bridge.audio.voices import spoken
from tests.media_bridge.providers.speech import hear, talk

DEMO = Path(__file__).resolve().parents[3] / "examples/demo"
SCENARIO = load_scenario(DEMO / "scenario.yaml")


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_agent", DEMO / "agent.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_agent_has_the_tools_of_its_scenario(demo: ModuleType) -> None:
    spec = demo.agent.spec()
    assert SCENARIO.tools_used - BUILTIN_TOOLS == {tool.name for tool in spec.tools}
    transfers = {s.transfer for s in SCENARIO.states.values() if s.transfer}
    assert transfers == set(spec.transfers)
    assert Path(spec.options["llm"]["scenario"]).is_absolute()


# --- by ear ---


@pytest_asyncio.fixture
async def stt() -> AsyncIterator[MoonshineStt]:
    if importlib.util.find_spec("moonshine_voice") is None:
        pytest.skip("the extra `offline` is not installed")
    stt = MoonshineStt(ProviderConfig("offline", "moonshine"))
    await stt.warm()
    yield stt


async def test_every_line_of_the_caller_is_understood(stt: MoonshineStt) -> None:
    lines = [step["say"] for step in yaml.safe_load((DEMO / "caller.yaml").read_text(encoding="utf-8"))]
    stream = await stt.connect(call_id="CA1")
    messages: list[Message] = []
    went: list[str] = []
    for line in lines:
        await talk(stream, spoken(line) + mulaw.silence(1000))
        [turn] = [e for e in await hear(stream, EndOfTurn) if isinstance(e, EndOfTurn)]
        messages.append(UserMessage(text=turn.text, confidence=turn.confidence))
        went += _answer(messages)
    await stream.aclose()
    assert went == [
        "ask_number",
        "look_up {'number': '74291'}",
        "anything_else",
        "reschedule {'number': '74291', 'day': 'Saturday'}",
        "anything_else",
        "anything_else",
        "goodbye",
    ]


def _answer(messages: list[Message]) -> list[str]:
    """Reply, and run tools, until the caller is heard again."""
    results: dict[str, Any] = {
        "lookup_order": {"found": True, "item": "coffee grinder", "shipped": "Tuesday", "arrives": "Friday"},
        "reschedule_delivery": {"number": "74291", "day": "Saturday"},
    }
    went: list[str] = []
    while True:
        due = decide(SCENARIO, messages)
        messages.append(AgentMessage(text=due.text, tool_calls=due.tool_calls))
        if not due.tool_calls or due.tool_calls[0].name == "end_call":
            return [*went, due.state]
        [call] = due.tool_calls
        went.append(f"{due.state} {call.arguments}")
        content = json.dumps(results[call.name])
        messages.append(ToolMessage(tool_call_id=call.id, name=call.name, content=content))


# --- its tools ---


@pytest.fixture(autouse=True)
def book(demo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The carrier's book; and nobody waits for warehouse or carrier."""
    path = tmp_path / "deliveries.jsonl"
    monkeypatch.setenv("DEMO_DELIVERIES", str(path))
    monkeypatch.setattr(demo, "WAREHOUSE_SECONDS", 0)
    monkeypatch.setattr(demo, "CARRIER_SECONDS", 0)
    return path


def context(attempt: int = 1, key: str = "call-CA1/t1") -> ToolContext:
    call = CallInfo(call_id="CA1", from_number="", to_number="", started_at=datetime(2026, 1, 1, tzinfo=UTC))
    return ToolContext(call, "t1", key, attempt, heartbeat=lambda *details: None)


async def test_the_warehouse_answers_at_the_third_attempt(demo: ModuleType) -> None:
    tool = demo.agent.tools["lookup_order"]
    for attempt in (1, 2):
        with pytest.raises(ToolError, match="503") as failed:
            await tool.run({"number": "74291"}, context(attempt))
        assert failed.value.retryable
    assert tool.spec.max_attempts >= 3
    found = await tool.run({"number": "74291"}, context(3))
    assert set(SCENARIO.tools["lookup_order"].returns) == set(found)
    assert await tool.run({"number": "11111"}, context(3)) == {"found": False}


async def test_a_delivery_is_moved_once_however_often_it_is_tried(demo: ModuleType, book: Path) -> None:
    tool = demo.agent.tools["reschedule_delivery"]
    for attempt in (1, 2):
        moved = await tool.run({"number": "74291", "day": "Saturday"}, context(attempt))
        assert moved == {"number": "74291", "day": "Saturday"}
    await tool.run({"number": "74291", "day": "Monday"}, context(1, key="call-CA1/t2"))
    lines = [json.loads(line) for line in book.read_text(encoding="utf-8").splitlines()]
    assert [(line["key"], line["day"]) for line in lines] == [
        ("call-CA1/t1", "Saturday"),
        ("call-CA1/t2", "Monday"),
    ]
