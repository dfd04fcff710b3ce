"""What is sent to Gemini Live: options, the setup message, the conversation so far, audio, results. No I/O.

Names and shapes are those of Google's own `google.genai.types` (google-genai 3.6), in camelCase as its JSON has
them. Model differences come from ai.google.dev/gemini-api/docs/models/gemini-3.8-live.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field

from media_bridge.providers.base import ProviderConfig, RealtimeRequest
from media_bridge.providers.llm_history import GO_ON, alternating, note_text
from media_bridge.providers.options import Options, read_options
from stayline.errors import ConfigError
from stayline.models import AgentMessage, Message, ToolCall, ToolMessage, ToolSpec

log = logging.getLogger(__name__)

INPUT_RATE: Final = 16_000
VOICES: Final = (
    "Achernar",
    "Achird",
    "Algenib",
    "Algieba",
    "Alnilam",
    "Aoede",
    "Autonoe",
    "Callirrhoe",
    "Charon",
    "Despina",
    "Enceladus",
    "Erinome",
    "Fenrir",
    "Gacrux",
    "Iapetus",
    "Kore",
    "Laomedeia",
    "Leda",
    "Orus",
    "Puck",
    "Pulcherrima",
    "Rasalgethi",
    "Sadachbia",
    "Sadaltager",
    "Schedar",
    "Sulafat",
    "Umbriel",
    "Vindemiatrix",
    "Zephyr",
    "Zubenelgenubi",
)
SAY: Final = "Say exactly the following to the caller now, word for word, and nothing before or after it:"

Sensitivity = Literal["low", "high"]
ThinkingLevel = Literal["minimal", "low", "medium", "high"]
_AUDIO: Final = f'{{"realtimeInput":{{"audio":{{"mimeType":"audio/pcm;rate={INPUT_RATE}","data":"'


class GeminiOptions(Options):
    """`options={"realtime": {...}}`, by Google's own names where it has them."""

    temperature: float | None = Field(None, ge=0, le=2)
    max_output_tokens: int | None = Field(None, ge=1)  #: of a response
    language_code: str = ""  #: BCP-47; models with native audio choose the language themselves and may refuse it
    transcription_languages: tuple[str, ...] = ()  #: BCP-47 hints for writing down the caller; empty: any
    start_of_speech_sensitivity: Sensitivity | None = None
    end_of_speech_sensitivity: Sensitivity | None = None
    prefix_padding_ms: int | None = Field(None, ge=0, le=5000)  #: speech that must be heard before it counts
    silence_duration_ms: int | None = Field(None, ge=0, le=10_000)  #: silence that ends a turn
    thinking_level: ThinkingLevel | None = None  #: `…-extended-thinking` models only
    thinking_budget: int | None = Field(None, ge=-1)  #: tokens; gemini-2.5 only
    google_search: bool = False  #: the model may search the web
    blocking_tools: bool = False  #: the model is silent until a tool has answered; for models that know no other
    trigger_tokens: int | None = Field(None, ge=1)  #: from so many on the oldest are forgotten
    target_tokens: int | None = Field(None, ge=0)  #: so many are kept then
    api_version: str = Field("v1", pattern=r"^v\d+((alpha|beta)\d*)?$")


def read(config: ProviderConfig) -> GeminiOptions:
    """The options, checked against the model.

    Raises:
        ConfigError: Google would refuse this.
    """
    if not config.api_key:
        raise ConfigError("Google has no key.", fix="Set GOOGLE_API_KEY.")
    options = read_options(GeminiOptions, config, "realtime")
    thinks = "extended-thinking" in config.model
    if options.thinking_level and not thinks:
        fix = "Leave it out, or use gemini-3.8-live-extended-thinking."
        raise ConfigError(f"google/{config.model} takes no thinking_level.", fix=fix)
    if options.thinking_budget is not None and "2.5" not in config.model:
        raise ConfigError(f"google/{config.model} takes no thinking_budget.", fix="Leave it out.")
    if options.blocking_tools and thinks:
        raise ConfigError(f"google/{config.model} has no blocking tools.", fix="Leave blocking_tools out.")
    if config.voice and voice_name(config.voice) not in VOICES:
        log.warning("gemini live: the voice %r is not among the thirty that are known", config.voice)
    return options


def voice_name(voice: str) -> str:
    """The voice as Google spells it; one that is not known is left as it is, for Google adds some."""
    return next((name for name in VOICES if name.lower() == voice.lower()), voice)


def setup(config: ProviderConfig, options: GeminiOptions, request: RealtimeRequest) -> str:
    """The first message. Without compression a call would end after 15 minutes, without resumption after 10."""
    message: dict[str, Any] = {
        "model": config.model if "/" in config.model else f"models/{config.model}",
        "generationConfig": _generation(config, options),
        "realtimeInputConfig": _turns(options, request),
        "inputAudioTranscription": _given(languageCodes=list(options.transcription_languages)),
        "outputAudioTranscription": {},
        "contextWindowCompression": _given(
            triggerTokens=options.trigger_tokens,
            slidingWindow={} if options.target_tokens is None else {"targetTokens": options.target_tokens},
        ),
        "sessionResumption": _given(handle=request.resume),
    }
    if request.instructions:
        message["systemInstruction"] = {"parts": [{"text": request.instructions}]}
    tools: list[dict[str, Any]] = []
    if request.tools:
        tools.append({"functionDeclarations": [_function(tool, options) for tool in request.tools]})
    if options.google_search:
        tools.append({"googleSearch": {}})
    if tools:
        message["tools"] = tools
    return json.dumps({"setup": message})


