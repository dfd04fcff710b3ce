"""A Realtime session of OpenAI that reads out what it is given, and does nothing else: see `openai_speech`."""

from __future__ import annotations

import asyncio
import base64
import itertools
from typing import TYPE_CHECKING, Any

from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import TypeAdapter, ValidationError

from tests.fakes.socket import FakeSocket, ProtocolError

if TYPE_CHECKING:
    from tests.fakes.openai_speech import OpenAIVoice

REALTIME_VOICES = ["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"]
OWN_VOICE = "voice_1234"  #: the one that this account has made
SESSION_KEYS = {"type", "instructions", "output_modalities", "audio", "tools", "reasoning"}
RESPONSE_KEYS = {"conversation", "output_modalities", "instructions", "input", "metadata"}
DELTA = 800  #: bytes: 100 ms of μ-law

_CLIENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
_SERVER: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def spelling(text: str, ms_per_char: float) -> bytes:
    return b"".join(bytes([ord(char) & 0xFF]) * round(ms_per_char * 8) for char in text)


def spelled(audio: bytes, ms_per_char: float = 60) -> str:
    return audio[:: round(ms_per_char * 8)].decode("latin-1")


class Reading:
    """One session."""

    def __init__(self, voice: OpenAIVoice, socket: FakeSocket, model: str) -> None:
        self._voice = voice
        self._socket = socket
        self._config: dict[str, Any] = {"type": "realtime", "model": model, "output_modalities": ["audio"]}
        self._configured = False
        self._ids = itertools.count(1)
        self._responses: dict[str, asyncio.Task[None]] = {}
        self._said: dict[str, dict[str, Any]] = {}

    async def talk(self) -> None:
        await self._send("session.created", session=self._config)
        try:
            async for message in self._socket.messages(3600.0, ProtocolError(1000, "idle")):
                if isinstance(message, bytes):
                    raise refusal("invalid_frame", "Binary frames are not supported.")
                if (wrong := self._wrong(message)) is not None:
                    event_id = message.get("event_id")
                    await self._send("error", error={**error_object("invalid_value", wrong), "event_id": event_id})
                elif message["type"] == "session.update":
                    await self._update(message["session"])
                elif message["type"] == "response.create":
                    self._create(message["response"])
                else:
                    await self._cancel(message["response_id"])
        finally:
            for task in self._responses.values():
                task.cancel()
            await asyncio.gather(*self._responses.values(), return_exceptions=True)

    def _wrong(self, message: dict[str, Any]) -> str | None:
        """What OpenAI would say against a message."""
        try:
            _CLIENT.validate_python(message)
        except ValidationError as error:
            return str(error.errors()[0]["msg"])
        match message:
            case {"type": "session.update", "session": session, **rest}:
                return self._wrong_session(session) if not set(rest) - {"event_id"} else "Unknown parameter."
            case {"type": "response.create", "response": response, **rest}:
                return self._wrong_response(response) if not set(rest) - {"event_id"} else "Unknown parameter."
            case {"type": "response.cancel", "response_id": str(), **rest}:
                return None if not set(rest) - {"event_id"} else "Unknown parameter."
            case _:
                return f"Invalid value: '{message.get('type')}'."

    def _wrong_session(self, session: dict[str, Any]) -> str | None:
        if set(session) - SESSION_KEYS or session.get("type") != "realtime":
            return "Unknown parameter in 'session'."
        output = session["audio"]["output"]
        if output["format"] != {"type": "audio/pcmu"} or session["audio"]["input"].get("turn_detection", 1):
            return "This fake speaks audio/pcmu and does not listen."
        voice = output["voice"]
        if voice not in REALTIME_VOICES and voice != {"id": OWN_VOICE}:
            return f"Invalid value: '{voice}'. Supported values are: {', '.join(REALTIME_VOICES)}."
        if not 0.25 <= output.get("speed", 1) <= 1.5:
            return "Invalid 'session.audio.output.speed'."
        if "reasoning" in session and not self._config["model"].startswith("gpt-realtime-2"):
            return "Unsupported parameter: 'session.reasoning'."
        return None

    def _wrong_response(self, response: dict[str, Any]) -> str | None:
        if set(response) - RESPONSE_KEYS:
            return "Unknown parameter in 'response'."
        if not self._configured or response.get("conversation") != "none":
            return "This fake only reads out, after session.update and outside the conversation."
        if response.get("output_modalities") != ["audio"]:
            return "Invalid 'response.output_modalities'."
        match response.get("input"):
            case [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": str(text)}]}]:
                return None if text and text not in self._voice.refuses else "Invalid 'response.input'."
            case _:
                return "Invalid 'response.input'."

    async def _update(self, session: dict[str, Any]) -> None:
        self._config = {**self._config, **session}
        self._configured = True
        await self._send("session.updated", session=self._config)
        if self._voice.complaint:
            await self._send("error", error=error_object("server_error", self._voice.complaint, "server_error"))

    def _create(self, response: dict[str, Any]) -> None:
        self._voice.asked.append(response)
        name = f"resp_{next(self._ids)}"
        self._said[name] = response
        self._responses[name] = asyncio.create_task(self._speak(name, response, len(self._voice.asked)))

    async def _cancel(self, name: str) -> None:
        task = self._responses.pop(name, None)
        if task is None or task.done():
            await self._send("error", error=error_object("response_cancel_not_active", "No active response found."))
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._voice.cancelled.append(_text(self._said[name]))
        await self._done(name, "cancelled", {"type": "cancelled", "reason": "client_cancelled"})

    async def _speak(self, name: str, response: dict[str, Any], number: int) -> None:
        voice, text = self._voice, _text(response)
        await self._send("response.created", response=self._response(name, "in_progress"))
        item = {
            "id": f"item_{name}",
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        await self._send("response.output_item.added", response_id=name, output_index=0, item=item)
        place = {"response_id": name, "item_id": item["id"], "output_index": 0, "content_index": 0}
        await self._send("response.content_part.added", **place, part={"type": "audio", "transcript": ""})
        said = voice.transcript(text)
        await self._send("response.output_audio_transcript.delta", **place, delta=said)
        sound = spelling(text, voice.ms_per_char)
        ending = voice.endings.get(number)
        if ending is not None:
            sound = sound[: len(sound) // 2]
        for sent, begin in enumerate(range(0, len(sound), DELTA)):
            if voice.hold.get(number) == sent:
                await voice.go_on.wait()
            delta = base64.b64encode(sound[begin : begin + DELTA]).decode()
            await self._send("response.output_audio.delta", **place, delta=delta)
            await asyncio.sleep(0)
        if ending is not None:
            await self._done(name, ending["status"], ending["status_details"])
            return
        await self._send("response.output_audio.done", **place)
        await self._send("response.output_audio_transcript.done", **place, transcript=said)
        await self._done(name, "completed", None)
        await self._send("rate_limits.updated", rate_limits=[])

    async def _done(self, name: str, status: str, details: dict[str, Any] | None) -> None:
        await self._send("response.done", response={**self._response(name, status), "status_details": details})

    def _response(self, name: str, status: str) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": name,
            "status": status,
            "output": [],
            "conversation_id": None,
            "output_modalities": ["audio"],
            "metadata": self._said[name].get("metadata"),
        }

    async def _send(self, kind: str, **fields: Any) -> None:
        message = {"type": kind, "event_id": f"event_{next(self._ids)}", **fields}
        _SERVER.validate_python(message)
        await self._socket.send(message)


def _text(response: dict[str, Any]) -> str:
    return str(response["input"][0]["content"][0]["text"])


def error_object(code: str, message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": kind, "code": code, "message": message, "param": None, "event_id": None}


def refusal(code: str, message: str) -> ProtocolError:
    error = {"type": "error", "event_id": "event_0", "error": error_object(code, message)}
    return ProtocolError(1008, f"invalid_request_error.{code}", error)
