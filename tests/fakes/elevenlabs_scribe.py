"""ElevenLabs' Scribe: the realtime websocket and `POST /v1/speech-to-text`.

    fake.scribe.script += ["Hello there.", Heard("I need a plumber.", twin="late")]

It hears bursts of sound by their energy; each burst is the next line of its script, whatever the sound was; a file
is one line. Mounted by `FakeElevenLabs`. As strict as the vendor: wrong key, parameters and messages are refused
its way, with an error message on the websocket and a status over HTTP (what is wrong: `elevenlabs_scribe_rules`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web

from tests.fakes.elevenlabs_http import detail
from tests.fakes.elevenlabs_scribe_rules import form_of, wrong_in_form, wrong_in_query
from tests.fakes.misbehaviour import Misbehaviour, Recorded, cut, refuse
from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import BYTES_PER_MS, Bursts, Frame

if TYPE_CHECKING:
    from tests.fakes.elevenlabs import FakeElevenLabs

PARTIAL_MS = 300
IDLE = 15.0  #: seconds without a message
LEAST_COMMIT_MS = 300
LARGEST_CHUNK = 64_000  #: bytes; this fake's, the vendor does not tell its own


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What one burst of sound turns out to say. Empty text: it was noise."""

    text: str
    logprob: float = -0.02  #: of each word
    twin: Literal["after", "before", "never"] = "after"
    """When the commit with timestamps comes, seen from the one without."""


def refusal(kind: str, message: str) -> ProtocolError:
    return ProtocolError(1008, kind, {"message_type": kind, "error": message})


class Scribe:
    """Both ways to it, at one fake."""

    def __init__(self, fake: FakeElevenLabs) -> None:
        self._fake = fake
        self.script: list[str | Heard] = []  #: what coming bursts and files say; add to it at any time
        self.longest_ms: int | None = None  #: audio after which a session is ended (`session_time_limit_exceeded`)
        self.ends_with = "session_time_limit_exceeded"
        self.starts = True  #: False: no `session_started`
        self.listened: list[Listener] = []  #: one per session
        self.files: list[dict[str, list[bytes]]] = []  #: the forms of files that were taken

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/speech-to-text/realtime", self._realtime),
            web.post("/v1/speech-to-text", self._file),
        ]

    def next_line(self) -> Heard:
        line = self.script.pop(0) if self.script else ""
        return line if isinstance(line, Heard) else Heard(line)

    async def _realtime(self, request: web.Request) -> web.WebSocketResponse:
        recorded, fault = await self._fake.begin(request)
        error = {"message_type": "transcriber_error", "error": "The transcriber failed."}
        socket = FakeSocket(self._fake, request, recorded, fault, error=error)

        async def talk() -> None:
            if recorded.headers.get("xi-api-key") != self._fake.api_key:
                raise refusal("auth_error", f"Key {recorded.headers.get('xi-api-key')} is not valid.")
            if wrong := wrong_in_query(recorded):
                raise refusal("invalid_request", wrong)
            listener = Listener(self, socket, recorded)
            self.listened.append(listener)
            await listener.talk()

        return await socket.serve(talk)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        recorded, fault = await self._fake.begin(request)
        if recorded.headers.get("xi-api-key") != self._fake.api_key:
            refuse(detail(401, "invalid_api_key", "Invalid API key"))
        form = form_of(recorded)
        if wrong := wrong_in_form(recorded, form):
            refuse(detail(422, "invalid_parameters", wrong))
        self.files.append(form)
        heard = self.next_line()
        seconds = len(form["file"][0]) / 32_000
        answer = {
            "language_code": "eng",
            "language_probability": 0.99,
            "text": heard.text,
            "words": _words(heard, 0.0, seconds),
            "transcription_id": "tr-7",
            "audio_duration_secs": seconds,
        }
        return await _answer(self._fake, request, fault, json.dumps(answer).encode())


