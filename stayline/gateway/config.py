"""What a gateway is configured with: the guide's fields by Python's names, checked when they are written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final, TypedDict

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError, field_validator, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler
from temporalio.client import Client

from stayline.errors import ConfigError
from stayline.models import CarrierName, InterruptionMode, Mode
from stayline.suggest import closest
from stayline.tool_definition import ToolDefinition, ToolHandler
from stayline.tools import Tool

_HINTS: Final = {
    "api_key": "Did you mean 'auth_token'?",
    "functions": "A realtime model has the gateway's tools: give GatewayConfig tools=[…].",
    "on_function_call": "A realtime model has the gateway's tools: give GatewayConfig tool_handlers={…}.",
    "listener": "Give listen_addr; port 0 takes any free one.",
    "temperature": 'Give options={"temperature": …}.',
}
"""Names that others use for what has another name, or another place, here."""


class _Checked(BaseModel):
    """A configuration whose mistakes are ConfigErrors that say what was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="wrap")
    @classmethod
    def _explained(cls, values: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        try:
            return handler(values)
        except ValidationError as error:
            raise _explanation(cls, error) from None


class RealtimeConfig(_Checked):
    """A voice-to-voice model.

        RealtimeConfig(provider="openai", voice="alloy", instructions="You are a helpful voice assistant.")

    Attributes:
        provider: "openai" or "gemini" ("google"), or another's name; default: `GatewayConfig.realtime_provider`.
        api_key: default: the vendor's variable, e.g. OPENAI_API_KEY.
        model, voice: default: the vendor's best (`stayline.catalog.DEFAULTS`).
        instructions: the system prompt; default: `GatewayConfig.llm_system_prompt`.
        options: of the vendor's adapter, e.g. {"temperature": 0.8}; an unknown one is an error.
    """

    provider: str = ""
    api_key: str = Field(default="", repr=False)
    model: str = ""
    voice: str = ""
    instructions: str = ""
    options: Mapping[str, Any] = Field(default_factory=dict)


class GatewayConfig(_Checked):
    """All of a gateway. What is left out comes from the environment, or has a default.

        GatewayConfig(
            phone_number="+15551234567",
            public_url="https://voice.example.com",
            stt_provider="deepgram",
            llm_provider="anthropic",
            llm_system_prompt="You are a helpful voice assistant. Keep responses brief.",
            tts_provider="elevenlabs",
            tts_voice_id="21m00Tcm4TlvDq8ikWAM",
        )

    Fields of the other mode are left alone, so that `mode` alone switches between the two.

    Attributes:
        account_sid, auth_token, phone_number: Twilio's; default: TWILIO_ACCOUNT_SID, …
        public_url: the origin by which the carrier finds this gateway.
        listen_addr: host:port; without a host: every interface. Default ":8080".
        stt_provider, llm_provider, tts_provider: a name, or an object or class of one's own (`stayline.providers`).
            Default "openai"; "whisper" is openai too.
        stt_api_key, llm_api_key, tts_api_key: default: the vendor's variable, e.g. DEEPGRAM_API_KEY. Each is for
            its role only: two roles may use one vendor with two keys.
        stt_model, llm_model, tts_model: default: `stayline.catalog.DEFAULTS`.
        stt_language: of the call, e.g. "en" or "de".
        llm_system_prompt: default: a short one that asks for spoken language.
        llm_client: instead of `llm_provider` and `llm_api_key`: a language model of one's own, or a client of the
            anthropic or openai package (`AsyncAnthropic`, `AsyncOpenAI`), configured as you like; `llm_model` names
            its model.
        tts_voice_id: as the vendor names it; a cloned voice too.
        mode: "text" (speech to text, language model, text to speech) or "realtime".
        realtime_provider: a name, or an object or class of one's own; may be left to `realtime_config`.
        tools, tool_handlers: functions decorated with `stayline.tool`; or `ToolDefinition`s, and by name what
            carries them out. In both modes.
        greeting: said first; empty: the agent waits for the caller.
        max_session_duration: a timedelta, or seconds. The call ends then, with a warning and a goodbye.
        interruption_mode: "immediate", "after_sentence" or "disabled".
        options: options per role, e.g. {"stt": {"keyterm": ["Stayline"]}}.
        agent: further arguments of `stayline.Agent`, e.g. {"transfers": {"support": "+15551230000"}}.
        settings: further settings by their names in `stayline.settings`, e.g. {"data_dir": "/var/lib/calls"}.
        carrier: "twilio", or "lab", the simulated one.
        logger: takes this process's log lines of Stayline; default: the loggers `stayline` and `media_bridge`.
        temporal_address: host:port, namespace `default`; default: TEMPORAL_ADDRESS and what else Temporal's own
            configuration says. Without either, a dev server is started that keeps its data in `data_dir`.
        temporal_client: a connected client, e.g. for another namespace or a payload codec. Its data converter must
            be `stayline.temporal.data_converter`, `converter_for(settings)`, or one that extends it.
        run_worker: False where workers run elsewhere (`stayline worker`).
        environment: where keys and origins of providers are; default: the process's own.
    """

    account_sid: str = ""
    auth_token: str = Field(default="", repr=False)
    phone_number: str = ""
    public_url: str = ""
    listen_addr: str = ":8080"

    stt_provider: str | object = ""
    stt_api_key: str = Field(default="", repr=False)
    stt_model: str = ""
    stt_language: str = "en"
    llm_provider: str | object = ""
    llm_api_key: str = Field(default="", repr=False)
    llm_model: str = ""
    llm_system_prompt: str = ""
    llm_client: object | None = None
    tts_provider: str | object = ""
    tts_api_key: str = Field(default="", repr=False)
    tts_voice_id: str = ""
    tts_model: str = ""

    mode: Mode = "text"
    realtime_provider: str | object = ""
    realtime_config: RealtimeConfig = RealtimeConfig()

    tools: Annotated[Sequence[Tool | ToolDefinition], SkipValidation] = ()  # the Agent knows better what is wrong
    tool_handlers: Annotated[Mapping[str, ToolHandler], SkipValidation] = Field(default_factory=dict)
    greeting: str = ""
    max_session_duration: timedelta = timedelta(minutes=30)
    interruption_mode: InterruptionMode = "immediate"
    options: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    agent: Mapping[str, Any] = Field(default_factory=dict)
    settings: Mapping[str, Any] = Field(default_factory=dict)
    carrier: CarrierName = "twilio"
    logger: logging.Logger | None = None
    temporal_address: str = ""
    temporal_client: Client | None = None
    run_worker: bool = True
    environment: Mapping[str, str] | None = Field(default=None, repr=False)

    @field_validator("max_session_duration")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            raise ValueError("must be above 0")
        return value


class GatewayOptions(TypedDict, total=False):
    """`GatewayConfig`'s fields as keyword arguments, for `get_gateway`."""

    account_sid: str
    auth_token: str
    phone_number: str
    public_url: str
    listen_addr: str
    stt_provider: str | object
    stt_api_key: str
    stt_model: str
    stt_language: str
    llm_provider: str | object
    llm_api_key: str
    llm_model: str
    llm_system_prompt: str
    llm_client: object | None
    tts_provider: str | object
    tts_api_key: str
    tts_voice_id: str
    tts_model: str
    mode: Mode
    realtime_provider: str | object
    realtime_config: RealtimeConfig
    tools: Sequence[Tool | ToolDefinition]
    tool_handlers: Mapping[str, ToolHandler]
    greeting: str
    max_session_duration: timedelta
    interruption_mode: InterruptionMode
    options: Mapping[str, Mapping[str, Any]]
    agent: Mapping[str, Any]
    settings: Mapping[str, Any]
    logger: logging.Logger | None
    temporal_address: str
    temporal_client: Client | None
    run_worker: bool
    environment: Mapping[str, str] | None


def _explanation(model: type[BaseModel], error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    name = ".".join(map(str, first["loc"])) or "?"
    known = list(model.model_fields)
    if first["type"] == "extra_forbidden":
        return ConfigError(f"{model.__name__} has no field {name!r}.", fix=_HINTS.get(name) or _meant(name, known))
    reason = first["msg"].removeprefix("Value error, ")
    secret = any(word in name for word in ("api_key", "auth_token"))
    return ConfigError(
        f"{model.__name__}, {name}: {reason}.", fix="" if secret else f"It was {first['input']!r:.200}."
    )


def _meant(name: str, known: list[str]) -> str:
    """Also where only case and underscores differ, as in STTProvider."""
    plain = name.replace("_", "").lower()
    same = next((field for field in known if field.replace("_", "") == plain), None)
    return f"Did you mean {same!r}?" if same else closest(name.lower(), known)
