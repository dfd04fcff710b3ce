"""A piece of network that can be cut, slowed and broken: a TCP relay between two parts of a Stayline.

What two machines see of a cut network is silence: nothing is refused, nothing arrives, and when it heals, what was
sent arrives after all. `cut` does that. `reset` is the other kind, a middlebox that kills what it knows.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, cast

Address = tuple[str, int]


class Link:
    """Relays to the first of some addresses that takes the connection.

    Args:
        targets: asked for each new connection.

    Attributes:
        delay: seconds that everything takes, in both directions.
        connections: how many there are now.
    """

    def __init__(self, targets: Callable[[], Sequence[Address]]) -> None:
        self._targets = targets
        self.delay = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        self.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def address(self) -> str:
        """host:port."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    @property
    def is_cut(self) -> bool:
        return not self._open.is_set()

    def cut(self) -> None:
        """Nothing arrives any more, in either direction, until `heal`."""
        self._open.clear()

    def refuse(self) -> None:
        """Break every connection, and every new one, until `heal`."""
        self._refusing = True
        self.reset()

    def reset(self) -> None:
        """Break the connections that there are."""
        for pair in list(self._pairs):
            pair.abort()

    def heal(self) -> None:
        """As it was: what is held back is delivered."""
        self._refusing, self.delay = False, 0.0
        self._open.set()
        for pair in list(self._pairs):
            pair.flush()

    def _accept(self) -> asyncio.Protocol:
        pair = _Pair(self)
        self._pairs.add(pair)
        return pair.near

    def connect(self, pair: _Pair) -> None:
        if self._refusing:
            pair.abort()
            return
        task = asyncio.create_task(self._connect(pair))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, pair: _Pair) -> None:
        await self._open.wait()
        loop = asyncio.get_running_loop()
        for host, port in self._targets():
            with contextlib.suppress(OSError):
                await loop.create_connection(lambda: pair.far, host, port)
                pair.flush()
                return
        pair.abort()

    def forget(self, pair: _Pair) -> None:
        self._pairs.discard(pair)


class _Pair:
    """One connection, its two ends."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.near, self.far = _End(self), _End(self)
        self.near.peer, self.far.peer = self.far, self.near
        self.near.accepted = True

    def abort(self) -> None:
        for end in (self.near, self.far):
            if end.transport is not None:
                end.transport.abort()
        self.link.forget(self)

    def flush(self) -> None:
        self.near.flush()
        self.far.flush()


class _End(asyncio.Protocol):
    """One end: `out` is what it must still be sent. None in it is the end of the other side's words."""

    peer: _End

    def __init__(self, pair: _Pair) -> None:
        self._pair = pair
        self.transport: asyncio.Transport | None = None
        self.accepted = False
        self._out: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.accepted:
            self._pair.link.connect(self._pair)
        elif self.peer._gone:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.peer.deliver(data)

    def eof_received(self) -> bool:
        self.peer.deliver(None)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        peer = self.peer
        if peer.transport is None or peer._gone:
            self._pair.link.forget(self._pair)
        elif error is not None and not self._pair.link.is_cut:
            peer.transport.abort()
        else:
            peer.deliver(None)

    def pause_writing(self) -> None:
        if self.peer.transport is not None and not self.peer._gone:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer.transport is not None and not self.peer._gone:
            self.peer.transport.resume_reading()

    def deliver(self, data: bytes | None) -> None:
        """Send it when it is time."""
        link = self._pair.link
        if not self._out and not link.delay and not link.is_cut and self.transport is not None:
            self._write(data)
            return
        self._out.append((asyncio.get_running_loop().time() + link.delay, data))
        self.flush()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is None or self._gone or self._pair.link.is_cut:
            return
        loop = asyncio.get_running_loop()
        while self._out:
            due, data = self._out[0]
            if due > loop.time() and self._pair.link.delay:
                self._timer = loop.call_at(due, self.flush)
                return
            self._out.popleft()
            self._write(data)

    def _write(self, data: bytes | None) -> None:
        assert self.transport is not None
        if data is not None:
            self.transport.write(data)
        elif not self._gone:
            self.transport.close()
