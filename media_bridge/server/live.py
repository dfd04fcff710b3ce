"""Live events of the calls that this bridge holds, for Stayline's other processes; and one thing they may ask for.

    curl -N -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8080/api/v1/calls/CA…/live

Server-sent events: `event` is the type, `id` the place in the session's log, `data` the whole as JSON. A comment
every ten seconds keeps the connection; `event: over` is the last one. Who comes again with `Last-Event-ID` (or
`after`) goes on from there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from pydantic_core import to_json

from media_bridge import live_access
from media_bridge.live_events import LiveEvent, LiveSession
from media_bridge.shared import Shared

KEEP_ALIVE: Final = 10.0
"""Seconds of silence after which a comment is sent."""
WRITTEN_WITHIN: Final = 60.0
"""Seconds that a listener may take to read what was sent."""


class LiveRoutes:
    """`/api/v1/calls/{call_id}/live` and `/api/v1/calls/{call_id}/interrupt`."""

    def __init__(self, bridge: Shared) -> None:
        self._bridge = bridge

    def add_to(self, app: web.Application) -> None:
        app.router.add_get(live_access.LIVE_PATH, self.follow)
        app.router.add_post(live_access.INTERRUPT_PATH, self.interrupt)

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """One session's events, from its beginning or from where the listener was."""
        call_id = self._call_id(request)
        number = _whole(request.query.get("session", "0"))
        live = self._bridge.live.find(call_id, number) if number else self._bridge.live.latest(call_id)
        if live is None:
            raise web.HTTPNotFound(text="this bridge does not hold that session")
        after = _whole(request.headers.get("Last-Event-ID") or request.query.get("after", "0"))
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        try:
            async for piece in _pieces(live, after):
                async with asyncio.timeout(WRITTEN_WITHIN):
                    await response.write(piece)
        except (ConnectionError, TimeoutError):
            pass  # the listener is gone, or does not read; it may come again and go on
        return response

    async def interrupt(self, request: web.Request) -> web.Response:
        """The agent falls silent, as if the caller had spoken."""
        if not self._bridge.interrupt(self._call_id(request)):
            raise web.HTTPNotFound(text="this bridge does not hold that call")
        return web.Response(status=204)

    def _call_id(self, request: web.Request) -> str:
        """The call that is asked for, by somebody who may.

        Raises:
            HTTPUnauthorized: no token, a wrong one, or one of another call.
        """
        call_id = request.match_info["call_id"]
        wanted = live_access.token(self._bridge.settings, self._bridge.twilio, call_id)
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), wanted.encode())
        if not wanted or scheme.lower() != "bearer" or not right:
            raise web.HTTPUnauthorized(text="token", headers={"WWW-Authenticate": "Bearer"})
        return call_id


async def _pieces(live: LiveSession, after: int) -> AsyncIterator[bytes]:
    """The stream's text. A reader who does not read holds up this iterator and nobody else."""
    yield b": begins\n\n"  # the headers alone may wait for company
    events = live.follow(after)
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait({coming}, timeout=KEEP_ALIVE)
            if not coming.done():
                yield b": still here\n\n"
                continue
            news = coming.result()
            if news is None:
                yield b"event: over\ndata: {}\n\n"
                return
            yield b"".join(map(_encoded, news))
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()


def _encoded(event: LiveEvent) -> bytes:
    body = to_json(dataclasses.asdict(event)).decode()
    return f"id: {event.seq}\nevent: {event.type}\ndata: {body}\n\n".encode()


def _whole(given: str) -> int:
    if not (given.isascii() and given.isdecimal()) or len(given) > 9:
        raise web.HTTPBadRequest(text="not a whole number")
    return int(given)
