"""A fake vendor's end of one websocket: records what the client sends, misbehaves on time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from tests.fakes.misbehaviour import FakeServer, Misbehaviour, Recorded, cut, cut_transport, cut_within_message


class ProtocolError(Exception):
    """The client broke the vendor's rules: close with this code and reason."""

    def __init__(self, code: int, reason: str, message: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.message = message  #: sent before the close


class FakeSocket:
    def __init__(
        self,
        server: FakeServer,
        request: web.Request,
        recorded: Recorded,
        fault: Misbehaviour | None,
        *,
        error: dict[str, Any],
    ) -> None:
        self._server = server
        self._request = request
        self._recorded = recorded
        self._fault = fault
        self._error = error  #: the vendor's own error message, for the misbehaviour `error`
        self.sent = 0
        self.ws = web.WebSocketResponse(compress=False, max_msg_size=2**20)
        server.sockets.append(self)

    @property
    def path(self) -> str:
        return self._request.path

    def abort(self) -> None:
        """Cut the connection now, without a goodbye."""
        cut_transport(self._request)

    def misbehave(self, fault: Misbehaviour) -> None:
        """Go wrong from the next message on, in mid-connection."""
        self._fault = dataclasses.replace(fault, after=self.sent)

    def pause(self) -> None:
        """Read nothing any more, so that what the client sends piles up."""
        if self._request.transport is not None:
            self._request.transport.pause_reading()

    async def serve(self, talk: Callable[[], Awaitable[None]]) -> web.WebSocketResponse:
        """Accept, talk, and close as the vendor does."""
        await self.ws.prepare(self._request)
        try:
            await talk()
        except ProtocolError as broken:
            if broken.message is not None:
                await self.ws.send_str(json.dumps(broken.message))
            await self.ws.close(code=broken.code, message=broken.reason.encode())
        if not self.ws.closed:
            await self.ws.close()
        return self.ws

    async def messages(self, idle: float, on_idle: ProtocolError) -> AsyncIterator[dict[str, Any] | bytes]:
        """What the client sends, until it closes.

        Raises:
            ProtocolError: it sent nothing for `idle` seconds, or text that is no JSON object.
        """
        while True:
            try:
                async with asyncio.timeout(idle):
                    message = await self.ws.receive()
            except TimeoutError:
                raise on_idle from None
            if message.type is WSMsgType.BINARY:
                self._recorded.messages.append(message.data)
                yield message.data
            elif message.type is WSMsgType.TEXT:
                try:
                    value = json.loads(message.data)
                except ValueError:
                    value = None
                if not isinstance(value, dict):
                    raise ProtocolError(1008, "not a JSON object")
                self._recorded.messages.append(value)
                yield value
            else:
                return

    async def send(self, message: dict[str, Any] | bytes) -> None:
        await self._misbehave()
        with contextlib.suppress(ConnectionResetError):  # a client that has gone is found out by reading
            if isinstance(message, bytes):
                await self.ws.send_bytes(message)
            else:
                await self.ws.send_str(json.dumps(message))
        self.sent += 1

    async def _misbehave(self) -> None:
        fault = self._fault
        if fault is None or not fault.due(self.sent):
            return
        match fault.what:
            case "unknown_message":
                self._fault = None
                await self.ws.send_str('{"type":"SomethingNew","contextId":"new","value":1}')
            case "garbage":
                self._fault = None
                await self.ws.send_str("{ this is not JSON")
                await self.ws.send_str("[]")
            case "hang":
                await self._server.closing.wait()
                cut(self._request)
            case "half_message":
                await cut_within_message(self._request)
            case "disconnect":
                cut(self._request)
            case "error":
                await self.ws.send_str(json.dumps(self._error))
                await self.ws.close(code=1008)
            case _:
                pass
