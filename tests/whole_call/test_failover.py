"""A provider fails in mid-call and the next one takes over: what the caller heard, and what the record says.

The agent prefers OpenAI's model and ElevenLabs' voice, and has Anthropic's and Deepgram's for when they fail. The
lineup belongs to the process, so each test has a house of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from media_bridge.conversation import reply as reply_module
from media_bridge.conversation import voice as voice_module
from media_bridge.providers import fallback
from stayline.timeline import AgentTurn, CallError, ProviderChanged
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.llm import Say
from tests.fakes.misbehaviour import (
    Misbehaviour,
    disconnect,
    garbage,
    hang,
    rate_limited,
    reset,
    server_error,
    unauthorized,
)
from tests.whole_call.house import Scene, scene, vendor_agent

LLM = ("openai/gpt-6-luna", "anthropic/claude-haiku-5-5")
STT = ("deepgram/nova-3", "openai/gpt-transcribe")
TTS = ("elevenlabs/eleven_flash_v2_5", "deepgram/aura-2-thalia-en")
STORY = "It was a dark night, and nobody was on the road. Then a light came up, and a dog began to bark."


def openai(body: dict[str, Any]) -> list[Any]:
    said = str(body["input"][-1].get("content"))
    return [Say(STORY if said == "tell me" else f"OpenAI heard {said}.")]


def anthropic(body: dict[str, Any]) -> list[Any]:
    content = body["messages"][-1]["content"]
    said = content if isinstance(content, str) else content[-1]["text"]
    return [Say(" and so it goes on." if "cut off" in said else f"Anthropic heard {said}.")]


@asynccontextmanager
async def town(client: Client, folder: Path, **settings: Any) -> AsyncIterator[tuple[Scene, FakeAnthropic]]:
    providers = {"stt": list(STT), "llm": list(LLM), "tts": list(TTS)}
    agent = vendor_agent(**providers, greeting="Hello there.", record_audio=False, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reply_module, "FIRST_TOKEN_TIMEOUT", 1.0)
        patch.setattr(reply_module, "TOKEN_TIMEOUT", 1.0)
        patch.setattr(voice_module, "AUDIO_TIMEOUT", 1.0)
        patch.setattr(fallback, "CONNECT_TIMEOUT", 1.0)
        async with FakeAnthropic(anthropic) as model:
            patch.setenv("ANTHROPIC_BASE_URL", model.url)
            patch.setenv("ANTHROPIC_API_KEY", model.key)
            async with scene(client, folder, agent, reply=openai) as stage:
                yield stage, model


def said(events: list[Any]) -> list[str]:
    return [event.text for event in events if isinstance(event, AgentTurn)]


def changes(events: list[Any]) -> list[tuple[str, str, str]]:
    return [(e.role, e.provider, e.why) for e in events if isinstance(e, ProviderChanged)]


FAULTS = [reset(), unauthorized(), rate_limited(retry_after=1), server_error(), hang(), disconnect(), garbage()]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.what}-{fault.status}")
async def test_a_language_model_is_left_for_the_next(client: Client, tmp_path: Path, fault: Misbehaviour) -> None:
    async with town(client, tmp_path) as (stage, _):
        caller = await stage.greeted()
        await caller.asks("one")
        stage.openai.always = fault
        await caller.asks("two")
        asked = len(stage.openai.requests)
        await caller.asks("three")
        assert len(stage.openai.requests) == asked, "it rests"
        await caller.leaves()
        events = await stage.home.over(caller.sid)
    assert said(events) == ["Hello there.", "OpenAI heard one.", "Anthropic heard two.", "Anthropic heard three."]
    assert changes(events) == [("llm", LLM[1], "failed")]
    assert [e.where for e in events if isinstance(e, CallError)] == ["llm"]


async def test_a_model_that_breaks_off_is_continued_and_is_back_after_its_rest(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "REST", 0.1)
    async with town(client, tmp_path) as (stage, model):
        caller = await stage.greeted()
        stage.openai.misbehave(disconnect(after=16))
        await caller.asks("tell me")
        await caller.asks("one")
        await caller.leaves()
        events = await stage.home.over(caller.sid)
        (continued,) = model.answered
    story = said(events)[1]
    assert story.endswith(" and so it goes on.")
    assert STORY.startswith(story.removesuffix(" and so it goes on."))
    assert "cut off" in str(continued["messages"][-1]["content"])
    assert said(events)[2] == "OpenAI heard one."
    assert changes(events) == [("llm", LLM[1], "failed"), ("llm", LLM[0], "recovered")]


@pytest.mark.parametrize("fault", FAULTS[:-1], ids=lambda fault: f"{fault.what}-{fault.status}")
async def test_a_voice_is_left_for_the_next(client: Client, tmp_path: Path, fault: Misbehaviour) -> None:
    async with town(client, tmp_path) as (stage, _):
        caller = await stage.greeted()
        stage.elevenlabs.always = fault
        for socket in stage.elevenlabs.sockets:
            socket.abort()
        await caller.asks("one")
        await caller.asks("two")
        await caller.leaves()
        events = await stage.home.over(caller.sid)
    assert said(events) == ["Hello there.", "OpenAI heard one.", "OpenAI heard two."]
    assert changes(events) == [("tts", TTS[1], "failed")]


@pytest.mark.parametrize("fault", [*FAULTS[:4], hang()], ids=lambda fault: f"{fault.what}-{fault.status}")
async def test_a_recogniser_is_left_for_the_next(client: Client, tmp_path: Path, fault: Misbehaviour) -> None:
    """Cut off while the caller speaks: what was said is heard by the next one."""
    async with town(client, tmp_path) as (stage, _):
        caller = await stage.greeted()
        await caller.asks("one")
        stage.deepgram.always = fault
        await caller.begin("two", ms=1500)
        stage.cut_recogniser(caller.sid)
        await caller.hears(300)
        await caller.hears_out()
        await caller.asks("three")
        await caller.leaves()
        events = await stage.home.over(caller.sid)
        snapshot = await stage.home.snapshot(caller.sid)
    assert said(events) == ["Hello there.", "OpenAI heard one.", "OpenAI heard two.", "OpenAI heard three."]
    assert changes(events) == [("stt", STT[1], "failed")]
    assert snapshot.metrics.session_count == 1


async def test_a_recogniser_is_back_after_its_rest(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "REST", 0.1)
    async with town(client, tmp_path) as (stage, _):
        caller = await stage.greeted()
        stage.deepgram.always = server_error()
        stage.cut_recogniser(caller.sid)
        await stage.home.until(caller.sid, "provider_changed")
        stage.deepgram.always = None
        await caller.asks("one")
        await caller.asks("two")
        await caller.leaves()
        events = await stage.home.over(caller.sid)
    assert said(events) == ["Hello there.", "OpenAI heard one.", "OpenAI heard two."]
    assert changes(events) == [("stt", STT[1], "failed"), ("stt", STT[0], "recovered")]


async def test_when_no_voice_is_left_the_carrier_itself_apologises(client: Client, tmp_path: Path) -> None:
    async with town(client, tmp_path, apology_text="Sorry, we have trouble with our line.") as (stage, _):
        caller = await stage.greeted()
        stage.elevenlabs.always = stage.deepgram.always = server_error()
        for socket in stage.elevenlabs.sockets:
            socket.abort()
        await caller.say("one")
        async with asyncio.timeout(30):
            await caller.call.wait()
        events = await stage.home.over(caller.sid)
        spoken = [e.data["verb"].text for e in stage.carrier.log.of("twiml", caller.sid) if e.detail == "Say"]
    assert spoken == ["Sorry, we have trouble with our line."]
    assert events[-1].type == "call_ended"
    assert [e.by for e in events if e.type == "commanded"] == ["bridge"]


async def test_when_no_language_model_is_left_the_caller_hears_an_apology(client: Client, tmp_path: Path) -> None:
    async with town(client, tmp_path, apology_text="Sorry about that.") as (stage, model):
        caller = await stage.greeted()
        stage.openai.always = model.always = server_error()
        await caller.asks("one")
        stage.openai.always = model.always = None
        await caller.asks("two")
        await caller.leaves()
        events = await stage.home.over(caller.sid)
    assert said(events)[1] == "Sorry about that."
    assert said(events)[2] in ("OpenAI heard two.", "Anthropic heard two.")
