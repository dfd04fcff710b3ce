"""Whatever goes wrong in one call stays in it: a call beside it, on the same bridge and worker, goes on as before.

The healthy call uses Anthropic's and Deepgram's fakes, the unlucky ones OpenAI's and ElevenLabs', so that a fault
can be put on one side only. Each healthy call holds whole exchanges while the other one's vendor is broken.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from media_bridge.conversation import reply as reply_module
from stayline import tool
from stayline.dev_server import DevServer
from stayline.timeline import AgentTurn, CallError
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.llm import Call, Say, Wait
from tests.fakes.misbehaviour import disconnect, garbage, hang, server_error
from tests.whole_call.house import Scene, client_of, scene, vendor_agent
from tests.whole_call.puppet import Puppet

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEALTHY = "+15550100009"
GREETING = "Hello there."
APOLOGY = "Sorry about that."
LONG = "I have a lot to tell you, and it will take me quite a while to say it all. " * 4


@tool(retries=0)
async def explode(what: str) -> str:
    """Fail."""
    raise ZeroDivisionError(what)


@tool(retries=0)
async def nonsense() -> Any:
    """Return something that JSON has no word for."""
    return object()


def answer(body: dict[str, Any]) -> list[Any]:
    last = body["input"][-1]
    if last.get("type") == "function_call_output":
        return [Say(f"It went wrong: {last['output']}")]
    said = str(last["content"])
    if said == "explode":
        return [Call("explode", {"what": "everything"})]
    if said == "nonsense":
        return [Call("nonsense")]
    return [Say(LONG if said == "tell me" else f"You said: {said}")]


def unlucky_agent() -> Any:
    return vendor_agent(
        name="unlucky", greeting=GREETING, apology_text=APOLOGY, tools=[explode, nonsense], record_audio=False
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(temporal_server: DevServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    healthy = vendor_agent(
        name="healthy",
        greeting=GREETING,
        llm="anthropic/claude-haiku-5-5",
        tts="deepgram/aura-2-thalia-en",
        voice="",
        numbers=[HEALTHY],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reply_module, "TOKEN_TIMEOUT", 2.0)
        async with FakeAnthropic() as anthropic:
            patch.setenv("ANTHROPIC_BASE_URL", anthropic.url)
            patch.setenv("ANTHROPIC_API_KEY", anthropic.key)
            client = await client_of(temporal_server)
            folder = tmp_path_factory.mktemp("hurt")
            async with scene(client, folder, healthy, unlucky_agent(), reply=answer) as running:
                yield running


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def no_lost_exceptions() -> AsyncIterator[None]:
    """No task may die with an exception that nobody reads."""
    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    yield
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert faults == []


@asynccontextmanager
async def healthy_call(stage: Scene) -> AsyncIterator[Puppet]:
    """A call that is asked things while something else goes wrong, and that must not show it."""
    caller = await stage.greeted(HEALTHY)
    said: list[str] = []
    caller.said = said  # type: ignore[attr-defined]
    yield caller
    await exchange(caller)
    await caller.leaves()
    events = await stage.home.over(caller.sid)
    told = [e.text for e in events if e.type in ("user_turn", "agent_turn")]
    expected = [GREETING]
    for words in said:
        expected += [words, f"You said: {words}"]
    assert told == expected
    assert [e.type for e in events if e.type in ("error", "gap", "interruption")] == []
    replies = [e for e in events if isinstance(e, AgentTurn) and e.source == "reply"]
    assert all(e.latency is not None and e.latency.total_ms is not None for e in replies)
    snapshot = await stage.home.snapshot(caller.sid)
    assert (snapshot.outcome, snapshot.metrics.session_count) == ("caller_hung_up", 1)


async def exchange(caller: Puppet) -> None:
    """One question and its answer."""
    said: list[str] = caller.said  # type: ignore[attr-defined]
    said.append(f"question {len(said) + 1}")
    await caller.asks(said[-1])


def errors(events: list[Any]) -> list[tuple[str, str]]:
    return [(e.where, e.provider) for e in events if isinstance(e, CallError)]


def said(events: list[Any]) -> list[str]:
    return [e.text for e in events if e.type == "agent_turn"]


async def test_tools_that_raise_or_return_nonsense(stage: Scene) -> None:
    async with healthy_call(stage) as healthy:
        callers = {words: await stage.greeted() for words in ("explode", "nonsense")}
        for words, unlucky in callers.items():
            await unlucky.say(words)
        await exchange(healthy)
        for unlucky in callers.values():
            await stage.home.until(unlucky.sid, "agent_turn", 2)
            await unlucky.asks("and now")
            await unlucky.leaves()
    for words, unlucky in callers.items():
        events = await stage.home.over(unlucky.sid)
        (run,) = (await stage.home.snapshot(unlucky.sid)).tools
        assert run.outcome is not None
        assert run.outcome.status == "failed"
        assert run.call.name == words
        assert said(events)[1].startswith("It went wrong: ")
        assert said(events)[-1] == "You said: and now"
        assert "ZeroDivisionError" not in " ".join(said(events))


async def test_a_language_model_that_is_broken_in_every_way(stage: Scene) -> None:
    """An HTTP error, silence, a stream cut in the middle: an apology each time; the next question is answered."""
    faults = (server_error(500), hang(), disconnect(after=8), garbage(after=8))
    async with healthy_call(stage) as healthy:
        callers = [await stage.greeted() for _ in faults]
        for fault, unlucky in zip(faults, callers, strict=True):
            asked = len(stage.openai.requests)
            stage.openai.misbehave(fault)
            await unlucky.say("a question")
            await unlucky.until(lambda n=asked: len(stage.openai.requests) > n)  # type: ignore[misc]
        await exchange(healthy)
        for unlucky in callers:
            await stage.home.until(unlucky.sid, "agent_turn", 2)
            await unlucky.asks("are you better")
            await unlucky.leaves()
    for fault, unlucky in zip(faults, callers, strict=True):
        events = await stage.home.over(unlucky.sid)
        assert said(events)[-1] == "You said: are you better", fault
        if fault.what != "garbage":  # one message without sense may be skipped
            assert APOLOGY in said(events), fault
            assert [where for where, _ in errors(events)] == ["llm"], fault


async def test_a_model_that_hangs_for_one_call(stage: Scene) -> None:
    """The healthy call has two whole exchanges before the other one's first token comes."""
    go = asyncio.Event()
    stage.openai.reply = lambda body: [Wait(go), *answer(body)]
    try:
        unlucky = await stage.greeted()
        async with healthy_call(stage) as healthy:
            await unlucky.say("take your time")
            await exchange(healthy)
            go.set()
            await unlucky.hears()
        await unlucky.leaves()
        await stage.home.over(unlucky.sid)
    finally:
        stage.openai.reply = answer


