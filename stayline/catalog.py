"""Which providers there are, what each needs, and the defaults of the gateway. Names only: nothing is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

Role = Literal["stt", "llm", "tts", "realtime"]
ROLES: Final[tuple[Role, ...]] = ("stt", "llm", "tts", "realtime")


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
    factories: dict[Role, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    """Adapters that were registered as classes; they win over `roles`."""
    voice_is_model: bool = False
    """Its voices are models: "deepgram/aura-2-thalia-en" says both."""

    def api_key(self, role: Role, environment: Mapping[str, str]) -> str:
        """Its key: one for this role only (`STT_OPENAI_API_KEY`), else the vendor's (`OPENAI_API_KEY`)."""
        if self.key_env is None:
            return ""
        return environment.get(role_key_env(role, self.key_env)) or environment.get(self.key_env, "")


def role_key_env(role: Role, key_env: str) -> str:
    """Where a key stands that serves one role only."""
    return f"{role.upper()}_{key_env}"


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
            voice_is_model=True,
        ),
        ProviderInfo(
            "openai",
            {
                "stt": f"{_P}.openai_stt:OpenAIStt",
                "llm": f"{_P}.openai_llm:OpenAILlm",
                "tts": f"{_P}.openai_tts:OpenAITts",
                "realtime": f"{_P}.openai_realtime:OpenAIRealtime",
            },
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
            {"stt": f"{_P}.elevenlabs_stt:ElevenLabsStt", "tts": f"{_P}.elevenlabs_tts:ElevenLabsTts"},
            "ELEVENLABS_API_KEY",
            "ELEVENLABS_BASE_URL",
            "https://api.elevenlabs.io",
        ),
        ProviderInfo(
            "google",
            {"realtime": f"{_P}.gemini_live:GeminiLive"},
            "GOOGLE_API_KEY",
            "GOOGLE_BASE_URL",
            "https://generativelanguage.googleapis.com",
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
class Default:
    """What a provider is asked for when nobody said: models in order of preference, and a voice."""

    models: tuple[str, ...]
    voice: str = ""


DEFAULT_PROVIDER: Final[dict[Role, str]] = {"stt": "openai", "llm": "openai", "tts": "openai", "realtime": "openai"}
DEFAULTS: Final[dict[tuple[Role, str], Default]] = {
    ("stt", "deepgram"): Default(("nova-3",)),
    ("stt", "openai"): Default(("gpt-live-transcribe",)),
    ("stt", "elevenlabs"): Default(("scribe_v2_realtime",)),
    ("stt", "offline"): Default(("moonshine",)),
    ("llm", "anthropic"): Default(("claude-sonnet-5-5",)),
    ("llm", "openai"): Default(("gpt-6-luna",)),
    ("llm", "offline"): Default(("scripted",)),
    ("tts", "elevenlabs"): Default(("eleven_flash_v2_5",), "21m00Tcm4TlvDq8ikWAM"),  # Rachel
    ("tts", "openai"): Default(("gpt-4o-mini-tts", "gpt-realtime-2.1-mini"), "alloy"),
    ("tts", "deepgram"): Default(("aura-2-thalia-en",)),
    ("tts", "offline"): Default(("hibari",)),
    ("realtime", "openai"): Default(("gpt-realtime-2.1",), "alloy"),
    ("realtime", "google"): Default(("gemini-3.8-live",), "Puck"),
}
"""For `GatewayConfig` only, whose fields may be left out; an `Agent` always names its models."""

ALIASES: Final[dict[str, str]] = {"gemini": "google", "whisper": "openai"}
"""Other names of providers, as the guide uses them."""