def _generation(config: ProviderConfig, options: GeminiOptions) -> dict[str, Any]:
    voice = {"prebuiltVoiceConfig": {"voiceName": voice_name(config.voice)}} if config.voice else None
    return _given(
        responseModalities=["AUDIO"],
        speechConfig=_given(voiceConfig=voice, languageCode=options.language_code),
        temperature=options.temperature,
        maxOutputTokens=options.max_output_tokens,
        thinkingConfig=_given(
            thinkingLevel=options.thinking_level and options.thinking_level.upper(),
            thinkingBudget=options.thinking_budget,
        ),
    )


def _turns(options: GeminiOptions, request: RealtimeRequest) -> dict[str, Any]:
    """Who may interrupt, and what a turn is."""
    start, end = options.start_of_speech_sensitivity, options.end_of_speech_sensitivity
    stops = request.interruption == "immediate"
    return _given(
        activityHandling="START_OF_ACTIVITY_INTERRUPTS" if stops else "NO_INTERRUPTION",
        automaticActivityDetection=_given(
            startOfSpeechSensitivity=start and f"START_SENSITIVITY_{start.upper()}",
            endOfSpeechSensitivity=end and f"END_SENSITIVITY_{end.upper()}",
            prefixPaddingMs=options.prefix_padding_ms,
            silenceDurationMs=options.silence_duration_ms,
        ),
    )


def _function(tool: ToolSpec, options: GeminiOptions) -> dict[str, Any]:
    """A declaration. The schema goes as JSON Schema, as it is; the older `parameters` knows a part of it only."""
    declaration: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters.get("properties"):  # an object without any is refused
        declaration["parametersJsonSchema"] = tool.parameters
    return declaration | {"behavior": "BLOCKING" if options.blocking_tools else "NON_BLOCKING"}


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value; empty texts, lists and objects have none, but a sliding window may be empty."""
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value not in ("", []) and (value != {} or name == "slidingWindow")
    }


# --- while the session goes on ---------------------------------------------------------------------------------


def audio(pcm: bytes) -> str:
    """The caller's sound: 16-bit PCM at INPUT_RATE. Put together by hand, as it is sent fifty times a second."""
    return f'{_AUDIO}{base64.b64encode(pcm).decode()}"}}}}}}'


def content(turns: Sequence[dict[str, Any]], *, answer: bool) -> str:
    """Text for the conversation. `answer`: the model speaks now, and stops what it was saying."""
    return json.dumps({"clientContent": {"turns": list(turns), "turnComplete": answer}})


def note(text: str) -> dict[str, Any]:
    return _turn("user", note_text(text))


def say(text: str) -> dict[str, Any]:
    return _turn("user", f"{SAY} {text}")


def go_on() -> dict[str, Any]:
    """Asks for an answer when there is nothing new to be told."""
    return note(GO_ON)


def history(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation so far as turns whose roles alternate, the user's first.

    Tool calls and results are told in words: a session does not know the calls of another one by their ids.
    """
    turns: list[dict[str, Any]] = []
    calls: dict[str, ToolCall] = {}
    for message in alternating(messages) if messages else []:
        if isinstance(message, AgentMessage):
            calls |= {call.id: call for call in message.tool_calls}
            if message.text:
                _add(turns, "model", message.text)
        elif isinstance(message, ToolMessage):
            _add(turns, "user", note_text(_told(message, calls.get(message.tool_call_id))))
        elif message.text != note_text(GO_ON):  # nobody is to answer
            _add(turns, "user", message.text)
    return turns


def _told(result: ToolMessage, call: ToolCall | None) -> str:
    arguments = (
        f" with {json.dumps(call.arguments, ensure_ascii=False)}" if call is not None and call.arguments else ""
    )
    outcome = "It failed" if result.is_error else "Its result"
    return f"You have called the tool {result.name}{arguments}. {outcome}: {result.content}"


def _add(turns: list[dict[str, Any]], role: str, text: str) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["parts"].append({"text": text})
    else:
        turns.append(_turn(role, text))


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


def tool_response(result: ToolMessage, *, scheduling: Literal["WHEN_IDLE", "SILENT"] | None) -> str:
    """A tool's result. `scheduling` is for tools that do not block: when the model speaks of it."""
    try:
        value = json.loads(result.content)
    except ValueError:
        value = result.content
    response = _given(
        id=result.tool_call_id,
        name=result.name,
        response={"error" if result.is_error else "output": value},
        scheduling=scheduling,
    )
    return json.dumps({"toolResponse": {"functionResponses": [response]}})