async def test_a_voice_that_dies_in_mid_utterance(stage: Scene) -> None:
    """The rest of it is spoken over another connection: nothing is missing, nothing is said twice."""
    async with healthy_call(stage) as healthy:
        stage.elevenlabs.misbehave(disconnect(after=8))  # messages: the greeting has three or four
        unlucky = await stage.greeted()
        await unlucky.say("tell me")
        await exchange(healthy)
        await stage.home.until(unlucky.sid, "error")
        await unlucky.hears_out(600)
        await unlucky.asks("are you better")
        await unlucky.leaves()
        events = await stage.home.over(unlucky.sid)
    cut = next(e for e in events if isinstance(e, AgentTurn) and e.source == "reply")
    assert cut.text == LONG.strip()
    assert said(events)[-1] == "You said: are you better"
    assert ("tts", "elevenlabs") in errors(events)


async def test_a_recogniser_that_is_cut_off(stage: Scene) -> None:
    """In mid-call, and in the middle of the caller's words: they are heard by the next connection."""
    async with healthy_call(stage) as healthy:
        unlucky = await stage.greeted()
        stage.cut_recogniser(unlucky.sid)
        await exchange(healthy)
        await unlucky.asks("can you hear me")
        await unlucky.leaves()
        events = await stage.home.over(unlucky.sid)
    assert said(events)[-1] == "You said: can you hear me"
    heard_by = [listener for listener in stage.deepgram.listened if unlucky.sid in listener.recorded.param("tag")]
    assert len(heard_by) == 2
    assert (await stage.home.snapshot(unlucky.sid)).metrics.session_count == 1


async def test_a_caller_who_hangs_up_while_the_agent_speaks(stage: Scene) -> None:
    async with healthy_call(stage) as healthy:
        unlucky = await stage.greeted()
        await unlucky.say("tell me")
        await unlucky.hears(300)
        assert unlucky.queued_ms > 0
        await unlucky.leaves()
        events = await stage.home.over(unlucky.sid)
        await exchange(healthy)
    last = [e for e in events if isinstance(e, AgentTurn)][-1]
    assert last.interrupted
    assert LONG.startswith(last.text)
    assert (await stage.home.snapshot(unlucky.sid)).outcome == "caller_hung_up"
