"""A voice's websocket: read by one task, watched while audio is due, opened anew by whoever needs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from media_bridge.providers.vendor_socket import CLOSE_TIMEOUT, Watchdog, lost, parsed
from stayline.errors import ProviderError

log = logging.getLogger(__name__)

STALL = 5.0  #: seconds without anything while audio is due


class Listener(Protocol):
    """Whose socket it is."""

    @property
    def due(self) -> bool:
        """The vendor owes us something."""

    async def hear(self, message: dict[str, Any] | bytes) -> None:
        """One message: a JSON object, or a binary frame."""

    async def lost(self, error: ProviderError) -> None:
        """The connection is gone, and it was not `hang_up`. Called once per connection."""


class SpeechSocket:
    """One connection at a time. Sending on a lost one does nothing: the listener has been told, or will be.

    Args:
        open_: makes a connection that is ready to be used; raises ProviderError.
    """

    def __init__(self, provider: str, listener: Listener, open_: Callable[[], Awaitable[ClientConnection]]) -> None:
        self._provider = provider
        self._listener = listener
        self._open = open_
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self.alive = False
        self.said = ""  #: what the vendor said was wrong, scrubbed; explains why the connection ended

    async def connect(self) -> None:
        """
        Raises:
            ProviderError: the vendor refused or could not be reached.
        """
        await self.hang_up(timeout=0)
        self._socket = await self._open()
        self.opened_at = asyncio.get_running_loop().time()
        self.alive, self.said = True, ""
        self._watchdog = Watchdog(STALL)
        self._reader = asyncio.create_task(self._read(self._socket), name=f"{self._provider}-tts")

    async def send(self, message: dict[str, Any]) -> None:
        if self._socket is None:
            return
        self.watch()
        with contextlib.suppress(ConnectionClosed):  # the reader learns it too
            await self._socket.send(json.dumps(message))

    def watch(self) -> None:
        """Wait for the vendor only as long as is reasonable, if something is due."""
        if self._socket is None or not self.alive:
            return
        if self._listener.due:
            self._watchdog.expect(self._socket)
        else:
            self._watchdog.rest()

    async def abort(self, why: str) -> None:
        """Cut the connection now, as if the vendor had."""
        if self.alive and self._socket is not None:
            self._end()
            self._socket.transport.abort()
            await self._listener.lost(ProviderError(self._provider, why, retryable=True))

    async def hang_up(self, *, goodbye: dict[str, Any] | None = None, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the connection, if there is one; the listener is not told. `timeout` 0: without a goodbye."""
        socket, reader = self._socket, self._reader
        if socket is None or reader is None:
            return
        self._socket = self._reader = None
        self._end()
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        if not timeout:
            socket.transport.abort()
            return
        if goodbye is not None:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                async with asyncio.timeout(timeout):
                    await socket.send(json.dumps(goodbye))
        await socket.close()

    def _end(self) -> None:
        self.alive = False
        self._watchdog.rest()

    async def _read(self, socket: ClientConnection) -> None:
        error: ProviderError
        try:
            while True:
                raw = await socket.recv()
                message = raw if isinstance(raw, bytes) else parsed(raw)
                if message == {}:
                    log.warning("%s tts: ignored a malformed message", self._provider)
                else:
                    await self._listener.hear(message)
                self.watch()
        except ConnectionClosed as closed:
            if self._watchdog.barked:
                self.said = f"nothing came for {STALL:g} s"
            error = lost(self._provider, closed, self.said)
        except Exception as bug:
            log.exception("%s tts: the adapter failed", self._provider)
            socket.transport.abort()
            error = ProviderError(self._provider, f"the adapter failed ({type(bug).__name__}).", retryable=True)
        if self.alive:
            self._end()
            await self._listener.lost(error)