async def _answer(
    fake: FakeElevenLabs, request: web.Request, fault: Misbehaviour | None, body: bytes
) -> web.StreamResponse:
    what = fault.what if fault is not None else ""
    if what == "garbage":
        body = b"[this is no JSON"
    response = web.StreamResponse(
        headers={"Content-Type": "application/json", "Content-Length": str(len(body)), "request-id": "req-8"}
    )
    await response.prepare(request)
    if what in ("disconnect", "half_message"):
        await response.write(body[: len(body) // 2])
        assert request.transport is not None
        request.transport.close()
        raise ConnectionResetError("misbehaviour")
    if what == "hang":
        await fake.closing.wait()
        cut(request)
    await response.write(body)
    return response


class Listener:
    """One realtime session."""

    def __init__(self, scribe: Scribe, socket: FakeSocket, recorded: Recorded) -> None:
        self._scribe = scribe
        self._socket = socket
        self._recorded = recorded
        self._strategy = (recorded.param("commit_strategy") or ["manual"])[0]
        self._silence_ms = float((recorded.param("vad_silence_threshold_secs") or ["1.5"])[0]) * 1000
        self._timed = recorded.param("include_timestamps") == ["true"]
        self._bursts = Bursts()
        self._line: Heard | None = None  #: of the burst that is under way, or not yet committed
        self._told_ms = 0
        self._committed_ms = 0
        self.audio_bytes = 0
        self.commits = 0  #: that the client asked for
        self.largest = 0  #: bytes of audio in one message

    async def talk(self) -> None:
        try:
            if self._scribe.starts:
                await self._socket.send(
                    {"message_type": "session_started", "session_id": "sess-7", "config": self._config()}
                )
            async for message in self._socket.messages(IDLE, ProtocolError(1000, "")):
                if isinstance(message, bytes):
                    raise refusal("input_error", "Binary message.")
                await self._chunk(message)
        finally:
            if self._line is not None:  # lost before it was committed: the next session hears it
                self._scribe.script.insert(0, self._line)

    def _config(self) -> dict[str, Any]:
        return {
            "sample_rate": 8000,
            "audio_format": "ulaw_8000",
            "commit_strategy": self._strategy,
            "model_id": self._recorded.param("model_id")[0],
            "include_timestamps": self._timed,
        }

    async def _chunk(self, message: dict[str, Any]) -> None:
        known = {"message_type", "audio_base_64", "commit", "sample_rate"}
        if (
            set(message) != known
            or message["message_type"] != "input_audio_chunk"
            or message["sample_rate"] != 8000
        ):
            raise refusal("invalid_request", f"Invalid message with {sorted(message)}.")
        audio = base64.b64decode(message["audio_base_64"], validate=True)
        if len(audio) > LARGEST_CHUNK:
            raise refusal("chunk_size_exceeded", "The chunk is too large.")
        self.audio_bytes += len(audio)
        self.largest = max(self.largest, len(audio))
        for frame in self._bursts.feed(audio):
            await self._frame(frame)
        if message["commit"]:
            await self._commit_asked()
        longest = self._scribe.longest_ms
        if longest is not None and self.audio_bytes / BYTES_PER_MS >= longest:
            raise refusal(self._scribe.ends_with, "The session has ended.")

    async def _frame(self, frame: Frame) -> None:
        if frame.starts and self._line is None:
            self._line = self._scribe.next_line()
        if self._line is None or frame.begun_ms is None:
            return
        if self._strategy != "manual" and frame.silent_ms >= self._silence_ms:
            await self._commit()
        elif self._line.text and frame.loud and frame.at_ms - self._told_ms >= PARTIAL_MS:
            self._told_ms = frame.at_ms
            tokens = self._line.text.split()
            said = tokens[: max(1, (frame.at_ms - frame.begun_ms) // PARTIAL_MS)]
            await self._socket.send({"message_type": "partial_transcript", "text": " ".join(said)})

    async def _commit_asked(self) -> None:
        self.commits += 1
        if self._strategy != "manual":
            raise refusal("invalid_request", "Commits are ours.")
        if self._bursts.at_ms - self._committed_ms < LEAST_COMMIT_MS:
            await self._socket.send({"message_type": "commit_throttled", "error": "Too soon after the last."})
        else:
            await self._commit()

    async def _commit(self) -> None:
        """What was said is settled."""
        heard, self._line = self._line or Heard(""), None
        begin, end = (self._bursts.begun_ms or 0) / 1000, self._bursts.last_loud_ms / 1000
        self._committed_ms = self._bursts.at_ms
        self._bursts.end()
        plain = {"message_type": "committed_transcript", "text": heard.text}
        timed = {
            "message_type": "committed_transcript_with_timestamps",
            "text": heard.text,
            "language_code": "en",
            "words": _words(heard, begin, end),
        }
        messages = [plain]
        if self._timed and heard.twin != "never":
            messages.insert(0 if heard.twin == "before" else 1, timed)
        for message in messages:
            await self._socket.send(message)


def _words(heard: Heard, begin: float, end: float) -> list[dict[str, Any]]:
    """The words, spread evenly over the sound, with the spaces between them."""
    tokens = heard.text.split()
    step = (end - begin) / max(1, len(tokens))
    words: list[dict[str, Any]] = []
    for i, token in enumerate(tokens):
        start = begin + i * step
        if words:
            words.append({"text": " ", "start": start, "end": start, "type": "spacing", "logprob": 0.0})
        words.append(
            {
                "text": token,
                "start": round(start, 3),
                "end": round(start + step, 3),
                "type": "word",
                "speaker_id": None,
                "logprob": heard.logprob,
            }
        )
    return words
