"""The agent of the soak: `--agent benchmarks/soak_agent.py:agent`."""

from __future__ import annotations

from stayline import Agent, tool


@tool(retries=1, attempt_timeout=10)
async def book(what: str) -> str:
    """Book something."""
    return f"{what} is booked"


agent = Agent(
    name="soak",
    stt="deepgram/nova-3",
    llm="openai/gpt-6-luna",
    tts="elevenlabs/eleven_flash_v2_5",
    voice="21m00Tcm4TlvDq8ikWAM",
    greeting="Hello.",
    resume_text="We got cut off.",
    goodbye="Goodbye now.",
    tools=[book],
)
