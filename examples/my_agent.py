"""The README's agent. Needs DEEPGRAM_API_KEY, ANTHROPIC_API_KEY and ELEVENLABS_API_KEY.

stayline dev --agent examples/my_agent.py:agent
"""

from datetime import timedelta

from stayline import Agent, CallInfo, RejectCall, tool


@tool(retries=5, attempt_timeout=10, filler="Let me check.")
async def get_weather(location: str) -> str:
    """Get current weather for a location."""
    return f"It is sunny in {location}."


agent = Agent(
    instructions="You are a helpful voice assistant. Keep responses brief.",
    greeting="Hello! Thank you for calling. How can I help you today?",
    mode="text",
    stt="deepgram/nova-3",
    llm="anthropic/claude-haiku-5-5",
    tts="elevenlabs/eleven_flash_v2_5",
    voice="21m00Tcm4TlvDq8ikWAM",
    tools=[get_weather],
    interruption="immediate",
    max_duration=timedelta(minutes=15),
)


@agent.on_call
async def screen(call: CallInfo) -> None:
    if call.from_number == "+15550100":
        raise RejectCall("Sorry, we cannot take your call.")
