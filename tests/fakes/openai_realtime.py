"""OpenAI Realtime, a model that hears and speaks, on the wire: `/v1/realtime?model=…`; as strict as OpenAI.

    voice = VoiceModel(lambda asked: [Say("Sunny."), Call("book", {"day": "Friday"})], hears=["Is it sunny?"])
    async with FakeOpenAI(realtime=voice) as fake:
        OpenAIRealtime(ProviderConfig("openai", "gpt-realtime-2.1", api_key=fake.key, base_url=fake.url))

It hears bursts of sound by their energy; each burst is the next line of `hears`, whatever the sound was. It speaks
a tone, 60 ms a character, as fast as it can be sent. `voice.sessions[0].memory` is what it then remembers.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from tests.fakes.llm import Part, Say
from tests.fakes.misbehaviour import refuse
from tests.fakes.openai import FakeOpenAI
from tests.fakes.openai_realtime_speech import Conversation, Item, Speaker
from tests.fakes.openai_realtime_wire import Refused, check_event, check_item, check_session, closing, wire_error
from tests.fakes.socket import FakeSocket
from tests.fakes.sound import Bursts, Frame, Sound, tone_of

MODELS = ("gpt-realtime-2.1", "gpt-realtime-2.1-mini", "gpt-realtime-2", "gpt-realtime")
STREAMING = ("gpt-realtime-whisper", "gpt-live-transcribe")
"""Transcribers that write while the caller speaks."""
WORD_MS = 300
DEFAULT_SILENCE_MS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Heard:
    """What one burst of sound turns out to say. Empty text: it was noise."""

    text: str
    failed: bool = False  #: it could not be written down
    after: asyncio.Event | None = None  #: the words come when this is set


Asked = dict[str, Any]
"""`instructions`, `tools`, `memory` (roles and texts), `called` (tools and arguments), `response` (what the client
asked for; {}: nobody asked)."""
Reply = Callable[[Asked], Sequence[Part]]


def obey(asked: Asked) -> Sequence[Part]:
    """Say what it is told to say, else repeat what the caller said last."""
    if exactly := re.match(r"Say exactly [^:]*: (.*)", asked["instructions"], flags=re.DOTALL):
        return [Say(exactly[1])]
    said = [text for role, text in asked["memory"] if role == "user"]
    return [Say(f"You said: {said[-1]}" if said else "Yes?")]


class VoiceModel:
    """Serves realtime sessions of a `FakeOpenAI`."""

    sound: Sound = staticmethod(tone_of)

    def __init__(
        self, reply: Reply = obey, hears: Sequence[str | Heard] = (), *, ms_per_char: float = 60.0
    ) -> None:
        self.reply = reply
        self.hears = list(hears)
        self.ms_per_char = ms_per_char
        self.sessions: list[VoiceSession] = []

    def session(self, socket: FakeSocket, model: str) -> VoiceSession:
        """Begin one."""
        return VoiceSession(self, socket, model)

    async def __call__(self, fake: FakeOpenAI, request: web.Request) -> web.StreamResponse:
        recorded, fault = await fake.begin(request)
        if recorded.headers.get("authorization") != f"Bearer {fake.key}":
            refuse(fake.error_response(401, {}))
        error = {
            "type": "error",
            "event_id": "event_0",
            "error": wire_error("The server broke.", kind="server_error"),
        }
        socket = FakeSocket(fake, request, recorded, fault, error=error)

        async def talk() -> None:
            if "openai-beta" in recorded.headers:
                raise closing("The Realtime Beta API is no longer supported.", "beta_api_shape_disabled")
            if [name for name, _ in recorded.query] != ["model"] or recorded.param("model")[0] not in MODELS:
                raise closing("The model does not exist or you do not have access to it.", "model_not_found")
            session = self.session(socket, recorded.param("model")[0])
            self.sessions.append(session)
            await session.talk()

        return await socket.serve(talk)


class VoiceSession:
    """One session: the client's events, the caller's turns, and who speaks."""

    bursts: Bursts

    def __init__(self, voice: VoiceModel, socket: FakeSocket, model: str) -> None:
        self.voice = voice
        self.model = model
        self.config: dict[str, Any] = {}
        self.conversation = Conversation(voice.ms_per_char)
        self.refused: list[str] = []  #: messages of the errors that were sent
        self.responses: list[str] = []  #: ids
        self.turns_written: list[str] = []  #: transcripts that were sent
        self._socket = socket
        self._numbers = 0
        self._speaker: Speaker | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.bursts = Bursts()
        self._heard = Heard("")
        self._item = ""  #: id of the item that the caller is speaking
        self._told_words = 0

    @property
    def memory(self) -> list[tuple[str, str]]:
        """Role (or kind) and text of each item, as the model knows them."""
        return self.conversation.memory

    @property
    def speaking(self) -> bool:
        return self._speaker is not None

    async def expire(self) -> None:
        """The hour is over."""
        said = "Your session hit the maximum duration of 60 minutes."
        await self.send("error", error=wire_error(said, "session_expired"))
        await self._socket.ws.close(code=1001, message=said.encode())

    async def send(self, kind: str, **fields: Any) -> None:
        await self._socket.send({"type": kind, "event_id": self.new_id("event"), **fields})

    def new_id(self, prefix: str) -> str:
        self._numbers += 1
        return f"{prefix}_{self._numbers:04d}"

    async def talk(self) -> None:
        described = {
            "type": "realtime",
            "object": "realtime.session",
            "id": self.new_id("sess"),
            "model": self.model,
        }
        await self.send("session.created", session=described)
        try:
            async for message in self._socket.messages(60.0, closing("Idle.", "idle")):
                if isinstance(message, bytes):
                    raise closing("Binary messages are not supported.", "invalid_event")
                try:
                    await self._take(message)
                except Refused as refused:
                    self.refused.append(refused.message)
                    error = wire_error(refused.message, refused.code)
                    await self.send("error", error={**error, "event_id": message.get("event_id")})
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, message: dict[str, Any]) -> None:
        check_event(message)
        kind = message["type"]
        if kind != "session.update" and not self.config:
            raise Refused("This fake wants to be configured first.", "invalid_event")
        match kind:
            case "session.update":
                self.config = check_session(message["session"], self.model)
                described = {"object": "realtime.session", "id": "sess_0001", "model": self.model, **self.config}
                await self.send("session.updated", session=described)
            case "input_audio_buffer.append":
                try:
                    audio = base64.b64decode(message["audio"], validate=True)
                except binascii.Error:
                    raise Refused("Invalid 'audio'.", "invalid_value") from None
                for frame in self.bursts.feed(audio):
                    await self._frame(frame)
            case "conversation.item.create":
                check_item(message["item"], self.conversation.open_calls, self.conversation.call_ids)
                await self._add(Item.created(self.new_id("item"), message["item"]))
            case "conversation.item.truncate":
                await self._truncate(message["item_id"], message["content_index"], message["audio_end_ms"])
            case "conversation.item.delete":
                self.conversation.items.remove(self.conversation.find(message["item_id"]))
                await self.send("conversation.item.deleted", item_id=message["item_id"])
            case "response.create":
                self._respond(message.get("response") or {})
            case "response.cancel":
                speaker = self._speaker
                if speaker is None or message.get("response_id", speaker.id) != speaker.id:
                    raise Refused("Cancellation failed: no active response found", "response_cancel_not_active")
                speaker.stop("client_cancelled")
            case _:
                raise Refused(f"This fake knows no {kind}.", "invalid_value")

    async def _add(self, item: Item) -> None:
        previous = self.conversation.add(item)
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self.send(kind, previous_item_id=previous, item=item.wire())

    async def _truncate(self, item_id: str, content_index: int, end_ms: int) -> None:
        item = self.conversation.find(item_id)
        if item.role != "assistant" or not item.audio_ms or content_index != 0:
            raise Refused("Only model output audio messages can be truncated", "invalid_value")
        if end_ms > item.audio_ms:  # the error names no event, and OpenAI cuts at the end all the same
            said = f"Audio content of {item.audio_ms}ms is already shorter than {end_ms}ms"
            self.refused.append(said)
            await self.send("error", error=wire_error(said, "invalid_value"))
        item.truncate(min(end_ms, item.audio_ms), self.voice.ms_per_char)
        await self.send("conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=end_ms)

    # --- the model's side ------------------------------------------------------------------------------------

    def _respond(self, response: dict[str, Any]) -> None:
        if any(len(value) > 512 for value in (response.get("metadata") or {}).values()):
            raise Refused("Invalid 'response.metadata': string too long.", "string_above_max_length")
        if self._speaker is not None:
            raise Refused(
                f"Conversation already has an active response in progress: {self._speaker.id}. "
                "Wait until the response is finished before creating a new one.",
                "conversation_already_has_active_response",
            )
        asked: Asked = {
            "instructions": response.get("instructions", self.config.get("instructions", "")),
            "tools": [] if response.get("tool_choice") == "none" else self.config.get("tools", []),
            "memory": [] if response.get("input") == [] else self.memory,
            "called": [(item.name, item.text) for item in self.conversation.items if item.type == "function_call"],
            "response": response,
        }
        self._speaker = Speaker(self, response.get("metadata"), list(self.voice.reply(asked)))
        self.responses.append(self._speaker.id)
        self._spawn(self._speak(self._speaker))

    async def _speak(self, speaker: Speaker) -> None:
        try:
            await speaker.speak()
        except ConnectionError:  # a misbehaviour, or the client has gone
            self._socket.abort()

    def response_over(self) -> None:
        self._speaker = None

    def _spawn(self, what: Any) -> None:
        task = asyncio.create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the caller's side -----------------------------------------------------------------------------------

    def understand(self) -> Heard:
        """What the burst that begins says."""
        line = self.voice.hears.pop(0) if self.voice.hears else ""
        return line if isinstance(line, Heard) else Heard(line)

    def understood(self, heard: Heard) -> Heard:
        """The same at its end."""
        return heard

    async def _frame(self, frame: Frame) -> None:
        detection = self.config["audio"]["input"]["turn_detection"]
        if frame.starts:
            self._heard = self.understand()
            self._item, self._told_words = self.new_id("item"), 0
            start = max(0, (frame.begun_ms or 0) - detection.get("prefix_padding_ms", 0))
            await self.send("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._item)
            if detection["interrupt_response"] and self._speaker is not None:
                self._speaker.stop("turn_detected")
        elif self._item and frame.silent_ms >= detection.get("silence_duration_ms", DEFAULT_SILENCE_MS):
            self._heard = self.understood(self._heard)
            self.bursts.end()
            await self._turn_over(frame.at_ms, answer=detection["create_response"])
        elif self._item:
            await self._stream_words(frame)

    async def _turn_over(self, at_ms: int, *, answer: bool) -> None:
        item, self._item = self._item, ""
        place = {"item_id": item, "previous_item_id": self.conversation.last_id}
        await self.send("input_audio_buffer.speech_stopped", audio_end_ms=at_ms, item_id=item)
        await self.send("input_audio_buffer.committed", **place)
        await self._add(Item(item, "message", "user", heard=self._heard.text, text=self._heard.text))
        if self._speaker is not None and self._speaker.stopped:
            await self._speaker.over.wait()
        if answer and self._speaker is None:
            self._respond({})
        self._spawn(self._write_down(item, self._heard, self._told_words))

    async def _stream_words(self, frame: Frame) -> None:
        words = re.findall(r"\s*\S+", self._heard.text)
        due = (frame.at_ms - (frame.begun_ms or 0)) // WORD_MS
        if self._transcriber in STREAMING and self._told_words < min(due, len(words) - 1):
            await self._transcribed(self._item, "delta", delta=words[self._told_words])
            self._told_words += 1

    async def _write_down(self, item: str, heard: Heard, told: int) -> None:
        if heard.after is not None:
            await heard.after.wait()
        if heard.failed:
            error = {"type": "server_error", "code": None, "message": "It was not written down.", "param": None}
            await self._transcribed(item, "failed", error=error)
            return
        for word in re.findall(r"\s*\S+", heard.text)[told:]:
            await self._transcribed(item, "delta", delta=word)
        usage = {"type": "duration", "seconds": 1}
        await self._transcribed(item, "completed", transcript=heard.text + "\n", usage=usage)
        self.turns_written.append(heard.text)

    async def _transcribed(self, item: str, kind: str, **fields: Any) -> None:
        where = f"conversation.item.input_audio_transcription.{kind}"
        await self.send(where, item_id=item, content_index=0, **fields)

    @property
    def _transcriber(self) -> str:
        return str(self.config["audio"]["input"]["transcription"]["model"])
