"""The agents that the load benchmark serves: `--agent benchmarks/load_agents.py:text`."""

from __future__ import annotations

from typing import Any

from stayline import Agent

_QUIET: dict[str, Any] = {"silence_prompt": 0, "silence_timeout": 0, "instructions": "Be brief."}
_VOICE: dict[str, Any] = {"tts": "elevenlabs/eleven_flash_v2_5", "voice": "21m00Tcm4TlvDq8ikWAM"}

text = Agent(stt="deepgram/nova-3", llm="openai/gpt-6-luna", **_VOICE, **_QUIET)
chat = Agent(stt="deepgram/nova-3", llm="openai/gpt-6-luna", options={"llm": {"api": "chat"}}, **_VOICE, **_QUIET)
vad = Agent(  # the ends of turns are found here, with Silero
    stt="elevenlabs/scribe_v2_realtime",
    llm="openai/gpt-6-luna",
    options={"stt": {"commit_strategy": "manual"}},
    **_VOICE,
    **_QUIET,
)
realtime = Agent(mode="realtime", realtime="openai/gpt-realtime-2.1", voice="marin", **_QUIET)
