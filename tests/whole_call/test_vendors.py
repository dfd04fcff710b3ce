"""A call from Twilio's webhook to the workflow's record, with every vendor at the other end of a real socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from stayline import tool
from stayline.timeline import AgentTurn, UserTurn
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.llm import Call, Say
from tests.whole_call.house import house, vendor_agent, vendors


@tool(retries=3, backoff=0.1)
async def get_weather(location: str) -> str:
    """Get the weather."""
    return f"sunny in {location}"


def by_openai(body: dict[str, Any]) -> list[Any]:
    """Uses the weather tool once, then tells its result."""
    last = body["input"][-1]
    if last.get("type") == "function_call_output":
        return [Say(f"It is {last['output']}.")]
    return [Call("get_weather", {"location": "Boston"})]


def by_anthropic(body: dict[str, Any]) -> list[Any]:
    content = body["messages"][-1]["content"]
    results = [block for block in content if isinstance(block, dict) and block.get("type") == "tool_result"]
    if results:
        return [Say(f"It is {results[0]['content']}.")]
    return [Call("get_weather", {"location": "Boston"})]


@pytest.mark.parametrize(
    ("stt", "llm", "tts", "voice"),
    [
        ("deepgram/nova-3", "openai/gpt-6-luna", "elevenlabs/eleven_flash_v2_5", "21m00Tcm4TlvDq8ikWAM"),
        ("deepgram/flux-general-en", "anthropic/claude-haiku-5-5", "deepgram/aura-2-thalia-en", ""),
        ("openai/gpt-transcribe", "openai/gpt-6-luna", "openai/gpt-4o-mini-tts", "nova"),
        ("openai/gpt-live-transcribe", "anthropic/claude-haiku-5-5", "openai/gpt-realtime-2.1-mini", "marin"),
        ("openai/whisper-1", "openai/gpt-6-luna", "deepgram/flux-haley-en", ""),
        ("elevenlabs/scribe_v2_realtime", "openai/gpt-6-luna", "elevenlabs/eleven_v3", "21m00Tcm4TlvDq8ikWAM"),
        ("elevenlabs/scribe_v2", "anthropic/claude-haiku-5-5", "deepgram/aura-2-thalia-en", ""),
    ],
    ids=lambda ref: ref.partition("/")[2] if "/" in ref else "",
)
async def test_a_call_through_three_vendors(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stt: str, llm: str, tts: str, voice: str
) -> None:
    agent = vendor_agent(stt=stt, llm=llm, tts=tts, voice=voice, tools=[get_weather])
    async with (
        FakeAnthropic(by_anthropic) as anthropic,
        vendors(monkeypatch, ["what is the weather in Boston"], by_openai) as (deepgram, _, _),
    ):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", anthropic.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", anthropic.key)
        async with house(client, tmp_path, agent) as home:
            result = await home.call([{"say": "What is the weather in Boston?"}, {"hang_up": True}])
            events = await home.over(result.call_sid)
            snapshot = await home.snapshot(result.call_sid)
        tags = [request.param("tag") for request in deepgram.requests if "/listen" in request.path]
    turns = [e for e in events if isinstance(e, UserTurn) or (isinstance(e, AgentTurn) and e.source != "filler")]
    assert [(turn.type, turn.text) for turn in turns] == [
        ("agent_turn", "Hello! How can I help?"),
        ("user_turn", "what is the weather in Boston"),
        ("agent_turn", 'It is "sunny in Boston".'),
    ]
    assert tags == ([[result.call_sid]] if stt.startswith("deepgram/") else []), "the call can be found there"
    assert snapshot.outcome == "caller_hung_up"
    assert snapshot.metrics.tool_call_count == 1
    assert snapshot.metrics.session_count == 1
    assert (tmp_path / "recordings" / f"{result.call_sid}-1.wav").stat().st_size > 44
