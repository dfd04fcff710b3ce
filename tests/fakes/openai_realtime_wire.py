"""What OpenAI Realtime takes from a client: documented events, by the SDK's own types, and rules beside them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from openai.types.realtime import RealtimeClientEvent
from pydantic import BaseModel, TypeAdapter, ValidationError

from tests.fakes.socket import ProtocolError

VOICES = {"alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"}
CONTENT = {"user": "input_text", "system": "input_text", "assistant": "output_text"}
TOOL_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)


class Refused(Exception):
    """Answered by an error event; the session stays as it was."""

    def __init__(self, message: str, code: str | None = "invalid_value") -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def wire_error(message: str, code: str | None = None, *, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": kind, "code": code, "message": message, "param": None, "event_id": None}


def closing(message: str, code: str, close: int = 4000) -> ProtocolError:
    """OpenAI says what is wrong, and closes."""
    event = {"type": "error", "event_id": "event_0", "error": wire_error(message, code)}
    return ProtocolError(close, message, event)


def check_event(message: dict[str, Any]) -> None:
    try:
        event = _EVENT.validate_python(message)
    except ValidationError as error:
        raise Refused(f"Invalid event: {error.errors()[0]['msg']}", "invalid_event") from None
    for name in unknown_fields(event):
        raise Refused(f"Unknown parameter: '{name}'.", "unknown_parameter")


def unknown_fields(value: object) -> list[str]:
    """Fields that the SDK's types do not have; they keep what they do not know."""
    if isinstance(value, list):
        return [name for item in value for name in unknown_fields(item)]
    if not isinstance(value, BaseModel):
        return []
    extra = value.model_extra or {}
    return [*extra, *(name for field in type(value).model_fields for name in unknown_fields(getattr(value, field)))]


def check_session(session: dict[str, Any], model: str) -> dict[str, Any]:
    """The configuration in force."""
    sound = session["audio"]
    if session["type"] != "realtime" or session.get("output_modalities") != ["audio"]:
        raise Refused("This fake speaks.")
    if sound["input"]["format"] != {"type": "audio/pcmu"} or sound["output"]["format"] != {"type": "audio/pcmu"}:
        raise Refused("Invalid 'session.audio.input.format'.")
    voice = sound["output"].get("voice", "alloy")
    if not (str(voice["id"]).startswith("voice_") if isinstance(voice, dict) else voice in VOICES):
        raise Refused(f"Invalid value: '{voice}'.")
    if not 0.25 <= sound["output"].get("speed", 1) <= 1.5:
        raise Refused("Invalid 'session.audio.output.speed'.")
    transcription = sound["input"]["transcription"]
    live = transcription["model"] in ("gpt-transcribe", "gpt-live-transcribe")
    if not live and (transcription.get("keywords") or transcription.get("languages")):
        raise Refused(f"{transcription['model']} takes no keywords.")
    if live and transcription.get("language"):
        raise Refused(f"{transcription['model']} takes languages.")
    if transcription["model"] == "gpt-realtime-whisper" and transcription.get("prompt"):
        raise Refused("Prompt is not supported.")
    if model == "gpt-realtime" and ("reasoning" in session or "parallel_tool_calls" in session):
        raise Refused("Reasoning is not supported with this model.", "unsupported_parameter")
    for tool in session.get("tools", []):
        if not TOOL_NAME.match(tool["name"]) or tool["parameters"].get("type") != "object":
            raise Refused(f"Invalid tool '{tool['name']}'.")
    return session


def check_item(item: dict[str, Any], open_calls: Collection[str], call_ids: Collection[str]) -> None:
    match item["type"]:
        case "message":
            kinds = [part.get("type") for part in item["content"]]
            if kinds != [CONTENT[item["role"]]] or not item["content"][0].get("text"):
                raise Refused("Invalid 'item.content'.")
        case "function_call":
            if not 1 <= len(item.get("call_id", "")) <= 64 or not TOOL_NAME.match(item["name"]):
                raise Refused("Invalid 'item.call_id'.", "string_above_max_length")
            if item["call_id"] in call_ids:
                raise Refused(f"Duplicate call_id '{item['call_id']}'.")
            json.loads(item["arguments"])
        case "function_call_output":
            if item["call_id"] not in open_calls:
                raise Refused(f"Tool call ID '{item['call_id']}' not found in conversation.")
        case kind:
            raise Refused(f"Invalid value: '{kind}'.")


def audio_sent(messages: Sequence[object]) -> bytes:
    """The caller's audio among what the client sent."""
    kind = "input_audio_buffer.append"
    return b"".join(base64.b64decode(m["audio"]) for m in messages if isinstance(m, dict) and m["type"] == kind)
