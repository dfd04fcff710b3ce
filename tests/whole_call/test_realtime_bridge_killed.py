"""A bridge is killed with SIGKILL while a voice-to-voice model holds the call: another bridge takes it up.

The model's own memory dies with its connection, so the next one must be given the conversation; the tool that was
running goes on, and its result is told to a model that never asked for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.fakes.llm import Call, Part, Say
from tests.fakes.openai_realtime import Asked, VoiceModel
from tests.whole_call import agents
from tests.whole_call.puppet import Puppet
from tests.whole_call.stack import VOICE_AGENT, contains, stack, story, turns


def think(asked: Asked) -> Sequence[Part]:
    """Says what it is told to, books when asked to, tells a booking that it hears of, and repeats otherwise."""
    if exactly := re.match(r"Say exactly [^:]*: (.*)", asked["instructions"], flags=re.DOTALL):
        return [Say(exactly[1])]
    role, text = asked["memory"][-1]
    if "is booked" in text:
        return [Say("It is booked.")]
    said = [text for role, text in asked["memory"] if role == "user"]
    if said and said[-1].startswith("book ") and role == "user":
        return [Call("book", {"what": said[-1].removeprefix("book ")})]
    return [Say(f"You said {said[-1]}." if said else "Yes?")]


async def test_the_conversation_and_a_running_tool_move_to_another_bridge(tmp_path: Path) -> None:
    voice = VoiceModel(think, ms_per_char=40)
    async with stack(tmp_path, bridges=2, agent=VOICE_AGENT, voice=voice) as town:
        caller = Puppet(cast(Any, SimpleNamespace(script=voice.hears)), asyncio.Lock())
        await caller.ring(town.carrier)
        await caller.hears_out()
        await caller.asks("my name is Ada", ms=900)
        await caller.say("book a table", ms=900)
        await contains(agents.begun(tmp_path, caller.sid))
        held_by = (await town.snapshot(caller.sid)).bridge_id
        assert held_by
        await town.kill_bridge(held_by.rpartition("-")[0])
        await town.until(caller.sid, "session_opened", 2)
        await caller.hears()
        await caller.hears_out()
        agents.permit(tmp_path).touch()
        await caller.hears()
        await caller.hears_out(600)
        await caller.asks("are you there", ms=900)
        await caller.leaves()
        record = await town.record(caller.sid)
        remembered = " ".join(text for _, text in voice.sessions[-1].memory)
        assert len(town.booked(caller.sid)) == 1
    assert record.snapshot.metrics.session_count == 2, story(record)
    assert "my name is Ada" in remembered
    assert [turn for turn in turns(record) if turn[0] == "caller"] == [
        ("caller", "my name is Ada"),
        ("caller", "book a table"),
        ("caller", "are you there"),
    ], story(record)
    assert ("agent", "It is booked.") in turns(record), story(record)
    assert turns(record)[-1] == ("agent", "You said are you there."), story(record)
    (run,) = record.snapshot.tools
    assert run.outcome is not None
    assert run.outcome.status == "succeeded"
