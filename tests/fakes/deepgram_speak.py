"""The voice's side of Deepgram's websockets `/v1/speak` (Aura), `/v2/speak` (Flux): a tone, 60 ms a character."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from typing import Any, Literal

from deepgram.speak.v2 import types as flux

from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import Pace, Sound, tone, tone_of

FRAME_MS = 100
FLUSHES, FLUSH_WINDOW = 20, 60.0
Interrupts = Literal["obeyed", "late", "ignored"]
"""`late`: the turn ends by itself while an `Interrupt` is on its way; `ignored`: it goes on."""


class AuraSpeaker:
    def __init__(self, socket: FakeSocket, pace: Pace, sound: Sound = tone_of) -> None:
        self._socket = socket
        self._sound = sound
        self._pace = pace
        self._text = ""
        self._jobs: asyncio.Queue[str] = asyncio.Queue()
        self._flushes: deque[float] = deque(maxlen=FLUSHES)
        self._sequence = 0

    async def talk(self) -> None:
        await self._socket.send(
            {
                "type": "Metadata",
                "request_id": "5c1f0d6e-0000-4000-8000-000000000003",
                "model_name": "aura-2",
                "model_version": "2026-01-01.0",
                "model_uuid": "5c1f0d6e-0000-4000-8000-000000000004",
                "additional_model_uuids": [],
            }
        )
        speaker = asyncio.create_task(self._speak())
        try:
            idle = ProtocolError(1011, "NET-0001")
            async for message in self._socket.messages(3600.0, idle):
                if isinstance(message, bytes):
                    raise ProtocolError(1008, "DATA-0000: binary message")
                match message:
                    case {"type": "Speak", "text": str(text), **rest} if not rest and 0 < len(text) <= 2000:
                        self._text += text
                    case {"type": "Flush", **rest} if not rest:
                        await self._flush()
                    case {"type": "Clear", **rest} if not rest:
                        speaker.cancel()
                        await asyncio.gather(speaker, return_exceptions=True)
                        await self._clear()
                        speaker = asyncio.create_task(self._speak())
                    case {"type": "Close", **rest} if not rest:
                        return
                    case _:
                        raise ProtocolError(1008, "DATA-0000: cannot be parsed")
        finally:
            speaker.cancel()
            await asyncio.gather(speaker, return_exceptions=True)

    async def _flush(self) -> None:
        now = asyncio.get_running_loop().time()
        if len(self._flushes) == FLUSHES and now - self._flushes[0] < FLUSH_WINDOW:
            await self._socket.send(
                {"type": "Warning", "code": "FLUSH_LIMIT", "description": "Too many Flush messages; ignored."}
            )
            return
        self._flushes.append(now)
        text, self._text = self._text, ""
        self._jobs.put_nowait(text)

    async def _clear(self) -> None:
        self._text = ""
        while not self._jobs.empty():
            self._jobs.get_nowait()
        await self._socket.send(tone(FRAME_MS))  # what was on its way still comes
        await self._send_numbered("Cleared")

    async def _speak(self) -> None:
        while True:
            text = await self._jobs.get()
            sound = self._sound(text, self._pace.ms_per_char)
            size = FRAME_MS * 8
            for number, begin in enumerate(range(0, len(sound), size)):
                await self._pace.wait(number)
                await self._socket.send(sound[begin : begin + size])
                await asyncio.sleep(0)
            await self._send_numbered("Flushed")

    async def _send_numbered(self, kind: str) -> None:
        message: dict[str, Any] = {"type": kind, "sequence_id": self._sequence}
        self._sequence += 1
        await self._socket.send(message)


@dataclasses.dataclass(slots=True)
class _Turn:
    """What Flux is given between two `Flush`."""

    id: str
    texts: asyncio.Queue[str | None] = dataclasses.field(default_factory=asyncio.Queue)
    chars: int = 0
    ms: float = 0.0
    begun: bool = False
    flushed: bool = False


class FluxSpeaker:
    """Speaks text as it comes, a turn after the other. Its own messages are checked with Deepgram's types."""

    def __init__(self, socket: FakeSocket, pace: Pace, interrupts: Interrupts) -> None:
        self._socket = socket
        self._pace = pace
        self._interrupts = interrupts
        self._turns: deque[_Turn] = deque()
        self._more = asyncio.Event()
        self._count = 0
        self._spoken_ms = 0.0
        self._frames = 0

    async def talk(self) -> None:
        await self._say(
            flux.SpeakV2Connected,
            type="Connected",
            request_id="5c1f0d6e-0000-4000-8000-000000000005",
            model_name="flux-alexis-en",
            model_version="2026.06.01",
            model_uuids=["5c1f0d6e-0000-4000-8000-000000000006"],
        )
        speaker = asyncio.create_task(self._speak())
        try:
            async for message in self._socket.messages(3600.0, ProtocolError(1011, "NET-0001")):
                match message:
                    case {"type": "Speak", "text": str(text), **rest} if not rest and text:
                        self._take(text)
                    case {"type": "Flush", **rest} if not rest and self._open is not None:
                        turn = self._open
                        turn.flushed = True
                        await self._say(flux.SpeakV2Flushed, type="Flushed", speech_id=turn.id)
                        turn.texts.put_nowait(None)
                    case {"type": "Flush", **rest} if not rest:
                        await self._warn("NO_ACTIVE_SPEECH")
                    case {"type": "Interrupt", **rest} if not rest:
                        if self._interrupts == "late":
                            self._pace.let_go()
                            while self._turns:  # noqa: ASYNC110 - until the speaker has run dry
                                await asyncio.sleep(0)
                        if not self._spoken_ms:
                            await self._warn("NO_AUDIO_GENERATED")
                        elif self._interrupts == "ignored":
                            await self._warn("INTERRUPT_IN_PROGRESS")
                        elif not self._turns:
                            await self._warn("NO_ACTIVE_SPEECH")
                        else:
                            speaker.cancel()
                            await asyncio.gather(speaker, return_exceptions=True)
                            await self._interrupt()
                            speaker = asyncio.create_task(self._speak())
                    case {"type": "Close", **rest} if not rest:
                        return
                    case _:
                        description = "The message could not be parsed."
                        error = {"type": "Error", "code": "MESSAGE-0000", "description": description}
                        raise ProtocolError(1008, "MESSAGE-0000", error)
        finally:
            speaker.cancel()
            await asyncio.gather(speaker, return_exceptions=True)

    @property
    def _open(self) -> _Turn | None:
        """The turn that takes text."""
        return self._turns[-1] if self._turns and not self._turns[-1].flushed else None

    def _take(self, text: str) -> None:
        if self._open is None:
            self._count += 1
            self._turns.append(_Turn(f"dg_sp_{self._count:012x}"))
            self._more.set()
        turn = self._turns[-1]
        turn.chars += len(text)
        turn.texts.put_nowait(text)

    async def _speak(self) -> None:
        while True:
            while not self._turns:
                self._more.clear()
                await self._more.wait()
            turn = self._turns[0]
            while (text := await turn.texts.get()) is not None:
                if not turn.begun:
                    turn.begun = True
                    await self._say(flux.SpeakV2SpeechStarted, type="SpeechStarted", speech_id=turn.id)
                await self._sound(turn, tone(len(text) * self._pace.ms_per_char))
            self._turns.popleft()
            await self._say(flux.SpeakV2SpeechMetadata, type="SpeechMetadata", **self._figures(turn))

    async def _sound(self, turn: _Turn, sound: bytes) -> None:
        size = FRAME_MS * 8
        for begin in range(0, len(sound), size):
            await self._pace.wait(self._frames)
            frame = sound[begin : begin + size]
            await self._socket.send(frame)
            self._frames += 1
            turn.ms += len(frame) / 8
            self._spoken_ms += len(frame) / 8
            await asyncio.sleep(0)

    async def _interrupt(self) -> None:
        turn = self._turns.popleft()
        await self._socket.send(tone(FRAME_MS))  # what was on its way still comes
        await self._say(
            flux.SpeakV2SpeechInterrupted,
            type="SpeechInterrupted",
            audio_played_ms=round(self._spoken_ms),
            metadata=self._figures(turn),
        )

    def _figures(self, turn: _Turn) -> dict[str, Any]:
        return {
            "speech_id": turn.id,
            "audio_duration_ms": round(turn.ms),
            "input_character_count": turn.chars,
            "billable_character_count": turn.chars,
            "controls_applied": {"pronunciations_applied": 0, "pronunciation_warnings": 0, "breaks_applied": 0},
        }

    async def _warn(self, code: str) -> None:
        await self._say(flux.SpeakV2Warning, type="Warning", code=code, description="It was ignored.")

    async def _say(self, kind: Any, **message: Any) -> None:
        kind.model_validate(message)
        await self._socket.send(message)
