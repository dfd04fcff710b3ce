"""Deepgram speech to text: Nova (`/v1/listen`) and Flux (`/v2/listen`), 8 kHz μ-law as it comes.

This file carries bytes and messages and keeps the connection; what a message means is in `deepgram_nova` and
`deepgram_flux`. A connection that breaks is opened again at once: text that was settled stays, and audio that
was not yet turned into settled text is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.providers import deepgram_flux, deepgram_nova
from media_bridge.providers.base import ProviderConfig, SttEvent, SttProfile
from media_bridge.providers.options import read_options
from media_bridge.providers.vendor_socket import (
    CLOSE_TIMEOUT,
    MALFORMED,
    Query,
    lost,
    open_socket,
    parsed,
    scrub,
    send_frame,
    send_now,
    warm_origin,
)
from stayline.catalog import PROVIDERS
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

KEEPALIVE = 3.0
"""Seconds without audio after which Nova is told that we are there; it closes after 10 (NET-0001)."""

RECONNECT_DELAYS = (0.0, 0.3, 1.0)  #: seconds before each try
RECONNECT_TIMEOUT = 1.0  #: seconds that each try may take
STALL = 10.0  #: seconds without any message, while audio flows; Deepgram sends results in silence too
LOSSES_ALLOWED = 3  #: in LOSS_WINDOW seconds; a connection that breaks more often is no connection
LOSS_WINDOW = 30.0

REAL_TIME = 0.005
"""Seconds between two frames, at least; what comes faster is sent in turn with what is heard."""
BYTES_PER_MS = 8
RETAINED: Final = 4000 * BYTES_PER_MS
"""Audio kept for sending again: about 2 s that were not settled yet and 2 s without a connection."""


class Turns(Protocol):
    """What `NovaTurns` and `FluxTurns` are to the stream."""

    heard_ms: int
    wants_finalize: bool

    def handle(self, message: dict[str, Any]) -> list[SttEvent]: ...
    def reconnected(self, from_ms: int) -> list[SttEvent]: ...


class DeepgramStt:
    """Adapter of Deepgram's streaming recognisers; a model named `flux-…` brings its own turn detection."""

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._base_url = config.base_url or PROVIDERS["deepgram"].default_base_url
        self._nova: deepgram_nova.NovaOptions | None = None
        if config.model.startswith("flux-"):
            self._flux = read_options(deepgram_flux.FluxOptions, config, "stt")
            self.profile = SttProfile(native_mulaw=True, eager_turns=self._flux.eager_eot_threshold is not None)
        else:
            self._nova = read_options(deepgram_nova.NovaOptions, config, "stt")
            deepgram_nova.check(config, self._nova)
            self.profile = SttProfile(native_mulaw=True)

    async def warm(self) -> None:
        await warm_origin(self._base_url)

    async def connect(self, *, call_id: str) -> DeepgramStream:
        """Open one call's ear.

        Raises:
            ProviderError: Deepgram refused or could not be reached.
        """
        path: str
        query: Query
        turns: Turns
        if self._nova is not None:
            path, query = deepgram_nova.PATH, deepgram_nova.query(self._config, self._nova, call_id)
            turns = deepgram_nova.NovaTurns(self._nova)
        else:
            path, query = deepgram_flux.PATH, deepgram_flux.query(self._config, self._flux, call_id)
            turns = deepgram_flux.FluxTurns()

        async def open_(timeout: float | None) -> ClientConnection:
            return await open_socket(
                "deepgram",
                self._base_url,
                path,
                query=query,
                headers={"Authorization": f"Token {self._config.api_key}"},
                secret=self._config.api_key,
                timeout=timeout,
            )

        keepalive = KEEPALIVE if self._nova is not None else None
        return DeepgramStream(await open_(None), open_, turns, keepalive, self._config.api_key)

    async def aclose(self) -> None:
        """Nothing is shared between calls."""


