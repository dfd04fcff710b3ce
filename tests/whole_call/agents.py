"""The agents that the tests with real processes serve: `--agent tests/whole_call/agents.py:agent`.

Their tools leave marks in the folder that `WHOLE_CALL_DIR` names, so that a test sees each effect, and decides when
a slow one may go on.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from stayline import Agent, ToolContext, tool

FOLDER = "WHOLE_CALL_DIR"


def effects(folder: Path) -> Path:
    """The file with one line per booking that took effect: its idempotency key."""
    return folder / "effects.txt"


def begun(folder: Path, call_id: str) -> Path:
    """Its existence: the booking of that call is under way."""
    return folder / f"begun-{call_id}"


def permit(folder: Path) -> Path:
    """Its existence: bookings may come to their end."""
    return folder / "permit"


@tool(retries=5, attempt_timeout=60, total_timeout=120, backoff=0.2, heartbeat_timeout=2)
async def book(what: str, context: ToolContext) -> str:
    """Book something. Like any good system, it knows a request that it has seen already by its key."""
    folder = Path(os.environ[FOLDER])
    with begun(folder, context.call.call_id).open("a") as marks:
        marks.write(f"{context.attempt}\n")
    while not permit(folder).exists():
        context.heartbeat()
        await asyncio.sleep(0.05)
    with effects(folder).open("a+") as done:
        done.seek(0)
        if context.idempotency_key not in done.read().split():
            done.write(f"{context.idempotency_key}\n")
    return f"{what} is booked"


voice_agent = Agent(
    name="voice",
    mode="realtime",
    realtime="openai/gpt-realtime-2.1",
    voice="marin",
    greeting="Hello there.",
    resume_text="We got cut off.",
    goodbye="Goodbye now.",
    tools=[book],
    record_audio=False,
)

agent = Agent(
    stt="deepgram/nova-3",
    llm="openai/gpt-6-luna",
    tts="elevenlabs/eleven_flash_v2_5",
    voice="21m00Tcm4TlvDq8ikWAM",
    greeting="Hello there.",
    resume_text="We got cut off.",
    goodbye="Goodbye now.",
    tools=[book],
    record_audio=False,
)
