"""OpenAI's live transcription sessions on the wire, at `/v1/realtime?intent=transcription`.

    async with FakeOpenAI() as fake:
        fake.hears += ["Hello there.", Heard("I need a plumber.", failed="server_error")]
        fake.hearing.sessions[0].audio, fake.hearing.sessions[0].config

As strict as OpenAI: client events are checked with its SDK's own types, and nothing may be in them that those do
not know; what a model cannot do is refused. It does not understand speech: a turn is the next line of the script.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from aiohttp import web
from openai.types.realtime import InputAudioBufferAppendEvent, InputAudioBufferCommitEvent
from openai.types.realtime.realtime_transcription_session_create_request import (
    RealtimeTranscriptionSessionCreateRequest,
)
from pydantic import BaseModel, ValidationError

from tests.fakes.llm import words
from tests.fakes.openai_heard import LEAST_MS, NO_VAD, ONLY_FOR, Heard, Script, logprobs
from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import BYTES_PER_MS, Bursts, Frame, loud

if TYPE_CHECKING:
    from tests.fakes.openai import FakeOpenAI

LIMIT = "Your session hit the maximum duration of 60 minutes."


class Hearing:
    """The live sessions of a `FakeOpenAI`."""

    def __init__(self, server: FakeOpenAI, script: Script) -> None:
        self.script = script
        self.sessions: list[LiveSession] = []
        self.refusal: dict[str, Any] | None = None  #: sent instead of `session.updated`, then the session is closed
        self._server = server

    async def live(self, request: web.Request) -> web.StreamResponse:
        """`GET /v1/realtime?intent=transcription`."""
        recorded, fault = await self._server.begin(request)
        self._server._check_key(request)
        if "openai-beta" in recorded.headers:
            self._server._bad("The Realtime Beta API is no longer supported.", "beta_api_shape_disabled")
        if recorded.query != [("intent", "transcription")]:
            self._server._bad("You must not provide a model parameter for transcription sessions.")
        error = {"type": "error", "event_id": "event_0", "error": {"type": "server_error", "message": "It broke."}}
        socket = FakeSocket(self._server, request, recorded, fault, error=error)
        session = LiveSession(self, self._server, socket)
        self.sessions.append(session)
        return await socket.serve(session.talk)


class LiveSession:
    """One transcription session, from its handshake to its end."""

    def __init__(self, hearing: Hearing, server: FakeOpenAI, socket: FakeSocket) -> None:
        self.socket = socket
        self.audio = b""  #: everything it was sent
        self.config: dict[str, Any] = {}
        self.commits = 0
        self._hearing = hearing
        self._server = server
        self._bursts = Bursts()
        self._uncommitted = 0  #: bytes
        self._loud = 0  #: bytes of the open turn that are
        self._turn: Heard | None = None  #: the open one
        self._item = ""
        self._told = 0  #: words of it
        self._last_item: str | None = None
        self._unwritten: list[Heard] = []
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def model(self) -> str:
        return str(self.config["audio"]["input"]["transcription"]["model"])

    @property
    def detection(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.config["audio"]["input"]["turn_detection"]
        return found

    async def expire(self, *, says_so: bool = True) -> None:
        """Its time is over."""
        if says_so:
            await self._refuse(LIMIT, "session_expired")
        await self.socket.ws.close(code=1001, message=LIMIT.encode())

    async def fail(self, code: str, message: str) -> None:
        """An error that the session survives."""
        await self._refuse(message, code)

    async def send_raw(self, message: dict[str, Any]) -> None:
        await self.socket.send(message)

    async def talk(self) -> None:
        try:
            await self._send("session.created", session=self._described({}))
            async for message in self.socket.messages(60.0, ProtocolError(1001, "idle")):
                if isinstance(message, bytes):
                    raise ProtocolError(1003, "binary frames are not supported")
                await self._take(message)
        finally:
            for task in self._writing:
                task.cancel()
            await asyncio.gather(*self._writing, return_exceptions=True)
            self._hearing.script.lines[:0] = self._unwritten  # the next session hears it

    async def _take(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "session.update":
            await self._update(message)
        elif not self.config:
            await self._refuse("The session is not configured.", "invalid_value", event_id=message.get("event_id"))
        elif kind == "input_audio_buffer.append":
            await self._append(message)
        elif kind == "input_audio_buffer.commit":
            await self._commit(message)
        else:
            await self._refuse(f"Invalid value: '{kind}'.", "invalid_value", "type", message.get("event_id"))

    # --- session.update ----------------------------------------------------------------------------------

    async def _update(self, message: dict[str, Any]) -> None:
        if self._hearing.refusal is not None:
            await self._send("error", error=self._hearing.refusal)
            raise ProtocolError(3000, "invalid_request_error")
        session = message.get("session", {})
        try:
            self._check_session(session)
        except (ValueError, KeyError) as wrong:
            code, param, text = (*wrong.args, "", "")[:3]
            await self._refuse(text or str(wrong), code if text else "invalid_value", param or "session")
            return
        self.config = session
        await self._send("session.updated", session=self._described(session))

    def _check_session(self, session: dict[str, Any]) -> None:
        checked = RealtimeTranscriptionSessionCreateRequest.model_validate(session)
        for unknown in unknown_fields(checked):
            raise ValueError("unknown_parameter", unknown, f"Unknown parameter: 'session.{unknown}'.")
        asked = session["audio"]["input"]
        transcription = asked["transcription"]
        model = transcription["model"]
        if asked["format"] != {"type": "audio/pcmu"}:
            raise ValueError("invalid_value", "audio.input.format", "This fake takes audio/pcmu.")
        if model in self._server.unknown_models:
            raise ValueError("model_not_found", "model", f"The model `{model}` does not exist.")
        if asked["turn_detection"] is not None and model in NO_VAD:
            text = "Turn detection is not supported for this transcription model."
            raise ValueError("invalid_value", "audio.input.turn_detection", text)
        options = [*transcription, *(["logprobs"] if session.get("include") else [])]
        for name in options:
            if name in ONLY_FOR and model not in ONLY_FOR[name]:
                raise ValueError("unsupported_parameter", name, f"'{name}' is not supported for this model.")

    def _described(self, session: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": "sess_1",
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": 1785217648,
            **session,
        }

    # --- audio -------------------------------------------------------------------------------------------

    async def _append(self, message: dict[str, Any]) -> None:
        try:
            audio = base64.b64decode(_checked(InputAudioBufferAppendEvent, message).audio, validate=True)
        except (ValidationError, ValueError, binascii.Error):
            await self._refuse("Invalid 'audio'.", "invalid_value", "audio", message.get("event_id"))
            return
        self.audio += audio
        self._uncommitted += len(audio)
        if self.detection is not None:
            for frame in self._bursts.feed(audio):
                await self._frame(frame, self.detection)
            return
        if self._turn is None:
            self._begin()
        self._loud += sum(len(piece) for piece in _pieces(audio) if loud(piece))
        if self.model in NO_VAD:  # these write while they hear; the last word only when the turn is over
            await self._write_words(min(self._loud // (300 * BYTES_PER_MS), len(words(self._heard.text)) - 1))

    async def _frame(self, frame: Frame, detection: dict[str, Any]) -> None:
        prefix, silence = detection.get("prefix_padding_ms", 300), detection.get("silence_duration_ms", 500)
        if frame.starts:
            self._begin()
            at_ms = max(0, (frame.begun_ms or 0) - prefix)
            await self._send("input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=self._item)
        elif self._turn is not None and frame.silent_ms >= silence:
            self._bursts.end()
            await self._send("input_audio_buffer.speech_stopped", audio_end_ms=frame.at_ms, item_id=self._item)
            await self._over()

    async def _commit(self, message: dict[str, Any]) -> None:
        _checked(InputAudioBufferCommitEvent, message)
        has_ms = self._uncommitted / BYTES_PER_MS
        if has_ms < LEAST_MS:
            text = "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but "
            text += f"buffer only has {has_ms:.2f}ms of audio."
            await self._refuse(text, "input_audio_buffer_commit_empty", event_id=message.get("event_id"))
            return
        if self._turn is None:
            self._begin()
        await self._over()

    # --- turns -------------------------------------------------------------------------------------------

    @property
    def _heard(self) -> Heard:
        assert self._turn is not None
        return self._turn

    def _begin(self) -> None:
        self._turn = self._hearing.script.next()
        self._unwritten.append(self._turn)
        self._item = self._server.next_id("item_")
        self._told = self._loud = 0

    async def _over(self) -> None:
        heard, item, told = self._heard, self._item, self._told
        self._turn, self._uncommitted = None, 0
        self.commits += 1
        before, self._last_item = self._last_item, item
        await self._send("input_audio_buffer.committed", item_id=item, previous_item_id=before)
        content = [{"type": "input_audio", "transcript": None}]
        described = {"id": item, "type": "message", "role": "user", "status": "completed", "content": content}
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self._send(kind, item=described, previous_item_id=before)
        if heard.until is None:
            await self._write(heard, item, told)
        else:
            self._writing.add(asyncio.create_task(self._write(heard, item, told)))

    async def _write(self, heard: Heard, item: str, told: int) -> None:
        if heard.until is not None:
            await heard.until.wait()
        place = {"item_id": item, "content_index": 0}
        if heard.failed:
            self._unwritten.remove(heard)
            self._hearing.script.failed(heard)
            error = {
                "type": "server_error",
                "code": heard.failed,
                "message": "Transcription failed.",
                "param": None,
            }
            await self._send("conversation.item.input_audio_transcription.failed", **place, error=error)
            return
        for word in words(heard.text)[told:]:
            await self._send("conversation.item.input_audio_transcription.delta", **place, delta=word)
        extra = {"logprobs": logprobs(heard)} if self.config.get("include") else {}
        self._unwritten.remove(heard)
        await self._send(
            "conversation.item.input_audio_transcription.completed",
            **place,
            transcript=heard.text,
            usage={"type": "duration", "seconds": 1.0},
            **extra,
        )

    async def _write_words(self, until: int) -> None:
        place = {"item_id": self._item, "content_index": 0}
        for word in words(self._heard.text)[self._told : max(until, 0)]:
            await self._send("conversation.item.input_audio_transcription.delta", **place, delta=word)
            self._told += 1

    # --- messages ----------------------------------------------------------------------------------------

    async def _refuse(self, message: str, code: str, param: str | None = None, event_id: object = None) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
        await self._send("error", error={**error, "event_id": event_id})

    async def _send(self, kind: str, **fields: Any) -> None:
        await self.socket.send({"type": kind, "event_id": self._server.next_id("event_"), **fields})


def unknown_fields(model: BaseModel, where: str = "") -> Iterator[str]:
    """What the SDK's types let pass although they do not know it."""
    for name in model.model_extra or ():
        yield f"{where}{name}"
    for name in model.model_fields_set:
        value = getattr(model, name, None)
        if isinstance(value, BaseModel):
            yield from unknown_fields(value, f"{where}{name}.")


def _checked(kind: Any, message: dict[str, Any]) -> Any:
    checked = kind.model_validate(message)
    for unknown in unknown_fields(checked):
        raise ValueError(f"Unknown parameter: '{unknown}'.")
    return checked


def _pieces(audio: bytes) -> Iterator[bytes]:
    size = 20 * BYTES_PER_MS
    return (audio[begin : begin + size] for begin in range(0, len(audio), size))