class DeepgramStream:
    """One call's ear at Deepgram."""

    def __init__(
        self,
        socket: ClientConnection,
        open_: Callable[[float | None], Awaitable[ClientConnection]],
        turns: Turns,
        keepalive: float | None,
        secret: str,
    ) -> None:
        self._socket = socket
        self._open = open_
        self._turns = turns
        self._keepalive = keepalive
        self._secret = secret
        self._events: asyncio.Queue[SttEvent | None] = asyncio.Queue()
        self._error: ProviderError | None = None
        self._closed = False
        self._said = ""  #: Deepgram's last error message on this connection
        self._unanswered = 0  #: bytes of audio sent since Deepgram's last message …
        self._answered_at = 0.0  #: … which came at this time of the event loop's clock
        self._sent_at = 0.0  #: when something was sent last
        self._ignored: set[str] = set()
        # Stream positions in bytes: `_audio` holds [_base, _base + len), of which [_base, _sent) has been sent.
        self._audio = bytearray()
        self._base = self._sent = 0
        self._has_audio = asyncio.Event()
        self._run_task = asyncio.create_task(self._run(), name="deepgram-stt")

    # --- the bridge's side ---------------------------------------------------------------------------

    async def send(self, audio: bytes) -> None:
        """Queue audio for sending; what cannot be sent for 4 s is dropped, oldest first."""
        if self._closed or self._error is not None:
            return
        self._audio += audio
        self._forget()
        self._has_audio.set()
        if self._base + len(self._audio) - self._sent > RETAINED // 4:
            await asyncio.sleep(0)  # audio that comes in bulk, not in real time: let it flow out

    def send_now(self, audio: bytes) -> bool:
        """Send audio that comes in real time, where nothing waits to be sent before it."""
        now = asyncio.get_running_loop().time()
        waits = self._base + len(self._audio) > self._sent
        if (
            waits
            or self._closed
            or self._error is not None
            or now - self._sent_at < REAL_TIME
            or self._stalled(now)
        ):
            return False
        if not send_now(self._socket, audio):
            return False
        self._sent_at = now
        self._audio += audio
        self._sent += len(audio)
        self._unanswered += len(audio)
        self._forget()
        return True

    def _stalled(self, now: float) -> bool:
        """Audio flows, and Deepgram says nothing at all."""
        return now - self._answered_at > STALL and self._unanswered > STALL * 500 * BYTES_PER_MS

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
        """Send what is still to be sent, say goodbye and close. Takes about a second at most."""
        if self._closed:
            return
        self._closed = True
        self._run_task.cancel()
        await asyncio.gather(self._run_task, return_exceptions=True)
        self._events.put_nowait(None)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._send_audio(self._socket)
                await self._socket.send('{"type":"CloseStream"}')
        await self._socket.close()

    # --- the connection ------------------------------------------------------------------------------

    async def _run(self) -> None:
        losses: deque[float] = deque(maxlen=LOSSES_ALLOWED + 1)
        clock = asyncio.get_running_loop().time
        try:
            while True:
                error = await self._converse()
                losses.append(clock())
                often = len(losses) > LOSSES_ALLOWED and losses[-1] - losses[0] < LOSS_WINDOW
                if often or not error.retryable:
                    raise error
                log.info("deepgram stt: %s; connecting again", error.message)
                await self._reconnect()
        except ProviderError as error:
            self._error = error
        except Exception as error:
            log.exception("deepgram stt: the adapter failed")
            self._error = ProviderError("deepgram", f"the adapter failed ({type(error).__name__}).", retryable=True)
        finally:
            self._events.put_nowait(None)

    async def _converse(self) -> ProviderError:
        """Talk until the connection ends; returns why it did."""
        self._said = ""
        self._answered()
        async with asyncio.TaskGroup() as tasks:
            senders = [tasks.create_task(self._pump(self._socket))]
            if self._keepalive is not None:
                senders.append(tasks.create_task(self._keep_alive(self._socket, self._keepalive)))
            try:
                while True:
                    await self._hear(await self._socket.recv())
            except ConnectionClosed as closed:
                for sender in senders:
                    sender.cancel()
                return lost("deepgram", closed, self._said)

    async def _reconnect(self) -> None:
        error: ProviderError | None = None
        for delay in RECONNECT_DELAYS:
            await asyncio.sleep(delay)
            try:
                self._socket = await self._open(RECONNECT_TIMEOUT)
            except ProviderError as refused:
                error = refused
                if not refused.retryable:
                    break
            else:
                self._forget()
                self._sent = self._base
                for event in self._turns.reconnected(self._base // BYTES_PER_MS):
                    self._events.put_nowait(event)
                self._has_audio.set()
                return
        assert error is not None
        raise error

    async def _pump(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # the reader learns it too, and acts
            while True:
                await self._has_audio.wait()
                self._has_audio.clear()
                await self._send_audio(socket)

    async def _keep_alive(self, socket: ClientConnection, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        self._sent_at = clock()
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self._sent_at + seconds - clock())
                if clock() - self._sent_at >= seconds:
                    self._sent_at = clock()
                    await socket.send('{"type":"KeepAlive"}')

    async def _send_audio(self, socket: ClientConnection) -> None:
        unsent = bytes(self._audio[self._sent - self._base :])
        self._unanswered += len(unsent)
        now = asyncio.get_running_loop().time()
        if self._stalled(now):
            self._said = f"nothing heard for {STALL:g} s"
            socket.transport.abort()
        elif unsent:
            self._sent_at = now
            self._sent += len(unsent)  # first, because a cancelled send has been sent all the same
            await send_frame(socket, unsent)

    def _forget(self) -> None:
        """Drop audio that is settled, and the oldest when there is too much of it."""
        end = self._base + len(self._audio)
        settled = min(self._turns.heard_ms * BYTES_PER_MS, self._sent)
        keep = max(self._base, settled, end - RETAINED)
        keep -= (keep - self._base) % BYTES_PER_MS  # connections begin at whole milliseconds
        del self._audio[: keep - self._base]
        self._base = keep
        if self._sent < keep:
            # Nothing could be sent for so long that the vendor's clock and ours would part: the line is dead.
            self._sent = keep
            self._socket.transport.abort()

    async def _hear(self, raw: str | bytes) -> None:
        self._answered()
        if isinstance(raw, bytes):
            self._ignore("binary")
            return
        kind = "text"
        try:
            message = parsed(raw)
            kind = str(message["type"])
            if kind in ("Error", "Warning"):
                said = str(message.get("description") or message.get("message") or message.get("code"))
                self._said = scrub(said, self._secret)
                log.warning("deepgram stt: %s: %s", kind.lower(), self._said)
                return
            events = self._turns.handle(message)
        except MALFORMED:
            self._ignore(kind)
            return
        for event in events:
            self._events.put_nowait(event)
        if self._turns.wants_finalize:
            self._turns.wants_finalize = False
            await self._socket.send('{"type":"Finalize"}')

    def _answered(self) -> None:
        self._unanswered, self._answered_at = 0, asyncio.get_running_loop().time()

    def _ignore(self, kind: str) -> None:
        if kind not in self._ignored:
            self._ignored.add(kind)
            log.warning("deepgram stt: ignored a malformed message (%s)", kind[:40])
