"""One Media Stream, seen from Twilio's end of the websocket."""

from __future__ import annotations

import asyncio
import binascii
import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from stayline.lab.buffer import FRAME_MS, PlayBuffer
from stayline.lab.events import EventLog

PROTOCOL_ERROR: Final = 31924
SLOW_READER: Final = 31930
HANDSHAKE_ERROR: Final = 31920

StreamEnd = Literal["refused", "closed", "broken"]

_OUTBOX: Final = 250
"""Messages (5 s of audio) that wait for a slow bridge; what comes on top is discarded (error 31930)."""
_GOODBYE: Final = 2.0
"""Seconds that the bridge has to take `stop` and the close."""


class MediaStream:
    """Connects to the bridge and carries one call's audio, until either side ends it.

    Attributes:
        sid: `MZ…`.
        buffer: the bridge's audio that the caller has not heard yet.
        live: `start` was sent and the stream has not ended.
        protocol_errors: messages from the bridge that Twilio would not understand.
        discarded: messages that a slow bridge did not take in time.
    """

    def __init__(
        self,
        *,
        call_sid: str,
        account_sid: str,
        parameters: Mapping[str, str],
        log: EventLog,
        on_clear: Callable[[], None],
    ) -> None:
        self.sid = "MZ" + secrets.token_hex(16)
        self.buffer = PlayBuffer()
        self.live = False
        self.protocol_errors = 0
        self.discarded = 0
        self.bytes_received = 0
        self._silent = False
        self._websocket: ClientConnection | None = None
        self._call_sid = call_sid
        self._account_sid = account_sid
        self._parameters = dict(parameters)
        self._log = log
        self._on_clear = on_clear
        self._outbox: asyncio.Queue[str] = asyncio.Queue(_OUTBOX)
        self._sequence = 0
        self._chunk = 0

    async def run(self, url: str, headers: Mapping[str, str]) -> StreamEnd:
        """Carry audio until the bridge ends the stream. Cancelling it takes the call off the stream: the
        bridge gets `stop`, then the close.

        Args:
            url: where the websocket is opened.
            headers: with the signature.
        Returns:
            `closed` when the bridge sent a close frame, `broken` when the connection was lost without one,
            `refused` when there never was one.
        """
        try:
            websocket = await connect(
                url,
                additional_headers=dict(headers),
                compression=None,
                proxy=None,
                ping_interval=None,
                max_size=16 * 1024 * 1024,
                open_timeout=10,
                close_timeout=_GOODBYE,
                user_agent_header="TwilioMediaStreams/1.0",
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
            self._event("stream_refused", f"{type(error).__name__}: {error}", code=HANDSHAKE_ERROR)
            return "refused"
        self._websocket = websocket
        self._event("stream_opened", self.sid)
        self._greet()
        sender = asyncio.create_task(self._send(websocket))
        try:
            while True:
                self._take(await websocket.recv())
        except ConnectionClosed as closed:
            self.live = False
            if closed.rcvd is None or self._silent:
                self._event("stream_broken", "the connection was lost without a close frame")
                return "broken"
            self._event("stream_closed", f"{closed.rcvd.code} {closed.rcvd.reason}".strip())
            return "closed"
        except asyncio.CancelledError:
            await self._leave()
            raise
        finally:
            self.live = False
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            await websocket.close()

    # --- what the call does with it

    def caller_audio(self, frame: bytes) -> None:
        """20 ms of the caller."""
        timestamp = self._chunk * FRAME_MS
        self._chunk += 1
        payload = b64encode(frame).decode("ascii")
        self._post("media", track="inbound", chunk=str(self._chunk), timestamp=str(timestamp), payload=payload)

    def echo(self, mark: str, *, cleared: bool = False) -> None:
        self._event("mark", mark, cleared=cleared)
        self._post("mark", name=mark)

    def dtmf(self, digit: str) -> None:
        self._post("dtmf", track="inbound_track", digit=digit)

    # --- where a carrier fails

    def fall_silent(self) -> None:
        """Send nothing any more, not even `stop`, and take no notice of a close."""
        self._silent = True

    def drop(self) -> None:
        """Break the connection, without `stop` and without a close frame."""
        if self._websocket is not None:
            self._websocket.transport.abort()

    # --- messages

    def _greet(self) -> None:
        self._outbox.put_nowait(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        self._post(
            "start",
            accountSid=self._account_sid,
            streamSid=self.sid,
            callSid=self._call_sid,
            tracks=["inbound"],
            mediaFormat={"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            customParameters=self._parameters,
        )
        self.live = True

    async def _leave(self) -> None:
        self.live = False
        self._event("stream_stopped", self.sid)
        self._post("stop", accountSid=self._account_sid, callSid=self._call_sid)
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._outbox.join()
        except TimeoutError:
            pass  # the bridge does not read; the close follows all the same

    def _post(self, event: str, **body: Any) -> None:
        if self._silent:
            return
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            "streamSid": self.sid,
            event: body,
        }
        try:
            self._outbox.put_nowait(json.dumps(message, separators=(",", ":")))
        except asyncio.QueueFull:
            self.discarded += 1
            if self.discarded == 1:  # told once: it goes on fifty times a second
                self._error(SLOW_READER, "the bridge reads too slowly; what it misses is discarded")

    async def _send(self, websocket: ClientConnection) -> None:
        try:
            while True:
                message = await self._outbox.get()
                await websocket.send(message)
                self._outbox.task_done()
        except ConnectionClosed:
            while not self._outbox.empty():
                self._outbox.get_nowait()
                self._outbox.task_done()
            self._outbox.task_done()  # the one that could not be sent

    def _take(self, text: str | bytes) -> None:
        """A message of the bridge. What Twilio does not understand, it reports and ignores (31924)."""
        try:
            message = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            return self._error(PROTOCOL_ERROR, "not a JSON object in a text frame")
        if message.get("streamSid") != self.sid:
            return self._error(PROTOCOL_ERROR, "streamSid is missing or of another stream")
        match message:
            case {"event": "media", "media": {"payload": str(payload)}}:
                try:
                    audio = b64decode(payload, validate=True)
                except (binascii.Error, ValueError):
                    return self._error(PROTOCOL_ERROR, "media.payload is not base64")
                if not self.bytes_received:
                    self._event("first_audio", self.sid)
                self.bytes_received += len(audio)
                self.buffer.add(audio)
            case {"event": "mark", "mark": {"name": str(name)}} if name:
                self.buffer.mark(name)
            case {"event": "clear"}:
                thrown = round(self.buffer.queued_ms)
                marks = self.buffer.clear()
                self._event("clear", f"{thrown} ms thrown away", ms=thrown, marks=marks)
                self._on_clear()
                for name in marks:
                    self.echo(name, cleared=True)
            case _:
                self._error(PROTOCOL_ERROR, "an event that Media Streams does not know")

    def _error(self, code: int, what: str) -> None:
        self.protocol_errors += code == PROTOCOL_ERROR
        self._event("error", f"{code}: {what}", code=code)

    def _event(self, kind: Any, detail: str, **data: Any) -> None:
        self._log.add(kind, detail, call_sid=self._call_sid, stream_sid=self.sid, **data)
