"""The voice's side of Deepgram's `/v1/speak` websocket: a tone, 60 ms a character."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from tests.fakes.socket import FakeSocket, ProtocolError
from tests.fakes.sound import Pace, tone

FRAME_MS = 100
FLUSHES, FLUSH_WINDOW = 20, 60.0


class AuraSpeaker:
    def __init__(self, socket: FakeSocket, pace: Pace) -> None:
        self._socket = socket
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
            sound = tone(len(text) * self._pace.ms_per_char)
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
