"""A call from Twilio's webhook to the workflow's record, with every vendor at the other end of a real socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stayline import tool
from temporalio.client import Client

from tests.fakes.llm import Call, Say
from tests.whole_call.house import house, vendor_agent, vendors


@tool(retries=3, backoff=0.1)
async def get_weather(location: str) -> str:
    """Get the weather."""
    return f"It is sunny in {location}."


def answer(body: dict[str, Any]) -> list[Any]:
    """Uses the weather tool once, then tells the result."""
    items = body["input"]
    if items[-1].get("type") == "function_call_output":
        return [Say("The weather: " + items[-1]["output"])]
    return [Call("get_weather", {"location": "Boston"})]


async def test_a_call_through_three_vendors(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vendors(monkeypatch, ["what is the weather in Boston"], answer) as (deepgram, openai, elevenlabs):
        async with house(client, tmp_path, vendor_agent(tools=[get_weather])) as home:
            result = await home.call([{"say": "What is the weather in Boston?"}, {"hang_up": True}])
            events = await home.over(result.call_sid)
            snapshot = await home.snapshot(result.call_sid)
    assert [
        (e.type, e.text)
        for e in events
        if e.type in ("user_turn", "agent_turn") and getattr(e, "source", "") != "filler"
    ] == [
        ("agent_turn", "Hello! How can I help?"),
        ("user_turn", "what is the weather in Boston"),
        ("agent_turn", 'The weather: "It is sunny in Boston."'),
    ]
    assert snapshot.outcome == "caller_hung_up"
    assert snapshot.metrics.tool_call_count == 1
    assert snapshot.metrics.session_count == 1
    assert (tmp_path / "recordings" / f"{result.call_sid}-1.wav").stat().st_size > 44
