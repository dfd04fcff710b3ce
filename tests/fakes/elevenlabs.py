"""ElevenLabs, as its clients see it: text to speech on the multi-context websocket and over HTTP, and Scribe.

The voice is a tone, 60 ms a character; Scribe hears what its script says (see `elevenlabs_scribe`).

    async with FakeElevenLabs() as fake:
        ... ProviderConfig("elevenlabs", "eleven_flash_v2_5", api_key=fake.api_key, base_url=fake.url, voice="v")
        fake.pace.hold_after = 1      # one audio message per flush, then nothing until the context is closed

As strict as the vendor: wrong key, parameters, message shapes and a sixth live context are refused its way, with
an error message and close code 1008.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import Any

from aiohttp import web

from tests.fakes.elevenlabs_http import HttpSpeaker, detail
from tests.fakes.elevenlabs_scribe import Scribe
from tests.fakes.misbehaviour import FakeServer, refuse
from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import Pace, Sound, tone_of

CONTEXTS = 5
CHARS_PER_MESSAGE = 12
PARAMETERS = {
    "model_id",
    "output_format",
    "inactivity_timeout",
    "sync_alignment",
    "language_code",
    "auto_mode",
    "apply_text_normalization",
    "enable_logging",
    "seed",
}
VOICE_SETTINGS = {"stability", "similarity_boost", "style", "use_speaker_boost", "speed"}


def refusal(error: str, message: str) -> ProtocolError:
    return ProtocolError(1008, message[:100], {"message": message, "error": error, "code": 1008})


class FakeElevenLabs(FakeServer):
    def __init__(
        self,
        *,
        api_key: str = "elevenlabs-test-key",
        voices: tuple[str, ...] = ("21m00Tcm4TlvDq8ikWAM",),
        ms_per_char: float = 60,
        alignment: bool = True,
    ) -> None:
        super().__init__()
        self.api_key = api_key
        self.voices = voices
        self.pace = Pace(ms_per_char)
        self.alignment = alignment
        self.sound: Sound = tone_of  #: what its websocket's voice makes of a text
        self.most_contexts = 0  #: live at once, over all connections
        self.http = HttpSpeaker(self)
        self.scribe = Scribe(self)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/text-to-speech/{voice}/multi-stream-input", self._multi),
            *self.http.routes(),
            *self.scribe.routes(),
        ]

    def error_response(self, status: int, headers: dict[str, str]) -> web.Response:
        name, text = {
            401: ("invalid_api_key", "Invalid API key"),
            402: ("payment_required", "The account needs a paid plan."),
            403: ("forbidden", "Not for this key."),
            404: ("voice_not_found", "A voice with this id does not exist."),
            429: ("too_many_concurrent_requests", "Too many concurrent requests."),
        }.get(status, ("system_busy", "The system is busy."))
        return detail(status, name, text, headers)

    async def _multi(self, request: web.Request) -> web.WebSocketResponse:
        recorded, fault = await self.begin(request)
        if recorded.param("model_id")[:1] and recorded.param("model_id")[0].startswith("eleven_v3"):
            refuse(self.error_response(403, {}))  # before the websocket is accepted
        error = {"message": "Internal failure", "error": "internal_server_error", "code": 1008}
        socket = FakeSocket(self, request, recorded, fault, error=error)

        async def talk() -> None:
            if recorded.headers.get("xi-api-key") != self.api_key:
                raise refusal("invalid_api_key", "Invalid API key")
            if request.match_info["voice"] not in self.voices:
                raise refusal("voice_id_does_not_exist", "A voice with this id does not exist.")
            wrong = {name for name, _ in recorded.query} - PARAMETERS
            if wrong or recorded.param("output_format") != ["ulaw_8000"] or len(recorded.param("model_id")) != 1:
                raise refusal("invalid_parameters", f"Invalid parameters {sorted(wrong)}.")
            if recorded.param("language_code") and not recorded.param("model_id")[0].endswith("_v2_5"):
                raise refusal("unsupported_language", "The model does not take a language.")
            idle = float((recorded.param("inactivity_timeout") or ["20"])[0])
            aligned = self.alignment and recorded.param("sync_alignment") == ["true"]
            await _Contexts(self, socket, aligned).talk(idle)

        return await socket.serve(talk)


class _Contexts:
    def __init__(self, fake: FakeElevenLabs, socket: FakeSocket, aligned: bool) -> None:
        self._fake = fake
        self._socket = socket
        self._aligned = aligned
        self._contexts: dict[str, _Context] = {}

    async def talk(self, idle: float) -> None:
        timed_out = refusal("input_timeout_exceeded", "Have not received a new text input within the timeout.")
        try:
            async for message in self._socket.messages(idle, timed_out):
                if isinstance(message, bytes):
                    raise refusal("invalid_message", "Binary message.")
                if message == {"close_socket": True}:
                    return
                await self._message(message)
        finally:
            for context in list(self._contexts.values()):
                await context.stop()

    async def _message(self, message: dict[str, Any]) -> None:
        match message:
            case {"context_id": str(name), "close_context": True, **rest} if not rest and name in self._contexts:
                await self._contexts[name].close()
            case {"context_id": str(name), "flush": True, **rest} if not rest and name in self._contexts:
                self._contexts[name].flush()
            case {"context_id": str(name), "text": "", **rest} if not rest and name in self._contexts:
                pass  # a sign of life
            case {"context_id": str(name), "text": " ", **rest} if name not in self._contexts:
                self._open(name, rest)
            case {"context_id": str(name), "text": str(text), **rest} if (
                name in self._contexts and rest in ({}, {"flush": True}) and text.endswith(" ") and text.strip()
            ):
                self._contexts[name].add(text, flush=bool(rest))
            case _:
                raise refusal("invalid_message", f"Invalid message with {sorted(message)}.")

    def _open(self, name: str, rest: dict[str, Any]) -> None:
        if set(rest) - {"voice_settings"} or set(rest.get("voice_settings", {})) - VOICE_SETTINGS:
            raise refusal("invalid_message", f"Invalid first message with {sorted(rest)}.")
        if len(self._contexts) >= CONTEXTS:
            raise refusal(
                "max_active_conversations",
                f"Maximum simultaneous contexts per WebSocket connection exceeded ({CONTEXTS}).",
            )
        self._contexts[name] = _Context(name, self._fake, self._send)
        self._fake.most_contexts = max(self._fake.most_contexts, len(self._contexts))

    async def _send(self, name: str, text: str | None, sound: bytes = b"") -> None:
        if text is None:
            self._contexts.pop(name, None)
            await self._socket.send({"audio": None, "isFinal": True, "contextId": name})
            return
        step = self._fake.pace.ms_per_char
        alignment = {
            "chars": list(text),
            "charStartTimesMs": [round(i * step) for i in range(len(text))],
            "charDurationsMs": [round(step)] * len(text),
        }
        shown = alignment if self._aligned else None
        await self._socket.send(
            {
                "audio": base64.b64encode(sound).decode(),
                "isFinal": None,
                "alignment": shown,
                "normalizedAlignment": shown,
                "contextId": name,
            }
        )


class _Context:
    """One context: text is spoken when flushed; closing lets what was flushed come to its end, then says so."""

    def __init__(self, name: str, fake: FakeElevenLabs, send: Any) -> None:
        self._name = name
        self._pace = fake.pace
        self._sound = fake.sound
        self._send = send
        self._text = ""
        self._jobs: asyncio.Queue[str | None] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._speak())

    def add(self, text: str, flush: bool) -> None:
        self._text += text
        if flush:
            self.flush()

    def flush(self) -> None:
        text, self._text = self._text, ""
        if text:
            self._jobs.put_nowait(text)

    async def close(self) -> None:
        """Like the vendor: what is being made still comes (one message here), the rest of a held one does not."""
        self._text = ""
        self._jobs.put_nowait(None)
        self._closing.set()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _speak(self) -> None:
        with contextlib.suppress(ConnectionError):  # the socket was cut, and says so to its reader
            await self._speak_all()

    async def _speak_all(self) -> None:
        while (text := await self._jobs.get()) is not None:
            for number, begin in enumerate(range(0, len(text), CHARS_PER_MESSAGE)):
                closed = await self._wait(number)
                piece = text[begin : begin + CHARS_PER_MESSAGE]
                await self._send(self._name, piece, self._sound(piece, self._pace.ms_per_char))
                await asyncio.sleep(0)
                if closed:
                    break
        await self._send(self._name, None)

    async def _wait(self, number: int) -> bool:
        """Hold as the pace says; True when the context was closed meanwhile."""
        if self._pace.hold_after is None or number < self._pace.hold_after:
            return False
        go = asyncio.create_task(self._pace.wait(number))
        closed = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait({go, closed}, return_when=asyncio.FIRST_COMPLETED)
            return closed.done() and not go.done()
        finally:
            go.cancel()
            closed.cancel()
