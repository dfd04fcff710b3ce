"""Which providers there are, what each needs, and which model names are dead. Names only: nothing is imported.

Dates are of 2026-11-22 and come from the vendors' SDKs and deprecation pages.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

Role = Literal["stt", "llm", "tts"]


@dataclasses.dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One vendor. `roles` maps a role to "module:Class" of its adapter, imported on first use."""

    name: str
    roles: dict[Role, str]
    key_env: str | None = None
    base_url_env: str | None = None
    default_base_url: str = ""
    models: dict[Role, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Closed lists only, for engines whose models ship with them; vendors add models every week."""
    extra: str | None = None
    """The optional dependency group that holds the engine."""


_P = "media_bridge.providers"
PROVIDERS: Final[dict[str, ProviderInfo]] = {
    p.name: p
    for p in (
        ProviderInfo(
            "deepgram",
            {"stt": f"{_P}.deepgram_stt:DeepgramStt", "tts": f"{_P}.deepgram_tts:DeepgramTts"},
            "DEEPGRAM_API_KEY",
            "DEEPGRAM_BASE_URL",
            "https://api.deepgram.com",
        ),
        ProviderInfo(
            "openai",
            {"llm": f"{_P}.openai_llm:OpenAILlm"},
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "https://api.openai.com",
        ),
        ProviderInfo(
            "anthropic",
            {"llm": f"{_P}.anthropic_llm:AnthropicLlm"},
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "https://api.anthropic.com",
        ),
        ProviderInfo(
            "elevenlabs",
            {"tts": f"{_P}.elevenlabs_tts:ElevenLabsTts"},
            "ELEVENLABS_API_KEY",
            "ELEVENLABS_BASE_URL",
            "https://api.elevenlabs.io",
        ),
        ProviderInfo(
            "offline",
            {
                "stt": f"{_P}.offline.moonshine:MoonshineStt",
                "llm": f"{_P}.offline.scripted:ScriptedLlm",
                "tts": f"{_P}.offline.hibari:HibariTts",
            },
            models={"stt": ("moonshine",), "llm": ("scripted",), "tts": ("hibari",)},
            extra="offline",
        ),
    )
}


@dataclasses.dataclass(frozen=True, slots=True)
class Retired:
    """A model name that fails, or will from `on` (ISO date; "" when it is gone already)."""

    use: str
    on: str = ""


RETIRED: Final[dict[str, Retired]] = {
    "openai/gpt-4-turbo": Retired("gpt-6-luna"),
    "openai/gpt-4": Retired("gpt-6-luna"),
    "openai/gpt-3.5-turbo": Retired("gpt-6-luna"),
    "openai/o4-mini": Retired("gpt-6-luna"),
    "openai/gpt-4o": Retired("gpt-6-luna", "2027-01-14"),
    "openai/gpt-4o-mini": Retired("gpt-6-luna", "2027-01-14"),
    "openai/gpt-4.1": Retired("gpt-6-luna", "2027-01-14"),
    "openai/gpt-4.1-mini": Retired("gpt-6-luna", "2027-01-14"),
    "openai/gpt-4o-realtime-preview-2024-12-17": Retired("gpt-realtime-2.1"),
    "openai/gpt-4o-realtime-preview": Retired("gpt-realtime-2.1"),
    "anthropic/claude-sonnet-4": Retired("claude-sonnet-5-5"),
    "anthropic/claude-sonnet-4-20250514": Retired("claude-sonnet-5-5"),
    "anthropic/claude-opus-4": Retired("claude-opus-5-5"),
    "anthropic/claude-opus-4-20250514": Retired("claude-opus-5-5"),
    "anthropic/claude-sonnet-4-5": Retired("claude-sonnet-5-5", "2026-11-30"),
    "google/gemini-2.0-flash-live": Retired("gemini-3.8-live"),
    "google/gemini-2.0-flash-live-001": Retired("gemini-3.8-live"),
    "elevenlabs/eleven_turbo_v2_5": Retired("eleven_flash_v2_5", "2027-07-12"),
}
"""`google/...` and realtime names are here so that a name copied from the guide gets a useful answer."""
