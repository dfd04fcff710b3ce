"""LiveKit Agents without a LiveKit server: one `AgentSession` per Twilio websocket, with audio ends of our own.

Runs in an environment of its own (`python -m benchmarks.peers.setup livekit`), with public API only. This is not
how LiveKit is deployed: there a worker gives each call a process of its own, behind a media server. What is
measured here is the agent framework alone, doing the same work as the others in one process: turns end with the
recogniser's final transcript, no voice activity detector, no further delay.

    .peers/livekit/bin/python benchmarks/peers/livekit_server.py --port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
from collections.abc import AsyncIterator

import numpy as np
from aiohttp import web
from livekit import rtc
from livekit.agents import Agent, AgentSession, utils
from livekit.agents.voice.io import AudioInput, AudioOutput, AudioOutputCapabilities
from livekit.plugins import deepgram, elevenlabs, openai

RATE = 8000
DEEPGRAM, OPENAI, ELEVENLABS = (os.environ[f"{name}_BASE_URL"] for name in ("DEEPGRAM", "OPENAI", "ELEVENLABS"))


def _expansion() -> np.ndarray:
    """μ-law to linear (ITU-T G.711), for all 256 bytes."""
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 0x0F).astype(np.int32) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


LINEAR = _expansion()
MULAW = np.array(
    [int(np.abs(LINEAR.astype(np.int32) - sample).argmin()) for sample in range(-32768, 32768, 4)], np.uint8
)
"""Linear to μ-law, by a quarter of the 16-bit sample."""


class Hears(AudioInput):
    """The caller's sound, as it comes from Twilio."""

    def __init__(self) -> None:
        super().__init__(label="twilio")
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue()

    def put(self, mulaw: bytes | None) -> None:
        self._frames.put_nowait(mulaw)

    def __aiter__(self) -> AsyncIterator[rtc.AudioFrame]:
        return self

    async def __anext__(self) -> rtc.AudioFrame:
        mulaw = await self._frames.get()
        if mulaw is None:
            raise StopAsyncIteration
        pcm = LINEAR[np.frombuffer(mulaw, np.uint8)].tobytes()
        return rtc.AudioFrame(pcm, RATE, 1, len(mulaw))


class Speaks(AudioOutput):
    """Sound for the caller: sent at once, Twilio buffers it; a mark tells when it was played."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        super().__init__(label="twilio", capabilities=AudioOutputCapabilities(pause=False), sample_rate=RATE)
        self._socket = socket
        self.stream_sid = ""
        self._captured = 0.0
        self._marks: list[float] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        pcm = np.frombuffer(frame.data, np.int16).astype(np.int32)
        payload = base64.b64encode(MULAW[pcm + 32768 >> 2].tobytes()).decode()
        self._captured += frame.duration
        await self._send({"event": "media", "media": {"payload": payload}})

    def flush(self) -> None:
        super().flush()
        if self._captured:
            self._marks.append(self._captured)
            self._captured = 0.0
            self._later({"event": "mark", "mark": {"name": "end"}})

    def clear_buffer(self) -> None:
        self._later({"event": "clear"})
        waiting, self._marks = self._marks, []
        for seconds in waiting:
            self.on_playback_finished(playback_position=seconds, interrupted=True)

    def played(self) -> None:
        if self._marks:
            self.on_playback_finished(playback_position=self._marks.pop(0), interrupted=False)

    async def _send(self, message: dict[str, object]) -> None:
        if not self._socket.closed:
            await self._socket.send_str(json.dumps({**message, "streamSid": self.stream_sid}))

    def _later(self, message: dict[str, object]) -> None:
        task = asyncio.ensure_future(self._send(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


async def media(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    hears, speaks = Hears(), Speaks(socket)
    async with utils.http_context.open():
        session: AgentSession[None] = AgentSession(
            stt=deepgram.STT(model="nova-3", sample_rate=RATE, api_key="none", base_url=f"{DEEPGRAM}/v1/listen"),
            llm=openai.LLM(model="gpt-6-luna", api_key="none", base_url=f"{OPENAI}/v1"),
            tts=elevenlabs.TTS(
                model="eleven_flash_v2_5",
                encoding="pcm_8000",
                api_key="none",
                base_url=f"{ELEVENLABS}/v1",
            ),
            vad=None,
            turn_handling={"turn_detection": "stt", "endpointing": {"min_delay": 0.0, "max_delay": 0.0}},
            user_away_timeout=None,
        )
        session.input.audio, session.output.audio = hears, speaks
        async for message in socket:
            event = json.loads(message.data)
            if event["event"] == "media":
                hears.put(base64.b64decode(event["media"]["payload"]))
            elif event["event"] == "mark":
                speaks.played()
            elif event["event"] == "start":
                speaks.stream_sid = event["streamSid"]
                await session.start(Agent(instructions="Be brief."), record=False)
        hears.put(None)
        await session.aclose()
    return socket


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    app = web.Application()
    app.router.add_get("/ws", media)
    web.run_app(app, host="127.0.0.1", port=given.port, access_log=None, print=None)
