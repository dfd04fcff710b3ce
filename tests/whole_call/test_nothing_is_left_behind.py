"""When a bridge has stopped, with calls in every state, no task of it lives on and no exception was lost."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

from temporalio.client import Client

from tests.fakes.llm import Say
from tests.fakes.openai import last_user_text
from tests.whole_call.house import scene, vendor_agent

LONG = "I have a lot to tell you, and it will take me quite a while to say it all. " * 2


def answer(body: dict[str, Any]) -> list[Any]:
    return [Say(LONG if last_user_text(body) == "tell me" else "Yes.")]


async def test_nothing_is_left_behind(client: Client, tmp_path: Path) -> None:
    """One call is over, one is in mid-speech, one silent, one caller speaks, one has just come in."""
    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    before = asyncio.all_tasks()
    async with scene(client, tmp_path, vendor_agent(greeting="Hello.", record_audio=False), reply=answer) as stage:
        gone = await stage.greeted()
        await gone.say("tell me")
        await gone.hears(300)
        await gone.leaves()
        await stage.home.over(gone.sid)
        silent, speaking, listening, coming = [stage.caller() for _ in range(4)]
        for caller in (silent, speaking, listening):
            await caller.ring(stage.carrier)
            await caller.hears_out()
        await listening.say("tell me")
        await listening.hears(300)
        await speaking.begin("well", ms=10_000)
        await coming.ring(stage.carrier)
        await stage.home.bridge.stop()
        stage.home.bridges.clear()
        assert stage.home.carrier.log.of("stream_broken") == []
    left = [task for task in asyncio.all_tasks() - before if not task.done()]
    assert left == []
    gc.collect()
    await asyncio.sleep(0)
    assert faults == []
