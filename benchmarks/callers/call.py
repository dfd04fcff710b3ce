"""One call's Media Stream as the carrier holds it: frames out, media, marks and clears in; notes the times of all.

What is cheap is done while the call goes on; what the times mean is worked out afterwards (`benchmarks.figures`).
"""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections import deque

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from benchmarks.callers.script import LAST_FRAME, Script
from benchmarks.sound import BYTES_PER_MS, FRAME_MS, is_loud

BUFFER = 0.06
"""Seconds that the caller's end keeps in hand before it plays (a jitter buffer): the same for every server."""


@dataclasses.dataclass(slots=True)
class Notes:
    """What happened on one call; times in seconds of CLOCK_MONOTONIC."""

    number: int
    spoke: list[tuple[float, float]] = dataclasses.field(default_factory=list)  #: first and last loud frame sent
    media: list[tuple[float, int, bool]] = dataclasses.field(default_factory=list)  #: when, bytes, loud
    clears: list[float] = dataclasses.field(default_factory=list)
    marks: int = 0
    lost: float | None = None  #: the server closed the stream


class Call(WSListener):
    """
    Args:
        parameters: what the TwiML wants in `start` (the token).
    """

    def __init__(
        self, script: Script, call_sid: str, account_sid: str, parameters: dict[str, str] | None = None
    ) -> None:
        self.notes = Notes(script.number)
        self.script = script
        self.call_sid = call_sid
        self.stream_sid = f"MZ{call_sid[2:]}"
        self._account_sid = account_sid
        self._parameters = parameters or {}
        self._transport: WSTransport | None = None
        self._sequence = 1
        self._chunk = 0
        self._began = 0.0
        self._plays_until = 0.0
        self._marks: deque[tuple[float, str]] = deque()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._send({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        start = {
            "accountSid": self._account_sid,
            "streamSid": self.stream_sid,
            "callSid": self.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        self._send({"event": "start", "sequenceNumber": "1", "streamSid": self.stream_sid, "start": start})

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self._hear(json.loads(frame.get_payload_as_bytes()))
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._transport is not None:
            self.notes.lost = time.monotonic()
            self._transport = None

    def tick(self, tick: int) -> None:
        """Send 20 ms, and the marks that playback has reached."""
        transport = self._transport
        if transport is None:
            return
        payload, place = self.script.at(tick)
        self._sequence += 1
        self._chunk += 1
        if place == 0:
            self._began = time.monotonic()
        transport.send(
            WSMsgType.TEXT,
            b'{"event":"media","sequenceNumber":"%d","streamSid":"%b","media":{"track":"inbound","chunk":"%d",'
            b'"timestamp":"%d","payload":"%b"}}'
            % (self._sequence, self.stream_sid.encode(), self._chunk, (self._chunk - 1) * FRAME_MS, payload),
        )
        if place == LAST_FRAME and self._began:
            self.notes.spoke.append((self._began, time.monotonic()))
        if self._marks:
            now = time.monotonic()
            while self._marks and self._marks[0][0] <= now:
                self._echo(self._marks.popleft()[1])

    def hang_up(self) -> None:
        """The caller is done: `stop`, and the close."""
        transport, self._transport = self._transport, None
        if transport is not None:
            self._sequence += 1
            stop = {"accountSid": self._account_sid, "callSid": self.call_sid}
            message = {"event": "stop", "sequenceNumber": str(self._sequence), "streamSid": self.stream_sid}
            transport.send(WSMsgType.TEXT, json.dumps({**message, "stop": stop}).encode())
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()

    # --- what comes

    def _hear(self, message: dict[str, object]) -> None:
        now = time.monotonic()
        match message:
            case {"event": "media", "media": {"payload": str(payload)}}:
                audio = base64.b64decode(payload)
                self.notes.media.append((now, len(audio), is_loud(audio)))
                begins = max(self._plays_until, now + BUFFER if self._plays_until <= now else 0.0)
                self._plays_until = begins + len(audio) / BYTES_PER_MS / 1000
            case {"event": "mark", "mark": {"name": str(name)}}:
                self.notes.marks += 1
                self._marks.append((max(now, self._plays_until), name))
            case {"event": "clear"}:
                self.notes.clears.append(now)
                self._plays_until = now
                while self._marks:  # Twilio echoes what is outstanding at once
                    self._echo(self._marks.popleft()[1])

    def _echo(self, name: str) -> None:
        self._sequence += 1
        mark = {"event": "mark", "sequenceNumber": str(self._sequence), "streamSid": self.stream_sid}
        self._send({**mark, "mark": {"name": name}})

    def _send(self, message: dict[str, object]) -> None:
        if self._transport is not None:
            self._transport.send(WSMsgType.TEXT, json.dumps(message, separators=(",", ":")).encode())
