"""One call's ear at ElevenLabs: realtime Scribe sessions, one after the other if need be.

This file carries bytes and messages and keeps the connection; what a message means is in `elevenlabs_scribe` and
`elevenlabs_scribe_turns`. A session that is lost is replaced once, and hears again what was not settled; if the
new one is lost as well, the call needs another recogniser. ElevenLabs also ends sessions by itself, after a time
that it does not tell, or when there was little to hear; that is no loss.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.audio.mulaw import BYTES_PER_MS, bytes_to_ms, silence
from media_bridge.providers.base import SttEvent
from media_bridge.providers.elevenlabs_scribe import COMMIT, Failure, chunk, failure
from media_bridge.providers.elevenlabs_scribe_turns import Turns
from media_bridge.providers.vendor_socket import MALFORMED, Watchdog, lost, parsed, scrub, send_frame
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

KEEPALIVE = 5.0  #: seconds without audio, which ElevenLabs bears for about 15, after which it gets some silence
KEEPALIVE_MS: Final = 20
START_TIMEOUT = 2.0  #: seconds from the accepted handshake to `session_started`
REOPEN_TIMEOUT = 2.0  #: seconds for the handshake of a new session, and as many until it begins
TWIN_TIMEOUT = 0.25  #: seconds that a commit waits for its timestamps
STALL = 8.0  #: seconds without a message while one is due
LOSS_WINDOW = 30.0  #: seconds in which a second loss is one too many …
RENEWAL_WINDOW = 5.0  #: … and in which a session that ElevenLabs ended by itself counts as lost

PIECE: Final = 1000 * BYTES_PER_MS  #: audio in one message, at most
RETAINED: Final = 30_000 * BYTES_PER_MS
"""Audio kept for a new session; of a longer turn the beginning is lost with the session."""
BACKLOG: Final = 4000 * BYTES_PER_MS  #: audio that could not be sent, after which the line is dead

Open = Callable[[float | None], Awaitable[ClientConnection]]


class ScribeStream:
    """One call's ear at ElevenLabs.

    Args:
        open_: opens a websocket within so many seconds.
    """

    def __init__(self, open_: Open, turns: Turns, call_id: str, secret: str) -> None:
        self._open = open_
        self._turns = turns
        self._call_id = call_id
        self._secret = secret
        self._socket: ClientConnection
        self._session = ""  #: ElevenLabs' id of the session
        self._events: asyncio.Queue[SttEvent | None] = asyncio.Queue()
        self._error: ProviderError | None = None
        self._closed = False
        self._ignored: set[str] = set()
        # Stream positions in bytes: `_audio` holds [_base, _base + len), of which [_base, _sent) has been sent.
        self._audio = bytearray()
        self._base = self._sent = 0
        self._has_audio = asyncio.Event()
        self._run_task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """
        Raises:
            ProviderError: ElevenLabs refused or could not be reached.
        """
        await self._begin(None)
        self._run_task = asyncio.create_task(self._run(), name="elevenlabs-scribe")

    # --- the bridge's side ---------------------------------------------------------------------------

    async def send(self, audio: bytes) -> None:
        """Queue audio for sending."""
        if self._closed or self._error is not None:
            return
        self._audio += audio
        self._tell(self._turns.push(audio))
        self._forget()
        self._has_audio.set()
        if self._base + len(self._audio) - self._sent > PIECE:
            await asyncio.sleep(0)  # audio that comes in bulk, not in real time: let it flow out

    def __aiter__(self) -> AsyncIterator[SttEvent]:
        return self

    async def __anext__(self) -> SttEvent:
        event = await self._events.get()
        if event is not None:
            return event
        self._events.put_nowait(None)
        if self._error is not None and not self._closed:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._run_task is not None:
            self._run_task.cancel()
            await asyncio.gather(self._run_task, return_exceptions=True)
        self._events.put_nowait(None)
        await self._socket.close()

    # --- sessions ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        reopened = -math.inf
        try:
            while True:
                ended = await self._converse()
                self._socket.transport.abort()
                window = RENEWAL_WINDOW if ended.then == "renew" else LOSS_WINDOW
                if ended.then == "give_up" or not ended.error.retryable or clock() - reopened < window:
                    raise ended.error
                log.info("elevenlabs stt: %s; opening a new session", ended.error.message)
                await self._begin(REOPEN_TIMEOUT)
                reopened = clock()
        except ProviderError as error:
            self._error = error
        except Exception as bug:
            log.exception("elevenlabs stt: the adapter failed")
            self._error = ProviderError("elevenlabs", f"the adapter failed ({type(bug).__name__}).", retryable=True)
        finally:
            self._events.put_nowait(None)

    async def _begin(self, timeout: float | None) -> None:
        """Open a session, and have it hear again what is not settled."""
        socket = await self._open(timeout)
        try:
            async with asyncio.timeout(START_TIMEOUT if timeout is None else timeout):
                await self._started(socket)
        except TimeoutError:
            socket.transport.abort()
            raise ProviderError("elevenlabs", "the session did not begin in time.", retryable=True) from None
        except ConnectionClosed as closed:
            raise lost("elevenlabs", closed) from None
        except BaseException:  # refused, or cancelled in the middle: nobody will close what we opened
            socket.transport.abort()
            raise
        log.info("elevenlabs stt: call %s is heard in session %s", self._call_id, self._session)
        self._socket = socket
        self._forget()
        self._sent = self._base
        self._turns.new_session(bytes_to_ms(self._base))
        self._has_audio.set()

    async def _started(self, socket: ClientConnection) -> None:
        """
        Raises:
            ProviderError: an error came instead of a session.
        """
        self._session = ""
        while not self._session:
            message = parsed(await socket.recv())
            if (refused := failure(message, "", self._secret)) is not None:
                raise refused.error
            if message.get("message_type") == "session_started":
                self._session = str(message.get("session_id") or "?")[:64]

    async def _converse(self) -> Failure:
        """Talk until the session ends; returns why it did."""
        socket, watchdog = self._socket, Watchdog(STALL)
        async with asyncio.TaskGroup() as tasks:
            pump = tasks.create_task(self._pump(socket))
            try:
                while True:
                    if self._turns.answer_due:
                        watchdog.expect(socket)
                    else:
                        watchdog.rest()
                    ended = await self._hear(socket)
                    if ended is not None:
                        return ended
            except ConnectionClosed as closed:
                said = f"nothing came for {STALL:g} s" if watchdog.barked else ""
                return Failure(lost("elevenlabs", closed, said), "reopen")
            finally:
                watchdog.rest()
                pump.cancel()
                self._release()

    # --- to ElevenLabs -------------------------------------------------------------------------------

    async def _pump(self, socket: ClientConnection) -> None:
        try:
            while True:
                try:
                    async with asyncio.timeout(KEEPALIVE):
                        await self._has_audio.wait()
                except TimeoutError:
                    await socket.send(chunk(silence(KEEPALIVE_MS)))
                    self._turns.inserted(KEEPALIVE_MS)
                    continue
                self._has_audio.clear()
                await self._send_audio(socket)
        except ConnectionClosed:
            pass  # the reader learns it too, and acts

    async def _send_audio(self, socket: ClientConnection) -> None:
        wanted = self._turns.wanted
        while True:
            end = min(self._base + len(self._audio), self._sent + PIECE)
            if wanted:
                end = min(end, max(wanted[0], self._sent))
            if self._sent < end:
                piece = bytes(self._audio[self._sent - self._base : end - self._base])
                self._sent = end  # first, because a cancelled send has been sent all the same
                await send_frame(socket, chunk(piece).encode(), text=True)
            elif wanted and wanted[0] <= self._sent:
                wanted.popleft()
                await socket.send(COMMIT)
            else:
                return

    def _forget(self) -> None:
        """Drop audio that no session will need, and the oldest when there is too much of it."""
        end = self._base + len(self._audio)
        needed = self._turns.needed_from_ms(bytes_to_ms(self._sent)) * BYTES_PER_MS
        keep = max(self._base, min(needed, self._sent), end - RETAINED)
        keep -= (keep - self._base) % BYTES_PER_MS  # sessions begin at whole milliseconds
        del self._audio[: keep - self._base]
        self._base = keep
        if end - self._sent > BACKLOG and self._run_task is not None:
            self._sent = max(self._sent, keep)
            self._socket.transport.abort()

    # --- from ElevenLabs -----------------------------------------------------------------------------

    async def _hear(self, socket: ClientConnection) -> Failure | None:
        """Take one message; returns what it means for the session if that ends with it."""
        try:
            async with asyncio.timeout(TWIN_TIMEOUT if self._turns.commits.holding else None):
                raw = await socket.recv()
        except TimeoutError:
            self._release()
            return None
        message = parsed(raw)
        kind = str(message.get("message_type"))
        try:
            if (ended := failure(message, self._session, self._secret)) is not None:
                return ended
            self._take(kind, message)
        except MALFORMED:
            self._ignore(kind)
        return None

    def _take(self, kind: str, message: dict[str, Any]) -> None:
        sent_ms = bytes_to_ms(self._sent)
        match kind:
            case "partial_transcript":
                self._release()
                self._tell(self._turns.partial(message["text"].strip(), sent_ms))
            case "committed_transcript" | "committed_transcript_with_timestamps":
                for segment in self._turns.commits.take(message):
                    self._tell(self._turns.committed(segment, sent_ms))
            case "commit_throttled":
                self._turns.throttled(sent_ms)
            case "warning":
                log.warning("elevenlabs stt: %s", scrub(str(message.get("warning")), self._secret))
            case _:
                self._ignore(kind)

    def _release(self) -> None:
        """Do not wait any longer for the timestamps of what was committed."""
        for segment in self._turns.commits.release():
            self._tell(self._turns.committed(segment, bytes_to_ms(self._sent)))

    def _tell(self, events: list[SttEvent]) -> None:
        for event in events:
            self._events.put_nowait(event)

    def _ignore(self, kind: str) -> None:
        if kind not in self._ignored:
            self._ignored.add(kind)
            log.warning("elevenlabs stt: ignored a message (%s)", kind[:40])
