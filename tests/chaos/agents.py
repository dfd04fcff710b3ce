"""The agents of the chaos runs, `agent` and `voice`, and a tool that changes the world outside."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

from stayline import Agent, ToolContext, tool

FOLDER = "CHAOS_DIR"


@tool(retries=6, attempt_timeout=20, total_timeout=90, backoff=0.3, heartbeat_timeout=2)
async def book(what: str, context: ToolContext) -> str:
    """Book something. The system behind it knows a request that it has seen by its key, as a good one does."""
    _note("asked", context, what)
    luck = zlib.crc32(f"{context.idempotency_key}{context.attempt}".encode()) % 8
    if luck == 0 and context.attempt == 1:
        raise RuntimeError("the line to the booking system broke before it was asked")
    for _ in range(luck):
        context.heartbeat()
        await asyncio.sleep(0.15)
    _note("effect", context, what, once=True)
    if luck == 1 and context.attempt == 1:
        raise RuntimeError("the line to the booking system broke after it was asked")
    return f"{what} is booked"


def _note(kind: str, context: ToolContext, what: str, *, once: bool = False) -> None:
    """A line in the ledger; with `once`, unless one of this kind has the same key."""
    line: dict[str, Any] = {"at": round(time.time(), 3), "kind": kind, "call": context.call.call_id}
    line |= {"key": context.idempotency_key, "what": what, "attempt": context.attempt, "pid": os.getpid()}
    with (Path(os.environ[FOLDER]) / "tools.jsonl").open("a+") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        if once:
            ledger.seek(0)
            known = [json.loads(row) for row in ledger if row.endswith("\n")]
            if any(row["kind"] == kind and row["key"] == context.idempotency_key for row in known):
                return
        ledger.write(json.dumps(line) + "\n")


_ALIKE: dict[str, Any] = {
    "greeting": "Hello there.",
    "resume_text": "We got cut off.",
    "goodbye": "Goodbye now.",
    "apology_text": "Sorry, we have trouble.",
    "silence_text": "Still there?",
    "tools": [book],
    "transfers": {"desk": "+15550100099"},
    "record_audio": False,
}

agent = Agent(
    name="chaos",
    stt=["deepgram/nova-3", "deepgram/flux-general-en"],
    llm=["openai/gpt-6-luna", "anthropic/claude-haiku-5-5"],
    tts=["elevenlabs/eleven_flash_v2_5", "deepgram/aura-2-thalia-en"],
    voice="21m00Tcm4TlvDq8ikWAM",
    **_ALIKE,
)

voice = Agent(
    name="chaos-voice",
    mode="realtime",
    realtime="openai/gpt-realtime-2.1",
    voice="marin",
    numbers=["+15550100003"],
    **_ALIKE,
)
