"""What is sent to OpenAI Realtime (GA): the options, the configuration of a session, conversation items. No I/O."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field

from media_bridge.providers.base import ProviderConfig, RealtimeRequest
from media_bridge.providers.llm_history import GO_ON, OPENING, in_vendor_order
from media_bridge.providers.openai_chat import called, function
from media_bridge.providers.options import Options, read_options
from stayline.errors import ConfigError
from stayline.models import AgentMessage, Message, NoteMessage, ToolMessage
from stayline.suggest import closest

VOICES: Final = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse")
"""Built-in voices (openai.types.realtime.realtime_audio_config_output); a custom one is named `voice_…`."""
PREFIX_MS: Final = 300
SILENCE_MS: Final = 500
"""OpenAI documents 500; a session that says nothing about it has 200 (recorded in July 2026)."""
SAY: Final = "Say exactly the following, word for word, and nothing before or after it: "

_KEYWORDS: Final = ("gpt-transcribe", "gpt-live-transcribe")
"""Transcribers that take keywords, and `languages` instead of `language`."""
_WITHOUT_REASONING: Final = re.compile(r"gpt-realtime(-1\.5|-mini)?(-\d{4}-\d\d-\d\d)?")


class OpenAIRealtimeOptions(Options):
    """`options={"realtime": {...}}`; milliseconds where the name says so, else seconds."""

    turn_detection: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float | None = Field(None, ge=0, le=1)  #: server_vad; None: 0.5
    silence_duration_ms: int | None = Field(None, ge=100, le=5000)  #: server_vad, ends a turn; None: 500
    prefix_padding_ms: int | None = Field(None, ge=0, le=2000)  #: server_vad, heard before speech; None: 300
    eagerness: Literal["low", "medium", "high", "auto"] | None = None  #: semantic_vad; waits 8, 4, 2 s at most
    transcription_model: str = Field("gpt-transcribe", min_length=1)
    """Writes down what the caller says, for the record; the model itself hears. Turns are OpenAI's to find, which
    is documented for `gpt-transcribe` and was recorded with `gpt-realtime-whisper`."""
    transcription_prompt: str = ""
    transcription_keywords: tuple[str, ...] = ()
    noise_reduction: Literal["near_field", "far_field"] | None = None  #: None: off
    speed: float | None = Field(None, ge=0.25, le=1.5)
    max_output_tokens: int | None = Field(None, ge=1, le=4096)  #: of a response, tool calls included
    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None  #: gpt-realtime-2 and later
    parallel_tools: bool = True  #: gpt-realtime-2 and later may ask for several tools at once
    connect_timeout: float = Field(4.0, gt=0)  #: until the session is configured


def read(config: ProviderConfig) -> OpenAIRealtimeOptions:
    """The options, checked against the model and each other.

    Raises:
        ConfigError: OpenAI would refuse this.
    """
    name = f"openai/{config.model}"
    if config.model.startswith("gpt-live"):
        raise ConfigError(f"{name} speaks another protocol, which is not supported.", fix="Use gpt-realtime-2.1.")
    if "temperature" in config.options:
        raise ConfigError("OpenAI's realtime models take no temperature.", fix="Leave it out.")
    if config.voice and config.voice not in VOICES and not config.voice.startswith("voice_"):
        raise ConfigError(f"OpenAI Realtime has no voice {config.voice!r}.", fix=closest(config.voice, VOICES))
    options = read_options(OpenAIRealtimeOptions, config, "realtime")
    semantic = options.turn_detection == "semantic_vad"
    timed = (options.threshold, options.silence_duration_ms, options.prefix_padding_ms)
    if semantic and timed != (None, None, None):
        raise ConfigError(
            "semantic_vad takes no threshold, silence_duration_ms or prefix_padding_ms.", fix="Use eagerness."
        )
    if options.eagerness and not semantic:
        raise ConfigError("The option eagerness belongs to semantic_vad.", fix='Set turn_detection="semantic_vad".')
    if options.transcription_keywords and options.transcription_model not in _KEYWORDS:
        raise ConfigError(f"{options.transcription_model} takes no keywords.", fix=f"Use {_KEYWORDS[0]}.")
    if options.transcription_prompt and options.transcription_model == "gpt-realtime-whisper":
        raise ConfigError("gpt-realtime-whisper takes no prompt.", fix=f"Use {_KEYWORDS[0]}.")
    if _WITHOUT_REASONING.fullmatch(config.model) and (options.effort or not options.parallel_tools):
        raise ConfigError(
            f"{name} does not reason: it has neither effort nor parallel tools.", fix="Use gpt-realtime-2.1."
        )
    return options


def silence_ms(options: OpenAIRealtimeOptions) -> int:
    """What `audio_end_ms` has of silence after the speech; 0 where OpenAI does not say."""
    return (options.silence_duration_ms or SILENCE_MS) if options.turn_detection == "server_vad" else 0


def prefix_ms(options: OpenAIRealtimeOptions) -> int:
    """What `audio_start_ms` has of sound before the speech; 0 where OpenAI does not say."""
    if options.turn_detection != "server_vad":
        return 0
    return PREFIX_MS if options.prefix_padding_ms is None else options.prefix_padding_ms


def session_update(config: ProviderConfig, options: OpenAIRealtimeOptions, request: RealtimeRequest) -> str:
    """The message that configures the session: μ-law in and out, tools, who ends turns and who asks for answers."""
    sound = {"type": "audio/pcmu"}  # 8 kHz; Realtime refuses a rate beside it
    voice = {"id": config.voice} if config.voice.startswith("voice_") else config.voice
    session: dict[str, Any] = {
        "type": "realtime",
        "instructions": request.instructions,
        "output_modalities": ["audio"],
        "audio": {
            "input": {
                "format": sound,
                "noise_reduction": {"type": options.noise_reduction} if options.noise_reduction else None,
                "transcription": _transcription(config, options),
                "turn_detection": _turn_detection(options, by_itself=request.interruption == "immediate"),
            },
            "output": {
                "format": sound,
                **({"voice": voice} if voice else {}),
                **({"speed": options.speed} if options.speed else {}),
            },
        },
        "tools": [{"type": "function", **function(tool)} for tool in request.tools],
        "tool_choice": "auto",
    }
    if options.max_output_tokens:
        session["max_output_tokens"] = options.max_output_tokens
    if options.effort:
        session["reasoning"] = {"effort": options.effort}
    if not options.parallel_tools:
        session["parallel_tool_calls"] = False
    return json.dumps({"type": "session.update", "event_id": "configure", "session": session})


def _transcription(config: ProviderConfig, options: OpenAIRealtimeOptions) -> dict[str, Any]:
    wanted: dict[str, Any] = {"model": options.transcription_model}
    code = config.language.partition("-")[0].lower()  # ISO 639-1, so "en-US" is "en"
    if len(code) == 2:
        wanted |= {"languages": [code]} if options.transcription_model in _KEYWORDS else {"language": code}
    if options.transcription_prompt:
        wanted["prompt"] = options.transcription_prompt
    if options.transcription_keywords:
        wanted["keywords"] = list(options.transcription_keywords)
    return wanted


def _turn_detection(options: OpenAIRealtimeOptions, *, by_itself: bool) -> dict[str, Any]:
    """`by_itself`: OpenAI stops its response when the caller speaks, and answers each turn."""
    detection: dict[str, Any] = {"type": options.turn_detection}
    if options.turn_detection == "semantic_vad":
        detection |= options.model_dump(include={"eagerness"}, exclude_none=True)
    else:
        detection |= {"prefix_padding_ms": prefix_ms(options), "silence_duration_ms": silence_ms(options)}
        detection |= options.model_dump(include={"threshold"}, exclude_none=True)
    return detection | {"create_response": by_itself, "interrupt_response": by_itself}


# --- the conversation ------------------------------------------------------------------------------------


def seed(messages: Sequence[Message]) -> list[str]:
    """Messages that make the conversation so far known to the model. It answers none of them by itself."""
    ordered = in_vendor_order(messages)
    # Unlike a request for a reply, a session may begin with the agent, and end with it.
    if ordered and ordered[0] == NoteMessage(text=OPENING):
        del ordered[0]
    if ordered and ordered[-1] == NoteMessage(text=GO_ON):
        del ordered[-1]
    return [create(item) for message in ordered for item in _items(message)]


def create(item: dict[str, Any]) -> str:
    return json.dumps({"type": "conversation.item.create", "item": item})


def note(text: str) -> dict[str, Any]:
    return _message("system", "input_text", text)


def tool_output(result: ToolMessage) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": result.tool_call_id, "output": result.content}


def _items(message: Message) -> list[dict[str, Any]]:
    if isinstance(message, ToolMessage):
        return [tool_output(message)]
    if isinstance(message, NoteMessage):
        return [note(message.text)]
    if isinstance(message, AgentMessage):
        said = [_message("assistant", "output_text", message.text)] if message.text else []
        return said + [{"type": "function_call", "call_id": call.id, **called(call)} for call in message.tool_calls]
    return [_message("user", "input_text", message.text)]


def _message(role: str, kind: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def append(audio: bytes) -> bytes:
    """Written by hand: the SDK takes 200 µs for one, and there are fifty in a second of each call."""
    return b'{"type":"input_audio_buffer.append","audio":"' + base64.b64encode(audio) + b'"}'
